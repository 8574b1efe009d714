"""One layer's features, and the sums that several metrics of it share, each computed at most once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ftbench.analysis.pairs import Pairs, pairs
from ftbench.errors import UsageError

Array = np.ndarray[Any, Any]
#: rows turned into float64 at a time
ROWS = 4096
#: a variance or squared distance below this share of the mean squared norm counts as 0: one text's vectors from batches
#: of different lengths differ by up to 1e-6 of their length in float32 (9e-7 over the six blocks of MiniLM)
ROUNDING = 1e-11
#: what compares every pair of examples takes at most so many, the same row numbers everywhere
MOST_PAIRED = 10_000


@dataclass(frozen=True, eq=False)
class Layer:
    """x (n, width), possibly float32 on disk: it is read ``ROWS`` rows at a time and summed in float64.

    labels:    (n,) class numbers, where there are classes
    reference: the same examples at the same layer of the network compared with
    name:      for messages

    Raises UsageError where x is no matrix or has an example that is not finite (numbered from 0).
    """

    x: Array
    labels: Array | None = None
    reference: Layer | None = None
    name: str = "features"

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or 0 in self.x.shape:
            raise UsageError(f"{self.name}: expected (examples, width), got the shape {self.x.shape}")
        for cut in cuts(self.n):
            bad = np.flatnonzero(~np.isfinite(self.x[cut]).all(axis=1))
            if len(bad):
                raise UsageError(f"{self.name}: example {cut.start + bad[0]} (from 0) has values that are not finite")
        for what in (self.labels, self.reference.x if self.reference else None):
            if what is not None and len(what) != self.n:
                raise UsageError(f"{self.name}: {self.n} examples, but {len(what)} labels or reference examples")

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def width(self) -> int:
        return int(self.x.shape[1])

    @cached_property
    def mean(self) -> Array:
        """(width,)"""
        return sum_rows(self.x) / self.n

    @cached_property
    def rounding(self) -> float:
        """What counts as 0 in a variance or a squared distance of these features."""
        return ROUNDING * sum(float(np.square(block).sum()) for block in blocks(self.x)) / self.n

    @cached_property
    def squares(self) -> Array:
        """Centred X^T X (width, width), or X X^T (n, n) where that is smaller: their eigenvalues are the same."""
        return squares(self.x, self.mean)

    @cached_property
    def row_squares(self) -> Array:
        """(n,) squared distances from the mean."""
        return np.concatenate([np.square(block - self.mean).sum(axis=1) for block in blocks(self.x)])

    @cached_property
    def eigenvalues(self) -> Array:
        """(min(n, width),) of the covariance X^T X / n of the centred features, largest first."""
        return self._spectrum(self.squares)

    @cached_property
    def uncentred_eigenvalues(self) -> Array:
        """(min(n, width),) of X^T X / n with the mean left in, largest first."""
        if self.n < self.width:
            return self._spectrum(squares(self.x, np.zeros(self.width)))
        return self._spectrum(self.squares + self.n * np.outer(self.mean, self.mean))

    def _spectrum(self, products: Array) -> Array:
        found = np.linalg.eigvalsh(products)[::-1] / self.n
        return np.where(found > self.least(found[0]), found, 0.0)

    def least(self, largest: float) -> float:
        """What counts as 0 among eigenvalues of a covariance of these features whose largest is ``largest``."""
        return float(max(self.rounding, max(self.x.shape) * np.finfo(np.float64).eps * largest))

    @cached_property
    def trace_with_reference(self) -> float:
        """tr(X X^T Y Y^T) = ||Y^T X||_F^2, Y the centred reference; by whichever matrices are smaller."""
        other = self.compared
        if self.n < min(self.width, other.width):
            return float((self.squares * other.squares).sum())
        return float(np.square(cross(self.x, self.mean, other.x, other.mean)).sum())

    @property
    def compared(self) -> Layer:
        """The reference, where a metric that needs one asks for it."""
        if self.reference is None:
            raise UsageError(f"{self.name}: expected the features of the network to compare with")
        return self.reference

    @property
    def is_constant(self) -> bool:
        return float(self.row_squares.sum()) <= self.n * self.rounding

    @cached_property
    def pairs(self) -> Pairs:
        """Of all examples, or of ``MOST_PAIRED`` drawn with seed 0."""
        rows = np.arange(self.n)
        if self.n > MOST_PAIRED:
            rows = np.sort(np.random.default_rng(0).choice(self.n, MOST_PAIRED, replace=False))
        return pairs(np.concatenate(list(blocks(self.x, rows))), self.rounding)


def cuts(n: int) -> Iterator[slice]:
    """0 .. n in pieces of ``ROWS``."""
    return (slice(start, min(start + ROWS, n)) for start in range(0, n, ROWS))


def blocks(x: Array, rows: Array | None = None) -> Iterator[Array]:
    """The rows of x, or those numbered ``rows``, in float64, ``ROWS`` at a time."""
    for cut in cuts(len(x) if rows is None else len(rows)):
        yield np.asarray(x[cut if rows is None else rows[cut]], dtype=np.float64)


def sum_rows(x: Array, rows: Array | None = None) -> Array:
    """(width,) the sum of rows in float64."""
    return np.sum([block.sum(axis=0) for block in blocks(x, rows)], axis=0)


def cross(x: Array, x_mean: Array, y: Array, y_mean: Array, rows: Array | None = None) -> Array:
    """(width of x, width of y) sum over rows of (x - mean)^T (y - mean)."""
    total = np.zeros((x.shape[1], y.shape[1]))
    for a, b in zip(blocks(x, rows), blocks(y, rows), strict=True):
        total += (a - x_mean).T @ (b - y_mean)
    return total


def unit_rows(block: Array) -> Array:
    """Rows at length 1; rows of zeros stay."""
    lengths = np.linalg.norm(block, axis=1, keepdims=True)
    return block / np.where(lengths > 0, lengths, 1.0)


def squares(x: Array, mean: Array, rows: Array | None = None) -> Array:
    """X^T X (width, width) of the rows less ``mean``, or X X^T (rows, rows) where there are fewer rows than columns."""
    n, width = len(x) if rows is None else len(rows), x.shape[1]
    if n < width:
        centred = np.concatenate(list(blocks(x, rows))) - mean
        return np.asarray(centred @ centred.T)
    total = np.zeros((width, width))
    for block in blocks(x, rows):
        centred = block - mean
        total += centred.T @ centred
    return total
