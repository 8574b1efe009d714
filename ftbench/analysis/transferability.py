"""Beside nu: other numbers that claim to tell how useful a layer is, each in one pass and without training.

With m_c the class means, m their unweighted mean, Sigma_w and Sigma_b as for nu, f the features, N examples of width d:

vci       1 - tr(pinv(Sigma_w + Sigma_b) Sigma_b) / rank(Sigma_b)     Xu, Liu 2023: 0 separated, 1 not at all. Rescaling
          single dimensions does not change it. Too low unless N is far above d
cdnv      mean over pairs of classes of (V_i + V_j) / (2 |m_i - m_j|^2), V_c the trace of the class's covariance
          Galanti et al. 2022
h_score   (1 - a) tr(S_a^-1 cov(E[f|y])), S_a = (1 - a) S + a tr(S)/d I with Ledoit and Wolf's a    Ibrahim et al. 2022
logme     log evidence an example of a Bayesian linear model of the one-hot labels (mean over classes) or of numbers:
          (1/N) [d/2 log a + N/2 log b - 1/2 sum log(a + b s_i^2) - b/2 |y - f w|^2 - a/2 |w|^2 - N/2 log 2 pi]
          You et al. 2021
effective_rank, anisotropy, cka_next (linear CKA to the layer above; none for the last) need no labels

Sources of the forms: H-score as in thuml/Transfer-Learning-Library (commit c4aa59e), features by 1/N, class means
by 1/(N - 1). LogME likewise for N < d, where the newer thuml/LogME (commit 56551ca) omits the d - N zeros among the
s_i; a and b are updated at most 11 times, until a/b moves by less than 1e-3, as there; its 1e-5 in two denominators is
left out. VCI and CDNV weigh classes equally, as nu does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ftbench.analysis.geometry import anisotropy
from ftbench.analysis.grouping import Array, Classes, classes_of
from ftbench.analysis.layer import Layer, blocks
from ftbench.analysis.moments import Moments, moments_of
from ftbench.analysis.robustness import spearman
from ftbench.analysis.similarity import linear_cka
from ftbench.analysis.spectrum import effective_rank
from ftbench.types import Features

UPDATES = 11
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Companion:
    """label for people; which side is better for the task (empty: neither is); whether it needs classes."""

    label: str
    better: Literal["low", "high", ""]
    classes: bool = True


COMPANIONS: dict[str, Companion] = {
    "vci": Companion("VCI", "low"),
    "cdnv": Companion("CDNV", "low"),
    "h_score": Companion("H-score", "high"),
    "logme": Companion("LogME", "high", classes=False),
    "effective_rank": Companion("eff. rank", "", classes=False),
    "anisotropy": Companion("anisotropy", "", classes=False),
    "cka_next": Companion("CKA to next", "", classes=False),
}


def companions(features: Features, targets: Array | None = None) -> dict[str, Array]:
    """Every companion of every layer, (layers,) each; those of classes only where ``features.labels`` are classes.

    targets: (examples,) numbers that LogME predicts instead of the labels, where these are bins of them.
    cka_next ends with NaN. Raises UsageError as ``classes_of``, and for a state that is not finite.
    """
    labels = features.labels
    classes = classes_of(labels) if np.issubdtype(labels.dtype, np.integer) else None
    numbers = targets if targets is not None else None if classes else labels
    rows: list[dict[str, float]] = []
    below: Layer | None = None
    for number, hidden in enumerate(features.hidden, start=1):
        x = hidden[classes.rows] if classes and classes.dropped else hidden
        y = numbers[classes.rows] if classes and numbers is not None else numbers
        layer = Layer(x, reference=below, name=f"layer {number}")
        if below is not None:
            rows[-1]["cka_next"] = linear_cka(layer)
        rows.append(_of_layer(layer, hidden, classes, y))
        object.__setattr__(layer, "reference", None)  # else each layer would keep all those below it in memory
        below = layer
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in COMPANIONS if name in rows[0]}


def correlations(measures: Mapping[str, Array], probe: Array) -> dict[str, float]:
    """Spearman's rank correlation over layers of each measure with a probe's scores (layers,): 1 where the measure,
    seen from its better side, ranks the layers as the probe does. nu and nu / floor may be among the measures.
    """
    better = {name: companion.better for name, companion in COMPANIONS.items()}
    signs = {name: -1.0 if better.get(name, "low") == "low" else 1.0 for name in measures}
    return {name: signs[name] * spearman(values, probe) for name, values in measures.items()}


def _of_layer(layer: Layer, hidden: Array, classes: Classes | None, numbers: Array | None) -> dict[str, float]:
    found: dict[str, float] = {}
    if classes is not None:
        moments = moments_of(hidden, classes)
        found |= {"vci": vci(moments), "cdnv": cdnv(moments), "h_score": h_score(layer, moments)}
    if numbers is None and classes is not None:
        found["logme"] = _mean_logme(layer, moments.means * classes.counts[:, None], classes.counts)
    elif numbers is not None:
        found["logme"] = _mean_logme(layer, _products(layer, numbers)[None], np.array([numbers @ numbers]))
    found |= {"effective_rank": effective_rank(layer.eigenvalues), "anisotropy": anisotropy(layer), "cka_next": np.nan}
    return found


def vci(moments: Moments) -> float:
    """Variability collapse index of class-balanced moments; 1 where all class means are the same."""
    a = moments.between()
    rank = moments.nu().rank
    values, axes = np.linalg.eigh(moments.within + a.T @ a)
    good = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    if not rank or not good.any():
        return 1.0
    return max(0.0, float(1 - ((a @ axes[:, good]) ** 2 / values[good]).sum() / rank))


def cdnv(moments: Moments) -> float:
    """Class-distance normalised variance; inf where two class means are the same, but for rounding."""
    i, j = np.triu_indices(len(moments.means), 1)
    rms = np.sqrt((moments.shares * (moments.spreads + (moments.means**2).sum(1))).sum())
    tiny = (max(moments.means.shape) * np.finfo(np.float64).eps * rms) ** 2
    apart = ((moments.means[i] - moments.means[j]) ** 2).sum(1)
    spread = (moments.spreads[i] + moments.spreads[j]) / 2
    with np.errstate(divide="ignore"):
        return float(np.divide(spread, apart, out=np.full(len(i), np.inf), where=apart > tiny).mean())


def h_score(layer: Layer, moments: Moments) -> float:
    """Regularised H-score; 0 for features that do not vary."""
    covariance, n = _covariance(layer), layer.n
    scale = float(np.trace(covariance)) / layer.width
    if layer.is_constant:
        return 0.0
    a = _ledoit_wolf(covariance, layer)
    apart = moments.means - layer.mean
    shrunk = (1 - a) * covariance + a * scale * np.eye(layer.width)
    solved = np.linalg.lstsq(shrunk, apart.T, rcond=None)[0] if a == 0 else np.linalg.solve(shrunk, apart.T)
    return float((1 - a) * (moments.counts * (apart * solved.T).sum(1)).sum() / (n - 1))


def _ledoit_wolf(covariance: Array, layer: Layer) -> float:
    """Share of the scaled identity, from 0 to 1: Ledoit, Wolf 2004, as in scikit-learn."""
    n, d = layer.n, layer.width
    square, trace = float((covariance**2).sum()), float(np.trace(covariance))
    distance = square - trace**2 / d
    noise = (float((layer.row_squares**2).sum()) / n - square) / n
    return min(noise, distance) / distance if min(noise, distance) > 0 else 0.0


def _covariance(layer: Layer) -> Array:
    """(width, width), by 1/n."""
    if layer.n >= layer.width:
        return np.asarray(layer.squares / layer.n)
    centred = np.concatenate(list(blocks(layer.x))) - layer.mean
    return np.asarray(centred.T @ centred / layer.n)


def _products(layer: Layer, numbers: Array) -> Array:
    """X^T y (width,)."""
    pairs = zip(blocks(layer.x), blocks(numbers), strict=True)
    return np.asarray(sum((part @ block for block, part in pairs), np.zeros(layer.width)))


def _mean_logme(layer: Layer, products: Array, squares: Array) -> float:
    """Mean over targets y: products (targets, width) are X^T y, squares (targets,) |y|^2."""
    values, axes = np.linalg.eigh(_covariance(layer) + np.outer(layer.mean, layer.mean))
    sigma = np.where(values > len(values) * np.finfo(np.float64).eps * values[-1], values, 0) * layer.n
    explained = np.divide((products @ axes) ** 2, sigma, out=np.zeros_like(products), where=sigma > 0)
    return float(np.mean([log_evidence(sigma, x2, y2, layer.n) for x2, y2 in zip(explained, squares, strict=True)]))


def log_evidence(sigma: Array, x2: Array, y2: float, n: int, tolerance: float = TOLERANCE) -> float:
    """LogME of one target y (n,): sigma (width,) squared singular values of X, x2 (width,) squares of y's components
    along the left singular vectors, y2 = |y|^2. A floor on the residual, rounding's, keeps an exact fit finite.
    """
    tiny = np.finfo(np.float64).eps * max(y2, np.finfo(np.float64).tiny)
    rest, alpha, beta = max(y2 - x2.sum(), 0.0), 1.0, 1.0
    for _ in range(UPDATES):
        ratio = alpha / beta
        used = (sigma / (sigma + ratio)).sum()
        weight = (sigma * x2 / (sigma + ratio) ** 2).sum()
        residual = max((x2 / (1 + sigma / ratio) ** 2).sum() + rest, tiny)
        if used == 0 or weight == 0:
            return -np.inf
        alpha, beta = used / weight, max(n - used, tiny) / residual
        if abs(alpha / beta - ratio) <= tolerance * ratio:
            break
    d = len(sigma)
    fit = d * np.log(alpha) + n * np.log(beta) - np.log(alpha + beta * sigma).sum() - n * np.log(2 * np.pi)
    return float((fit - beta * residual - alpha * weight) / (2 * n))
