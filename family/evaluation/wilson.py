"""The interval of a share of independent rows. No NumPy, which would be half of what `family pick` takes to start."""


def wilson(share: float, n: float, t: float) -> list[float]:
    """Return the interval of a share of n rows, t standard deviations to either side, in 0..1.

    *Source*: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    spread = t**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = (share * (1 - share) * spread + spread**2 / 4) ** 0.5 / (1 + spread)
    return [max(0.0, middle - half), min(1.0, middle + half)]
