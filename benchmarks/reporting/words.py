"""The words of a report: its glossary, notes, and how members, boards and figures are told."""

from collections.abc import Sequence

from benchmarks.boards import setting_of
from benchmarks.measurements import scenario_of
from family.pages import amount, percent, plain

TITLE = "Accuracy and latency of the family"
ORIGIN_TITLE = "The system that this project follows"
WORDS = {
    "member": "a trained model in one scheme, named variant-resolution-scope-scheme, with the recipe's label after the scope",
    "scope": "what a member knows: general is the whole tree, a vertical is one part of it; each is measured on its own rows",
    "scheme": "how the numbers in the model file are stored: fp32, fp16 or int8",
    "p50, p99": "half, and 99 of 100, of the queries took at most this long, from encoded bytes to answer",
    "p99 at most": "with about 95 % confidence the true p99 is not above this, under the conditions that are told; a budget is compared with it",
    "top-k": "the right category was among the k best guesses, in per cent of images; ± is half of its 95 % interval, which takes images of one listing "
    "together",
    "micro, macro": "averaged over images, and over categories, so that rare categories count as much; where neither is said it is micro",
    "L1, L2, ...": "the guess was right at this level of the tree (1 is the broadest), in per cent of images; a level that has one category, or says "
    "the same as top-1, has no column",
    "Pareto front": "the members for which no other is both faster (by p99 at most) and more accurate (by top-1)",
}
MACHINES_TITLE = "Machines and settings side by side"
MACHINES_NOTE = "The same files, each measured under the conditions that are told for its machine and setting."
COSTS_NOTE = (
    "Each member against the fp32 member of the same run, averaged over images (micro) and over categories (macro). A speed of 2.00× is half the time, the "
    "median of rounds in which both took turns, with its 95 % interval; without one, of p50s that were measured apart. Points are percentage points of "
    "accuracy, with the paired 95 % interval of the same images where family bench --data had both answer them; * marks a difference that is shown: it does "
    "not hold 0, and at least six listings differ."
)


def told_times(member: dict) -> str:
    known = f"{told_top1(member)}, " if member["top1"] is not None else ""
    return f"{known}p99 at most {amount(member['upper_ms'])} ms"


def told_top1(member: dict) -> str:
    """Say an accuracy with half of its interval, where that is known."""
    about = f" {member['top1_about']}" if member["top1_about"] else ""
    return f"{percent(member['top1'])}{about} %"


def half_of(interval: Sequence[float] | None) -> str | None:
    """Say half the width of an interval of shares, in points."""
    return f"± {100 * (interval[1] - interval[0]) / 2:.1f}" if interval else None


def told_scenario(row: dict) -> str:
    """Say how requests came."""
    scenario, batch, rate = scenario_of(row)
    if scenario == "server":
        return f"{rate or 0:g} requests/s at random times, {counted(row.get('workers'), 'worker')}"
    return "single images" if batch == 1 else f"{batch} images a query"


def counted(n: object, noun: str) -> str:
    return "" if n is None else f"{f'{n:,}' if isinstance(n, int) else n} {noun}{'' if n == 1 else 's'}"


def name_of(board: dict, found: Sequence[dict]) -> str:
    """Name a board by its scope, and by its machine and data where the report has several."""
    parts = [f"Scope: {board['scope']}"]
    row = board["machine"]
    if row and len({setting_of(b["machine"]) for b in found if b["machine"]}) > 1:
        parts += [row["machine"].get("name"), row.get("provider"), counted(row.get("threads"), "thread"), told_scenario(row)]
        parts += ["an older harness"] if row.get("schema") == 1 else []
    row = board["dataset"]
    if row and len({setting_of(b["dataset"])[:3] for b in found if b["dataset"]}) > 1:
        parts.append(row["dataset"].get("name"))
    return plain(" · ".join(str(part) for part in parts if part))


def short_name(member: dict) -> str:
    """Name a member where its scope and scheme are told elsewhere."""
    return plain("-".join(str(member[key]) for key in ("variant", "resolution_px", "label") if member[key]))
