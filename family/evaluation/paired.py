"""Two ways to answer the same rows: how far apart they are, with an interval. Rows of one listing are not independent, so listings are the unit."""

from collections.abc import Callable

import numpy as np

from family.progress import progress

Z_95 = 1.96
N_DRAWS = 2000
SEED = 0
MIN_DIFFERING = 6
MOST_ROWS = 1_000_000  # that anybody would label to decide
METHOD = {
    "micro": "d is right (1) or wrong (0) of a way less that of the general model, row by row; D and n are the sums of d and of rows over a "
    "listing, C the listings, N the rows. Interval: m +- 1.96 sqrt(V), with m = sum D / (N + 2) and "
    "V = (C / (C - 1) sum (D - n m)^2 + 1 + 2 m^2) / (N + 2)^2. It is the variance of Obuchowski (Statistics in Medicine 17, 1998, 1495) for "
    "correlated proportions of clustered data, with the two rows that Agresti and Min (Statistics in Medicine 24, 2005, 729) add, so that a few "
    "rows, or none, that differ make no narrow interval.",
    "macro": f"the 2.5 and 97.5 % quantiles of the difference over {N_DRAWS} draws of all listings with replacement (percentile bootstrap of "
    f"clusters; Davison and Hinkley, Bootstrap Methods and their Application, 1997, sections 3.8 and 5.3), macro over the categories of a draw; "
    f"draw b is that of NumPy's default generator seeded with ({SEED}, b). Where no listing differs it is 0 to 0, which proves nothing: see micro. "
    "Where most categories have one or two listings it is too narrow: without any difference, it left out 0 in 8 to 12 of 100 simulations.",
    "shown": f"the interval does not hold 0, and at least {MIN_DIFFERING} listings differ: with five, even all on one side happen by chance in 6 "
    "of 100 cases (2 / 2^5). Each interval stands for itself; of twenty, one misses.",
}


def micro_interval(differences: np.ndarray, listings: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference, see METHOD; from -1 to 1 where there is one listing.

    Args:
        differences: [n], each -1, 0 or 1.
        listings: int [n], from 0 on.
    """
    sums, sizes = np.bincount(listings, weights=differences), np.bincount(listings)
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    if len(sums) < 2:
        return -1.0, 1.0
    n = len(differences) + 2
    mean = sums.sum() / n
    squares = len(sums) / (len(sums) - 1) * ((sums - sizes * mean) ** 2).sum() + 1 + 2 * mean**2
    half = Z_95 * np.sqrt(squares) / n
    return float(max(-1, mean - half)), float(min(1, mean + half))


def macro_intervals(
    differences: dict[tuple, np.ndarray], groups: dict[tuple, np.ndarray], group_of: Callable[[tuple], tuple], listings: np.ndarray
) -> dict[tuple, tuple[float, float]]:
    """Return the 95 % interval of each macro difference, see METHOD; all from the same draws of listings.

    Args:
        differences: [n] each, -1, 0 or 1.
        groups: int [n] each, true categories; those of a difference are under the key that `group_of` gives.
        listings: int [n], from 0 on.
    """
    n_listings = int(listings.max()) + 1
    draws = {key: np.empty(N_DRAWS) for key in differences}
    differing = {key: np.flatnonzero(d) for key, d in differences.items()}
    for b in progress(range(N_DRAWS), "drawing listings", unit="draws"):
        drawn = np.random.default_rng((SEED, b)).integers(0, n_listings, n_listings)
        weights = np.bincount(drawn, minlength=n_listings)[listings].astype(float)
        counts = {key: np.bincount(truth, weights) for key, truth in groups.items()}
        for key, rows in differing.items():
            found, truth = counts[group_of(key)], groups[group_of(key)][rows]
            sums = np.bincount(truth, weights[rows] * differences[key][rows], minlength=len(found))
            draws[key][b] = (sums[found > 0] / found[found > 0]).mean()
    return {key: tuple(map(float, np.quantile(values, (0.025, 0.975)))) for key, values in draws.items()}


def macro_bound(differences: np.ndarray, truth: np.ndarray, listings: np.ndarray) -> float:
    """Return an upper bound of a macro difference that does not shrink to nothing where no row of a small category differs.

    The mean over categories of m, and 1.96 times the root of the sum of their V: as `micro_interval` has them of all rows, of each category's own.

    Args:
        differences: [n], each -1, 0 or 1.
        truth: int [n], true categories.
        listings: int [n], from 0 on.
    """
    pairs, own = np.unique(np.stack([truth, listings]), axis=1, return_inverse=True)
    own = own.ravel()
    sums, sizes = np.bincount(own, differences), np.bincount(own)
    counts = np.bincount(truth)
    means = np.bincount(truth, differences) / (counts + 2)
    squares = np.bincount(pairs[0], (sums - sizes * means[pairs[0]]) ** 2, len(counts))
    present = counts > 0
    variances = ((squares + 1 + 2 * means**2) / (counts + 2.0) ** 2)[present]
    return float(min(1, means[present].mean() + Z_95 * np.sqrt(variances.sum()) / present.sum()))


def count_differing(differences: np.ndarray, listings: np.ndarray) -> int:
    """Return the number of listings where one way is right more often than the other."""
    return int(np.count_nonzero(np.bincount(listings, weights=differences)))


def is_shown(interval: tuple[float, float], n_differing: int) -> bool:
    """Say whether a difference may be called one, see METHOD."""
    return n_differing >= MIN_DIFFERING and not interval[0] <= 0 <= interval[1]
