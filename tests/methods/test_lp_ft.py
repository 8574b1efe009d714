"""LP-FT: the fitted head against the released code's recorded one, the first stage of a run, and every kind of head."""

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
from ftbench.methods.features import HeadInput, head_linears
from ftbench.methods.lp_ft import LPFT, fit, fold, head_features, set_head, solve
from ftbench.training.engine import make_batch, optimizer_step
from ftbench.training.start import start_of

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "lp_ft.json").read_text())
GIVEN, EXPECTED = ORACLE["inputs"], ORACLE["outputs"]
CLOSE = {"rtol": ORACLE["tolerance"]["rtol"], "atol": ORACLE["tolerance"]["atol"]}
SOLVED = ORACLE["tolerance"]["sweep_W_b"]


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"])).reshape(recorded["shape"])


FEATURES, LABELS = tensor(GIVEN["features"][0]), tensor(GIVEN["labels"][0])


# --------------------------------------------------------------------------------------- the fitted head


def test_the_head_is_folded_as_released() -> None:
    mean, deviation = FEATURES.mean(), FEATURES.std(correction=0)
    torch.testing.assert_close((FEATURES - mean) / deviation, tensor(EXPECTED["normalized_features"][0]), **CLOSE)
    weight, bias = fold(tensor(GIVEN["head"]["W"]), tensor(GIVEN["head"]["b"]), mean, deviation)
    torch.testing.assert_close(weight, tensor(EXPECTED["folded"]["W"]), **CLOSE)
    torch.testing.assert_close(bias, tensor(EXPECTED["folded"]["b"]), **CLOSE)
    logits = tensor(GIVEN["features"][1]) @ weight.T + bias
    torch.testing.assert_close(logits, tensor(EXPECTED["logits_on_raw_features"]), **CLOSE)


def test_the_fit_equals_the_released_one_at_its_c() -> None:
    sweep = EXPECTED["sweep"]
    normalised = tensor(EXPECTED["normalized_features"][0])
    for found, names in (
        (solve(normalised, LABELS, sweep["best_C"], 3), ("W", "b")),
        (fit(FEATURES, LABELS, sweep["best_C"], 3, shifted=True), ("W_folded", "b_folded")),
    ):
        for ours, name in zip(found, names, strict=True):
            torch.testing.assert_close(ours, tensor(sweep[name]), **SOLVED)


