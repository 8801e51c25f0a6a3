"""What each scheme costs against the fp32 file of the same run: in size, speed and accuracy, over images and over categories, at every level."""

from collections.abc import Sequence
from functools import partial

from benchmarks.measurements import number_at, part_of, usable
from benchmarks.reporting.lines import held, telling_levels
from family.pages import NOTHING, points

_hundredths = partial(points, digits=2)  # what quantization costs is often less than a tenth


def costs_of(board: dict) -> list[dict]:
    """Compare each quantized member with the fp32 member of the same run, in ratios and in points: `top1`, `macro`, `L1`, `L1_macro`, ..."""
    names = _names(board)
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
        for key, name in names.items():
            if member.get(key) is not None and base.get(key) is not None:
                row[key] = 100 * (member[key] - base[key])
                row[f"{key}_interval"] = _paired(member, base, name)
        rows.append(row)
    return rows


def _names(board: dict) -> dict[str, str]:
    """Return key -> the name of its metric."""
    levels = {f"L{k}{end}": f"levels.{k}.{kind}" for k in board["levels"] for end, kind in (("", "micro"), ("_macro", "macro"))}
    return {"top1": "top1.micro", "macro": "top1.macro", **levels}


def _paired(member: dict, base: dict, name: str) -> str | None:
    """Return the interval of a difference of accuracies, in points, where both answered the same rows in one run."""
    found = part_of(member["accuracy"], "against_fp32", dict)
    if found.get("model_sha256") != base["model_sha256"]:
        return None
    one = found.get(name)
    ends = part_of(one, "interval", list)
    if len(ends) != 2 or any(usable(end) is None for end in ends):
        return None
    return " to ".join(_hundredths(100 * end) for end in ends) + (" *" if one.get("shown") is True else "")


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def _interval(ends: list) -> str | None:
    return f"{ends[0]:.2f} to {ends[1]:.2f}" if len(ends) == 2 and all(isinstance(end, float | int) for end in ends) else None


def cost_lines(board: dict, costs: Sequence[dict]) -> list[dict]:
    """Return two lines of each member: its accuracies over images (micro), then over categories (macro), under the same keys."""
    keys = ["top1", *(f"L{level}" for level in telling_levels(board))]
    lines = []
    for row in costs:
        for kind in ("micro", "macro"):
            line = {key: row.get(key) for key in ("member", "size", "speed", "speed_interval")}
            for key in keys:
                source = key if kind == "micro" else "macro" if key == "top1" else f"{key}_macro"
                line |= {key: row.get(source), f"{key}_interval": row.get(f"{source}_interval")}
            if kind == "micro" or any(line[key] is not None for key in keys):
                lines.append({**line, "over": "images" if kind == "micro" else "categories"})
    return lines


def cost_columns(board: dict, lines: Sequence[dict]) -> list[dict]:
    """Return the columns of `cost_lines`, without those that hold nothing."""
    columns = [
        {"key": "member", "label": "member"},
        {"key": "size", "label": "size", "text": _times, "help": "over the size of fp32"},
        {"key": "speed", "label": "speed", "text": _times, "high": True, "help": "of fp32's", "beside": "speed_interval"},
        {"key": "over", "label": "averaged\nover", "help": "images: micro; categories: macro"},
    ]
    for key, label in [("top1", "top-1"), *((f"L{level}", f"L{level}") for level in telling_levels(board))]:
        columns.append({"key": key, "label": f"{label}\npoints", "text": _hundredths, "high": True, "beside": f"{key}_interval"})
    return held(columns, lines)


def _times(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}×"
