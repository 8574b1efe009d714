"""Scores of numeric predictions: (predictions (n,), targets (n,)), both floats in the units of the targets."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def pearson(predictions: Array, targets: Array) -> float:
    """cov(p, t) / (std(p) std(t)), -1 to 1; 0 when either is constant. STS-B's first metric (Wang et al., 2018)."""
    if _constant(predictions) or _constant(targets):
        return 0.0
    from scipy.stats import pearsonr

    return float(pearsonr(predictions, targets).statistic)


def spearman(predictions: Array, targets: Array) -> float:
    """Pearson's correlation of the ranks, ties sharing their mean rank; -1 to 1, 0 when either is constant."""
    if _constant(predictions) or _constant(targets):
        return 0.0
    from scipy.stats import spearmanr

    return float(spearmanr(predictions, targets).statistic)


def mse(predictions: Array, targets: Array) -> float:
    """mean((p - t)^2), 0 upwards, in squared units of the targets. Lower is better."""
    difference = np.asarray(predictions, dtype=np.float64) - np.asarray(targets, dtype=np.float64)
    return float(np.mean(difference**2))


def _constant(values: Array) -> bool:
    """Also for fewer than two rows, where no correlation is defined."""
    return len(np.unique(values)) < 2
