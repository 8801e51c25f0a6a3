"""The sentence that a report begins with: what is true of whatever was measured."""

from collections.abc import Callable, Sequence

from benchmarks.boards import INVALID, WRONG
from benchmarks.measurements import scenario_of
from benchmarks.reporting.words import counted, told_scenario, told_times, told_top1
from family.pages import amount


def headline(board: dict, budget_ms: float | None, safe: Callable[[str], str], bold: Sequence[str]) -> str:
    """Say in one sentence what is most accurate, what is fastest and what fits; where nothing can be compared, what is known and why no more.

    `safe` escapes a name for the kind of text; `bold` holds what stands before and after a bold one.
    """

    def strong(member: dict) -> str:
        return f"{bold[0]}{safe(member['member'])}{bold[1]}"

    usable = [m for m in board["members"] if m["comparable"]]
    told = _compared(usable, strong, budget_ms) if usable else _known(board, strong, budget_ms)
    return f"Of {_subject(board, safe)}, {told}."


def fits_budget(member: dict, budget_ms: float) -> bool | None:
    if member["upper_ms"] is None or member["invalid"]:
        return None
    return member["upper_ms"] <= budget_ms


def _subject(board: dict, safe: Callable[[str], str]) -> str:
    """Say what the members are and, unless single images came one after another, how requests did."""
    kind = "general " if board["scope"] == "general" else ""
    of = counted(len(board["members"]), f"{kind}member") + ("" if kind else f" for {safe(board['scope'])}")
    row = board["machine"]
    if row is None:
        return of
    of += f" on {safe(row['machine'].get('name'))}"
    how = {"server": "at", "multi-stream": "asked for"}.get(scenario_of(row)[0])
    return f"{of}, {how} {safe(told_scenario(row))}" if how else of


def _compared(usable: Sequence[dict], strong: Callable[[dict], str], budget_ms: float | None) -> str:
    best, fastest = max(usable, key=_merit), min(usable, key=lambda m: (m["upper_ms"], -m["top1"]))
    second = "" if best is fastest else f" {strong(fastest)}"
    text = f"{strong(best)} is the most accurate ({_right(best)}, p99 at most {amount(best['upper_ms'])} ms) and{second} the fastest"
    text += f" ({told_times(fastest)})" if second else ""
    if budget_ms is None:
        return text
    inside = [m for m in usable if fits_budget(m, budget_ms)]
    if not inside:
        return f"{text}; none with a known accuracy fits {budget_ms:g} ms"
    choice = max(inside, key=_merit)
    return f"{text}; within {budget_ms:g} ms {strong(choice)} is the most accurate ({told_times(choice)})"


def _known(board: dict, strong: Callable[[dict], str], budget_ms: float | None) -> str:
    """Say the best of accuracies and of times apart, where no member has both, valid and trained."""
    rated = [m for m in board["members"] if m["top1"] is not None and "untrained" not in m["remarks"] and WRONG not in m["remarks"]]
    best = max(rated, key=lambda m: m["top1"], default=None)
    parts = [f"{strong(best)} is the most accurate ({_right(best)})"] if best else []
    parts.append(_times(board, strong))
    if best is None:
        judged = any(m["top1"] is not None for m in board["members"])
        parts.append("no accuracy is of a trained member with right answers" if judged else "none has an accuracy (family bench --data DATASET measures it)")
    if budget_ms is not None:
        n = sum(bool(fits_budget(m, budget_ms)) and WRONG not in m["remarks"] for m in board["members"])
        parts.append(f"{n} of them {'answers' if n == 1 else 'answer'} within {budget_ms:g} ms" if n else f"none is known to fit {budget_ms:g} ms")
    return "; ".join(parts)


def _times(board: dict, strong: Callable[[dict], str]) -> str:
    timed = [m for m in board["members"] if m["latency"]]
    valid = [m for m in timed if not m["invalid"] and WRONG not in m["remarks"]]
    if not timed:
        return "none was timed"
    if not valid:
        wrong = sum(not m["invalid"] for m in timed)
        return f"no latency counts: {counted(len(timed) - wrong, 'measurement')} {INVALID}" + (f", {wrong} of wrong answers" if wrong else "")
    for key, told in (("upper_ms", "is the fastest (p99 at most {} ms)"), ("p50_ms", "has the lowest p50 ({} ms), without a bound of p99")):
        known = [m for m in valid if m[key] is not None]
        if known:
            fastest = min(known, key=lambda m: m[key])
            return f"{strong(fastest)} {told.format(amount(fastest[key]))}"
    rates = [m for m in valid if m["images_per_s"]]
    if not rates:
        return "no time of a query is known"
    most = max(rates, key=lambda m: m["images_per_s"])
    return f"{strong(most)} has the highest rate ({amount(most['images_per_s'])} images/s); no time of a query is known"


def _right(member: dict) -> str:
    return f"{told_top1(member)} of images filed right at the first guess"


def _merit(member: dict) -> tuple[float, float]:
    return member["top1"], -member["upper_ms"]
