"""Logistic regression, many problems at once, against scikit-learn's one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ftbench.analysis.linear import outputs, singular_axes
from ftbench.analysis.logistic import fit_logistic

STRENGTHS = torch.logspace(-4, 1, 6).double()


def problem(n: int, width: int, classes: int, layers: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Standardised, correlated features, float64 (layers, n, width), and classes of unequal size that follow them with
    noise, (n,)."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(n, width)) * np.logspace(0, -2, width) @ generator.normal(size=(width, width))
    x = np.stack([mixed + layer * generator.normal(size=(n, width)) for layer in range(layers)])
    chances = mixed[:, :classes] / mixed.std() + generator.gumbel(size=(n, classes)) + 0.7 * np.arange(classes)
    y = chances.argmax(1)
    y[:classes] = np.arange(classes)
    return torch.from_numpy((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)), torch.from_numpy(y)


def scikit_learns(x: Tensor, y: Tensor, strength: float) -> Any:
    return LogisticRegression(C=strength, tol=1e-9, max_iter=20_000).fit(x.numpy(), y.numpy())


@pytest.mark.parametrize(("n", "width", "classes"), [(120, 10, 2), (120, 10, 4), (30, 50, 2), (30, 50, 3)])
def test_weights_and_probabilities_are_scikit_learns(n: int, width: int, classes: int) -> None:
    x, y = problem(n, width, classes)
    weights, biases = fit_logistic(x, y[None], STRENGTHS.expand(2, -1), tolerance=1e-13)
    found = outputs(x, weights, biases).softmax(2)
    assert weights.shape == (2, 6, classes, width) and biases.shape == (2, 6, classes, 1)
    for layer in range(2):
        for i, strength in enumerate(STRENGTHS.tolist()):
            theirs, ours = scikit_learns(x[layer], y, strength), weights[layer, i]
            ours = ours if classes > 2 else ours[1:] - ours[:1]
            np.testing.assert_allclose(ours, theirs.coef_, atol=2e-4 * np.abs(theirs.coef_).max())
            np.testing.assert_allclose(found[layer, i].T, theirs.predict_proba(x[layer].numpy()), atol=2e-5)


def test_in_float32_at_the_usual_tolerance_it_is_close() -> None:
    x, y = problem(400, 20, 3, layers=1)
    small = (x @ singular_axes(x)).float()
    weights, biases = fit_logistic(small, y[None], STRENGTHS[None])
    found = outputs(small, weights, biases).softmax(2)
    assert found.dtype == torch.float32
    for i, strength in enumerate(STRENGTHS.tolist()):
        theirs = scikit_learns(x[0], y, strength).predict_proba(x[0].numpy())
        np.testing.assert_allclose(found[0, i].T, theirs, atol=1e-3)
        assert np.mean(found[0, i].argmax(0).numpy() == theirs.argmax(1)) > 0.99


def test_a_problem_does_not_depend_on_those_beside_it() -> None:
    x, y = problem(80, 12, 3, layers=3)
    targets = torch.stack([y, y[torch.randperm(80, generator=torch.Generator().manual_seed(0))]])
    strengths = torch.tensor([[1e-3, 10.0], [1.0, 1e-2], [0.1, 0.1]]).double()
    together = fit_logistic(x, targets, strengths)
    for layer in range(3):
        part = slice(layer, layer + 1)
        for i in range(2):
            alone = fit_logistic(x[part], targets[i : i + 1], strengths[part, i : i + 1])
            for ours, theirs in zip(together, alone, strict=True):
                torch.testing.assert_close(ours[layer, i], theirs[0, 0], rtol=1e-6, atol=1e-9)


def test_uncorrelated_features_take_fewer_steps_to_the_same_end() -> None:
    x, y = problem(200, 30, 3)
    strengths = torch.ones(2, 1).double()
    axes = singular_axes(x)
    found = [fit_logistic(features, y[None], strengths, most=15) for features in (x, x @ axes)]
    plain, rotated = found[0][0], found[1][0] @ axes.mT[:, None]
    exact, _ = fit_logistic(x, y[None], strengths, tolerance=1e-14)
    assert (rotated - exact).abs().max() < 0.02 * (plain - exact).abs().max()


def test_features_without_a_word_leave_the_frequencies() -> None:
    y = torch.tensor([0, 1, 1, 2, 1, 1])
    x = torch.zeros(1, 6, 4)
    weights, biases = fit_logistic(x, y[None], torch.ones(1, 1))
    assert not weights.any()
    chances = biases[0, 0, :, 0].softmax(0)
    torch.testing.assert_close(chances, torch.tensor([1 / 6, 4 / 6, 1 / 6]), atol=1e-4, rtol=0)


def test_classes_that_can_be_told_apart_have_finite_weights() -> None:
    x, y = problem(40, 60, 3)
    strengths = torch.full((2, 1), 1e6).double()
    weights, biases = fit_logistic(x.float(), y[None], strengths)
    assert weights.isfinite().all() and (outputs(x.float(), weights, biases).argmax(2)[:, 0] == y).all()
