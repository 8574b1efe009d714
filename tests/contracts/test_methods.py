"""Every method keeps every contract: one table of methods, one list of contracts, on a tiny BERT.

The numbers are those of the list in ``docs/architecture.md``. Contract 3's oracles are in
``tests/methods``, contract 8 is in ``tests/methods/test_table.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrizations

from ftbench.errors import Interrupted
from ftbench.methods import METHODS, make, method_class, parse_stack
from ftbench.methods.freelb import FreeLB
from ftbench.methods.method import Batch, Method, Term, View
from ftbench.methods.noise import NoisedPass
from ftbench.methods.rdrop import RDrop
from ftbench.methods.smart import Smart
from ftbench.models.backbone import Out
from ftbench.models.locate import locate
from ftbench.models.trained import load_trained
from ftbench.training import engine
from ftbench.training.batches import tokenize
from ftbench.training.engine import micro_step
from ftbench.training.evaluate import predict
from tests.outcomes import (
    RECIPE,
    STEPS,
    assert_equal_outcomes,
    assert_resumable,
    gradients_of,
    neutral_arm,
    same,
    stop_after,
    weights,
)

#: each method as it is, and in the forms that go other ways through its code
ARMS = (
    *METHODS,
    "r3f:variant=released",
    "r3f:dropout=shared,eps=0.1",
    "r3f:dropout=off,noise=normal,detach=clean,eps=0.1",
    "r4f:variant=released",
    "rdrop:variant=readme",
    "rdrop:variant=bert",
    "rdrop:variant=roberta",
)
#: a method that cannot be as it is on two blocks
FITTED = {"freeze": "freeze:layers=1", "reinit": "reinit:layers=1"}
ARMS = tuple(FITTED.get(arm, arm) for arm in ARMS)
TERMS = tuple(arm for arm in ARMS if arm.startswith(("r3f", "r4f")))
#: an arm -> what it is without its term, where that is not plain fine-tuning: R4F's head is normalised at any weight
CONTROLS = {"r4f": "r4f:weight=0", "r4f:variant=released": "r4f:variant=released,weight=0"}

#: nothing to compare in contract 5: these draw hidden states or weights anew for every micro-batch; VAT divides by the
#: length of a gradient that is nearly 0 (test_noise_runs.py has it, with a wider step)
REDRAWN = ("hype", "neftune", "mixout", "vat")
CUTS = ((8,), (8, 12), (5, 10, 15))

Finetune = Callable[..., Any]


def fully(arms: Sequence[str], values: Sequence[Any]) -> list[tuple[str, Any]]:
    """Every value for the arms with terms of their own making, one in the middle for the others: they cost time."""
    return [(arm, value) for arm in arms for value in (values if arm in TERMS else values[1:2])]


def couples(arm: str) -> bool:
    """Whether it says that its term depends on which rows share a micro-batch."""
    return any(method.couples(writes=False) for method in make(parse_stack(arm)))


def summable(arm: str) -> bool:
    """Whether contract 5 holds: not where a term couples the rows, nor where draws cannot be made equal."""
    return arm not in REDRAWN and not couples(arm)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """``still()``: R4F's singular vectors stay where they are.

    They move by one power iteration at every pass, so they are others after two micro-batches than after one batch,
    and in the second pass than in the first. What does not depend on that must be the same.
    """

    def hold() -> None:
        monkeypatch.setattr(parametrizations._SpectralNorm, "_power_method", lambda *arguments: None)

    return hold


@pytest.fixture(scope="module")
def data(tiny_data: Callable[..., Any]) -> Any:
    return tiny_data(32, 16, 2)


@pytest.fixture(scope="module")
def plain(run_of: Callable[[str], Any]) -> Any:
    return run_of("std")


@pytest.mark.parametrize("name", METHODS)
def test_1_neutral_is_plain_fine_tuning(name: str, run_of: Callable[[str], Any], plain: Any) -> None:
    arm = neutral_arm(name)
    if not arm:
        return
    outcome = run_of(arm)
    scores = outcome.result.metrics
    assert {selection: scores[selection] for selection in plain.result.metrics} == plain.result.metrics
    assert len(outcome.history) == len(plain.history)
    for ours, theirs in zip(outcome.history, plain.history, strict=True):
        assert {key: ours[key] for key in theirs} == theirs
    assert same(weights(outcome), weights(plain))
    assert np.array_equal(outcome.predictions["probabilities"], plain.predictions["probabilities"])


@pytest.mark.parametrize("arm", ARMS)
def test_2_a_run_is_its_spec(
    arm: str, data: Any, tiny_model: Path, finetune_tiny: Finetune, run_of: Callable[[str], Any], tmp_path: Path
) -> None:
    first = run_of(arm)
    torch.randn(11), np.random.random(3)
    again = finetune_tiny(data, tiny_model, tmp_path / "b", methods=arm, **RECIPE)
    other = finetune_tiny(data, tiny_model, tmp_path / "c", methods=arm, seed=1, **{**RECIPE, "steps": 1})
    assert_equal_outcomes(first, again)
    assert first.history[0]["loss"] != other.history[0]["loss"]


@pytest.mark.parametrize("arm", TERMS)
def test_2_a_method_does_something(arm: str, run_of: Callable[[str], Any]) -> None:
    outcome, control = run_of(arm), run_of(CONTROLS.get(arm, "std"))
    assert outcome.history[0]["loss"] == control.history[0]["loss"], "the first clean pass has the same masks"
    assert not same(weights(outcome), weights(control))


@pytest.mark.parametrize("control", CONTROLS.values())
def test_2_a_control_does_something(control: str, run_of: Callable[[str], Any], plain: Any) -> None:
    """With the term's weight at 0 R4F is not plain fine-tuning."""
    outcome = run_of(control)
    assert outcome.history[0]["loss"] != plain.history[0]["loss"]
    assert not same(weights(outcome), weights(plain))


