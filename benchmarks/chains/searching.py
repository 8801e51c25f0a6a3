"""Which option of each vertical together gain most within a budget. Exact, without trying every combination.

A chain's percentile is within ms where the weights of what is no slower come to the percentile's share p. With the shares s of the options, F the share
of an option's rows that are within ms, and F0 that of the rows nobody else is asked about, this is sum s F + (1 - sum s) F0 >= p, or, where the bounds
of shares come to more than one, sum s F >= p sum s. As F <= F0, one of the two holds where one of these does:

    sum s (F0 - F) <= F0 - p        sum s (p - F) <= 0

Each is a sum over verticals below a limit: the multiple-choice knapsack. Vertical by vertical, only what no other beats in both gain and load is kept.
*Source*: Kellerer, Pferschy and Pisinger, Knapsack Problems (2004), chapter 11.
"""

from collections.abc import Callable, Sequence

import numpy as np

_SLACK = 1e-12  # of sums of shares, which are rounded


def search(gains: Sequence[np.ndarray], loads: Sequence[np.ndarray], limit: float, least: float = -np.inf) -> tuple[float, tuple[int, ...]] | None:
    """Choose one option of each vertical with the largest sum of gains whose sum of loads is within a limit; of equal ones the smaller load.

    Args:
        gains, loads: float [options] of each vertical.
        least: the sum of gains that is wanted.

    Returns:
        The gain and the place of each option, or None where no choice does.
    """
    ahead_gain = np.append(np.cumsum([gain.max() for gain in gains][::-1])[::-1], 0.0)
    ahead_load = np.append(np.cumsum([load.min() for load in loads][::-1])[::-1], 0.0)
    gain, load, chosen = np.zeros(1), np.zeros(1), np.zeros((1, 0), int)
    for k, (more_gain, more_load) in enumerate(zip(gains, loads, strict=True)):
        all_gain, all_load = (gain[:, None] + more_gain).ravel(), (load[:, None] + more_load).ravel()
        alive = np.flatnonzero((all_load + ahead_load[k + 1] <= limit) & (all_gain + ahead_gain[k + 1] >= least))
        alive = alive[np.lexsort((all_load[alive], -all_gain[alive]))]
        lightest = np.minimum.accumulate(np.append(np.inf, all_load[alive]))
        kept = alive[all_load[alive] < lightest[:-1]]  # lighter than all that gain as much
        if not len(kept):
            return None
        chosen = np.column_stack([chosen[kept // len(more_gain)], kept % len(more_gain)])
        gain, load = all_gain[kept], all_load[kept]
    return float(gain[0]), tuple(map(int, chosen[0]))


def best_within(options: Sequence[Sequence], own_ms: np.ndarray, margins: Callable, shares: Callable, budget_ms: float, share: float,
                least: float = -np.inf) -> list | None:  # fmt: skip
    """Return the option of each vertical that together gain most, where the percentile times the largest margin is within a budget; None: there is none.

    Args:
        options: of each vertical, with `gain` and `ms`, None where nobody is asked.
        own_ms: float [n], ascending: of rows that nobody else is asked about.
        margins: option -> how far the bound of the percentile is above it, 1 or more.
        shares: option -> the share of rows that are asked about, at its upper bound.
        share: that must be within the budget, as 0.99.
    """
    best: tuple[float, list] = (-np.inf, [])
    for margin in sorted({margins(option) for own in options for option in own}):
        allowed = [[option for option in own if margins(option) <= margin] for own in options]
        if not all(allowed):
            continue
        ms = budget_ms / margin * (1 + _SLACK)
        own_within = _within(own_ms, ms)
        if own_within < share - _SLACK:
            break  # a larger margin leaves less
        gains = [np.array([option.gain for option in own]) for own in allowed]
        asked = [np.array([shares(option) for option in own]) for own in allowed]
        within = [np.array([own_within if option.ms is None else _within(option.ms, ms) for option in own]) for own in allowed]
        tried = [search(gains, [s * (own_within - f) for s, f in zip(asked, within, strict=True)], own_within - share + _SLACK, least)]
        if sum(s.max() for s in asked) > 1:
            tried.append(search(gains, [s * (share - f) for s, f in zip(asked, within, strict=True)], _SLACK, least))
        for gain, places in filter(None, tried):
            if gain > best[0]:
                best = gain, [own[place] for own, place in zip(allowed, places, strict=True)]
    return best[1] or None


def _within(ascending_ms: np.ndarray, ms: float) -> float:
    return float(np.searchsorted(ascending_ms, ms, side="right")) / len(ascending_ms)
