"""Statistics of samples by order alone: no distribution is assumed."""

import math
from collections.abc import Sequence

import numpy as np

PERCENTILES = (50, 90, 95, 99)
MIN_SAMPLES = 300  # fewer can't bound p99: 0.99 ** 300 = 4.9 %


def summarize(samples: np.ndarray, n_effective: int | None = None) -> dict:
    """Return p50, p90, p95, p99 and mean; `uppers`, the one-sided 95 % bound of each percentile, and `upper`, that of p99.

    Args:
        samples: float [n], n >= 1.
        n_effective: as many independent samples tell as much; None: all are.
    """
    found = {f"p{q}": float(np.percentile(samples, q)) for q in PERCENTILES}
    uppers = {f"p{q}": upper_bound(samples, q / 100, n_effective=n_effective) for q in PERCENTILES}
    return {**found, "upper": uppers["p99"], "mean": float(np.mean(samples)), "uppers": uppers}


def effective_number(turns: Sequence[np.ndarray]) -> int:
    """Return how many independent samples tell as much as these, of which each is like those before it in its turn, as waiting times in a queue are.

    n / (1 + 2 (r1 + r2 + ...)), with the autocorrelations up to the first that is not above 0. Source: Geyer 1992, Practical Markov chain Monte Carlo,
    section 3.3, in its simplest form.
    """
    centre, n = np.mean(np.concatenate(turns)), sum(map(len, turns))
    deviations = [turn - centre for turn in turns]
    variance = sum(float(d @ d) for d in deviations) / n
    total = 0.0
    for lag in range(1, min(map(len, turns))):
        r = sum(float(d[:-lag] @ d[lag:]) for d in deviations) / n / max(variance, 1e-300)
        if r <= 0:
            break
        total += r
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
