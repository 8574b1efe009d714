"""How many directions a layer uses: functions of its covariance's eigenvalues (r,), largest first, and their cards.

Each function is 0 where all eigenvalues are 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ftbench.analysis.card import ANY, Card

Array = np.ndarray[Any, Any]
By = Literal["raw", "top", "trace"]


def geometric_mean(eigenvalues: Array, k: int, by: By = "raw") -> float:
    """(l_1 ... l_k)^(1/k) of the k largest, as they are, divided by the largest (top) or by the sum (trace)."""
    largest = _largest(eigenvalues, k, by)
    return float(np.exp(np.log(largest).mean())) if largest[-1] > 0 else 0.0


def harmonic_mean(eigenvalues: Array, k: int, by: By = "raw") -> float:
    """k / (1/l_1 + ... + 1/l_k) of the k largest, as they are, divided by the largest (top) or by the sum (trace)."""
    largest = _largest(eigenvalues, k, by)
    return float(k / (1 / largest).sum()) if largest[-1] > 0 else 0.0


def effective_rank(eigenvalues: Array) -> float:
    """exp(-sum p log p), p = l / sum of l; of singular values in the place of eigenvalues it is RankMe."""
    shares = eigenvalues[eigenvalues > 0] / (eigenvalues.sum() or 1.0)
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def participation_ratio(eigenvalues: Array) -> float:
    """(sum of l)^2 / sum of l^2."""
    scaled = _over(eigenvalues, eigenvalues[0])
    return float(scaled.sum() ** 2 / (np.square(scaled).sum() or 1.0))


def stable_rank(eigenvalues: Array) -> float:
    """sum of l / l_1 = ||X||_F^2 / ||X||_2^2 of the centred features."""
    return float(_over(eigenvalues, eigenvalues[0]).sum())


def isoscore(eigenvalues: Array, width: int) -> float:
    """(PR - 1) / (width - 1), PR the participation ratio: what the nine steps of Rudman et al. come to.

    With S = sqrt(d) l / ||l|| their squared defect is ||S - 1||^2 / (2 (d - sqrt d)) = (d - sqrt(d PR)) / (d - sqrt d),
    and ((d - defect^2 (d - sqrt d))^2 - d) / (d (d - 1)) is then (PR - 1) / (d - 1).
    """
    ratio = participation_ratio(eigenvalues)
    return max(ratio - 1, 0.0) / (width - 1)


def _largest(eigenvalues: Array, k: int, by: By) -> Array:
    scale = {"raw": 1.0, "top": eigenvalues[0], "trace": eigenvalues.sum()}[by]
    return _over(eigenvalues[:k], scale)


def _over(eigenvalues: Array, scale: float) -> Array:
    return eigenvalues / (scale or 1.0)


_BY = {
    "raw": ("l_i", "0 and up, in squared units of the features"),
    "top": ("(l_i / l_1)", "0 to 1"),
    "trace": ("(l_i / sum of all l)", "0 to 1/k"),
}
_TRAPS = {
    "raw": (
        "It measures scale as much as shape: features twice as long have 4 times the value. Where fine-tuning "
        "lengthens features it can rise while the normalised ones fall. Never compare models of different scale by it."
    ),
    "top": (
        "One direction that grows, such as the one that separates the classes, lowers it with nothing else lost; when "
        "the others then shrink back to where pretraining had them it falls further."
    ),
    "trace": "It depends on the whole spectrum: variance that moves from the k largest to the rest lowers it as well.",
}
_UNVERIFIED = (
    " The paper's normalisation, centring, layer and token are not verified: here are three normalisations, since they "
    "can disagree, all of centred features. Use n well above k, and the same n everywhere."
)


def gm(k: int, by: By = "raw") -> Card:
    """GM-k by one of the three normalisations."""
    return _mean_of(k, by, geometric_mean, "geometric", f"(product over i <= k of {_BY[by][0]})^(1/k)", _UNVERIFIED)


def hm(k: int, by: By = "raw") -> Card:
    """HM-k by one of the three normalisations."""
    more = " The smallest of the k decides it." + _UNVERIFIED
    return _mean_of(k, by, harmonic_mean, "harmonic", f"k / (sum over i <= k of 1 / {_BY[by][0]})", more)


def _mean_of(k: int, by: By, mean: Callable[[Array, int, By], float], word: str, formula: str, more: str) -> Card:
    return Card(
        function=lambda layer: mean(layer.eigenvalues, k, by),
        means=f"The {word} mean of the k largest variances.",
        formula=formula,
        range=_BY[by][1],
        collapse="low",
        invariant=ANY - {"scaling"} if by == "raw" else ANY,
        traps=_TRAPS[by] + more,
        cite="Razdaibiedina et al. 2023 (REPINA), arXiv 2205.11603",
        examples=k + 1,
        width=k,
    )


EFFECTIVE_RANK = Card(
    function=lambda layer: effective_rank(layer.eigenvalues),
    means="How many directions carry the variance, by its entropy.",
    formula="exp(-sum of p_i log p_i), p_i = l_i / sum of l",
    range="1 to min(n - 1, width)",
    collapse="low",
    invariant=ANY,
    traps=(
        "At most n - 1: with few examples it measures n. Roy and Vetterli take singular values, the square roots, in "
        "the place of eigenvalues, which gives more: compare only what is computed alike."
    ),
    cite="Roy, Vetterli 2007 (EUSIPCO)",
)

RANKME = Card(
    function=lambda layer: effective_rank(np.sqrt(layer.uncentred_eigenvalues)),
    means="The effective rank of the features as they are, the mean left in, by singular values.",
    formula="exp(-sum of p_i log p_i), p_i = s_i / sum of s, s the singular values of X, not centred",
    range="1 to min(n, width)",
    collapse="low",
    invariant=ANY - {"shift"},
    traps=(
        "The common mean of all examples is one large singular value, so a shift alone moves it. The paper adds 1e-7 "
        "to each share, stable-pretraining 1e-5, this nothing: 669.7, 699.9 and 669.4 for Gaussian features (1000, "
        "768)."
    ),
    cite="Garrido et al. 2023, arXiv 2210.02885",
    constant=1.0,
)

PARTICIPATION_RATIO = Card(
    function=lambda layer: participation_ratio(layer.eigenvalues),
    means="How many directions carry the variance; large ones count more than in the effective rank.",
    formula="(sum of l)^2 / sum of l^2",
    range="1 to min(n - 1, width)",
    collapse="low",
    invariant=ANY,
    traps=(
        "A few outlier dimensions, common in language models, hold it near 1 whatever the rest does. Too low with few "
        "examples: at most n - 1."
    ),
    cite="Gao et al. 2017, doi 10.1101/214262",
)

ISOSCORE = Card(
    function=lambda layer: isoscore(layer.eigenvalues, layer.width),
    means="The participation ratio on a scale from 0 (one direction) to 1 (all directions alike).",
    formula="(PR - 1) / (width - 1), PR the participation ratio: the paper's nine steps come to this",
    range="0 to 1",
    collapse="low",
    invariant=ANY,
    traps=(
        "It says nothing that the participation ratio does not and shares its traps. In wide layers it is near 0 long "
        "before one direction is left: 8 directions of 768 have 0.009."
    ),
    cite="Rudman et al. 2022, arXiv 2108.07344",
    width=2,
)

STABLE_RANK = Card(
    function=lambda layer: stable_rank(layer.eigenvalues),
    means="The whole variance in units of the largest.",
    formula="sum of l / l_1 = ||X||_F^2 / ||X||_2^2, centred",
    range="1 to min(n - 1, width)",
    collapse="low",
    invariant=ANY,
    traps=(
        "Only the largest eigenvalue and the sum count: two directions or fifty look alike where the first has the "
        "same share. Of features that are not centred, as it is often defined, it would measure the mean."
    ),
    cite="Rudelson, Vershynin 2007, arXiv math/0503442",
)
