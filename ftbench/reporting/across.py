"""Many tasks at once: aggregates of (runs, tasks) matrices, and ranks. Higher is better throughout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ftbench.reporting.pairs import improvement

Array = np.ndarray[Any, np.dtype[np.float64]]


def iqm(scores: Array) -> float:
    """Interquartile mean of all scores (runs, tasks): int(n / 4) of the n numbers are cut at each end.

    Less moved by one odd task or run than the mean, less wasteful than the median (Agarwal et al. 2021, arXiv
    2108.13264; as in their package rliable, without fractional weights).
    """
    return float(iqm_of([np.asarray(scores, dtype=np.float64).ravel()]))


def stratified_interval(
    columns: Sequence[Array],
    statistic: Callable[[Sequence[Array]], Array],
    generator: np.random.Generator,
    *,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of ``statistic`` of the tasks' scores, runs resampled within each task (Agarwal et al. 2021).

    columns: for each task its scores (runs,), as many as it has; statistic: of those, each (resamples, runs), to
    (resamples,). The tasks are taken as they are: nothing is said about other tasks.
    """
    drawn = [column[generator.integers(0, len(column), (resamples, len(column)))] for column in columns]
    low, high = np.quantile(statistic(drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def iqm_of(columns: Sequence[Array]) -> Array:
    """``iqm`` over the last axis of tasks that may have unequal numbers of runs: (..., runs) each to (...).

    A task counts once, however many runs it has: a score weighs 1 / runs of its task. Cut at each end is the share of
    the weight that int(n / 4) of n scores are; a score on the border counts in part. With equal runs it is ``iqm``.
    """
    values = np.concatenate(columns, axis=-1)
    order = np.argsort(values, axis=-1, kind="stable")
    weights = np.concatenate([np.full(column.shape[-1], 1 / column.shape[-1]) for column in columns])[order]
    n, whole = values.shape[-1], len(columns)
    cut = whole * (n // 4) / n
    above = np.clip(np.cumsum(weights, axis=-1), cut, whole - cut)
    kept = np.diff(above, axis=-1, prepend=cut)
    return np.asarray((kept * np.take_along_axis(values, order, axis=-1)).sum(axis=-1) / (whole - 2 * cut))


def performance_profile(scores: Array, taus: Array) -> Array:
    """Share of all scores (runs, tasks) strictly above each of ``taus`` (k,): (k,). Dolan, More 2002."""
    values = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    return np.asarray(1 - np.searchsorted(values, taus, side="right") / len(values))


def profile_of(columns: Sequence[Array], taus: Array) -> Array:
    """``performance_profile`` of tasks that may have unequal numbers of runs, (runs,) each: every task counts once."""
    return np.asarray(np.mean([performance_profile(column, taus) for column in columns], axis=0))


def optimality_gap(scores: Array, gamma: float = 1.0) -> float:
    """gamma - mean(min(score, gamma)): how far from gamma, which nothing beats (Agarwal et al. 2021)."""
    return float(gamma - np.minimum(scores, gamma).mean())


def mean_improvement(a: Sequence[Array], b: Sequence[Array]) -> float:
    """Mean over tasks of ``improvement``: a's scores on each task against b's."""
    return float(np.mean([improvement(x.tolist(), y.tolist()) for x, y in zip(a, b, strict=True)]))


def ranks(scores: Array) -> Array:
    """Rank of each method on each task, 1 the best, ties sharing their mean rank. (tasks, methods) -> the same."""
    values = np.asarray(scores, dtype=np.float64)
    others, own = values[:, None, :], values[:, :, None]
    return np.asarray((others > own).sum(axis=2) + ((others == own).sum(axis=2) + 1) / 2)


class Ranking(NamedTuple):
    """Mean ranks (methods,), Friedman's test, and the difference of mean ranks that counts at the level."""

    mean_ranks: tuple[float, ...]
    statistic: float
    p: float
    critical_difference: float


def friedman(scores: Array, level: float = 0.05) -> Ranking:
    """Friedman's test on (tasks, methods) with the correction for ties, and Nemenyi's critical difference.

    With R_j the mean rank of k methods on n tasks, chi^2 = 12 n / (k (k + 1)) (sum R_j^2 - k (k + 1)^2 / 4) divided by
    1 - sum (t^3 - t) / (n k (k^2 - 1)) over ties t, k - 1 degrees of freedom (Friedman 1937). Critical difference =
    q_alpha / sqrt(2) sqrt(k (k + 1) / 6 n), q of the studentized range with infinite degrees of freedom (Demsar 2006).
    Two methods give a test that ignores the sizes of differences. Raises ValueError for k < 2.
    """
    from scipy.special import chdtrc

    placed = ranks(scores)
    n, k = placed.shape
    if k < 2:
        raise ValueError("ranks need at least two methods")
    means = placed.mean(axis=0)
    ties = sum(float((c**3 - c).sum()) for row in placed for c in [np.unique(row, return_counts=True)[1]])
    shrink = 1 - ties / (n * k * (k**2 - 1))
    raw = 12 * n / (k * (k + 1)) * float((means**2).sum() - k * (k + 1) ** 2 / 4)
    statistic = raw / shrink if shrink > 0 else 0.0
    q = _range_quantile(1 - level, k) / math.sqrt(2)
    return Ranking(
        tuple(float(m) for m in means), statistic, float(chdtrc(k - 1, statistic)), q * math.sqrt(k * (k + 1) / (6 * n))
    )


def _range_quantile(share: float, k: int) -> float:
    """Of the range of k independent standard normals: P(range < q) = k int phi(z) (Phi(z) - Phi(z - q))^(k - 1) dz."""
    from scipy.special import ndtr

    z = np.linspace(-8, 8 + 10, 6001)
    density, below = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), ndtr(z)
    low, high = 0.0, 10.0
    for _ in range(50):
        q = (low + high) / 2
        reached = k * float(np.trapezoid(density * (below - ndtr(z - q)) ** (k - 1), z)) >= share
        low, high = (low, q) if reached else (q, high)
    return (low + high) / 2
