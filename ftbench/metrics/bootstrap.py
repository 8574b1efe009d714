"""How far a mean over examples would move with other examples: percentile intervals, seeded."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
RESAMPLES = 1000
#: resamples that are drawn at a time, so that memory stays with the rows
_AT_ONCE = 16


def mean_intervals(
    scores: Array, *, seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95
) -> tuple[Array, Array]:
    """Low and high ends, (m,) each, for the means of the columns of ``scores`` (n, m).

    Rows are drawn with replacement, n of n, the same for every column; the ends are the quantiles of the resampled
    means (Efron 1979), what ROUGE-1.5.5 and rouge_score print. They speak of other examples from the same source, not
    of other seeds. One row gives an interval of no width. Raises ValueError for no rows.
    """
    n, m = scores.shape
    if not n:
        raise ValueError("no rows to resample")
    generator = np.random.Generator(np.random.PCG64([seed, n]))
    means = np.empty((resamples, m))
    for start in range(0, resamples, _AT_ONCE):
        size = min(_AT_ONCE, resamples - start)
        means[start : start + size] = scores[generator.integers(0, n, (size, n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
