"""The lines and columns of a report's tables, for the page, Markdown and comma-separated values alike."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.boards import UNCLEAR, boards, setting_of
from benchmarks.measurements import REQUIRED, number_at, part_of, usable
from benchmarks.reporting.words import counted, told_scenario
from family.pages import NOTHING, amount, percent, plain, points

_LEVELS = {str(level) for level in range(1, 100)}
ORIGIN = Path(__file__).parents[1] / "results" / "origin.json"


def reported(rows: Sequence[dict]) -> list[dict]:
    """Return the boards of rows, with all that a report shows of a member: what it is, and how right by rank and by level `L1`, `L2`, ..."""
    found = boards(rows)
    for member in (member for board in found for member in board["members"]):
        latency, accuracy = member["latency"], member["accuracy"]
        metrics = part_of(accuracy, "metrics", dict)
        of_levels = part_of(metrics, "levels", dict)
        member |= {key: (latency or accuracy).get(key) for key in ("variant", "resolution_px", "label")}
        member |= {key: number_at(latency, key) for key in ("size_mb", "n_parameters", "n_classes")}
        member |= {key: number_at(metrics, key, "micro") for key in ("top3", "top5")}
        rates = [rate for row in part_of(latency, "throughput", list) if (rate := number_at(row, "from_bytes_per_s"))]
        member["from_bytes_per_s"] = max(rates, default=None)
        member["macro"] = number_at(metrics, "top1", "macro")
        member["levels"] = sorted(int(key) for key in of_levels if key in _LEVELS)
        member |= {f"L{k}": number_at(of_levels, str(k), "micro") for k in member["levels"]}
    return found


def levels_of(board: dict) -> dict[int, int | None]:
    """Return the levels that a board has, each with its number of categories."""
    found = {}
    for member in board["members"]:
        for level in member["levels"]:
            found.setdefault(level, number_at(member["accuracy"]["metrics"], "levels", str(level), "nodes"))
    return dict(sorted(found.items()))


def columns_of(board: dict, budget_ms: float | None) -> list[dict]:
    """Return the columns of a board's table, without those that hold nothing."""
    columns = [{"key": "size_mb", "label": "size\nMB", "text": amount}]
    columns += [{"key": f"{key}_ms", "label": f"{key}\nms", "text": amount} for key in ("p50", "p99", "upper")]
    if budget_ms and board["machine"]:
        columns.append({"key": "fits", "label": f"fits\n{budget_ms:g} ms", "text": _yes, "high": True})
    columns.append({"key": "images_per_s", "label": "rate\nimages/s", "text": amount, "high": True})
    columns.append({"key": "from_bytes_per_s", "label": "from bytes\nimages/s", "text": amount, "high": True})
    rates = [("top1", "top-1"), ("top3", "top-3"), ("top5", "top-5"), ("macro", "macro")]
    columns += [{"key": key, "label": f"{label}\n%", "text": percent, "high": True} for key, label in rates]
    for level, n in levels_of(board).items():
        hint = f"level {level}, {counted(n, 'category node')}"
        columns.append({"key": f"L{level}", "label": f"L{level}\n%", "text": percent, "high": True, "help": hint})
    held = _held(columns, [*board["members"], {"fits": budget_ms}])
    return [{"key": "member", "label": "member"}, *held]


def _held(columns: Sequence[dict], rows: Sequence[dict]) -> list[dict]:
    """Return the columns in which some row has a value."""
    return [column for column in columns if any(row.get(column["key"]) is not None for row in rows)]


def _yes(value: bool | None) -> str:
    return NOTHING if value is None else "yes" if value else "no"


def details(board: dict) -> str:
    """Say why members are marked, where the mark alone does not, and why some are compared with no fp32."""
    told = [f"{m['member']}: {mark}, {why}." for m in board["members"] for mark, why in m["remarks"].items() if why]
    told += [f"{m['member']}: {m['base_unclear']}." for m in board["members"] if m["base_unclear"] and UNCLEAR not in m["remarks"]]
    return plain(" ".join(told))


def costs_of(board: dict) -> list[dict]:
    """Compare each quantized member with the fp32 member of the same run, in ratios and in points."""
    rows = []
    for member in board["members"]:
        base = member["base"]
        if base is None:
            continue
        row = {"member": member["member"], "size": _ratio(member["size_mb"], base["size_mb"])}
        if not (member["invalid"] or base["invalid"]):
            paired = part_of(member["latency"], "against_fp32", dict)
            row["speed"] = number_at(paired, "ratio") or _ratio(base["p50_ms"], member["p50_ms"])
            row["speed_interval"] = _interval(part_of(paired, "interval", list))
        for key in ("top1", "macro", *(f"L{level}" for level in levels_of(board))):
            if member.get(key) is not None and base.get(key) is not None:
                row[key] = 100 * (member[key] - base[key])
                row[f"{key}_interval"] = _paired(member, base, key)
        rows.append(row)
    return rows