@pytest.mark.parametrize("arm", TERMS)
@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_3_the_term_is_finite_and_not_negative(
    arm: str, kind: str, tiny_data: Callable[..., Any], tiny_model: Path, finetune_tiny: Finetune, tmp_path: Path
) -> None:
    rows = tiny_data(32, 16, 2, regression=True) if kind == "regression" else tiny_data(32, 16, 3)
    outcome = finetune_tiny(rows, tiny_model, tmp_path, methods=arm, steps=STEPS)
    terms = [record["kl"] for record in outcome.history if "kl" in record]
    if kind == "regression" and "released" in arm:
        assert terms == []
        return
    assert len(terms) == STEPS and all(0 <= term < 1e3 for term in terms) and max(terms) > 0
    ratios = [record["kl_gradient_ratio"] for record in outcome.history if "kl_gradient_ratio" in record]
    assert len(ratios) == 5 and all(0 < ratio < 1e3 for ratio in ratios)


@pytest.mark.parametrize("arm", ARMS)
def test_4_every_trained_parameter_gets_a_gradient(
    arm: str, data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    run = training_of(data, tiny_model, tmp_path, arm)
    run.backbone.model.train()
    micro_step(run, 0, 0, np.arange(8), 1.0)
    trained = {name: p for name, p in run.backbone.model.named_parameters() if p.requires_grad}
    assert trained
    for name, parameter in trained.items():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not name.endswith("key.bias") and "lora_A" not in name:  # softmax ignores it; B is 0 at the first step
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("arm", "cut"), fully([arm for arm in ARMS if summable(arm)], CUTS), ids=str)
def test_5_a_batch_is_the_sum_of_its_micro_batches(
    arm: str,
    cut: tuple[int, ...],
    data: Any,
    tiny_model_without_dropout: Path,
    training_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    still: Callable[[], None],
    tmp_path: Path,
) -> None:
    # noise by row and position, because a micro-batch draws its own and is padded to its own length
    table = torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1
    monkeypatch.setattr(NoisedPass, "add_noise", lambda _, e, batch: e + table[batch.ids, : e.shape[1]])
    for adversary in (Smart, FreeLB):
        monkeypatch.setattr(adversary, "draw", lambda _, e, batch: table[batch.ids, : e.shape[1]] * 1e-3)
    run = training_of(data, tiny_model_without_dropout, tmp_path, arm)
    still()
    whole, gradients = gradients_of(run, [np.arange(16)])
    cut_up, summed = gradients_of(run, np.split(np.arange(16), cut))
    assert whole == pytest.approx(cut_up, rel=1e-5)
    if arm in TERMS:
        assert whole["kl"] > 1e-4
    for name, gradient in gradients.items():
        torch.testing.assert_close(summed[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if couples(arm)])
