"""Whether one file is faster than another on this machine: both in turns. No TensorFlow."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

N_ROUNDS = 20
_TURN_S = 0.1
_MOST_AT_ONCE = 8


def compare_speed(base: Callable, other: Callable, images: np.ndarray, clock: Callable = time.perf_counter, n_rounds: int = N_ROUNDS) -> dict:
    """Time two models on single images, in turns whose order changes from round to round, so that a busy machine slows both.

    Args:
        base, other: uint8 [1, px, px, 3] -> anything.
        images: uint8 [n, px, px, 3].

    Returns:
        {"ratio": the median of the base's time over the other's, "interval": its 95 % interval by order statistics, None of fewer than 6 rounds,
        "rounds", "images_a_round"}.
    """

    def spend(predict: Callable, first: int, n: int) -> float:
        began = clock()
        for k in range(first, first + n):
            predict(images[k % len(images)][None])
        return clock() - began

    spend(other, 0, 2)
    n = int(np.clip(_TURN_S / max(spend(base, 0, 2) / 2, 1e-9), 1, _MOST_AT_ONCE))
    ratios = []
    for turn in range(n_rounds):
        sides = {"base": base, "other": other}
        order = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        spent = {name: spend(sides[name], turn * n, n) for name in order}
        ratios.append(spent["base"] / spent["other"])
    return {"ratio": float(np.median(ratios)), "interval": interval_of_median(ratios), "rounds": n_rounds, "images_a_round": n}


def interval_of_median(values: Sequence[float]) -> list[float] | None:
    """Return the interval that holds the median with at least 95 %, from order statistics; None where there are too few values.

    The number of values below the median is binomial with 1/2, whatever their distribution.
    """
    ordered, n = sorted(values), len(values)
    below = [sum(math.comb(n, i) for i in range(k + 1)) / 2**n for k in range(n // 2)]  # P(at most k values below the median)
    reachable = [k for k, p in enumerate(below) if p <= 0.025]
    return [ordered[reachable[-1]], ordered[-1 - reachable[-1]]] if reachable else None


def tell_speed(found: dict) -> str:
    """Say how much faster it is than fp32, or that it is not shown to be."""
    low, high = found["interval"]
    told = f"{found['ratio']:.2f} times the speed of fp32 here ({low:.2f} to {high:.2f}, one thread, in turns)"
    return told if low > 1 else f"{told}: " + ("slower than fp32" if high < 1 else "that it is faster is not shown")
