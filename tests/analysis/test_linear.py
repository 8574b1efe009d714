"""Ridge and what linear models share, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ftbench.analysis.linear import fit_ridge, outputs, singular_axes, standardiser


def correlated(layers: int, n: int, width: int, seed: int = 0) -> Tensor:
    """Features whose spectrum falls over three decades, around a mean, float64."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(layers, n, width)) * np.logspace(0, -3, width)
    return torch.from_numpy(mixed @ generator.normal(size=(layers, width, width)) + generator.normal(size=width))


def test_features_are_standardised_as_in_scikit_learn() -> None:
    x = correlated(2, 30, 7).float()
    x[0, :, 3] = 4.25
    mean, deviation = standardiser(x)
    for layer in range(2):
        expected = StandardScaler().fit(x[layer].double().numpy())
        np.testing.assert_allclose(mean[layer, 0], expected.mean_, rtol=1e-12)
        np.testing.assert_allclose(deviation[layer, 0], expected.scale_, rtol=1e-12)
    assert deviation[0, 0, 3] == 1


def test_rounding_of_a_pass_is_not_blown_up_to_a_feature() -> None:
    constant = torch.tensor([[[7.1], [7.1 + 2e-6], [7.1]]])
    assert constant.unique().numel() == 2
    mean, deviation = standardiser(constant)
    assert ((constant - mean) / deviation).abs().max() < 1e-5


@pytest.mark.parametrize(("n", "width"), [(40, 9), (9, 40), (10, 10)])
def test_axes_are_those_of_the_singular_values(n: int, width: int) -> None:
    x = correlated(3, n, width)
    axes = singular_axes(x)
    rank = min(n, width)
    assert axes.shape == (3, width, rank)
    torch.testing.assert_close(axes.mT @ axes, torch.eye(rank).double().expand(3, -1, -1))
    along = x @ axes
    values = torch.linalg.svdvals(x).flip(1)
    torch.testing.assert_close(along.mT @ along, torch.diag_embed(values**2), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("n", "width"), [(60, 8), (12, 30)])
def test_ridge_is_scikit_learns(n: int, width: int) -> None:
    x, new = correlated(2, n, width), correlated(2, 5, width, seed=1)
    targets = torch.from_numpy(np.random.default_rng(2).normal(3, 2, size=(3, n)))
    strengths = torch.logspace(-4, 3, 6).double().reshape(2, 3)
    weights, biases = fit_ridge(x, targets, strengths)
    found = outputs(new, weights, biases)
    assert found.shape == (2, 3, 1, 5)
    for layer in range(2):
        for problem in range(3):
            alpha = 1 / float(strengths[layer, problem])
            theirs = Ridge(alpha=alpha, solver="svd").fit(x[layer].numpy(), targets[problem].numpy())
            np.testing.assert_allclose(weights[layer, problem, 0], theirs.coef_, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(found[layer, problem, 0], theirs.predict(new[layer].numpy()), rtol=1e-7)