def test_5_what_says_that_it_couples_the_rows_does(
    arm: str,
    data: Any,
    tiny_model_without_dropout: Path,
    training_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(RDrop, "views", lambda *_: [View(lambda e: e.flip(-1))])  # passes that differ without dropout
    run = training_of(data, tiny_model_without_dropout, tmp_path, arm)
    with torch.no_grad():
        for parameter in run.parameters:  # so that CKA has something to see
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    whole, _ = gradients_of(run, [np.arange(16)])
    cut_up, _ = gradients_of(run, np.split(np.arange(16), 2))
    (name,) = whole.keys() - {"loss"}
    assert whole["loss"] == pytest.approx(cut_up["loss"], rel=1e-5)
    assert whole[name] != pytest.approx(cut_up[name], rel=1e-3)


@pytest.mark.parametrize("arm", ARMS)
def test_6_evaluation_is_that_of_the_plain_model(
    arm: str, data: Any, run_of: Callable[[str], Any], plain: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    outcome = run_of(arm)
    network, adds = outcome.backbone, method_class(arm.partition(":")[0]).adds
    assert weights(outcome).keys() >= weights(plain).keys()
    assert (weights(outcome).keys() == weights(plain).keys()) == (not adds)
    tokens = tokenize(data.splits["validation"], network.tokenizer, 32, key="")
    logits = predict(network, tokens)
    assert np.array_equal(logits, predict(network, tokens))
    assert np.array_equal(logits.argmax(-1), outcome.predictions["prediction"])
    network.save(tmp_path / "saved")
    if adds:
        saved = load_trained(locate(str(tmp_path / "saved")), network.tokenizer)[0].model
    else:
        saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    inputs = network.tokenizer(list(data.splits["validation"].texts[0]), padding=True, return_tensors="pt")
    with torch.no_grad():
        np.testing.assert_allclose(saved(**inputs).logits.numpy(), logits, rtol=1e-4, atol=1e-5)


@dataclass
class Twice(Method):
    """A second method with terms and two views of its own: halves and doubles the embeddings."""

    name = "twice"

    def views(self, batch: Batch, out: Out | None) -> list[View]:
        return [View(lambda e: e / 2, "shared"), View(lambda e: e * 2, "off")]

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        half, double = views
        return Term("twice", (half.logits - double.logits).square().mean(), 0.3)


@pytest.mark.parametrize("name", ["r3f", "r4f"])
def test_7_methods_stack_each_with_its_own_views(
    name: str,
    data: Any,
    tiny_model_without_dropout: Path,
    training_of: Callable[..., Any],
    still: Callable[[], None],
    tmp_path: Path,
) -> None:
    run = training_of(data, tiny_model_without_dropout, tmp_path, f"{name}:eps=0.2,weight=0.7")
    (ours,) = run.methods
    still()

    def objective_of(*methods: Method) -> tuple[dict[str, float], dict[str, Tensor]]:
        run.methods = methods
        return gradients_of(run, [np.arange(8)])

    plain, base = objective_of()
    alone, with_ours = objective_of(ours)
    other, with_twice = objective_of(Twice())
    for stack in ((ours, Twice()), (Twice(), ours)):
        both, with_both = objective_of(*stack)
        assert both == pytest.approx(plain | alone | other, rel=1e-5)
        assert both["kl"] > 1e-5 and both["twice"] > 1e-5
        for parameter, gradient in with_both.items():
            expected = with_ours[parameter] + with_twice[parameter] - base[parameter]
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("arm", "after"), fully(ARMS, (1, STEPS // 2, STEPS - 1)))
def test_9_interrupted_and_resumed_is_uninterrupted(
    arm: str,
    after: int,
    data: Any,
    tiny_model: Path,
    finetune_tiny: Finetune,
    run_of: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    assert_resumable(finetune_tiny, data, tiny_model, tmp_path, run_of(arm), after)


@pytest.mark.parametrize("arm", ["r3f", "r4f"])
def test_9_interrupted_twice_between_two_records(
    arm: str, data: Any, tiny_model: Path, finetune_tiny: Finetune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "LOG_RECORDS", 3)  # 13 steps, a record every 4
    fields = {"methods": arm, "steps": 13, "select_on": 0.25, "precision": "bf16"}
    whole = finetune_tiny(data, tiny_model, tmp_path / "whole", **fields)
    for steps in (3, 7):
        with pytest.raises(Interrupted):
            finetune_tiny(data, tiny_model, tmp_path / "cut", control=stop_after(steps), **fields)
    resumed = finetune_tiny(data, tiny_model, tmp_path / "cut", **fields)
    assert [r["step"] for r in whole.history if "loss" in r] == [4, 8, 12, 13]
    assert resumed.cost.interruptions == 2
    assert_equal_outcomes(whole, resumed)


@pytest.mark.parametrize("arm", TERMS)
def test_10_under_bf16_the_term_is_finite_and_the_noise_alive(
    arm: str, data: Any, tiny_model: Path, finetune_tiny: Finetune, tmp_path: Path
) -> None:
    outcome = finetune_tiny(data, tiny_model, tmp_path, methods=arm, steps=STEPS, precision="bf16")
    terms = [record["kl"] for record in outcome.history if "kl" in record]
    assert len(terms) == STEPS and all(0 <= term < 1e3 for term in terms)
    assert all(record["noise_alive"] > 0.99 for record in outcome.history if "noise_alive" in record)
    assert outcome.history[0]["noise_alive"] > 0.99
    assert all(p.dtype == torch.float32 for p in outcome.backbone.model.parameters())


def test_10_bf16_is_not_fp32(data: Any, tiny_model: Path, finetune_tiny: Finetune, plain: Any, tmp_path: Path) -> None:
    half = finetune_tiny(data, tiny_model, tmp_path, precision="bf16", **RECIPE)
    assert half.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=0.05)
    assert half.history[0]["loss"] != plain.history[0]["loss"]


@pytest.mark.parametrize("arm", ["r3f:eps=0.1", "r3f:eps=0.1,variant=released", "r4f:eps=0.1"])
def test_joined_passes_give_the_objective_of_separate_ones(
    arm: str,
    data: Any,
    tiny_model_without_dropout: Path,
    training_of: Callable[..., Any],
    still: Callable[[], None],
    tmp_path: Path,
) -> None:
    runs = {
        passes: training_of(data, tiny_model_without_dropout, tmp_path, arm, passes=passes)
        for passes in ("separate", "joined")
    }
    still()
    found = {passes: gradients_of(run, [np.arange(8)]) for passes, run in runs.items()}
    (separate, ours), (joined, theirs) = found["separate"], found["joined"]
    assert separate["kl"] > 1e-4
    assert joined == pytest.approx(separate, rel=1e-4)
    for name, gradient in ours.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-3, atol=1e-6)


def first_kl(arm: str, data: Any, model: Path, training_of: Callable[..., Any], folder: Path) -> float:
    return gradients_of(training_of(data, model, folder, arm), [np.arange(8)])[0]["kl"]


def test_dropout_of_the_second_pass(
    data: Any, tiny_model: Path, tiny_model_without_dropout: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    def kl(fields: str, model: Path = tiny_model) -> float:
        return first_kl(f"r3f:{fields}", data, model, training_of, tmp_path)

    assert kl("eps=0,dropout=shared") == 0
    assert kl("eps=0,dropout=independent") > 1e-5
    assert kl("eps=0,dropout=off") > 1e-5
    assert kl("eps=0,dropout=off") != kl("eps=0,dropout=independent")
    for dropout in ("independent", "shared", "off"):
        assert kl(f"eps=0,dropout={dropout}", tiny_model_without_dropout) == 0
        assert kl(f"eps=0.1,dropout={dropout}", tiny_model_without_dropout) > 0


def test_at_the_default_radius_the_term_is_that_of_the_dropout_masks(
    data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    noise_only = first_kl("r3f:dropout=shared", data, tiny_model, training_of, tmp_path)
    masks_only = first_kl("r3f:eps=0", data, tiny_model, training_of, tmp_path)
    both = first_kl("r3f", data, tiny_model, training_of, tmp_path)
    assert noise_only < 1e-6 * masks_only
    assert both == pytest.approx(masks_only, rel=1e-2)


def test_a_pass_without_dropout_leaves_the_model_training(
    data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    run = training_of(data, tiny_model, tmp_path, "r3f:dropout=off")
    gradients_of(run, [np.arange(8)])
    assert all(module.training for module in run.backbone.model.modules())
