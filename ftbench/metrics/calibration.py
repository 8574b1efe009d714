"""Scores of probabilities: (probabilities (n, classes), targets (n,) class ids). Lower is better."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BINS = 15


def ece(probabilities: Array, targets: Array) -> float:
    """Expected calibration error of the predicted class, 0 to 1.

    sum over bins of (rows in the bin / n) * |accuracy - mean confidence|, with 15 equal bins of the confidence
    max_k p_k, closed on the left (Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599, who close them on the right).
    """
    p = np.asarray(probabilities, dtype=np.float64)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == np.asarray(targets)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(p))


def brier(probabilities: Array, targets: Array) -> float:
    """Mean over rows of sum_k (p_k - [k is the target])^2, 0 to 2 (Brier 1950); of two classes twice scikit-learn's."""
    p = np.asarray(probabilities, dtype=np.float64)
    wanted = np.eye(p.shape[1])[np.asarray(targets, dtype=int)]
    return float(np.square(p - wanted).sum(axis=1).mean())
