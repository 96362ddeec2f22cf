"""Statistics of right and wrong answers: intervals of proportions, and whether two models differ."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Confidence interval of a proportion (Wilson, JASA 22, 1927), also good near 0 and 1.

    Args:
        successes: From 0 to ``trials``.
        trials: At least 1.
        z: Normal quantile; the default gives 95 %.

    Raises:
        ValueError: The counts make no proportion.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is no proportion")
    share = successes / trials
    spread = z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return low, high


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided exact p-value that two classifiers are equally good (McNemar, Psychometrika 12, 1947).

    Only pictures on which one is right and the other wrong count; if both are equally good each of
    these falls either way with probability one half, so the smaller count is binomial.

    Args:
        lost: Pictures that only the first gets right.
        gained: Pictures that only the second gets right.
    """
    trials, fewer = lost + gained, min(lost, gained)
    term = tail = 1
    for k in range(fewer):
        term = term * (trials - k) // (k + 1)
        tail += term
    return 1.0 if 2 * tail >= 1 << trials else 2 * tail / (1 << trials)


def paired_drop(lost: int, gained: int, trials: int, z: float = Z95) -> tuple[float, float, float]:
    """How much lower the second proportion is than the first, measured on the same pictures.

    The interval is Agresti and Min's (Statistics in Medicine 24, 2005): Wald's with half a picture added
    to each of the four cells.

    Args:
        lost: Pictures that only the first gets right.
        gained: Pictures that only the second gets right.
        trials: All pictures, at least 1.
        z: Normal quantile; the default gives 95 %.

    Returns:
        The drop and its lower and upper bound, as fractions.
    """
    if trials < max(1, lost + gained):
        raise ValueError(f"{lost} and {gained} of {trials} pictures cannot be")
    first, second, total = lost + 0.5, gained + 0.5, trials + 2
    middle = (first - second) / total
    half = z * math.sqrt(first + second - (first - second) ** 2 / total) / total
    return (lost - gained) / trials, max(-1.0, middle - half), min(1.0, middle + half)
