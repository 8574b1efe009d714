"""Rows by class: which take part in a measure of classes, and their sums, read in chunks of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftbench.errors import UsageError

Array = np.ndarray[Any, np.dtype[Any]]
#: rows of a layer that are float64 at once
CHUNK = 4096
#: up to so many classes a dense product is faster than a sparse one
DENSE = 32


@dataclass(frozen=True)
class Classes:
    """The classes with at least two rows, numbered from 0.

    rows:    (n,) positions of their rows, ascending
    ids:     (n,) class number of each
    values:  (classes,) the label of each class
    counts:  (classes,) rows of each class
    dropped: labels of the classes with a single row, which has no spread
    """

    rows: Array
    ids: Array
    values: Array
    counts: Array
    dropped: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.values)

    def shares(self, weighting: str) -> Array:
        """(classes,) weight of each class in the scatter: equal (``class``), or by its rows (``sample``)."""
        if weighting == "class":
            return np.full(len(self), 1 / len(self))
        return np.asarray(self.counts / self.counts.sum())

    def chunks(self, hidden: Array, size: int = CHUNK) -> Iterator[tuple[slice, Array]]:
        """Positions in ``rows`` and these rows of a layer (examples, width), in float64, ``size`` at a time."""
        for start in range(0, len(self.rows), size):
            where = slice(start, min(start + size, len(self.rows)))
            yield where, hidden[self.rows[where]].astype(np.float64)


def classes_of(labels: Array) -> Classes:
    """The classes in ``labels`` (examples,). Raises UsageError for targets of a regression, and where fewer than two
    classes have two rows."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(
            "these labels are numbers, not classes: bin them (--bins 5), or use LogME, which takes numbers"
        )
    values, ids, counts = np.unique(labels, return_inverse=True, return_counts=True)
    kept = counts > 1
    if kept.sum() < 2:
        raise UsageError(
            f"{kept.sum()} classes have two examples or more: expected at least two, to compare spread and distance"
        )
    rows = np.flatnonzero(kept[ids])
    number = np.cumsum(kept) - 1
    return Classes(rows, number[ids[rows]], values[kept], counts[kept], tuple(int(v) for v in values[~kept]))


def bin_targets(targets: Array, bins: int) -> Array:
    """Numbers to ``bins`` classes of about equal size, by quantiles, (n,); fewer where many numbers are equal.

    An extension: the paper has no regression. Raises UsageError for fewer than two bins.
    """
    if bins < 2:
        raise UsageError(f"bins is {bins}: expected at least 2")
    edges = np.unique(np.quantile(targets, np.linspace(0, 1, bins + 1)[1:-1]))
    above = targets[targets > targets.min()]
    if len(above):  # the lowest number, where it is frequent, is a class of its own as the highest one is
        edges = np.unique(np.maximum(edges, above.min()))
    return np.unique(np.searchsorted(edges, targets, side="right"), return_inverse=True)[1]


def sums(ids: Array, weights: Array, x: Array, classes: int) -> Array:
    """Weighted sums of rows by class for several labellings at once: (draws, classes, width).

    ids, weights: (draws, n) class number and weight of each row; x: (n, width)
    """
    import scipy.sparse as sparse

    draws, n = ids.shape
    cells = (ids + classes * np.arange(draws)[:, None]).ravel()
    columns = np.tile(np.arange(n), draws)
    matrix = sparse.csr_array((weights.ravel(), (cells, columns)), shape=(draws * classes, n))
    product = matrix.toarray() @ x if classes <= DENSE else matrix @ x
    return np.asarray(product).reshape(draws, classes, x.shape[1])


def check_finite(hidden: Array) -> None:
    """Raises UsageError naming layer (from 1) and example (from 0) of the first state that is no finite number.

    hidden: (layers, examples, width)
    """
    for number, layer in enumerate(hidden, start=1):
        for start in range(0, len(layer), CHUNK):
            good = np.isfinite(layer[start : start + CHUNK]).all(axis=1)
            if not good.all():
                example = start + int(np.argmin(good))
                raise UsageError(
                    f"layer {number}, example {example}: the state is not finite (NaN or infinite). "
                    "Is the checkpoint damaged, or its precision too low (try fp32)?"
                )
