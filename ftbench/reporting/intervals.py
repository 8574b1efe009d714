"""Intervals of one number: Student's, BCa, Wilson's. What an arm's scores say about further seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ftbench.reporting.stats import t_interval

Array = np.ndarray[Any, np.dtype[np.float64]]

#: from so many scores on the bootstrap follows a skewed distribution better than Student's t does
FEWEST_BCA = 20
RESAMPLES = 2000


class Interval(NamedTuple):
    """A 95 % interval (unless said otherwise) and how it was made."""

    low: float
    high: float
    kind: str


def mean_interval(scores: Sequence[float], generator: np.random.Generator, level: float = 0.95) -> Interval | None:
    """Of the mean of ``scores`` (n,): Student's t below 20 scores, BCa from 20 on; None for fewer than two.

    Scores that are all equal give an interval of no width.
    """
    low_high = t_interval(scores, level)
    if low_high is None:
        return None
    if len(scores) < FEWEST_BCA:
        return Interval(*low_high, "t")
    return bca_mean(scores, generator, level=level)


def bca_mean(
    scores: Sequence[float], generator: np.random.Generator, *, resamples: int = RESAMPLES, level: float = 0.95
) -> Interval:
    """BCa interval of the mean of ``scores`` (n,), n >= 2; see ``bca``. Without spread it has no width."""
    values = np.asarray(scores, dtype=np.float64)
    n = len(values)
    if np.ptp(values) == 0:
        return Interval(float(values[0]), float(values[0]), "BCa")
    drawn = values[generator.integers(0, n, (resamples, n))].mean(axis=1)
    left_out = (values.sum() - values) / (n - 1)
    return Interval(*bca(float(values.mean()), drawn, left_out, level), "BCa")


def bca(estimate: float, drawn: Array, left_out: Array, level: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987; Efron and Tibshirani 1993, chapter 14).

    drawn: (B,) statistics of resamples; left_out: (n,) statistics without one value each.
    z0 = Phi^-1(share of drawn below the estimate, ties half); a = sum u^3 / (6 (sum u^2)^1.5) with u the mean of
    left_out less left_out; ends are the quantiles Phi(z0 + (z0 + z) / (1 - a (z0 + z))) of drawn, z = Phi^-1 of the
    two tails. Raises ValueError where no resample differs from the estimate on one side: the interval has no end.
    """
    from scipy.special import ndtr, ndtri

    share = float(np.mean(drawn < estimate) + np.mean(drawn == estimate) / 2)
    if not 0 < share < 1:
        raise ValueError("every resample is on one side of the estimate: no BCa interval")
    centred = left_out.mean() - left_out
    spread = float(np.sum(centred**2)) ** 1.5
    z0, a = float(ndtri(share)), float(np.sum(centred**3)) / (6 * spread) if spread else 0.0
    z = z0 + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(drawn, ndtr(z0 + z / (1 - a * z)))
    return float(low), float(high)


def wilson(bad: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a rate from ``bad`` of ``n`` (Wilson 1927, "Probable inference, the law of succession").

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). Keeps its level where p is 0 or 1, for
    which p -+ 2 se has no width. Raises ValueError for n < 1 or bad outside 0 .. n.
    """
    from scipy.special import ndtri

    if n < 1 or not 0 <= bad <= n:
        raise ValueError(f"{bad} of {n} is no rate")
    p, z = bad / n, float(ndtri(0.5 + level / 2))
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def percentile_interval(drawn: Array, level: float = 0.95) -> tuple[float, float]:
    """The middle ``level`` of resampled statistics (B,): the simple bootstrap interval."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def quartiles(scores: Sequence[float]) -> tuple[float, float]:
    """First and third quartile of (n,), by linear interpolation."""
    low, high = np.quantile(np.asarray(scores, dtype=np.float64), [0.25, 0.75])
    return float(low), float(high)
