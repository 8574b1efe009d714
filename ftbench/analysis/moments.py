"""Class means and the within-class scatter of a layer, in one pass over batches that need not be kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from ftbench.analysis.grouping import Array, Classes
from ftbench.analysis.thin import Thin, fractions


class Moments:
    """What nu, VCI and CDNV are made of, updated batch by batch (Chan, Golub, LeVeque 1983).

    shares: (classes,) weight of each class in the scatter; counts: (classes,) rows that will come, known beforehand,
    so that one matrix serves all classes.
    gemm:   ``float32`` centres in float64, multiplies in float32 and adds up in float64: nu within 1e-8 in batches of
            32 rows, for devices that are slow in float64. Not where small eigenvalues matter (VCI).

    means   (classes, width); within (width, width) = sum_c shares_c / n_c sum (h - m_c)(h - m_c)^T;
    spreads (classes,) the trace of each class's covariance. Memory: width^2 x 8 bytes, whatever the rows.
    """

    def __init__(self, counts: Array, shares: Array, width: int, *, gemm: Any = np.float64) -> None:
        self.counts, self.shares, self.gemm = counts, shares, gemm
        self.seen = np.zeros(len(counts), dtype=np.int64)
        self.means = np.zeros((len(counts), width))
        self.within = np.zeros((width, width))
        self.spreads = np.zeros(len(counts))

    def add(self, x: Array, ids: Array) -> None:
        """Takes rows (n, width) in float64 with their class numbers (n,)."""
        here, local, n = np.unique(ids, return_inverse=True, return_counts=True)
        onehot = (local == np.arange(len(here))[:, None]) / n[:, None]
        batch = onehot @ x
        before = self.seen[here]
        step = batch - self.means[here]
        # rows around the batch's class means, then the steps from the means so far
        centred = np.concatenate([x - batch[local], step * np.sqrt(before * n / (before + n))[:, None]])
        owner = np.concatenate([here[local], here])
        self.spreads += np.bincount(owner, (centred**2).sum(1), len(self.counts)) / self.counts
        centred *= np.sqrt(self.shares / self.counts)[owner, None]
        low = centred.astype(self.gemm)
        self.within += low.T @ low
        self.means[here] += step * (n / (before + n))[:, None]
        self.seen[here] += n

    def between(self) -> Array:
        """A (classes, width) with Sigma_b = A^T A; see ``nu`` for its centre."""
        return (self.means - self.shares @ self.means) / np.sqrt(len(self.means))

    def nu(self) -> Thin:
        """nu of the rows so far, as ``thin`` has it."""
        rms = np.sqrt((self.shares * (self.spreads + (self.means**2).sum(1))).sum())
        directions, singular, rank = fractions(self.between(), rms)
        spread = np.einsum("kd,de,ke->k", directions, self.within, directions)
        return Thin.of(spread, singular, rank, len(self.means))

    def participation(self) -> float:
        """Participation ratio tr(S)^2 / tr(S^2) of the within-class scatter: in how many directions rows vary."""
        square = float((self.within**2).sum())
        return float(np.trace(self.within)) ** 2 / square if square > 0 else 0.0


def moments_of(hidden: Array, classes: Classes, weighting: str = "class", gemm: Any = np.float64) -> Moments:
    """The moments of a layer (examples, width), read in chunks."""
    moments = Moments(classes.counts, classes.shares(weighting), hidden.shape[1], gemm=gemm)
    for where, x in classes.chunks(hidden):
        moments.add(x, classes.ids[where])
    return moments
