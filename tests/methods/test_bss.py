"""Batch spectral shrinkage against the released code's recorded numbers, and the features it acts on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.lookup import build
from ftbench.methods.bss import BSS, smallest_squares
from ftbench.training.engine import micro_step

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "bss.json").read_text())
RTOL, ATOL = ORACLE["tolerance"]["rtol"], ORACLE["tolerance"]["atol"]
FORMS = {"bss_nlp_k1": 1, "vision_script_k1": 1, "library_k1": 1, "library_k2": 2, "library_k3": 3}


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"])).reshape(recorded["shape"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ORACLE["inputs"])
def test_it_equals_the_released_code(case: str, form: str) -> None:
    features = tensor(ORACLE["inputs"][case]["features"]).requires_grad_()
    expected = ORACLE["outputs"][case][form]
    atol = 1e-5 if case == "b4d8_rank_deficient" and FORMS[form] == 1 else ATOL
    value = smallest_squares(features, FORMS[form])
    (gradient,) = torch.autograd.grad(value, features)
    torch.testing.assert_close(value, tensor(expected["value"]), rtol=RTOL, atol=atol)
    torch.testing.assert_close(gradient, tensor(expected["grad_features"]), rtol=RTOL, atol=atol)


@pytest.mark.parametrize("k", [1, 2, 9])
def test_it_equals_the_formula_in_float64(k: int) -> None:
    """By the eigenvalues of F F^T; more values than there are: all of them, the squared norm."""
    features = tensor(ORACLE["inputs"]["b4d8"]["features"]).double().requires_grad_()
    expected = torch.linalg.eigvalsh(features @ features.T)[:k].sum()
    value = smallest_squares(features, k)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, features)[0] for v in (value, expected)))
    if k == 9:
        torch.testing.assert_close(value, features.square().sum())


@pytest.mark.parametrize("rows", [torch.zeros(3, 5), torch.ones(3, 5), torch.eye(3, 5)])
def test_degenerate_batches_have_finite_gradients(rows: Tensor) -> None:
    features = rows.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(smallest_squares(features, 2), features)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("features", ["pooled", "cls"])
def test_the_features_are_those_of_the_clean_pass(
    family: str, features: str, tiny_data: Any, tiny_family: Any, training_of: Any, tmp_path: Path
) -> None:
    arm = f"bss:features={features},k=2,weight=0.5"
    run = training_of(tiny_data(), tiny_family(family), tmp_path, arm)
    for module in run.backbone.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows = np.array([7, 0, 21, 4])
    run.backbone.model.train()
    value = micro_step(run, 0, 0, rows, 1.0)[0]["bss"].item()
    texts = [tiny_data().splits["train"].texts[0][row] for row in rows]
    found = []
    for text in texts:  # one by one, so without padding
        inputs = dict(run.backbone.tokenizer(text, return_tensors="pt"))
        inputs = {name: torch.as_tensor(value) for name, value in inputs.items()}
        with torch.no_grad():
            if family == "bert":
                base = run.backbone.model.bert(**inputs)
                found.append(base.pooler_output[0] if features == "pooled" else base.last_hidden_state[0, 0])
            elif features == "pooled":
                found.append(run.backbone.model.transformer(**inputs).last_hidden_state[0, -1])
            else:
                found.append(run.backbone.block_outputs(inputs)[-1][0, -1])
    expected = np.sort(np.linalg.svd(torch.stack(found).double().numpy(), compute_uv=False))[:2]
    assert value == pytest.approx((expected**2).sum(), rel=1e-4) and value > 1e-4


@pytest.mark.parametrize("passes", ["separate", "joined"])
def test_views_of_other_methods_are_not_its_features(
    passes: str, tiny_data: Any, tiny_model_without_dropout: Path, training_of: Any, tmp_path: Path
) -> None:
    values = []
    for arm in ("bss", "bss+r3f:eps=5", "r3f:eps=5+bss"):
        run = training_of(tiny_data(), tiny_model_without_dropout, tmp_path, arm, passes=passes)
        run.backbone.model.train()
        values.append(micro_step(run, 0, 0, np.arange(8), 1.0)[0]["bss"].item())
    assert values == pytest.approx([values[0]] * 3, rel=1e-5) and values[0] > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": "-1"}, "bss:weight=-1: expected 0 or more"),
        ({"k": "0"}, "bss:k=0: expected 1 or more"),
        ({"features": "mean"}, "bss:features=mean: expected pooled or cls"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build(BSS, fields, "bss")
    assert message in str(error.value)