@pytest.mark.parametrize("c", [0.01, 1.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_fit_equals_scikit_learn_s(classes: int, c: float) -> None:
    """Two classes: one vector w there, (-w/2, w/2) here, as in the released code."""
    from sklearn.linear_model import LogisticRegression

    labels = LABELS % classes
    weight, bias = solve(FEATURES, labels, c, classes)
    model = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(FEATURES.numpy(), labels.numpy())
    theirs, shift = torch.tensor(model.coef_), torch.tensor(model.intercept_)
    if classes == 2:
        theirs, shift = torch.cat([-theirs, theirs]) / 2, torch.cat([-shift, shift]) / 2
    torch.testing.assert_close(weight, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias, shift, rtol=1e-4, atol=1e-5)


def test_absent_classes_are_padded_as_released() -> None:
    present = torch.tensor(GIVEN["pad_classes_present"])
    weight, bias = fit(FEATURES, present[LABELS], 0.1, 6, shifted=True)
    own, shift = fit(FEATURES, LABELS, 0.1, 3, shifted=True)
    torch.testing.assert_close(weight[present], own)
    torch.testing.assert_close(bias[present], shift)
    padded = tensor(EXPECTED["padded"]["W"])
    absent = [c for c in range(6) if c not in present]
    assert (padded[absent] == 0).all() and (weight[absent] == 0).all() and (bias[absent] == 0).all()


def test_numbers_are_fitted_by_ridge_regression() -> None:
    y = FEATURES[:, 0] * 2 - FEATURES[:, 1] + 5
    weight, bias = fit(FEATURES, y, 0.3, 1, shifted=True)
    x = FEATURES - FEATURES.mean(0)
    expected = torch.linalg.solve(x.T @ x + torch.eye(6).double() / 0.3, x.T @ (y - y.mean()))
    torch.testing.assert_close(weight[0], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bias[0], (y - FEATURES @ weight[0]).mean(), rtol=1e-5, atol=1e-6)


def gradient_of_the_objective(run: Any, data: Any, c: float, regression: bool) -> Tensor:
    """At the head as it is: c * sum of losses + (norm of W on normalised features)^2 / 2, by W."""
    start = start_of(
        run.spec,
        run.backbone,
        run.tokens,
        data.splits["train"],
        None,
        original=lambda: run.backbone,
        regression=regression,
    )
    features, labels = head_features(start)
    batch = make_batch(run, 0, 0, np.arange(len(labels)))
    run.backbone.model.eval()
    with torch.no_grad():
        logits = run.backbone.forward(batch.inputs).logits.double()
    weight = [p for n, p in run.backbone.model.named_parameters() if p.ndim == 2][-1].detach().double()
    scale = features.std(correction=0) ** 2 if not regression else 1.0
    factor = 2 if len(weight) == 2 else 1
    if regression:
        error = logits - labels.view(-1, 1)
    else:
        error = logits.softmax(-1) - torch.nn.functional.one_hot(labels, len(weight))
    return c * error.T @ features + factor * scale * weight


@pytest.mark.parametrize(
    ("family", "classes", "regression"),
    [
        ("bert", 2, False),
        ("bert", 3, False),
        ("bert", 2, True),
        ("roberta", 2, False),
        ("distilbert", 4, False),
        ("gpt2", 3, False),
        ("bart", 3, False),
        ("t5", 2, False),
    ],
)
def test_a_fitted_head_of_any_family_is_a_minimum(
    family: str, classes: int, regression: bool, tiny_data: Any, tiny_family: Any, training_of: Any, tmp_path: Path
) -> None:
    data = tiny_data(32, 8, classes, regression=regression)
    run = training_of(data, tiny_family(family), tmp_path, "lp-ft:probe=fitted,c=2")
    assert gradient_of_the_objective(run, data, 2.0, regression).abs().max() < 1e-3
    plain = training_of(data, tiny_family(family), tmp_path)
    assert gradient_of_the_objective(plain, data, 2.0, regression).abs().max() > 0.1
    named = dict(plain.backbone.model.named_parameters())
    changed = [n for n, p in run.backbone.model.named_parameters() if not torch.equal(p, named[n])]
    last = next(name for name, m in run.backbone.model.named_modules() if m is head_linears(run.backbone)[-1])
    assert changed == [f"{last}.weight", f"{last}.bias"][: len(changed)] and changed
    assert not run.backbone.model.training and not any(p.grad is not None for p in run.parameters)


def test_a_fitted_head_starts_better(tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path) -> None:
    losses = []
    for arm in ("lp-ft:probe=fitted,c=1e4", "std"):
        run = training_of(tiny_data(48, 8, 4), tiny_model, tmp_path, arm)
        batch = make_batch(run, 0, 0, np.arange(48))
        with torch.no_grad():
            losses.append(batch.task_loss(run.backbone.forward(batch.inputs)).item())
    assert losses[0] < 0.8 * losses[1]


def test_a_kept_head_s_order_of_classes_is_minded(
    tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    run = training_of(tiny_data(32, 8, 3), tiny_model, tmp_path)
    weight, bias = torch.randn(3, 32), torch.randn(3)
    run.backbone.order = torch.tensor([2, 0, 1])
    set_head(run.backbone, weight, bias)
    head = HeadInput(run.backbone)
    logits = run.backbone.forward(make_batch(run, 0, 0, np.arange(4)).inputs).logits
    torch.testing.assert_close(logits, head.taken[0] @ weight.T + bias)


# --------------------------------------------------------------------------------------- the first stage


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_head_alone_then_everything(
    share: float, tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    run = training_of(tiny_data(), tiny_model, tmp_path, f"lp-ft:share={share}", steps=10, weight_decay=0.1)
    run.backbone.model.train()
    named = dict(run.backbone.model.named_parameters())
    for step in range(10):
        before = {name: p.detach().clone() for name, p in named.items()}
        optimizer_step(run, step)
        moved = {name for name, p in named.items() if not torch.equal(p, before[name])}
        head = {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"}
        assert moved >= head and (moved == head) == (step < round(share * 10))
        if step >= round(share * 10):
            assert {name for name in named if "layer.0" in name and "key.bias" not in name} <= moved
            assert run.optimizer.state[named["bert.encoder.layer.0.output.dense.weight"]]["step"] == step + 1 - round(
                share * 10
            ), "Adam's averages of the body start with its first step"


@pytest.mark.parametrize("stack", ["lp-ft:share=1+mixout:p=0.5", "mixout:p=0.5+lp-ft:share=1"])
def test_the_head_alone_whatever_mixout_renames(
    stack: str, tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    run = training_of(tiny_data(), tiny_model, tmp_path, stack, steps=3)
    run.backbone.model.train()
    before = {name: p.detach().clone() for name, p in run.backbone.model.named_parameters()}
    for step in range(3):
        optimizer_step(run, step)
    after = dict(run.backbone.model.named_parameters())
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved and all(name.startswith(("classifier.", "bert.pooler.")) for name in moved)


def test_a_head_that_another_method_computes_cannot_be_fitted(
    tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="lp-ft:probe=fitted: expected a head of its own: put lp-ft first"):
        training_of(tiny_data(), tiny_model, tmp_path, "r4f+lp-ft:probe=fitted")
    training_of(tiny_data(), tiny_model, tmp_path, "lp-ft:probe=fitted+r4f")


def test_the_norm_that_clips_is_that_of_the_head(
    tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    run, plain = (training_of(tiny_data(), tiny_model, tmp_path, arm) for arm in ("lp-ft:share=1", "std"))
    norms = []
    for training in (run, plain):
        training.backbone.model.train()
        norms.append(optimizer_step(training, 0)["grad_norm"].item())
    assert 0 < norms[0] < norms[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": "1.5"}, "lp-ft:share=1.5: expected 0 to 1"),
        ({"share": "-0.1"}, "lp-ft:share=-0.1: expected 0 to 1"),
        ({"c": "0"}, "lp-ft:c=0: expected more than 0"),
        ({"probe": "sgd"}, "lp-ft:probe=sgd: expected steps or fitted"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build(LPFT, fields, "lp-ft")
    assert message in str(error.value)
