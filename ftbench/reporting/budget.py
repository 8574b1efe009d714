"""What a score costs: the best of several tries, and who is beaten in score and cost alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def expected_best(scores: Sequence[float], most: int | None = None) -> Array:
    """Expected best of k = 1 .. n tries out of (n,) scores, higher is better: (n,), or the first ``most``.

    sum_i C(i - 1, k - 1) / C(n, k) x_(i) over the sorted scores: the mean of the maximum over all subsets of k, so
    unbiased (Tang et al. 2020, "Showing your work doesn't always work", arXiv 2004.13705). At k = n it is the best
    score seen, which has no spread left to judge it by.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(values)
    place = np.arange(1, n + 1)
    weights = np.full(n, 1 / n)
    out = []
    for k in range(1, min(n, most or n) + 1):
        out.append(float(weights @ values))
        if k < n:
            weights = weights * np.maximum(place - k, 0) / k * (k + 1) / (n - k)
    return np.array(out)


def expected_best_plugin(scores: Sequence[float]) -> Array:
    """Expected best of k draws with replacement from (n,) scores: (n,), biased downwards.

    sum_i ((i / n)^k - ((i - 1) / n)^k) x_(i) (Dodge et al. 2019, "Show your work", arXiv 1909.03004); for comparison
    with papers that use it.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(values)
    steps = np.arange(n + 1) / n
    return np.array([float(np.diff(steps**k) @ values) for k in range(1, n + 1)])


def pareto(costs: Sequence[float], scores: Sequence[float]) -> list[bool]:
    """Which of (n,) points nobody beats: no other is at least as cheap and as good, and better in one of the two."""
    points = list(zip(costs, scores, strict=True))
    return [
        not any(
            other_cost <= cost and other >= score and (other_cost < cost or other > score)
            for other_cost, other in points
        )
        for cost, score in points
    ]
