"""What `family pick` says beside its choice: what members miss, why others lost, and when nothing fits, what would."""

import heapq
import math
from collections.abc import Sequence

from benchmarks.bounds import is_shown
from benchmarks.candidates import lower_of

N_MISSES, N_RUNNERS_UP = 3, 5


def by_accuracy(c: dict) -> tuple:
    """Order candidates within a budget: the most accurate first; of equal ones the one that answers most images/s, where that was measured, then the
    faster. Names and digests make it the same for any order of rows."""
    return -c["accuracy"], -(c["images_per_s"] or 0), c["cost_ms"], c["member"], c["of"]["model_sha256"]


def by_cost(c: dict) -> tuple:
    """Order candidates that reach an accuracy: the fastest first, of equal ones the most accurate."""
    return c["cost_ms"], -c["accuracy"], -(c["images_per_s"] or 0), c["member"], c["of"]["model_sha256"]


def misses_of(c: dict, wanted) -> dict[str, str]:
    """Return what a candidate misses of what is wanted: the field of `Wanted`, and how far."""
    found = {}
    if wanted.budget_ms is not None and c["cost_ms"] > wanted.budget_ms:
        found["budget_ms"] = f"p{wanted.percentile} may be {c['cost_ms']:,.2f} ms, over {_number(wanted.budget_ms)}"
    if wanted.min_accuracy is not None and (lower := lower_of(c, wanted)) < wanted.min_accuracy:
        found["min_accuracy"] = f"surely {_share(lower, math.floor)} alone, under {_share(wanted.min_accuracy)}"
    if wanted.max_memory_mb is not None and c["peak_memory_mb"] > wanted.max_memory_mb:
        found["max_memory_mb"] = f"holds {c['peak_memory_mb']:,.0f} MB, over {_number(wanted.max_memory_mb)}"
    return found


def runners_up(candidates: Sequence[dict], best: dict, wanted) -> list[dict]:
    """Say why others lost: the most accurate of them first, or, where an accuracy alone was asked for, the fastest."""
    order = by_accuracy if wanted.budget_ms is not None else by_cost
    others = heapq.nsmallest(N_RUNNERS_UP, (c for c in candidates if c is not best), key=order)
    return [{"member": c["member"], "why": "; ".join(misses_of(c, wanted).values()) or _why_worse(c, best, wanted)} for c in others]


def _why_worse(c: dict, best: dict, wanted) -> str:
    if wanted.budget_ms is not None and c["accuracy"] < best["accuracy"]:
        told = f"fits, and is {100 * (best['accuracy'] - c['accuracy']):.2f} points less accurate"
        shown = is_shown(best["of"]["accuracy"], c["of"]["accuracy"], wanted.metric)
        return told + (", which is not shown: it is within their intervals" if shown is False else "")
    fewer = (best["images_per_s"] or 0) - (c["images_per_s"] or 0)
    if fewer > 0 and (wanted.budget_ms is not None or c["cost_ms"] == best["cost_ms"]):
        return f"as good; answers {c['images_per_s'] or 0:g} images/s, not {best['images_per_s']:g}" if c["images_per_s"] else "as good; images/s not measured"
    if c["cost_ms"] > best["cost_ms"]:
        return f"fits, and may take {c['cost_ms'] - best['cost_ms']:,.2f} ms longer"
    return "as good; told apart by their names alone"


def nearest_of(candidates: Sequence[dict], wanted) -> list[dict]:
    """Return the candidates that miss least: whose furthest miss, as a ratio, is smallest."""

    def furthest(c: dict) -> float:
        ratios = [c["cost_ms"] / wanted.budget_ms] if wanted.budget_ms is not None else []
        ratios += [wanted.min_accuracy / (lower_of(c, wanted) or math.ulp(0))] if wanted.min_accuracy is not None else []
        ratios += [c["peak_memory_mb"] / wanted.max_memory_mb] if wanted.max_memory_mb is not None else []
        return max(ratios)

    return sorted(candidates, key=lambda c: (furthest(c), by_accuracy(c)))[:N_MISSES]


def tell_nothing(candidates: Sequence[dict], nearest: Sequence[dict], left_out: Sequence[dict], wanted) -> str:
    """Say that nothing fits, what came nearest, what was left out, and which single wish, were it another, would do."""
    asked = [f"p{wanted.percentile} within {_number(wanted.budget_ms)} ms"] if wanted.budget_ms is not None else []
    asked += [f"an accuracy of at least {_share(wanted.min_accuracy)}"] if wanted.min_accuracy is not None else []
    asked += [f"{_number(wanted.max_memory_mb)} MB of memory"] if wanted.max_memory_mb is not None else []
    near = "; ".join(f"{c['member']} ({_told(c, wanted)})" for c in nearest)
    others = "; ".join(f"{c['member']}: {c['why']}" for c in left_out[:N_MISSES])
    out = f". Left out: {others}" if others else ""
    return f"nothing fits {' and '.join(asked)}. Nearest: {near}{out}. {_what_would(candidates, wanted)}"


def _told(c: dict, wanted) -> str:
    told = [f"{c['cost_ms']:,.2f} ms", f"{c['accuracy']:.1%}"]
    lower = lower_of(c, wanted)
    told += [f"surely {_share(lower, math.floor)}"] if lower is not None else []
    return ", ".join([*told, *([f"{c['peak_memory_mb']:,.0f} MB"] if wanted.max_memory_mb is not None else [])])


def _what_would(candidates: Sequence[dict], wanted) -> str:
    """Tell for each wish what it would have to be for some member to fit, all others kept."""
    only = {field: [c for c in candidates if misses_of(c, wanted).keys() == {field}] for field in ("budget_ms", "min_accuracy", "max_memory_mb")}
    found = []
    if only["budget_ms"]:
        found.append(f"A budget of {_up(min(c['cost_ms'] for c in only['budget_ms']), 100):,.2f} ms")
    if only["min_accuracy"]:
        found.append(f"{'an' if found else 'An'} accuracy of {_share(max(lower_of(c, wanted) for c in only['min_accuracy']), math.floor)}")
    if only["max_memory_mb"]:
        found.append(f"{_number(_up(min(c['peak_memory_mb'] for c in only['max_memory_mb']), 1))} MB{' of memory' if not found else ''}")
    return f"{' or '.join(found)} would do" if found else "No member fits if only one of these is given up"


def _up(value: float, steps: int) -> float:
    """Return a value rounded up to the next of so many steps of one, so that what is told is enough."""
    return math.ceil(value * steps * (1 - 1e-12)) / steps


def _number(value: float) -> str:
    """Return a number as a person writes it: 20, 0.5, 1,000,000."""
    return f"{value:,.12g}"


def _share(value: float, rounded=None) -> str:
    """Return a share in percent with one digit behind the point; with as many as it has, where it was asked for so; or rounded to be safe."""
    if rounded:
        return f"{rounded(value * 1000 * (1 + 1e-12)) / 10:.1f}%"
    return f"{value:.1%}" if abs(value - round(value, 3)) < 1e-12 else f"{100 * value:.10g}%"
