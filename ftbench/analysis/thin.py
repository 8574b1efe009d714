"""nu without a (width, width) matrix: the within-class variance along the directions between class means.

    nu = 1/C tr(Sigma_w pinv(Sigma_b)),   Sigma_b = A^T A,   A = U S V^T (thin)
       = 1/C sum_{i <= r} (v_i^T Sigma_w v_i) / s_i^2

so the rows are read twice, once for the class means, once projected on r <= C - 1 directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ftbench.analysis.grouping import Array, Classes, sums

#: numbers in the largest temporary array
BLOCK = 2**23
#: a variance of less than this times the second moment is rounding
SAME = 1e-12


@dataclass(frozen=True)
class Thin:
    """nu of a layer, the rank of Sigma_b, and s_1 / s_r of its factor: how unequal distances between classes are."""

    nu: float
    rank: int
    condition: float

    @classmethod
    def of(cls, spread: Array, singular: Array, rank: int, classes: int) -> Thin:
        """From the variances along the directions and their singular values, (r,) each."""
        if rank == 0:
            return cls(math.inf, 0, math.nan)
        kept = singular[:rank]
        return cls(float((spread[:rank] / kept**2).sum() / classes), rank, float(kept[0] / kept[-1]))


def fractions(a: Array, rms: float) -> tuple[Array, Array, int]:
    """Directions (k, width), singular values (k,) and rank of A (classes, width); k = min(classes - 1, width).

    The rank counts s_i > max(classes, width) eps s_1. Means closer than rounding, against the rows' root mean square
    norm ``rms``, are the same: rank 0, for pinv(0) = 0 would make it the best layer.
    """
    _, singular, directions = np.linalg.svd(a, full_matrices=False)
    k = min(len(a) - 1, a.shape[1])
    return directions[:k], singular[:k], int(_above(singular[:k], a.shape[-2:], rms).sum())


def _above(singular: Array, shape: tuple[int, ...], rms: float) -> Array:
    tiny = max(shape) * np.finfo(np.float64).eps
    return np.asarray((singular > tiny * singular[..., :1]) & (singular > tiny * rms))


def thin(hidden: Array, classes: Classes, weighting: str = "class") -> Thin:
    """nu of a layer (examples, width): float64, classes centred before they are squared."""
    c, width = len(classes), hidden.shape[1]
    total, square = np.zeros((c, width)), 0.0
    for where, x in classes.chunks(hidden):
        total += sums(classes.ids[None, where], np.ones((1, len(x))), x, c)[0]
        square += float(np.vdot(x, x))
    means, shares = total / classes.counts[:, None], classes.shares(weighting)
    a = (means - shares @ means) / np.sqrt(c)
    directions, singular, rank = fractions(a, np.sqrt(square / len(classes.rows)))
    spread, weights = np.zeros(len(directions)), (shares / classes.counts)[classes.ids]
    centres = means @ directions.T
    for where, x in classes.chunks(hidden):
        spread += weights[where] @ (x @ directions.T - centres[classes.ids[where]]) ** 2
    return Thin.of(spread, singular, rank, c)


def redrawn(hidden: Array, classes: Classes, ids: Array, counts: Array, weighting: str = "class") -> Array:
    """nu (draws,) of a layer under other labels or other rows: as ``thin``, many draws a product.

    ids:    (draws, n) class number of each of the n rows in ``classes``
    counts: (draws, n) how often each is drawn
    Every draw has as many rows of each class as ``classes``, as permutations and resamples within classes do.
    """
    c, width = len(classes), hidden.shape[1]
    size = max(1, BLOCK // (c * min(len(classes.rows), 4096)))
    blocks = [slice(i, i + size) for i in range(0, len(ids), size)]
    return np.concatenate([_block(hidden, classes, ids[at], counts[at], weighting, c, width) for at in blocks])


def _block(hidden: Array, classes: Classes, ids: Array, counts: Array, weighting: str, c: int, width: int) -> Array:
    shares, draws = classes.shares(weighting), len(ids)
    centre = sum(x.sum(0) for _, x in classes.chunks(hidden)) / len(classes.rows)
    total, square = np.zeros((draws, c, width)), 0.0
    for where, x in classes.chunks(hidden):
        square += float((x**2).sum())
        total += sums(ids[:, where], counts[:, where].astype(np.float64), x - centre, c)
    means = total / classes.counts[:, None]
    a = (means - (shares @ means)[:, None]) / np.sqrt(c)
    k = min(c - 1, width)
    _, singular, directions = np.linalg.svd(a, full_matrices=False)
    singular, directions = singular[:, :k], directions[:, :k]
    second = np.zeros((draws, k))
    for where, x in classes.chunks(hidden):
        projected = ((x - centre) @ directions.reshape(-1, width).T).reshape(len(x), draws, k)
        weights = counts[:, where] * (shares / classes.counts)[ids[:, where]]
        second += np.einsum("rn,nrk->rk", weights, projected**2)
    spread = second - np.einsum("c,rck->rk", shares, np.einsum("rcd,rkd->rck", means, directions) ** 2)
    spread[spread < SAME * second] = 0.0  # one row of each class, drawn several times: what is left is rounding
    good = _above(singular, a.shape[1:], float(np.sqrt(square / len(classes.rows))))
    parts = np.divide(spread, singular**2, out=np.zeros_like(spread), where=good)
    return np.where(good.any(1), parts.sum(1) / c, np.inf)
