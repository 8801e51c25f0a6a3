"""Single-image latency from encoded bytes, members in turns, and the statistics of its samples. No TensorFlow."""

import math
import random
import time
from collections.abc import Callable

import numpy as np

from export.runtime import Predictor
from family.progress import progress

BLOCK = 50  # images of one member before the next has its turn: shorter turns would time cold caches
WARMUP = 20
MIN_SAMPLES = 300  # fewer can't bound p99: 0.99 ** 300 = 4.9 %


def time_members(predictors: list[Predictor], images: list[list[bytes]], n: int, clock: Callable = time.perf_counter) -> list[dict]:
    """Time each predictor on n single images, in shuffled turns of BLOCK.

    Args:
        images: encoded images for each predictor.

    Returns:
        For each predictor {"decode": float64 [n], "model": float64 [n]}, in ms.
    """
    for predictor, own in zip(predictors, images, strict=True):
        for k in range(WARMUP):
            predictor.predict_bytes(own[k % len(own)])
    samples = [{"decode": [], "model": []} for _ in predictors]
    turns = [member for _ in range(math.ceil(n / BLOCK)) for member in _shuffled(len(predictors), _)]
    for member in progress(turns, "timing", unit="blocks"):
        found, own = samples[member], images[member]
        for _ in range(min(BLOCK, n - len(found["model"]))):
            data = own[len(found["model"]) % len(own)]
            start = clock()
            pixels = predictors[member].decode(data)
            decoded = clock()
            predictors[member].predict(pixels)
            found["decode"].append(1000 * (decoded - start))
            found["model"].append(1000 * (clock() - decoded))
    return [{stage: np.array(values) for stage, values in found.items()} for found in samples]


def _shuffled(n: int, seed: int) -> list[int]:
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return order


def summarize(samples_ms: np.ndarray) -> dict[str, float]:
    """Return p50, p90, p95, p99, `upper` (the one-sided 95 % bound of p99) and mean, in ms."""
    found = {f"p{q}": float(np.percentile(samples_ms, q)) for q in (50, 90, 95, 99)}
    upper = upper_bound(samples_ms, 0.99)
    return {**found, "upper": upper, "mean": float(samples_ms.mean())}


def upper_bound(samples: np.ndarray, quantile: float, confidence: float = 0.95) -> float | None:
    """Return the smallest order statistic that is above the quantile with this confidence, or None where n is too small.

    The k-th smallest of n samples is above the quantile with the probability P(Binomial(n, quantile) < k).
    """
    n, below = len(samples), 0.0
    for k in range(n):
        below += math.exp(
            math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(quantile) + (n - k) * math.log1p(-quantile)
        )
        if below >= confidence:
            return float(np.sort(samples)[k])
    return None


def measure_throughput(predictor: Predictor, images: list[bytes], batch: int, seconds: float = 1.0) -> dict:
    """Return images/s of the model alone on batches of decoded images."""
    pixels = np.concatenate([predictor.decode(images[k % len(images)]) for k in range(batch)])
    predictor.predict(pixels)
    start, n = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds or n < 3:
        predictor.predict(pixels)
        n += 1
    return {"batch": batch, "images_per_s": round(n * batch / spent, 2)}
