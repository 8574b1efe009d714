"""The linear reference as a model: kept, loaded, and equal to what the reference predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.models.linear import FILE, read_linear
from ftbench.models.locate import locate
from ftbench.training.predict import predict_texts
from ftbench.training.reference import coefficients, linear_model, reference
from ftbench.training.run import Place
from ftbench.training.watch import Control
from ftbench.types import Data


@pytest.mark.parametrize(("classes", "regression"), [(2, False), (4, False), (2, True)])
def test_the_kept_model_predicts_what_the_reference_predicted(
    tmp_path: Path,
    tiny_model: Path,
    tiny_data: Callable[..., Data],
    make_spec: Callable[..., Any],
    classes: int,
    regression: bool,
) -> None:
    data = tiny_data(60, 24, classes, regression=regression)
    spec = replace(make_spec(data, tiny_model), kind="reference", steps=0)
    outcome = reference(spec, data, locate(str(tiny_model)), Place(tmp_path, torch.device("cpu")), Control())
    assert outcome.backbone is not None
    outcome.backbone.save(tmp_path / "model")
    rows = data.splits["validation"]
    found = predict_texts(locate(str(tmp_path / "model")), rows.texts, max_length=32, precision="fp32", device="cpu")
    assert found.labels == data.labels
    if regression:
        np.testing.assert_allclose(found.values, outcome.predictions["linear"], rtol=1e-3, atol=1e-3)
    else:
        np.testing.assert_array_equal(found.values, outcome.predictions["linear"])
        assert found.probabilities is not None
        np.testing.assert_allclose(found.probabilities.sum(1), 1)
    np.testing.assert_array_equal(outcome.predictions["example"], rows.index)


def test_the_folder_is_an_encoder_for_plain_transformers_and_has_no_head(
    tmp_path: Path, tiny_model: Path, tiny_data: Callable[..., Data], make_spec: Callable[..., Any]
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModel

    data = tiny_data(40, 24)
    spec = replace(make_spec(data, tiny_model), kind="reference", steps=0)
    outcome = reference(spec, data, locate(str(tiny_model)), Place(tmp_path, torch.device("cpu")), Control())
    assert outcome.backbone is not None and read_linear(tmp_path) is None
    outcome.backbone.save(tmp_path / "model")
    AutoModel.from_pretrained(tmp_path / "model", local_files_only=True)
    assert not [name for name in load_file(tmp_path / "model" / "model.safetensors") if "classifier" in name]
    assert (tmp_path / "model" / FILE).is_file()


@pytest.mark.parametrize("classes", [2, 3])
def test_coefficients_give_the_pipeline_s_probabilities(classes: int) -> None:
    generator = np.random.default_rng(classes)
    x, y = generator.normal(3, 2, (90, 5)), np.arange(90) % classes
    model = linear_model(x, y, regression=False, metric="accuracy")
    weight, bias = coefficients(model, classes)
    logits = x @ weight.T + bias
    ours = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(ours, model.predict_proba(x), rtol=1e-6)


def test_a_class_without_a_row_is_never_predicted() -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2 * 2  # class 1 of three is missing
    weight, bias = coefficients(linear_model(x, y, regression=False, metric="accuracy"), 3)
    assert set((x @ weight.T + bias).argmax(1)) == {0, 2}
    only = linear_model(x, np.full(60, 2), regression=False, metric="accuracy")
    assert set(only.predict(x)) == {2} and coefficients(only, 3)[1].argmax() == 2
