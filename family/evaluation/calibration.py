"""Whether a model is right as often as it says: reliability, expected calibration error, and the temperature that mends most of it."""

from collections.abc import Iterable, Iterator

import numpy as np

from family.evaluation.intervals import ratio_interval, sum_by_listing

N_BINS = 15
HOTTEST = 8.0  # temperatures from 1 / HOTTEST to HOTTEST
_STEPS_A_DOUBLING = 4
TINY = float(np.finfo(np.float32).tiny)  # a probability that float32 rounded to 0 counts as this


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(z / T) [n, n_classes] of probabilities softmax(z): p^(1/T), normalized.

    *Source*: temperature scaling, Guo et al. 2017 (1706.04599), section 4.2.
    """
    if temperature == 1:
        return probabilities
    logs = np.log(np.maximum(probabilities, TINY)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class TemperatureFit:
    """Finds the temperature of the smallest negative log-likelihood, from sums that need no probabilities to be kept.

    In b = 1 / T, each row's negative log-likelihood is convex: log sum exp(b log p) - b log p(true). Its first and second derivatives,
    mean and variance of log p under softmax(b log p), are summed at a grid of b; between two points of the grid the first derivative is
    the cubic that has its values and slopes at both, and the temperature is where it passes 0.
    """

    def __init__(self):
        n_steps = round(2 * np.log2(HOTTEST) * _STEPS_A_DOUBLING)
        self.grid = HOTTEST ** np.linspace(-1, 1, n_steps + 1)  # of b
        self.sums = np.zeros((2, len(self.grid)))  # first and second derivatives over all rows; ranks add theirs up
        self.n = 0

    def add(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """Take rows: float [n, n_classes] and int [n]."""
        logs = np.log(np.maximum(probabilities, TINY)).astype(np.float32)
        logs -= logs.max(axis=1, keepdims=True)
        true = logs[np.arange(len(labels)), labels].astype(np.float64)
        for k, b in enumerate(self.grid):
            powers = np.exp(np.float32(b) * logs)
            total = powers.sum(axis=1, dtype=np.float64)
            mean = np.einsum("ij,ij->i", powers, logs) / total
            square = np.einsum("ij,ij,ij->i", powers, logs, logs) / total
            self.sums[:, k] += (mean - true).sum(), (square - mean**2).sum()
        self.n += len(labels)

    def watch(self, batches: Iterable[np.ndarray], labels: np.ndarray) -> Iterator[np.ndarray]:
        """Pass batches of probabilities through and take them, with the labels int [n] of all rows."""
        first = 0
        for batch in batches:
            self.add(batch, labels[first : first + len(batch)])
            first += len(batch)
            yield batch

    def temperature(self) -> float:
        """Return the temperature, to four digits; an end of the range where the likelihood still grows there."""
        slopes, curvatures = self.sums
        if slopes[0] >= 0:
            return HOTTEST
        if slopes[-1] <= 0:
            return 1 / HOTTEST
        k = int(np.flatnonzero(slopes < 0)[-1])
        low, high = self.grid[k : k + 2]
        width = high - low
        y0, y1, d0, d1 = slopes[k], slopes[k + 1], width * curvatures[k], width * curvatures[k + 1]
        roots = np.roots([2 * y0 - 2 * y1 + d0 + d1, -3 * y0 + 3 * y1 - 2 * d0 - d1, d0, y0])  # Hermite's cubic on 0..1
        inside = [root.real for root in roots if abs(root.imag) < 1e-9 and -1e-9 <= root.real <= 1 + 1e-9]
        return round(float(1 / (low + width * min(max(inside[0], 0.0), 1.0))), 4)


def measure_calibration(confidence: np.ndarray, hits: np.ndarray, true: np.ndarray, starts: np.ndarray) -> dict:
    """Return `ece` with its interval, `nll` and `bins`.

    The expected calibration error is the mean over rows of the distance between confidence and accuracy of the row's bin, bins of equal
    width. *Source*: Guo et al. 2017 (1706.04599), section 2, equation 3; Naeini et al. 2015. It is never below 0, so that a well calibrated
    model's is above its true value by chance, and its interval with it: the interval is that of a sum whose signs are taken as they
    were found, by listing.

    Args:
        confidence: float [n], the best class's probability.
        hits: bool [n], whether it is the true one.
        true: float [n], the true class's probability.
        starts: int [n_listings], the first row of each listing.
    """
    n = len(hits)
    place = np.clip(np.ceil(confidence.astype(np.float64) * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)
    counts = np.bincount(place, minlength=N_BINS)
    sums = np.stack([np.bincount(place, weights=values, minlength=N_BINS) for values in (confidence, hits)])
    gaps = sums[0] - sums[1]
    ece = float(np.abs(gaps).sum() / n)
    means = sums / np.maximum(counts, 1)
    # A row adds its signed gap to the whole.
    distances = sum_by_listing(np.sign(gaps)[place] * (confidence - hits.astype(np.float64)), starts)
    interval = ratio_interval(distances, np.diff(starts, append=n))
    bins = [
        {"low": k / N_BINS, "high": (k + 1) / N_BINS, "n": int(counts[k]), "confidence": float(means[0, k]) if counts[k] else None,
         "accuracy": float(means[1, k]) if counts[k] else None}
        for k in range(N_BINS)
    ]  # fmt: skip
    nll = float(-np.log(np.maximum(true.astype(np.float64), TINY)).mean())
    return {"ece": ece, "ece_interval": interval, "nll": nll, "bins": bins}
