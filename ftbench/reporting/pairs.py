"""Two methods, run by run: tests, how sure they can get, and what they could have seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

#: up to so many pairs every sign pattern is counted, 2^16 of them
EXACT_PAIRS = 16
FLIPS = 20_000
#: fewest scores a side for which stochastic order means anything
FEWEST_ASO = 5


def paired_t(differences: Sequence[float]) -> float | None:
    """Two-sided p of Student's paired test that the mean of (n,) differences is 0; None for n < 2.

    t = mean / (sd / sqrt(n)), n - 1 degrees of freedom (Student 1908). Without spread there is no t: p is 1 at a mean
    of 0, else the smallest that the sign-flip test can give.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n < 2:
        return None
    from scipy.special import stdtr

    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if sd <= 1e-12 * max(1.0, abs(mean)):
        return 1.0 if abs(mean) <= 1e-12 else smallest_p(n)
    return float(2 * stdtr(n - 1, -abs(mean) / (sd / math.sqrt(n))))


def sign_flip(differences: Sequence[float], generator: np.random.Generator) -> float | None:
    """Two-sided p of the sign-flip test of (n,) differences; None for n = 0 (Fisher 1935, "The Design of Experiments").

    The share of sign patterns whose |sum| is at least the observed one; with every pattern counted up to 16 pairs
    (exact), and (1 + hits) / (1 + 20,000) from random ones beyond. Assumes only that a difference is as likely as
    its negative where methods do not differ.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n == 0:
        return None
    seen = abs(values.sum()) - 1e-12 * max(1.0, float(np.abs(values).sum()))
    if n <= EXACT_PAIRS:
        # the first sign is fixed: a pattern and its opposite have one |sum|
        rest = np.array(list(product((1.0, -1.0), repeat=n - 1))).reshape(2 ** (n - 1), n - 1)
        return float(np.mean(np.abs(values[0] + rest @ values[1:]) >= seen))
    signs = generator.integers(0, 2, (FLIPS, n)) * 2.0 - 1.0
    return float((1 + np.count_nonzero(np.abs(signs @ values) >= seen)) / (1 + FLIPS))


def smallest_p(n: int) -> float:
    """The smallest p that a two-sided sign-flip test of ``n`` pairs can give: 2 / 2^n, at most 1."""
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_PAIRS else 1 / (1 + FLIPS)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p of a family (m,): at level alpha, at most a share alpha of families has a false rejection.

    Sorted, p_(i) becomes max over j <= i of min(1, (m - j + 1) p_(j)) (Holm 1979).
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, values[order] * np.arange(len(values), 0, -1)))
    return [float(value) for value in adjusted]


def correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Pearson's r of paired scores (n,), (n,); None below three pairs or without spread.

    It says what pairing by seed buys: var(a - b) = var a + var b - 2 r sd a sd b.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def detectable(se: float, df: float, *, power: float = 0.8, level: float = 0.05) -> float:
    """The true difference that a two-sided t test with this standard error finds with probability ``power``.

    d = nc se, where P(T'(df, nc) > t(1 - level / 2; df)) = power for the noncentral t (Cohen 1988, chapter 2). In the
    units of ``se``. The standard error is taken as known, as it is when planning.
    """
    from scipy.special import nctdtrinc, ndtri, stdtrit

    if df > 1e5:
        return se * float(ndtri(1 - level / 2) + ndtri(power))
    return se * float(nctdtrinc(df, 1 - power, stdtrit(df, 1 - level / 2)))


def improvement(a: Sequence[float], b: Sequence[float]) -> float:
    """P(a > b) + P(a = b) / 2 over all pairs of scores (n,), (m,): the chance that a run of a beats one of b.

    Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice"
    (arXiv 2108.13264); Mann and Whitney's U over n m.
    """
    x, y = np.asarray(a, dtype=np.float64)[:, None], np.asarray(b, dtype=np.float64)[None, :]
    return float(np.mean((x > y) + 0.5 * (x == y)))


def improvement_interval(
    a: Sequence[float], b: Sequence[float], generator: np.random.Generator, resamples: int = 1000
) -> tuple[float, float] | None:
    """95 % percentile interval of ``improvement``, runs of both sides resampled; None below two runs a side."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if min(len(x), len(y)) < 2:
        return None
    drawn_x = x[generator.integers(0, len(x), (resamples, len(x)))]
    drawn_y = y[generator.integers(0, len(y), (resamples, len(y)))]
    wins = (drawn_x[:, :, None] > drawn_y[:, None, :]) + 0.5 * (drawn_x[:, :, None] == drawn_y[:, None, :])
    low, high = np.quantile(wins.mean(axis=(1, 2)), [0.025, 0.975])
    return float(low), float(high)


class Order(NamedTuple):
    """``violation``: how far a is from stochastic dominance over b, 0 to 1; ``eps``: its upper bound."""

    violation: float
    eps: float


def almost_stochastic_order(
    a: Sequence[float],
    b: Sequence[float],
    generator: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    dt: float = 0.005,
) -> Order | None:
    """Almost stochastic order of scores (n,) over (m,); None below five scores a side.

    violation = int_{Fa^-1 < Fb^-1} (Fa^-1 - Fb^-1)^2 / int (Fa^-1 - Fb^-1)^2 over t, on the grid dt, 2 dt, ... with
    the quantile sorted[ceil(n t) - 1]; eps = violation - sigma sqrt((n + m) / n m) Phi^-1(1 - level), where sigma is
    the bootstrap's sd of sqrt(nm / (n + m)) (violation* - violation); clipped to 0 .. 1. Below 0.5 a is the better one
    (del Barrio, Cuesta-Albertos, Matran 2018; Dror, Shlomov, Reichart 2019). As in the package deepsig 1.2.8 the first
    grid point counts below the bar only. Equal samples have violation 1.
    """
    x, y = np.sort(np.asarray(a, dtype=np.float64)), np.sort(np.asarray(b, dtype=np.float64))
    n, m = len(x), len(y)
    if min(n, m) < FEWEST_ASO:
        return None
    from scipy.special import ndtri

    seen = float(_violation(x[None], y[None], dt)[0])
    drawn = _violation(
        np.sort(x[generator.integers(0, n, (resamples, n))], axis=1),
        np.sort(y[generator.integers(0, m, (resamples, m))], axis=1),
        dt,
    )
    scale = math.sqrt(n * m / (n + m))
    sigma = float(np.std(scale * (drawn - seen)))
    eps = min(1.0, max(0.0, seen - sigma / scale * float(ndtri(1 - level))))
    return Order(seen, eps)


def _violation(x: Array, y: Array, dt: float) -> Array:
    """Of sorted samples (r, n) and (r, m): (r,)."""
    grid = np.arange(dt, 1, dt)
    places = [np.ceil(s.shape[1] * grid - 1e-9).astype(int) - 1 for s in (x, y)]
    gap = y[:, places[1]] - x[:, places[0]]
    squared = gap**2
    above = np.where(gap > 0, squared, 0.0)[:, 1:].sum(axis=1)
    whole = squared.sum(axis=1)
    return np.asarray(np.divide(above, whole, out=np.ones_like(whole), where=whole > 0))
