"""Percentiles and their bounds: by order alone, where samples are alike; where turns differ, by how far."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

PERCENTILES = (50, 90, 95, 99)
MIN_SAMPLES = 300  # fewer can't bound p99: 0.99 ** 300 = 4.9 %
LEAST_TURNS = 6  # fewer don't tell how far turns differ: MIN_SAMPLES come in as many
_CHANCE = 0.25  # of turns that are alike, those that are said to differ; a difference that this doesn't show is too small to matter
_NORMAL = NormalDist()
_NODES = np.array([_NORMAL.inv_cdf((k + 0.5) / 200) for k in range(200)])  # a normal distribution, in 200 parts
_MOST_RESIDUALS = 400  # that stand for all


def summarize(samples: np.ndarray, n_effective: int | None = None, n_by_turn: Sequence[int] | None = None) -> dict:
    """Return p50, p90, p95, p99 and mean; `uppers`, the one-sided 95 % bound of each percentile, and `upper`, that of p99.

    Args:
        samples: float [n], n >= 1.
        n_effective: as many independent samples tell as much; None: all are.
        n_by_turn: how many of them came in each turn, in their order; None: all turns are alike.
    """
    found = {f"p{q}": float(np.percentile(samples, q)) for q in PERCENTILES}
    shares = [q / 100 for q in PERCENTILES]
    if n_by_turn is None:
        bounds = [upper_bound(samples, share, n_effective=n_effective) for share in shares]
    else:
        bounds = upper_bounds_of_turns(np.split(samples, np.cumsum(n_by_turn)[:-1]), shares)
    uppers = dict(zip(found, bounds, strict=True))
    return {**found, "upper": uppers["p99"], "mean": float(np.mean(samples)), "uppers": uppers}


def upper_bounds_of_turns(turns: Sequence[np.ndarray], quantiles: Sequence[float]) -> list[float | None]:
    """Return the one-sided 95 % bounds of quantiles of what other turns would give too; None of each that so few samples can't bound.

    Where turns differ no more than chance makes them, the order statistics of all samples. Otherwise at least what the random-effects model below says:
    samples of one turn are alike then, and their number says nothing about the next turn.
    """
    turns = _without_short_ones(turns)
    if len(turns) < LEAST_TURNS:
        return [None] * len(quantiles)
    by_order = [upper_bound(np.concatenate(turns), q) for q in quantiles]
    if not turns_differ(turns):
        return by_order
    by_turns = _bounds_of_random_turns(turns, quantiles)
    return [None if None in pair else max(pair) for pair in zip(by_order, by_turns, strict=True)]


def _without_short_ones(turns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return turns of which a short one is part of the one before it: its median says little."""
    kept: list[np.ndarray] = []
    for turn in turns:
        if kept and 2 * len(turn) < max(map(len, turns)):
            kept[-1] = np.concatenate([kept[-1], turn])
        else:
            kept.append(turn)
    return kept


def turns_differ(turns: Sequence[np.ndarray]) -> bool:
    """Say whether turns differ more than three of four draws of samples that are alike would. *Source*: Kruskal and Wallis 1952, the test by ranks."""
    n = sum(map(len, turns))
    _, same, counts = np.unique(np.concatenate(turns), return_inverse=True, return_counts=True)
    ranks = np.split((np.cumsum(counts) - (counts - 1) / 2)[same], np.cumsum([len(turn) for turn in turns])[:-1])
    ties = 1 - np.sum(counts.astype(float) ** 3 - counts) / (float(n) ** 3 - n)
    if ties <= 0:
        return False  # all samples are the same
    between = 12 / (n * (n + 1)) * sum(len(own) * (own.mean() - (n + 1) / 2) ** 2 for own in ranks) / ties
    return bool(between > _chi_square(len(turns) - 1, 1 - _CHANCE))


