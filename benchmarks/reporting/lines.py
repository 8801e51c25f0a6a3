"""The lines and columns of a report's tables, for the page, Markdown and comma-separated values alike."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.boards import UNCLEAR, boards, setting_of
from benchmarks.measurements import REQUIRED, number_at, part_of, usable
from benchmarks.reporting.words import counted, half_of, told_scenario
from family.pages import NOTHING, amount, percent, plain

_LEVELS = {str(level) for level in range(1, 100)}
N_DETAILS = 12
ORIGIN = Path(__file__).parents[1] / "results" / "origin.json"


def reported(rows: Sequence[dict]) -> list[dict]:
    """Return the boards of rows, with all that a report shows of a member: what it is, and how right by rank and by level `L1`, `L2`, ... (micro) and
    `L1_macro`, ...; and a board's `levels`, each with its number of categories."""
    found = boards(rows)
    for member in (member for board in found for member in board["members"]):
        latency, accuracy = member["latency"], member["accuracy"]
        metrics = part_of(accuracy, "metrics", dict)
        of_levels = part_of(metrics, "levels", dict)
        member |= {key: (latency or accuracy).get(key) for key in ("variant", "resolution_px", "label")}
        member |= {key: number_at(latency, key) for key in ("size_mb", "n_parameters", "n_classes")}
        member |= {key: number_at(metrics, key, "micro") for key in ("top3", "top5")}
        rates = [rate for row in part_of(latency, "throughput", list) if (rate := number_at(row, "from_bytes_per_s")) and row.get("valid", True)]
        member["from_bytes_per_s"] = max(rates, default=None)
        member["macro"] = number_at(metrics, "top1", "macro")
        for key, kind in (("top1", "micro"), ("macro", "macro")):
            member[f"{key}_interval"] = _pair(part_of(metrics, "top1", dict).get(f"{kind}_interval"))
            member[f"{key}_about"] = half_of(member[f"{key}_interval"])
        member["levels"] = sorted(int(key) for key in of_levels if key in _LEVELS)
        for level in member["levels"]:
            member |= {f"L{level}{end}": number_at(of_levels, str(level), kind) for end, kind in (("", "micro"), ("_macro", "macro"))}
    for board in found:
        board["levels"] = _levels_of(board)
    return found


def _levels_of(board: dict) -> dict[int, int | None]:
    found = {}
    for member in board["members"]:
        for level in member["levels"]:
            if level not in found:
                found[level] = number_at(member["accuracy"]["metrics"], "levels", str(level), "nodes")
    return dict(sorted(found.items()))


def telling_levels(board: dict) -> dict[int, int | None]:
    """Return the levels whose accuracies say more than 100 % (a single category) or top-1 (the leaves) again."""
    found = {level: n for level, n in board["levels"].items() if n != 1}
    if found and all(m.get(f"L{max(found)}") in (None, m["top1"]) for m in board["members"]):
        del found[max(found)]
    return found


def _pair(value: object) -> tuple[float, float] | None:
    """Return the ends of an interval, if it is one."""
    ends = [usable(end) for end in value] if isinstance(value, list) and len(value) == 2 else [None]
    return None if None in ends else (ends[0], ends[1])


def columns_of(board: dict, budget_ms: float | None) -> list[dict]:
    """Return the columns of a board's table, without those that hold nothing."""
    columns = [{"key": "top1", "label": "top-1\n%", "text": percent, "high": True, "after": "top1_about", "help": "± is half of the 95 % interval"}]
    columns.append({"key": "upper_ms", "label": "p99 ms\nat most", "text": amount, "help": "with 95 % confidence"})
    if budget_ms and board["machine"]:
        columns.append({"key": "fits", "label": f"fits\n{budget_ms:g} ms", "text": _yes, "high": True})
    columns += [{"key": f"{key}_ms", "label": f"{key}\nms", "text": amount} for key in ("p50", "p99")]
    columns.append({"key": "size_mb", "label": "size\nMB", "text": amount})
    columns.append({"key": "images_per_s", "label": "rate\nimages/s", "text": amount, "high": True})
    columns.append({"key": "from_bytes_per_s", "label": "from bytes\nimages/s", "text": amount, "high": True})
    columns += [{"key": key, "label": f"{label}\n%", "text": percent, "high": True} for key, label in (("top3", "top-3"), ("top5", "top-5"))]
    columns.append({"key": "macro", "label": "macro\n%", "text": percent, "high": True, "after": "macro_about"})
    for level, n in telling_levels(board).items():
        hint = f"level {level}, {counted(n, 'category node')}"
        columns.append({"key": f"L{level}", "label": f"L{level}\n%", "text": percent, "high": True, "help": hint})
    return [{"key": "member", "label": "member"}, *held(columns, [*board["members"], {"fits": budget_ms}])]


def held(columns: Sequence[dict], rows: Sequence[dict]) -> list[dict]:
    """Return the columns in which some row has a value."""
    return [column for column in columns if any(row.get(column["key"]) is not None for row in rows)]


def _yes(value: bool | None) -> str:
    return NOTHING if value is None else "yes" if value else "no"


def details(board: dict) -> str:
    """Say why members are marked, where the mark alone does not, and why some are compared with no fp32."""
    reasons: dict[str, list[str]] = {}
    for member in board["members"]:
        for mark, why in member["remarks"].items():
            if why:
                reasons.setdefault(f"{mark}, {why}", []).append(member["member"])
        if member["base_unclear"] and UNCLEAR not in member["remarks"]:
            reasons.setdefault(member["base_unclear"], []).append(member["member"])
    told = [f"{_some(names)}: {reason}." for reason, names in reasons.items()]
    rest = [f"Why {len(told) - N_DETAILS:,} others are marked stands in table.csv."] if len(told) > N_DETAILS else []
    return plain(" ".join([*told[:N_DETAILS], *rest]))


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - N_DETAILS:,} others" if len(names) > N_DETAILS else ""
    return ", ".join(names[:N_DETAILS]) + rest


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
    """Name the kinds of rows that a report does not show."""
    kinds = sorted({plain(row["kind"]) for row in rows if row["kind"] not in (*REQUIRED, "peer")})
    return f"Rows of other kinds are not shown: {', '.join(kinds)}." if kinds else ""
