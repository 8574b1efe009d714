"""Whether seeds of one arm say the same of the same examples: two may have one score and differ on every third row."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def disagreement(predictions: Array) -> float:
    """Mean over pairs of runs of the share of examples predicted differently. (runs, examples) class ids, runs >= 2.

    Churn: Fard et al. 2016; of fine-tuning, Du and Nguyen 2023, "Measuring the instability of fine-tuning" (arXiv
    2302.07778). From the counts n_c of each class: 1 - sum_c n_c (n_c - 1) / (m (m - 1)), averaged over examples.
    """
    return 1.0 - float(_agreement(predictions).mean())


def fleiss_kappa(predictions: Array) -> float | None:
    """Agreement of runs beyond chance, (P - P_e) / (1 - P_e), P_e = sum of squared class shares (Fleiss 1971).

    predictions: (runs, examples) class ids, runs >= 2. None where all runs give one class to everything: 0 / 0.
    """
    counts = _counts(predictions)
    shares = counts.sum(axis=0) / counts.sum()
    by_chance = float((shares**2).sum())
    if by_chance >= 1 - 1e-12:
        return None
    return (float(_agreement(predictions).mean()) - by_chance) / (1 - by_chance)


def mean_jsd(probabilities: Array) -> float:
    """Mean over examples and pairs of runs of the Jensen-Shannon divergence, in bits, 0 to 1 (Lin 1991).

    probabilities: (runs, examples, classes), runs >= 2. JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    runs = len(p)
    single = _entropy(p).mean(axis=1)
    total = sum(
        float(_entropy((p[i] + p[j]) / 2).mean() - (single[i] + single[j]) / 2)
        for i in range(runs)
        for j in range(i + 1, runs)
    )
    return max(0.0, total / (runs * (runs - 1) / 2))


def _counts(predictions: Array) -> Array:
    """(examples, classes): how many runs gave the class."""
    return np.stack([(predictions == c).sum(axis=0) for c in np.unique(predictions)], axis=-1)


def _agreement(predictions: Array) -> Array:
    """(examples,): share of pairs of runs that agree."""
    counts, runs = _counts(predictions), len(predictions)
    return np.asarray((counts * (counts - 1)).sum(axis=-1) / (runs * (runs - 1)))


def _entropy(p: Array) -> Array:
    return np.asarray(-(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(axis=-1))
