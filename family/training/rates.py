"""The learning rate as a pure function of the update."""

import math

from family.recipe import Recipe

ROWS_PER_RATE = 256  # rates of recipes are given for this many rows an update


def learning_rate(update: int, n_updates: int, peak: float, batch_size: int, warmup_updates: float, schedule: str) -> float:
    """Return the rate of an update (counted from 0) of a phase.

    Args:
        peak: per 256 rows; the rate scales with the rows of an update, never with the number of ranks.
        schedule: of the peak after the warm-up; `step` and `plateau` lower the peak itself, see `lowered`.
    """
    rate = peak * batch_size / ROWS_PER_RATE
    if update < warmup_updates:
        return rate * (update + 1) / (math.floor(warmup_updates) + 1)
    if schedule != "cosine":
        return rate
    done = (update - warmup_updates) / max(1.0, n_updates - warmup_updates)
    return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def lowered(peak: float, schedule: str, epochs: float, n_plateaus: int, recipe: Recipe) -> float:
    """Return the peak as `step` and `plateau` lower it by `step_factor`; other schedules leave it.

    Args:
        epochs: of the phase that are done, with the part of the one that runs.
        n_plateaus: how often validation accuracy stayed where it was for `plateau_rate_epochs`.
    """
    times = {"step": epochs // recipe.step_epochs, "plateau": n_plateaus}.get(schedule, 0)
    return peak * recipe.step_factor**times
