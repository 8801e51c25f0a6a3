"""How sure an accuracy is: the one-sided 95 % bound that `pick` holds members to, and whether one is shown to be above another."""

import math
import re

from benchmarks.measurements import number_at, part_of, usable
from family.evaluation.wilson import wilson

ONE_SIDED, TWO_SIDED = 1.645, 1.959964  # standard deviations, 95 %
_OF_ALL_ROWS = re.compile(r"(top\d+|levels\.\d+(\.summed)?)\.micro")


def surely(measured: dict, metric: str, accuracy: float | None) -> float | None:
    """Return the one-sided 95 % lower bound of an accuracy, micro or macro alike; None where that is not known.

    Args:
        measured: an accuracy row, whose interval of the metric is two-sided.
    """
    interval = _stored(measured, metric, accuracy)
    if interval is None:
        return lower_bound(accuracy, _n_listings(measured, metric))
    return one_sided(accuracy, interval[0])


def one_sided(share: float, low: float) -> float:
    """Return the one-sided 95 % lower bound of a share whose two-sided 95 % interval begins at `low`, of Wilson's kind as `evaluate` measures all.

    Wilson's equation (share - low)^2 = t^2 / n low (1 - low) gives t^2 / n, and the bound is its solution with t in the ratio of the normal quantiles.
    With few rows, Student's would bring it nearer to the share: the bound is never too high.
    """
    if not 0 < low < share:
        return min(low, share)
    return wilson(share, 1.0, ONE_SIDED / TWO_SIDED * (share - low) / math.sqrt(low * (1 - low)))[0]


def lower_bound(share: float | None, n: int) -> float | None:
    """Return Wilson's one-sided 95 % lower bound of a share of n independent rows, None where it isn't known."""
    return wilson(share, n, ONE_SIDED)[0] if share is not None and n else None


def is_shown(better: dict, worse: dict, metric: str) -> bool | None:
    """Say whether the one's accuracy is shown to be above the other's, with 95 %; None where rows don't tell how sure they are.

    Where the one was compared with the other on the same rows when it was measured, that comparison tells. Otherwise the intervals of both do, as if
    their rows were others: the difference is shown where it is more than the root of the squares of what separates each from the end of its interval
    that is nearer to the other. *Source*: Zou and Donner, Statistics in Medicine 27, 2008, 1693.

    Args:
        better, worse: accuracy rows.
    """
    for one, other in ((better, worse), (worse, better)):
        paired = part_of(one, "against_fp32", dict)
        shown = part_of(paired, metric, dict).get("shown") if paired.get("model_sha256") == other["model_sha256"] else None
        if isinstance(shown, bool):
            return shown
    ends = [(number_at(row["metrics"], *metric.split(".")), interval_of(row, metric)) for row in (better, worse)]
    if any(share is None or interval is None for share, interval in ends):
        return None
    (high, (low_end, _)), (low, (_, high_end)) = ends
    return high - low > math.hypot(high - low_end, high_end - low)


def interval_of(measured: dict, metric: str) -> tuple[float, float] | None:
    """Return the two-sided 95 % interval of an accuracy: the stored one, or, of a share of all rows, Wilson's; None where neither is known."""
    accuracy = number_at(measured["metrics"], *metric.split("."))
    n = _n_listings(measured, metric)
    return _stored(measured, metric, accuracy) or (tuple(wilson(accuracy, n, TWO_SIDED)) if accuracy is not None and n else None)


def _n_listings(measured: dict, metric: str) -> int:
    """Return how many independent rows a share is of. A mean over categories is no share of rows: rare categories decide how sure it is, which only
    `evaluate` measures, as of the shares of some rows alone: 0."""
    return int(number_at(measured["metrics"], "n_listings") or measured.get("n") or 0) if _OF_ALL_ROWS.fullmatch(metric) else 0


def _stored(measured: dict, metric: str, accuracy: float | None) -> tuple[float, float] | None:
    *path, name = metric.split(".")
    found = measured["metrics"]
    for key in path:
        found = part_of(found, key, dict)
    ends = [usable(end) for end in part_of(found, f"{name}_interval", list)]
    is_one = len(ends) == 2 and accuracy is not None and None not in ends and 0 <= ends[0] <= accuracy <= ends[1] <= 1
    return (ends[0], ends[1]) if is_one else None
