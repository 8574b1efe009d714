"""How much of one network's layer is in another's, whose rows belong to the same examples, and the cards."""

from __future__ import annotations

from typing import Any

import numpy as np

from ftbench.analysis.card import ANY, Card
from ftbench.analysis.layer import Layer, blocks, cross, squares, sum_rows
from ftbench.errors import UsageError

Array = np.ndarray[Any, Any]
#: ridge strengths tried, in shares of the mean eigenvalue
STRENGTHS = np.logspace(-6, 3, 37)


def linear_cka(layer: Layer, *, debiased: bool = False) -> float:
    """HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) with the reference, HSIC(X, Y) = ||Y^T X||_F^2 = tr(K L), both centred.

    debiased: Song et al.'s unbiased HSIC of K = X X^T and L = Y Y^T without their diagonals, not clamped:
    [tr(K L) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 sum(K L) / (n - 2)] / (n (n - 3)). 0 where one of the two is
    constant or, debiased, has all its examples equally far apart.
    """
    other = layer.compared
    if layer.is_constant or other.is_constant:
        return 0.0
    traces = layer.trace_with_reference, _norm(layer.squares), _norm(other.squares)
    if not debiased:
        both, *own = traces
    else:
        k, l = layer.row_squares, other.row_squares  # noqa: E741
        both, *own = (_unbiased(*each) for each in zip(traces, (k, k, l), (l, k, l), strict=True))
    return float(both / np.sqrt(own[0]) / np.sqrt(own[1])) if min(own) > 0 else 0.0


def _norm(matrix: Array) -> float:
    return float(np.square(matrix).sum())


def _unbiased(trace: float, k: Array, l: Array) -> float:  # noqa: E741
    """HSIC from tr(K L) and the diagonals (n,) of the centred K and L, whose rows sum to 0 with them."""
    n, diagonal = len(k), float(k @ l)
    found = trace - diagonal + float(k.sum() * l.sum()) / ((n - 1) * (n - 2)) - 2 / (n - 2) * diagonal
    return found / (n * (n - 3)) if abs(found) > 1e-12 * trace else 0.0


