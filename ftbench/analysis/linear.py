"""Linear models for many layers, strengths and targets ("problems") at once: what they share, and ridge."""

from __future__ import annotations

import torch
from torch import Tensor

#: a feature that varies by less than this share of its mean is constant: the rest is rounding of a float32 pass
CONSTANT = 1e-6


def standardiser(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (divisor n) of each feature of x (layers, n, width), float64 (layers, 1, width);
    1 in place of a constant's deviation."""
    variance, mean = torch.var_mean(x.double(), 1, correction=0, keepdim=True)
    deviation = variance.sqrt()
    return mean, torch.where(deviation <= CONSTANT * mean.abs(), 1.0, deviation)


def singular_axes(x: Tensor) -> Tensor:
    """Right singular vectors of x (layers, n, width) as columns: (layers, width, the smaller of n and width).

    x @ axes are uncorrelated, where x is centred, and a linear model with an L2 penalty predicts the same from them.
    """
    if x.shape[1] >= x.shape[2]:
        return torch.linalg.eigh(x.mT @ x)[1]
    q, r = torch.linalg.qr(x.mT)  # orthonormal to rounding, which vectors divided by small values would not be
    return q @ torch.linalg.eigh(r @ r.mT)[1]


def fit_ridge(x: Tensor, targets: Tensor, strengths: Tensor) -> tuple[Tensor, Tensor]:
    """min over w, b of sum_i (w x_i + b - y_i)^2 + |w|^2 / strength: scikit-learn's Ridge at alpha = 1 / strength.

    In closed form: with U S V' the singular value decomposition of the centred x, w = V (S U' y) / (S^2 + alpha).

    x: (layers, n, width), float64. targets: (problems or 1, n). strengths: (layers, problems)
    Gives weights (layers, problems, 1, width) and biases (layers, problems, 1, 1).
    """
    mean, level = x.mean(1, keepdim=True), targets.mean(1, keepdim=True)
    x = x - mean
    axes = singular_axes(x)
    along = x @ axes  # U S
    weights = ((targets - level) @ along / (along.square().sum(1)[:, None] + 1 / strengths[:, :, None])) @ axes.mT
    biases = level - weights @ mean.mT
    return weights[:, :, None], biases[:, :, None]


def outputs(x: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """What models (layers, problems, outputs, width) say of x (layers, n, width): (layers, problems, outputs, n)."""
    return (weights.flatten(1, 2) @ x.mT).unflatten(1, weights.shape[1:3]) + biases
