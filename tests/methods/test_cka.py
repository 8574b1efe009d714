"""CKA against recorded numbers of two packages, against the textbook formulas, and as a term."""

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
from ftbench.methods.cka import CKA, linear_cka
from ftbench.models.backbone import Out
from ftbench.training.engine import make_batch, micro_step, optimizer_step

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "cka.json").read_text())
CLOSE = {"rel": ORACLE["tolerance"]["rtol"], "abs": ORACLE["tolerance"]["atol"]}
CASES = ("related_tall", "independent_tall", "related_wide", "independent_wide")


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=torch.float64).reshape(recorded["shape"])


@pytest.mark.parametrize("case", CASES)
def test_it_equals_the_packages(case: str) -> None:
    """The debiased package's clamp to [0, 1] is left out: the value before it was recorded too."""
    x, y = (tensor(ORACLE["inputs"][case][name]) for name in "xy")
    expected = ORACLE["outputs"][case]
    assert linear_cka(x, y).item() == pytest.approx(expected["biased"], **CLOSE)
    debiased = linear_cka(x, y, debiased=True).item()
    assert debiased == pytest.approx(expected["debiased_without_clamp"], **CLOSE)
    assert max(debiased, 0) == pytest.approx(expected["debiased"], **CLOSE)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("rows", [8, 128, 1000])
def test_it_is_one_for_the_same_vectors_however_many(rows: int, debiased: bool) -> None:
    x = torch.randn(rows, 384, generator=torch.Generator().manual_seed(0))
    assert linear_cka(x, x, debiased=debiased).item() == pytest.approx(1, abs=1e-4)
    y = x + torch.randn(rows, 384, generator=torch.Generator().manual_seed(1)) / 2
    expected = textbook(x.double(), y.double(), debiased).item()
    assert linear_cka(x, y, debiased=debiased).item() == pytest.approx(expected, abs=1e-4)


def test_layers_equal_the_package_s_matrix() -> None:
    given = ORACLE["inputs"]["layers"]
    found = [[linear_cka(tensor(x), tensor(y), debiased=True).item() for y in given["y"]] for x in given["x"]]
    expected = tensor(ORACLE["outputs"]["layers"]["debiased_matrix"]).clamp(0, 1).flatten().tolist()
    assert np.clip(np.ravel(found), 0, 1).tolist() == pytest.approx(expected, **CLOSE)


def textbook(x: Tensor, y: Tensor, debiased: bool) -> Tensor:
    """By Gram matrices and centring matrices; for ``debiased`` Song et al.'s U-statistic."""
    n = len(x)
    one, h = torch.ones(n, dtype=x.dtype), torch.eye(n, dtype=x.dtype) - 1 / n

    def hsic(a: Tensor, b: Tensor) -> Tensor:
        k, l = a @ a.T, b @ b.T  # noqa: E741
        if not debiased:
            return torch.trace(k @ h @ l @ h)
        off = 1 - torch.eye(n, dtype=x.dtype)
        k, l = k * off, l * off  # noqa: E741
        middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
        return (torch.trace(k @ l) + middle - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))

    return hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_equal_the_textbook_s(case: str, debiased: bool) -> None:
    x, y = (tensor(ORACLE["inputs"][case][name]) + 3.0 for name in "xy")
    x.requires_grad_()
    ours, theirs = linear_cka(x, y, debiased=debiased), textbook(x, y, debiased)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-9)
    torch.testing.assert_close(*(torch.autograd.grad(value, x)[0] for value in (ours, theirs)), rtol=1e-7, atol=1e-9)
    single = x.detach().float().requires_grad_()
    value = linear_cka(single, y.float(), debiased=debiased)
    assert value.item() == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("debiased", [False, True])
def test_what_it_allows(debiased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(12, 20, generator=generator).double()
    rotation, _ = torch.linalg.qr(torch.randn(20, 20, generator=generator).double())
    moved = (7 * y @ rotation + 3).requires_grad_()
    value = linear_cka(moved, y, debiased=debiased)
    assert value.item() == pytest.approx(1.0, abs=1e-9)
    (gradient,) = torch.autograd.grad(value, moved)
    assert gradient.abs().max() < 1e-6
    collapsed = torch.ones(12, 20, dtype=torch.float64).requires_grad_()
    value = linear_cka(collapsed, y, debiased=debiased)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(value, collapsed)[0].isfinite().all()


@pytest.mark.parametrize("token", ["cls", "mean", "all"])
@pytest.mark.parametrize("estimator", ["biased", "debiased"])
def test_the_term_is_1_minus_cka_with_the_pretrained_rows(
    estimator: str,
    token: str,
    tiny_data: Any,
    tiny_model_without_dropout: Path,
    training_of: Any,
    tmp_path: Path,
) -> None:
    arm = f"cka:estimator={estimator},token={token},weight=0.3,layer=1"
    run = training_of(tiny_data(), tiny_model_without_dropout, tmp_path, arm)
    (method,) = run.methods
    batch = make_batch(run, 0, 0, np.array([7, 0, 21, 4, 30, 2]))
    real = batch.inputs["attention_mask"].bool()
    pretrained = run.backbone.block_outputs(batch.inputs)[0].detach().double()
    state = pretrained + torch.randn(pretrained.shape, generator=torch.Generator().manual_seed(0)) * 0.5
    term = method.penalty(batch, Out(torch.zeros(0), [state.float()] * 2), [])

    def rows(values: Tensor) -> Tensor:
        own = {"cls": lambda v: v[:1], "mean": lambda v: v.mean(0, keepdim=True), "all": lambda v: v}[token]
        return torch.cat([own(v[r]) for v, r in zip(values, real, strict=True)])

    expected = 1 - textbook(rows(state), rows(pretrained), estimator == "debiased").item()
    assert (term.name, term.weight) == ("cka_loss", 0.3)
    assert term.value.item() == pytest.approx(expected, abs=1e-4) and expected > 0.05
    run.backbone.model.train()
    assert abs(micro_step(run, 0, 0, np.arange(8), 1.0)[0]["cka_loss"].item()) < 1e-4, "pretrained, no dropout"
    optimizer_step(run, 0)
    assert micro_step(run, 1, 0, np.arange(8), 1.0)[0]["cka_loss"].item() > 1e-4


@pytest.mark.parametrize(("estimator", "least"), [("biased", 2), ("debiased", 4)])
def test_too_few_rows_have_no_term(
    estimator: str, least: int, tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    run = training_of(tiny_data(), tiny_model, tmp_path, f"cka:estimator={estimator}")
    run.backbone.model.train()
    for rows in (least - 1, least):
        values, _ = micro_step(run, 0, 0, np.arange(rows), 1.0)
        assert ("cka_loss" in values) == (rows == least)
        assert all(value.isfinite() for value in values.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": "-1"}, "cka:weight=-1: expected 0 or more"),
        ({"estimator": "unbiased"}, "cka:estimator=unbiased: expected biased or debiased"),
        ({"layer": "-1"}, "cka:layer=-1: expected top or the number of a block from 1"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build(CKA, fields, "cka")
    assert message in str(error.value)
