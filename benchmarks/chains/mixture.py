"""The latency of a chain from its members': a mixture over the ways that rows go, of sums of stages."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.measurements import number_at, part_of, usable

GRID = (0.0, 0.01, 0.05, *(round(0.1 * k, 1) for k in range(1, 10)), 0.95, 0.97, 0.98, 0.99, 0.995, 1.0)  # where rows tell the quantiles of a stage
N_DRAWN = 4000
_MOST_COLD = 3.0  # times as long; more was a disturbance


@dataclass(frozen=True)
class Way:
    """How some of the rows go: the share of them, and how long they take."""

    share: float
    ms: np.ndarray  # float64 [N_DRAWN], ascending


def quantiles(samples_ms: np.ndarray) -> list[float]:
    """Return a stage's quantiles at GRID, for a row."""
    return [round(float(value), 5) for value in np.quantile(samples_ms, GRID)]


def is_timed(row: dict) -> bool:
    """Say whether a row tells how long each of its stages takes."""
    return all(_grid(row, stage) is not None for stage in ("decode", "resize", "model", "post"))


def _grid(row: dict, stage: str) -> np.ndarray | None:
    grid = part_of(part_of(row, "quantiles_ms", dict), stage, list)
    return np.asarray(grid, float) if len(grid) == len(GRID) and all((usable(ms) or 0) >= 0 and usable(ms) is not None for ms in grid) else None


def draw(row: dict, stage: str) -> np.ndarray:
    """Return float64 [N_DRAWN] times of a stage, spread evenly over its distribution, ascending; zeros where a row has no such stage."""
    grid = _grid(row, stage)
    return np.zeros(N_DRAWN) if grid is None else np.interp((np.arange(N_DRAWN) + 0.5) / N_DRAWN, GRID, grid)


def handing_over(general: dict) -> np.ndarray:
    """Return float64 [N_DRAWN], ascending: what routing adds to every row of a chain with submodels, which is about what telling an answer takes."""
    return draw(general, "post")


def alone(general: dict) -> np.ndarray:
    """Return float64 [N_DRAWN], ascending: what a row takes that the general model answers alone, as it was timed from end to end."""
    if _grid(general, "total") is not None:
        return draw(general, "total")
    return sum(draw(general, stage) for stage in ("decode", "resize", "model", "post"))  # an image that is slow in one is slow in all


def extra(general: dict, submodel: dict) -> np.ndarray:
    """Return float64 [N_DRAWN], what asking a submodel adds to the rows of `alone`: its model, and its way of resizing, where that is another one.

    A model that is asked now and then finds caches that others have used, and takes longer than in turns of its own: by `cold_ms`, that of its first
    query after others' turns. What resizing takes goes with the size of the image, as most of what the general model's row takes does but for its model.
    """
    model = np.random.default_rng(0).permutation(draw(submodel, "model")) * _cold(submodel)
    return model if _how(submodel) == _how(general) else model + draw(submodel, "resize")


def _cold(row: dict) -> float:
    warm, cold = float(np.median(draw(row, "model"))), number_at(row, "cold_ms", "model")
    return min(max(cold / warm, 1.0), _MOST_COLD) if cold and warm else 1.0


def _how(row: dict) -> str:
    return str(row.get("preprocessing") or row.get("resolution_px"))


def percentile(ways: Sequence[Way], percent: float) -> float:
    """Return the percentile of the mixture, in ms: of the distributions' weighted average, never of their percentiles."""
    values = np.concatenate([way.ms for way in ways])
    weights = np.concatenate([np.full(len(way.ms), way.share / len(way.ms)) for way in ways])
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(np.searchsorted(reached, percent / 100), len(order) - 1)])