def _bounds_of_random_turns(turns: Sequence[np.ndarray], quantiles: Sequence[float]) -> list[float | None]:
    """Return bounds by a model in which each turn makes its queries slower or faster by a factor of its own, log-normal; within turns any distribution.

    What isn't known are the mean of the factors' logarithms, their spread, and the quantile within a turn: the bound is as far above the estimate as the
    root of the summed squares of what each of the three adds at its own 95 % bound. The median of a turn stands for its factor; its own noise makes the
    spread a little larger, so bounds are a little high. *Source*: Zou and Donner 2008, Construction of confidence limits about effect measures (MOVER).
    """
    logs = [np.log(np.maximum(turn, 1e-9)) for turn in turns]
    centres = np.array([np.median(own) for own in logs])
    within = np.sort(np.concatenate([own - centre for own, centre in zip(logs, centres, strict=True)]))
    freedom = len(turns) - 1
    spread = _spread_upwards(centres)
    most_spread = spread * math.sqrt(freedom / _chi_square(freedom, 0.05))
    mean_off = _student(freedom) * float(np.std(centres, ddof=1)) / math.sqrt(len(turns))
    found = []
    for q, expected, most in zip(quantiles, _mixed(within, spread, quantiles), _mixed(within, most_spread, quantiles), strict=True):
        bound = upper_bound(within, q)
        parts = None if bound is None else (mean_off, most - expected, bound - np.quantile(within, q))
        found.append(None if parts is None else float(np.exp(centres.mean() + expected + math.hypot(*parts))))
    return found


def _spread_upwards(centres: np.ndarray) -> float:
    """Return the standard deviation, or how far those above the median lie from it where that is more: a machine has few ways to be faster than usual."""
    above = centres[centres > np.median(centres)] - np.median(centres)
    return max(float(np.std(centres, ddof=1)), math.sqrt(np.mean(above**2)) if len(above) else 0.0)


def _mixed(within: np.ndarray, spread: float, quantiles: Sequence[float]) -> np.ndarray:
    """Return quantiles of the sum of what is within turns and a normal distribution of this spread."""
    if len(within) > _MOST_RESIDUALS:
        within = np.quantile(within, (np.arange(_MOST_RESIDUALS) + 0.5) / _MOST_RESIDUALS)
    return np.quantile((within[:, None] + spread * _NODES).ravel(), quantiles)


def _chi_square(freedom: int, share: float) -> float:
    """Return a quantile of the chi-square distribution, within 2 % from 5 degrees of freedom on. *Source*: Wilson and Hilferty 1931."""
    part = 2 / (9 * freedom)
    return freedom * max(1 - part + _NORMAL.inv_cdf(share) * math.sqrt(part), 1e-3) ** 3


def _student(freedom: int, share: float = 0.95) -> float:
    """Return a quantile of Student's t, within 1 % from 5 degrees of freedom on. *Source*: Abramowitz and Stegun 1964, 26.7.5, its first terms."""
    z = _NORMAL.inv_cdf(share)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def effective_number(turns: Sequence[np.ndarray]) -> int:
    """Return how many independent samples tell as much as these, of which each is like those before it in its turn, as waiting times in a queue are.

    n / (1 + 2 (r1 + r2 + ...)), with the autocorrelations up to the first that is not above 0. Source: Geyer 1992, Practical Markov chain Monte Carlo,
    section 3.3, in its simplest form.
    """
    centre, n, n_lags = np.mean(np.concatenate(turns)), sum(map(len, turns)), min(map(len, turns))
    products = np.zeros(n_lags)  # of deviations, by lag
    for turn in turns:
        length = 2 ** (2 * len(turn)).bit_length()  # no lag goes round
        products += np.fft.irfft(np.abs(np.fft.rfft(turn - centre, length)) ** 2)[:n_lags]
    ends = np.flatnonzero(products <= 1e-12 * products[0])
    total = products[1 : ends[0] if len(ends) else n_lags].sum() / max(products[0], 1e-300)
    return max(1, int(n / (1 + 2 * total)))


def upper_bound(samples: np.ndarray, quantile: float, confidence: float = 0.95, n_effective: int | None = None) -> float | None:
    """Return the smallest order statistic that is above the quantile with this confidence, or None where n is too small.

    The k-th smallest of n samples is above the quantile with the probability P(Binomial(n, quantile) < k). Of samples that are worth fewer independent
    ones, it is the one at the same share of all.
    """
    n, below = n_effective or len(samples), 0.0
    for k in range(n):
        below += math.exp(
            math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(quantile) + (n - k) * math.log1p(-quantile)
        )
        if below >= confidence:
            return float(np.sort(samples)[-(-(k + 1) * len(samples) // n) - 1])
    return None
