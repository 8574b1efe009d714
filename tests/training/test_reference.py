"""Reference rows: what the task gives away without fine-tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.models.backbone import load, load_tokenizer
from ftbench.models.locate import locate
from ftbench.training.batches import tokenize
from ftbench.training.reference import STRENGTHS, fit_linear, pooled, reference
from ftbench.training.run import Place, constant_predictions
from ftbench.training.watch import Control
from ftbench.types import Rows, RunSpec


@pytest.fixture
def scores_of(tiny_model: Path, tmp_path: Path) -> Callable[..., Any]:
    def run(data: Any, **fields: Any) -> Any:
        source = locate(str(tiny_model))
        spec = RunSpec(
            kind="reference", task="tiny", data=data.fingerprint, weights=source.fingerprint, max_length=32, **fields
        )
        return reference(spec, data, source, Place(tmp_path, torch.device("cpu")), Control())

    return run


def features_of(model: Path, rows: Rows) -> Any:
    source = locate(str(model))
    tokenizer = load_tokenizer(source)
    network = load(source, tokenizer, ["a", "b"], regression=False, seed=0)
    return pooled(network, tokenize(rows, tokenizer, 32, key=""))


def test_classes(tiny_data: Callable[..., Any], scores_of: Callable[..., Any]) -> None:
    data = tiny_data(60, 31, 3)
    outcome = scores_of(data)
    metrics = outcome.result.metrics
    assert list(metrics) == ["majority", "linear"]
    assert metrics["majority"]["validation"]["accuracy"] == pytest.approx(
        np.mean(data.splits["validation"].labels == 0)
    )
    assert metrics["linear"]["validation"]["accuracy"] > 0.6
    assert outcome.result.status == "ok" and outcome.result.facts["rows"] == {"train": 60, "validation": 31}
    assert outcome.result.facts["headline"] == "accuracy" and outcome.cost.process_seconds > 0
    assert scores_of(data).result == outcome.result


def test_the_cosine_row_is_for_pairs_only(tiny_data: Callable[..., Any], scores_of: Callable[..., Any]) -> None:
    """Where a pair is the same text twice or two texts, its cosine tells all."""
    data = tiny_data(64, 40, 2, pairs=True)
    splits = {}
    for name, rows in data.splits.items():
        first, other = rows.texts
        second = tuple(a if same else b for a, b, same in zip(first, other, rows.labels, strict=True))
        splits[name] = dataclasses.replace(rows, texts=(first, second))
    metrics = scores_of(dataclasses.replace(data, splits=splits)).result.metrics
    assert list(metrics) == ["majority", "cosine", "linear"]
    assert metrics["cosine"]["validation"]["accuracy"] > 0.9 > metrics["majority"]["validation"]["accuracy"]


def test_regression_has_the_mean(tiny_data: Callable[..., Any], scores_of: Callable[..., Any]) -> None:
    data = tiny_data(60, 30, 3, regression=True)
    metrics = scores_of(data).result.metrics
    assert list(metrics) == ["mean", "linear"]
    train, validation = data.splits["train"].labels, data.splits["validation"].labels
    assert metrics["mean"]["validation"] == {
        "pearson": 0.0,
        "mse": pytest.approx(np.mean((train.mean() - validation) ** 2)),
    }
    assert metrics["linear"]["validation"]["mse"] < metrics["mean"]["validation"]["mse"]
    assert metrics["linear"]["validation"]["pearson"] > 0.5


def test_references_see_the_rows_that_the_spec_asks_for(
    tiny_data: Callable[..., Any], scores_of: Callable[..., Any]
) -> None:
    data = tiny_data(60, 30, 3)
    assert scores_of(data, train_size=12).result.facts["rows"]["train"] == 12
    noisy = scores_of(data, label_noise=0.9).result.metrics["linear"]["validation"]["accuracy"]
    assert noisy < scores_of(data).result.metrics["linear"]["validation"]["accuracy"]


def test_constants_are_of_the_training_labels() -> None:
    def rows(labels: list[float]) -> Rows:
        return Rows((("x",) * len(labels),), np.array(labels), np.arange(len(labels)))

    assert constant_predictions(rows([2, 1, 1, 2]), rows([0, 0, 0]), regression=False).tolist() == [1, 1, 1]
    assert constant_predictions(rows([0.5, 1.5]), rows([9.0]), regression=True).tolist() == [1.0]


def test_features_are_the_mean_over_real_tokens(tiny_data: Callable[..., Any], tiny_model: Path) -> None:
    rows = tiny_data(8, 70, 2).splits["validation"]
    features = features_of(tiny_model, rows)
    assert features.shape == (70, 32) and features.dtype == np.float32
    source = locate(str(tiny_model))
    tokenizer = load_tokenizer(source)
    model = load(source, tokenizer, ["a", "b"], regression=False, seed=0).model.base_model.eval()
    for position in (0, 33, 69):
        with torch.no_grad():
            states = model(**tokenizer(rows.texts[0][position], return_tensors="pt"))[0][0]
        np.testing.assert_allclose(features[position], states.mean(0).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("regression", [False, True])
def test_linear_is_scikit_learns_pipeline_at_one_of_the_strengths(
    regression: bool, tiny_data: Callable[..., Any], tiny_model: Path
) -> None:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    splits = tiny_data(60, 40, 3, regression=regression).splits
    x, new = (features_of(tiny_model, splits[name]) for name in ("train", "validation"))
    y = splits["train"].labels
    ours = fit_linear(x, y, new, regression=regression, metric="mse" if regression else "accuracy")
    theirs = [
        make_pipeline(StandardScaler(), Ridge(alpha=1 / c) if regression else LogisticRegression(C=c, max_iter=2000))
        .fit(x, y)
        .predict(new)
        for c in STRENGTHS
    ]
    assert any(np.allclose(ours, guess) for guess in theirs)


def test_the_strength_is_chosen_by_the_metric_and_its_direction() -> None:
    """Pure noise wants the weakest fit, an exact line the strongest."""
    generator = np.random.default_rng(0)
    x, new = generator.normal(size=(300, 150)), generator.normal(size=(200, 150))
    noise = fit_linear(x, generator.normal(size=300), new, regression=True, metric="mse")
    assert np.std(noise) < 0.2
    line = fit_linear(x, x @ np.ones(150), new, regression=True, metric="mse")
    np.testing.assert_allclose(line, new @ np.ones(150), atol=0.1)


def test_few_rows_are_fitted_at_a_fixed_strength() -> None:
    x = np.array([[0.0], [1.0], [0.1], [0.9]])
    guess = fit_linear(x, np.array([0, 1, 0, 1]), np.array([[0.0], [1.0]]), regression=False, metric="accuracy")
    assert guess.tolist() == [0, 1]