def ridge_r2(layer: Layer) -> float:
    """Share of the reference's variance that a ridge regression from the layer gives on examples held out.

    1 - ||Y - Y^||_F^2 / ||Y - mean of train||_F^2 over the fifth held out (drawn with seed 0). The strength is chosen
    on the rest by generalised cross-validation (Golub, Heath, Wahba 1979): the least SSE / (n - 1 - df)^2,
    df = sum l / (l + strength), l the eigenvalues of X^T X, over ``STRENGTHS``. 0 where one of the two is constant.
    """
    reference = layer.compared
    order = np.random.default_rng(0).permutation(layer.n)
    held_out, train = np.sort(order[: layer.n // 5]), np.sort(order[layer.n // 5 :])
    x_mean, y_mean = sum_rows(layer.x, train) / len(train), sum_rows(reference.x, train) / len(train)
    eigenvalues, axes = _axes(layer, train, x_mean)
    if not len(eigenvalues) or reference.is_constant:
        return 0.0
    along = axes.T @ cross(layer.x, x_mean, reference.x, y_mean, train)  # (r, width of the reference)
    total = sum(float(np.square(y - y_mean).sum()) for y in blocks(reference.x, train))
    strength = best_strength(eigenvalues, np.square(along).sum(axis=1) / eigenvalues, total, len(train))
    weights = axes @ (along / (eigenvalues + strength)[:, None])
    wrong = total = 0.0
    for x, y in zip(blocks(layer.x, held_out), blocks(reference.x, held_out), strict=True):
        wrong += float(np.square(y - y_mean - (x - x_mean) @ weights).sum())
        total += float(np.square(y - y_mean).sum())
    return 1 - wrong / total if total > reference.rounding * len(held_out) else 0.0


def best_strength(eigenvalues: Array, explained: Array, total: float, n: int) -> float:
    """The ridge strength with the least generalised cross-validation error over n rows.

    eigenvalues (r,) of X^T X, explained (r,) squares of Y along each axis of X, total: all squares of Y, both centred.
    """
    strengths = STRENGTHS * eigenvalues.mean()
    shrunk = strengths[:, None] / (eigenvalues + strengths[:, None])  # (strengths, r)
    wrong = max(total - explained.sum(), 0.0) + np.square(shrunk) @ explained
    free = n - 1 - len(eigenvalues) + shrunk.sum(axis=1)
    return float(strengths[np.argmin(wrong / free**2)])


def _axes(layer: Layer, train: Array, mean: Array) -> tuple[Array, Array]:
    """Eigenvalues (r,) above rounding of X^T X over the rows ``train``, and their eigenvectors (width, r)."""
    found, vectors = np.linalg.eigh(squares(layer.x, mean, train))
    kept = found / len(train) > layer.least(found[-1] / len(train))
    if len(train) >= layer.width:
        return found[kept], vectors[:, kept]
    centred = np.concatenate(list(blocks(layer.x, train))) - mean
    return found[kept], centred.T @ vectors[:, kept] / np.sqrt(found[kept])


def disagreement(predictions: Array, others: Array) -> float:
    """Share of examples that two runs' predictions (n,) (class ids, not scores) differ on, 0 to 1.

    Runs of accuracies p and q differ on |p - q| at least and 2 - p - q at most, so two good runs never differ much.
    Raises UsageError for vectors of different lengths or of none.
    """
    predictions, others = np.asarray(predictions), np.asarray(others)
    if predictions.shape != others.shape or predictions.ndim != 1 or not len(predictions):
        raise UsageError(
            f"disagreement: expected two vectors of one length, got shapes {predictions.shape} and {others.shape}"
        )
    return float(np.mean(predictions != others))


CKA = Card(
    function=linear_cka,
    means="How alike the similarities among examples are in X and in Y.",
    formula="||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F), both centred",
    range="0 to 1",
    collapse="low",
    invariant=ANY,
    traps=(
        "A few large directions decide it: it stays high when all small ones are lost and falls when one large one is "
        "changed. High for unrelated features when n is not far above the width. Any change lowers it, a good one too."
    ),
    cite="Kornblith et al. 2019, arXiv 1905.00414",
    needs="reference",
)

CKA_DEBIASED = Card(
    function=lambda layer: linear_cka(layer, debiased=True),
    means="CKA without its bias: about 0 for unrelated features at any n.",
    formula=(
        "CKA with (tr(KL) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'KL1 / (n - 2)) / (n (n - 3)) for each product, "
        "K = X X^T and L = Y Y^T with zeros on their diagonals"
    ),
    range="-1 to 1",
    collapse="low",
    invariant=ANY,
    traps=(
        "Noisy with few examples, and then also below 0: it is not clamped, so that means over layers stay right. "
        "Otherwise as CKA: large directions decide it."
    ),
    cite="Song et al. 2012 (JMLR 13); Nguyen et al. 2021, arXiv 2010.15327",
    needs="reference",
    examples=4,
)

RIDGE_R2 = Card(
    function=ridge_r2,
    means="How much of Y can be read off X linearly, on examples held out: what REPINA preserves.",
    formula=(
        "1 - ||Y - Y^||_F^2 / ||Y - mean||_F^2 on a fifth held out, Y^ by ridge regression from X on the rest, its "
        "strength by generalised cross-validation there"
    ),
    range="below 0 (worse than the mean) to 1",
    collapse="low",
    invariant=ANY - {"order"},
    traps=(
        "It needs n well above the width: with fewer examples even a rotation of Y stays below 1, and noise costs more "
        "the fewer there are. Large directions of Y count most. The held-out fifth goes by row number: give the same "
        "examples in the same order everywhere."
    ),
    cite="after Razdaibiedina et al. 2023 (REPINA), arXiv 2205.11603; the measure is ours",
    needs="reference",
    examples=10,
)