_hundredths = partial(points, digits=2)  # what quantization costs is often less than a tenth
_METRICS = {"top1": "top1.micro", "macro": "top1.macro"}


def _paired(member: dict, base: dict, key: str) -> str | None:
    """Return the interval of a difference of accuracies, in points, where both answered the same rows in one run."""
    found = part_of(member["accuracy"], "against_fp32", dict)
    if found.get("model_sha256") != base["model_sha256"]:
        return None
    one = found.get(_METRICS.get(key, f"levels.{key[1:]}.micro"))
    ends = part_of(one, "interval", list)
    if len(ends) != 2 or any(usable(end) is None for end in ends):
        return None
    return " to ".join(_hundredths(100 * end) for end in ends) + (" *" if one.get("shown") is True else "")


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def _interval(ends: list) -> str | None:
    return f"{ends[0]:.2f} to {ends[1]:.2f}" if len(ends) == 2 and all(isinstance(end, float | int) for end in ends) else None


def _times(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}×"


def cost_columns(board: dict, costs: Sequence[dict]) -> list[dict]:
    columns = [
        {"key": "member", "label": "member"},
        {"key": "size", "label": "size", "text": _times, "help": "over the size of fp32"},
        {"key": "speed", "label": "speed", "text": _times, "high": True, "help": "of fp32's", "beside": "speed_interval"},
    ]
    levels = [f"L{level}" for level in levels_of(board)]
    if levels and all(row.get(levels[-1]) == row.get("top1") for row in costs):  # the deepest one's nodes are the leaves
        levels = levels[:-1]
    for key, label in [("top1", "top-1"), ("macro", "macro"), *zip(levels, levels, strict=True)]:
        columns.append({"key": key, "label": f"{label}\npoints", "text": _hundredths, "high": True, "beside": f"{key}_interval"})
    return _held(columns, costs)


_SIDE_BY_SIDE = {"p50": "p50", "upper": "p99 at most"}


def machines_of(found: Sequence[dict], scope: str) -> tuple[list[dict], list[dict]]:
    """Return lines and columns that put machines (and settings) side by side, for a scope that was timed on several; else nothing.

    A file is the same on each; p50 and the bound of p99 in ms. Of a setting, headings tell the machine and what differs.
    """
    firsts = {setting_of(board["machine"]): board for board in reversed(found) if board["scope"] == scope and board["machine"]}
    if len(firsts) < 2:
        return [], []
    columns, rows, ordered = [{"key": "member", "label": "member"}], {}, list(reversed(firsts.values()))
    told = [_setting(board["machine"]) for board in ordered]
    differ = [k for k, parts in enumerate(zip(*told, strict=True)) if k == 0 or len(set(parts)) > 1]
    for k, board in enumerate(ordered):
        name = "\n".join(filter(None, (told[k][place] for place in differ)))
        columns += [{"key": f"{key}{k}", "label": f"{name}\n{label} ms", "text": amount} for key, label in _SIDE_BY_SIDE.items()]
        for member in board["members"]:
            if member["latency"]:
                line = rows.setdefault(member["model_sha256"], {"member": member["member"]})
                line |= {f"p50{k}": member["p50_ms"], f"upper{k}": member["upper_ms"]}
    return list(rows.values()), columns


def _setting(row: dict) -> list[str]:
    machine = row["machine"]
    versions = [f"{name} {part_of(machine, 'versions', dict).get(name)}" for name in ("onnxruntime", "pillow")]
    features = " ".join(map(str, part_of(machine, "features", list)))
    facts = [machine.get("cpu"), counted(machine.get("cores"), "core"), machine.get("gpu") or "no GPU", features, *versions]
    facts.append("an older harness" if row.get("schema") == 1 else "")
    return [plain(machine.get("name")), plain(row.get("provider")), counted(row.get("threads"), "thread"), told_scenario(row), *map(plain, facts)]


def published() -> tuple[list[dict], list[dict], str]:
    """Return the published figures of the system that this project follows: rows, columns and a note."""
    origin = json.loads(ORIGIN.read_text(encoding="utf-8"))
    status = origin["status"].replace(", ", ",\n")
    columns = [{"key": "measure", "label": "measure"}, {"key": "percent", "label": f"published %\n{status}"}]
    note = f"Source: {origin['source']}, {origin['data']}. They are {origin['status']}, so they cannot be compared with the tables above."
    return origin["figures"], columns, note


def left_out(rows: Sequence[dict]) -> str:
    kinds = sorted({plain(row["kind"]) for row in rows if row["kind"] not in (*REQUIRED, "peer")})
    return f"Rows of other kinds are not shown: {', '.join(kinds)}." if kinds else ""
