"""Metrics on resampled test examples, for many runs at once.

A resample is a row of weights: how often each example was drawn. One resample serves all runs of a task, because they
were scored on the same examples. Every metric here equals ``ftbench.metrics`` where each example has weight 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ftbench.metrics import ROUGE

Array = np.ndarray[Any, np.dtype[Any]]
#: (weights (B, examples), predictions (runs, examples), labels (examples,)) -> (runs, B)
Weighted = Callable[[Array, Array, Array], Array]

RESAMPLES = 1000
AT_ONCE = 4_000_000  # numbers held at once


def resampled(
    metric: str, predictions: Array, labels: Array, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Array:
    """``metric`` of each run on ``resamples`` bootstrap samples of the examples, the same ones for all: (runs, B).

    predictions: (runs, examples); labels: (examples,). Raises KeyError for a metric that is not in ``WEIGHTED``.
    """
    return weighted(metric, predictions, labels, draws(len(labels), generator, resamples))


def weighted(metric: str, predictions: Array, labels: Array, weights: Iterable[Array]) -> Array:
    """``metric`` of each run under pieces of weights, each (B, examples), one after the other: (runs, sum of B)."""
    compute = WEIGHTED[metric]
    return np.concatenate([compute(piece, predictions, labels) for piece in weights], axis=1)


def draws(n: int, generator: np.random.Generator, resamples: int = RESAMPLES) -> Iterator[Array]:
    """How often each of ``n`` examples was drawn in ``resamples`` bootstrap samples: pieces of (B, n)."""
    step = max(1, AT_ONCE // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(0, n, (size, n))
        flat = (drawn + n * np.arange(size)[:, None]).ravel()
        yield np.bincount(flat, minlength=size * n).reshape(size, n).astype(np.float64)


def _accuracy(weights: Array, predictions: Array, labels: Array) -> Array:
    right = (predictions == labels).astype(np.float64)
    return np.asarray(right @ weights.T / weights.sum(axis=1))


def _counts(weights: Array, predictions: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Right, predicted and true rows of each class: (runs, B, classes), (runs, B, classes), (B, classes)."""
    classes = np.union1d(labels, predictions)
    true = np.stack([weights @ (labels == c) for c in classes], axis=-1)
    said = np.stack([(predictions == c).astype(np.float64) @ weights.T for c in classes], axis=-1)
    right = np.stack([((predictions == c) & (labels == c)).astype(np.float64) @ weights.T for c in classes], axis=-1)
    return right, said, true


def _balanced_accuracy(weights: Array, predictions: Array, labels: Array) -> Array:
    right, _, true = _counts(weights, predictions, labels)
    here = true > 0
    recall = np.divide(right, true, out=np.zeros_like(right), where=here)
    return np.asarray(recall.sum(axis=-1) / here.sum(axis=-1))


def _f1(weights: Array, predictions: Array, labels: Array) -> Array:
    """Of class 1."""
    said, true = (predictions == 1).astype(np.float64), (labels == 1).astype(np.float64)
    return _ratio(2 * ((said * true) @ weights.T), said @ weights.T + weights @ true)


def _macro_f1(weights: Array, predictions: Array, labels: Array) -> Array:
    right, said, true = _counts(weights, predictions, labels)
    here = (said + true) > 0
    return np.asarray(_ratio(2 * right, said + true).sum(axis=-1) / here.sum(axis=-1))


def _matthews(weights: Array, predictions: Array, labels: Array) -> Array:
    """R_K of Gorodkin (2004) from the counts: (c s - sum p_k t_k) / sqrt((s^2 - sum p_k^2) (s^2 - sum t_k^2))."""
    right, said, true = _counts(weights, predictions, labels)
    total = weights.sum(axis=1)
    above = right.sum(axis=-1) * total - (said * true).sum(axis=-1)
    below = (total**2 - (said**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
    return _ratio(above, np.sqrt(np.maximum(below, 0)))


def _mse(weights: Array, predictions: Array, labels: Array) -> Array:
    return np.asarray(((predictions - labels) ** 2) @ weights.T / weights.sum(axis=1))


def _mean_of_rows(weights: Array, predictions: Array, labels: Array) -> Array:
    """Of metrics that are means over examples; predictions: what each example scored."""
    return np.asarray(predictions @ weights.T / weights.sum(axis=1))


def _pearson(weights: Array, predictions: Array, labels: Array) -> Array:
    total = weights.sum(axis=1)
    x, y = predictions - predictions.mean(axis=1, keepdims=True), labels - labels.mean()
    mean_x, mean_y = x @ weights.T / total, weights @ y / total
    covariance = (x * y) @ weights.T / total - mean_x * mean_y
    spread = ((x**2) @ weights.T / total - mean_x**2) * (weights @ y**2 / total - mean_y**2)
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0)))


def _spearman(weights: Array, predictions: Array, labels: Array) -> Array:
    """Pearson's correlation of the ranks within each resample, ties sharing their mean rank."""
    ranks = [_weighted_ranks(weights, run) for run in predictions]
    of_labels = _weighted_ranks(weights, labels)
    return np.stack([_weighted_correlation(weights, of_run, of_labels) for of_run in ranks])


def _weighted_ranks(weights: Array, values: Array) -> Array:
    """(B, n): mean rank of each value in a sample where it stands as often as its weight."""
    unique, places = np.unique(values, return_inverse=True)
    per_value = np.zeros((len(weights), len(unique)))
    np.add.at(per_value.T, places, weights.T)
    below = np.cumsum(per_value, axis=1) - per_value
    return np.asarray((below + (per_value + 1) / 2)[:, places])


def _weighted_correlation(weights: Array, x: Array, y: Array) -> Array:
    """Of (B, n) and (B, n), row by row: (B,)."""
    total = weights.sum(axis=1)
    x = x - ((weights * x).sum(axis=1) / total)[:, None]
    y = y - ((weights * y).sum(axis=1) / total)[:, None]
    spread = (weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1)
    return _ratio((weights * x * y).sum(axis=1), np.sqrt(spread))


def _ratio(above: Array, below: Array) -> Array:
    """0 where there is nothing to divide by, as the metrics say for constant predictions."""
    above, below = np.broadcast_arrays(above, below)
    return np.asarray(np.divide(above, below, out=np.zeros(above.shape), where=below > 1e-12))


WEIGHTED: dict[str, Weighted] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "mse": _mse,
    "pearson": _pearson,
    "spearman": _spearman,
    **dict.fromkeys(ROUGE, _mean_of_rows),
}
