"""95 % intervals of figures over rows whose listings, not whose images, are independent. All are formulas: nothing is drawn.

A figure is a ratio R = sum S / sum N, where S and N are the sums over a listing. Its variance, robust to whatever ties the images of a
listing together, is V = C / (C - 1) sum (S - R N)^2 / (sum N)^2 over the C listings.
*Source*: Cochran, Sampling Techniques (3rd edition, 1977), section 11.4 (ratios of cluster totals); the same is the sandwich estimator of
Liang and Zeger (Biometrika 73, 1986, 13) for a mean.

A share's interval is Wilson's (Journal of the American Statistical Association 22, 1927, 209) for as many independent rows as have the
variance V: n' = R (1 - R) / V, which keeps it within 0..1 and of use close to its ends. *Source* of the effective size: Korn and Graubard
(Survey Methodology 24, 1998, 193). Student's t takes the place of the normal quantile.
"""

import numpy as np

from family.evaluation.wilson import wilson

Z_95 = 1.959964
# Of a listing, added to what varies in a macro share, because few errors in small categories show too little of it; see `macro_interval`.
_UNSEEN = 0.1


def sum_by_listing(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return float64 [n_listings], each listing's sum of values [n]; `starts` is the first row of each listing."""
    return np.add.reduceat(values, starts, dtype=np.float64)


def t_975(df: float) -> float:
    """Return Student's t quantile for two-sided 95 %: exact for 1 and 2 degrees of freedom, within 0.3 % from 3 on.

    Degrees between are rounded down to 1 or 2, and none counts as 1.

    *Source*: the expansion of Cornish and Fisher, Abramowitz and Stegun 26.7.5.
    """
    if df < 3:
        return 12.7062 if df < 2 else 4.3027
    z = Z_95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / df ** (k + 1) for k, term in enumerate(terms))


def share_interval(sums: np.ndarray, sizes: np.ndarray) -> list[float]:
    """Return the interval of sum(sums) / sum(sizes), a share; from 0 to 1 where there is one listing, or none.

    Where all rows are right or all wrong, n' is what it would be if a listing's rows were all alike: (sum N)^2 / sum N^2.

    Args:
        sums, sizes: float [n_listings], what is right in a listing, and out of how much.
    """
    counted = sizes > 0
    sums, sizes = sums[counted].astype(np.float64), sizes[counted].astype(np.float64)
    n_listings, n = len(sums), sizes.sum()
    if n_listings < 2:
        return [0.0, 1.0]
    share = sums.sum() / n
    variance = _ratio_variance(sums, sizes)
    alike = n**2 / (sizes**2).sum()
    effective = min(n, share * (1 - share) / variance) if variance > 0 and 0 < share < 1 else alike
    return wilson(float(share), float(effective), t_975(n_listings - 1))


def ratio_interval(sums: np.ndarray, sizes: np.ndarray) -> list[float]:
    """Return the interval of sum(sums) / sum(sizes), which is 0 or more; None for both ends where it has less than two listings."""
    counted = sizes > 0
    sums, sizes = sums[counted].astype(np.float64), sizes[counted].astype(np.float64)
    if len(sums) < 2:
        return [None, None]
    ratio, half = sums.sum() / sizes.sum(), t_975(len(sums) - 1) * _ratio_variance(sums, sizes) ** 0.5
    return [float(max(0.0, ratio - half)), float(ratio + half)]


def _ratio_variance(sums: np.ndarray, sizes: np.ndarray) -> float:
    n_listings, ratio = len(sums), sums.sum() / sizes.sum()
    return float(n_listings / (n_listings - 1) * ((sums - ratio * sizes) ** 2).sum() / sizes.sum() ** 2)


def macro_interval(sums: np.ndarray, sizes: np.ndarray, groups: np.ndarray) -> list[float]:
    """Return the interval of the mean, over the groups that are present, of each group's share.

    The variance of the groups' means gets 0.1 / n'^2 more, with n' = the listings that groups of equal weight are worth: simulated intervals
    over 10 to 100 groups whose sizes are as 1 / rank, with 60 to 97 % right, hold the truth in 93 to 98 of 100 cases, without it in 88 to 97
    (fewest where most groups have one or two listings, nearly all rows are right and images of a listing are much alike).

    Args:
        sums, sizes: float [n_listings], what is right in a listing, and out of how much.
        groups: int [n_listings], the true category of each listing.
    """
    means, variance, alike, df = _by_group(sums, sizes, groups)
    macro = float(means.mean())
    effective = macro * (1 - macro) / (variance + _UNSEEN / alike**2) if 0 < macro < 1 else alike
    return wilson(macro, float(effective), t_975(df)) if len(sums) > 1 else [0.0, 1.0]


def macro_difference(sums: np.ndarray, sizes: np.ndarray, groups: np.ndarray) -> list[float]:
    """Return the interval of the macro difference of two ways to answer the same rows.

    It is m +- t sqrt(V'), with V' = (V n'^2 + 1 + 2 m^2) / (n' + 2)^2 and n' = the listings that groups of equal weight are worth. That adds
    what the two rows of Agresti and Min (Statistics in Medicine 24, 2005, 729) add to a micro difference, so that a few listings, or none,
    that differ make no narrow interval.

    Args:
        sums: float [n_listings], rows right of the one way less rows right of the other.
    """
    means, variance, alike, df = _by_group(sums, sizes, groups)
    middle = float(means.mean()) * alike / (alike + 2)
    half = t_975(df) * ((variance * alike**2 + 1 + 2 * middle**2) ** 0.5) / (alike + 2)
    return [max(-1.0, middle - half), min(1.0, middle + half)] if len(sums) > 1 else [-1.0, 1.0]


def _by_group(sums: np.ndarray, sizes: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Return each present group's mean, the variance of their mean, the size n' without a variance, and degrees of freedom.

    Groups are strata: a listing is of one group. Of m listings in a group, its mean has the variance
    V = m / (m - 1) sum (S - R N)^2 / (sum N)^2; of groups with one listing, the spread of their means stands for it (collapsed strata:
    Cochran 1977, section 5A.12), which is too large where they differ in truth, not too small. Degrees of freedom are Satterthwaite's.
    """
    n_listings = np.bincount(groups)
    present = n_listings > 0
    n_rows = np.bincount(groups, weights=sizes)
    means = np.bincount(groups, weights=sums)[present] / n_rows[present]
    m, place = n_listings[present].astype(np.float64), (np.cumsum(present) - 1)[groups]
    squares = np.bincount(place, weights=(sums - means[place] * sizes) ** 2)
    several = m > 1
    variances = m[several] / (m[several] - 1) * squares[several] / n_rows[present][several] ** 2
    degrees = m[several] - 1
    single = means[~several]
    if len(single):  # one such group alone has nothing to be compared with: the largest variance that a share can have
        variances = np.append(variances, len(single) * single.var(ddof=1) if len(single) > 1 else 0.25)
        degrees = np.append(degrees, max(1, len(single) - 1))
    k = len(means)
    total = float(variances.sum())
    df = total**2 / float((variances**2 / degrees).sum()) if total > 0 else float(degrees.sum())
    return means, total / k**2, k**2 / float((1 / m).sum()), df
