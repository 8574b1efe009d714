"""How a layer's examples lie by class, and the cards."""

from __future__ import annotations

from typing import Any

import numpy as np

from ftbench.analysis.card import ANY, Card
from ftbench.analysis.layer import Layer, blocks, cuts, unit_rows
from ftbench.errors import UsageError

Array = np.ndarray[Any, Any]


def alignment(layer: Layer) -> float:
    """Mean of ||u_i - u_j||^2 over all pairs of one class.

    sum over classes of (2 n_c sum ||u||^2 - 2 ||sum u||^2) / (n_c (n_c - 1)), both summed before dividing.
    Raises UsageError where no class has two examples.
    """
    index, counts = _classes(layer)
    if not (counts > 1).any():
        raise UsageError(f"{layer.name}: expected a class with two examples or more, every class has one")
    sums, squares = np.zeros((len(counts), layer.width)), np.zeros(len(counts))
    for cut, block in zip(cuts(layer.n), blocks(layer.x), strict=True):
        unit, own = unit_rows(block), _one_hot(index[cut], len(counts))
        sums += own.T @ unit
        squares += own.T @ np.square(unit).sum(axis=1)
    apart = 2 * counts @ squares - 2 * np.square(sums).sum()
    return max(float(apart / (counts @ (counts - 1))), 0.0)


def nc1(layer: Layer) -> float:
    """trace(S_w pinv(S_b)) / C, both covariances over classes that weigh equally, without a width x width matrix.

    S_w = (1/C) sum_c cov(c), S_b = (1/C) sum_c (m_c - m)(m_c - m)^T = A^T A with A = U s V^T, so it is
    (1/C) sum_i v_i^T S_w v_i / s_i^2. 0 where classes do not vary inside, infinite where they do and all
    have one mean.
    Raises UsageError for fewer than two classes.
    """
    index, counts = _classes(layer)
    means, between = _means(layer, index, counts)
    _, s, directions = np.linalg.svd(between, full_matrices=False)
    least = max(between.shape) * np.finfo(np.float64).eps * s[0]
    rank = min(int(((s > least) & (s**2 > layer.rounding)).sum()), len(counts) - 1)
    if rank == 0:
        return float("inf") if _within(layer, index, counts, means).sum() > layer.rounding else 0.0
    within = _within(layer, index, counts, means, directions[:rank])
    return float((within / s[:rank] ** 2).sum() / len(counts))


def nc1_trace(layer: Layer) -> float:
    """trace(S_w) / trace(S_b), with the covariances of ``nc1``; the same values where nothing varies."""
    index, counts = _classes(layer)
    means, between = _means(layer, index, counts)
    within, apart = float(_within(layer, index, counts, means).sum()), float(np.square(between).sum())
    if within <= layer.rounding:
        return 0.0
    return within / apart if apart > layer.rounding else float("inf")


def _classes(layer: Layer) -> tuple[Array, Array]:
    """(n,) the class of each example from 0, (C,) examples a class."""
    _, index, counts = np.unique(np.asarray(layer.labels), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise UsageError(f"{layer.name}: expected two classes or more, all {layer.n} examples are of one")
    return index, counts.astype(np.float64)


def _one_hot(index: Array, classes: int) -> Array:
    return (index[:, None] == np.arange(classes)).astype(np.float64)


def _means(layer: Layer, index: Array, counts: Array) -> tuple[Array, Array]:
    """(C, width) the means of the classes, and the same less their mean, over sqrt(C)."""
    sums = np.zeros((len(counts), layer.width))
    for cut, block in zip(cuts(layer.n), blocks(layer.x), strict=True):
        sums += _one_hot(index[cut], len(counts)).T @ (block - layer.mean)
    means = sums / counts[:, None]
    return means + layer.mean, (means - means.mean(axis=0)) / np.sqrt(len(counts))


def _within(layer: Layer, index: Array, counts: Array, means: Array, directions: Array | None = None) -> Array:
    """(r,) v^T S_w v for each of the ``directions`` (r, width), or (width,) the diagonal of S_w."""
    weights = 1 / (counts * len(counts))
    total = np.zeros(layer.width if directions is None else len(directions))
    for cut, block in zip(cuts(layer.n), blocks(layer.x), strict=True):
        apart = block - means[index[cut]]
        total += weights[index[cut]] @ np.square(apart if directions is None else apart @ directions.T)
    return total


ALIGNMENT = Card(
    function=alignment,
    means="How far two examples of one class are apart on the sphere.",
    formula="mean over pairs of one class of ||u_i - u_j||^2",
    range="0 to 4; at most about 2 with many examples a class",
    collapse="low",
    invariant=ANY - {"shift"},
    traps=(
        "The paper's pairs are two views of one example; here they are two examples of one class, which is ours. It "
        "falls when everything comes together as well as when classes do: read it beside uniformity. Large classes "
        "count more."
    ),
    cite="Wang, Isola 2020, arXiv 2005.10242",
    needs="labels",
)

NC1 = Card(
    function=nc1,
    means="Variability inside classes in units of the distances between their means.",
    formula=(
        "trace(S_w pinv(S_b)) / C, S_w the mean of the covariances of the C classes, S_b the covariance of their "
        "means, all classes weighing equally"
    ),
    range="0 to infinite (means alike)",
    collapse="low",
    invariant=ANY,
    traps=(
        "Low is what fine-tuning is for: on the task's own data it is no damage by itself. The weakest contrast "
        "between classes decides it. Too low with few examples a class; labels without meaning get a finite value too; "
        "a class of one example counts as not varying. Papyan et al. weigh examples, not classes: the same in balanced "
        "data."
    ),
    cite="Papyan et al. 2020, doi 10.1073/pnas.2015509117; Xie et al. 2022, arXiv 2210.10041 (equal classes)",
    needs="labels",
)

NC1_TRACE = Card(
    function=nc1_trace,
    means="NC1 by total variances.",
    formula="trace(S_w) / trace(S_b)",
    range="0 to infinite (means alike)",
    collapse="low",
    invariant=ANY,
    traps=(
        "All directions count, also those in which no class differs, so wide noise hides a clean separation. The "
        "largest contrasts decide it, where in NC1 the weakest do."
    ),
    cite="Tirer et al. 2023, arXiv 2210.16658",
    needs="labels",
)
