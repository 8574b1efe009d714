"""The loop: which hook when, what is logged, when a run is given up, and that measuring changes nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftbench.errors import Interrupted
from ftbench.methods import METHODS
from ftbench.methods.method import Batch, Group, Method, Start, Step, Term, View
from ftbench.models.backbone import Backbone, Out
from ftbench.training import engine
from ftbench.training.engine import Diverged, evaluation_steps, optimizer_step, task_loss, train
from ftbench.training.log import Window
from ftbench.training.optim import BETAS, EPSILON, lr_at, make_optimizer, mix, parameter_groups
from ftbench.training.passes import Passes, run_passes
from ftbench.training.watch import Control


@dataclass
class Recording(Method):
    """Writes down every call; has one view that changes nothing, and a term that grows with its own state."""

    name = "recording"

    def __post_init__(self) -> None:
        self.calls: list[Any] = []
        self.seen = torch.zeros(())
        self.batches: list[Batch] = []

    def prepare(self, start: Start) -> None:
        self.calls.append("prepare")
        assert sum(len(batch.labels) for batch in start.batches()) == start.rows

    def groups(self, groups: list[Group]) -> list[Group]:
        self.calls.append("groups")
        return groups

    def begin(self, batch: Batch) -> None:
        self.calls.append("begin")

    def views(self, batch: Batch, out: Out | None) -> list[View]:
        self.calls.append("views")
        return [View(None, "shared")]

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        self.calls.append("penalty")
        self.batches.append(batch)
        assert len(views) == 1 and torch.equal(views[0].logits, out.logits)
        return Term("size", out.logits.square().mean() * (1 + self.seen), 0.1)

    def after_backward(self, backbone: Backbone, step: Step) -> None:
        self.calls.append(("after_backward", step.number))
        assert all(p.grad is not None for p in backbone.model.parameters())

    def after_step(self, backbone: Backbone, step: Step) -> None:
        self.calls.append(("after_step", step.number))
        self.seen = self.seen + 1

    def state_dict(self) -> dict[str, Tensor]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.calls.append("load_state_dict")
        self.seen = state["seen"]


@dataclass
class Exploding(Method):
    """Returns inf from one step on."""

    start: int = 0
    name = "exploding"

    def __post_init__(self) -> None:
        self.step = 0

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        self.step += 1
        factor = math.inf if self.step > self.start else 1.0
        return Term("boom", out.logits.square().sum() * factor, 1.0)


@dataclass
class Drawing(Method):
    """Draws a lot of random numbers from the batch's generator, and does nothing with them."""

    name = "drawing"

    def views(self, batch: Batch, out: Out | None) -> list[View]:
        torch.rand(1000, generator=batch.generator)
        return []

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        torch.rand(1000, generator=batch.generator)
        return None


@pytest.fixture
def own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods above by name, as an entry of the table is."""
    module = ModuleType("own_methods")
    for cls in (Recording, Exploding, Drawing):
        setattr(module, cls.__name__, cls)
        monkeypatch.setitem(METHODS, cls.name, f"own_methods:{cls.__name__}")
    monkeypatch.setitem(sys.modules, "own_methods", module)


@pytest.fixture(scope="module")
def data(tiny_data: Callable[..., Any]) -> Any:
    return tiny_data(20, 12, 2)


def test_hooks_in_their_order(
    own_methods: None, data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    run = training_of(data, tiny_model, tmp_path, "recording", steps=4, batch_size=8, micro_batch=3)
    (method,) = run.methods
    watched: list[int] = []
    train(run, lambda run: watched.append(run.state.step))
    micro = ["begin", "views", "penalty"]
    expected: list[Any] = ["prepare", "groups"]
    for step, pieces in enumerate((3, 3, 2, 3)):  # 8, 8 and 4 rows in an epoch of 20
        expected += [*micro * pieces, ("after_backward", step), ("after_step", step)]
    assert method.calls == expected
    assert watched == [1, 2, 3, 4]
    epoch = np.concatenate([batch.ids.numpy() for batch in method.batches[:8]])
    assert sorted(epoch) == list(range(20))
    labels = np.concatenate([batch.labels.numpy() for batch in method.batches[:8]])
    assert np.array_equal(labels, data.splits["train"].labels[epoch])
    assert [batch.diagnose for batch in method.batches] == [*[True, False, False] * 2, True, False, True, False, False]
    assert run.meter.cost.forward_passes == run.meter.cost.backward_passes == 2 * 11
    assert run.meter.cost.steps == 4
    lengths = run.tokens.lengths
    seen = sum(int(batch.inputs["attention_mask"].sum()) for batch in method.batches)
    assert run.meter.cost.tokens == seen and seen > lengths.sum()


def test_the_state_of_a_method_survives_a_resume(
    own_methods: None, data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    whole = finetune_tiny(data, tiny_model, tmp_path / "whole", "recording", steps=6)
    control = Control(should_stop=iter([False, False, False, True]).__next__)
    with pytest.raises(Interrupted):
        finetune_tiny(data, tiny_model, tmp_path / "cut", "recording", control, steps=6)
    resumed = finetune_tiny(data, tiny_model, tmp_path / "cut", "recording", steps=6)
    assert resumed.history == whole.history and resumed.result == whole.result
    sizes = [record["size"] for record in whole.history if "size" in record]
    assert sizes[-1] != sizes[0]


def test_a_methods_draws_do_not_move_the_masks_of_the_clean_pass(
    own_methods: None, data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    plain = training_of(data, tiny_model, tmp_path, "std")
    drawing = training_of(data, tiny_model, tmp_path, "drawing+r3f")
    logits = []
    for run in (plain, drawing):
        run.backbone.model.train()
        batch = engine.make_batch(run, 3, 1, np.arange(8))
        passes = Passes(run.backbone, batch, mix(0, 3, 1, "dropout"), states=False)
        logits.append(run_passes(passes, run.methods, joined=False)[0].logits)
    assert torch.equal(*logits)
    for run in (plain, drawing):
        run.methods = [m for m in run.methods if m.name == "drawing"]
        train(run, lambda run: None)
    assert plain.state.history == drawing.state.history


def test_masks_differ_between_steps_micro_batches_and_seeds(
    data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    run = training_of(data, tiny_model, tmp_path)
    run.backbone.model.train()
    batch = engine.make_batch(run, 0, 0, np.arange(8))

    def logits(*key: Any) -> Tensor:
        return Passes(run.backbone, batch, mix(*key, "dropout"), states=False).clean().logits

    first = logits(0, 0, 0)
    assert torch.equal(first, logits(0, 0, 0))
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(first, logits(*other))


def test_the_generator_is_a_function_of_seed_step_and_micro_batch(
    data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    run = training_of(data, tiny_model, tmp_path)

    def draw(step: int, micro: int) -> float:
        return torch.rand(1, generator=engine.make_batch(run, step, micro, np.arange(2)).generator).item()

    assert draw(2, 1) == draw(2, 1)
    assert len({draw(0, 0), draw(0, 1), draw(1, 0), draw(1, 1)}) == 4


@pytest.mark.parametrize("start", [0, 2, 4])
def test_a_term_of_inf_ends_the_run_as_diverged(
    start: int, own_methods: None, data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """Also in the very last step, after which no loss is looked at any more."""
    outcome = finetune_tiny(data, tiny_model, tmp_path, f"exploding:start={start}", steps=5)
    assert outcome.result.status == "diverged" and outcome.result.metrics == {}
    assert "step" in outcome.result.error and outcome.result.facts["majority_score"] == 0.5
    assert outcome.history[0]["step"] == 1 and math.isfinite(outcome.history[0]["loss"])


@pytest.mark.parametrize("regression", [False, True])
def test_an_absurd_learning_rate_ends_as_diverged(
    regression: bool,
    tiny_data: Callable[..., Any],
    tiny_model: Path,
    finetune_tiny: Callable[..., Any],
    tmp_path: Path,
) -> None:
    rows = tiny_data(20, 12, 2, regression=regression)
    outcome = finetune_tiny(rows, tiny_model, tmp_path, lr=1e30, steps=6)
    assert outcome.result.status == "diverged"
    assert outcome.result.error.startswith("the loss is") or "not finite" in outcome.result.error


def test_weights_that_overflow_between_two_records_are_noticed_by_the_evaluation(
    own_methods: None,
    tiny_data: Callable[..., Any],
    tiny_model: Path,
    finetune_tiny: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(engine, "LOG_RECORDS", 1)
    rows = tiny_data(20, 12, 2, regression=True)
    outcome = finetune_tiny(rows, tiny_model, tmp_path, "exploding:start=1", steps=9)
    assert outcome.result.status == "diverged" and "step 3 of 9" in outcome.result.error


def test_measuring_gradients_changes_no_number(
    data: Any,
    tiny_model: Path,
    finetune_tiny: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    outcomes = []
    for diagnoses in (2, 5):
        monkeypatch.setattr(engine, "DIAGNOSES", diagnoses)
        outcomes.append(finetune_tiny(data, tiny_model, tmp_path / str(diagnoses), "r3f:eps=0.1", steps=9))
    few, many = outcomes
    measured = ("kl_gradient_ratio", "noise_alive")
    assert [sum(measured[0] in r for r in o.history) for o in outcomes] == [2, 5]
    for a, b in zip(few.history, many.history, strict=True):
        assert {k: v for k, v in a.items() if k not in measured} == {k: v for k, v in b.items() if k not in measured}
    assert few.result.metrics == many.result.metrics
    for a, b in zip(few.backbone.model.parameters(), many.backbone.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_gradient_ratio_is_that_of_the_two_gradients(
    data: Any, tiny_model_without_dropout: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    def norm(methods: str, **rest: Any) -> tuple[float, dict[str, Tensor]]:
        run = training_of(data, tiny_model_without_dropout, tmp_path, methods, steps=1, **rest)
        run.backbone.model.train()
        logged = optimizer_step(run, 0)
        return logged["grad_norm"].item(), logged

    plain, _ = norm("std")
    _, one = norm("r3f:eps=0.3")
    _, five = norm("r3f:eps=0.3,weight=5")
    assert five["kl_gradient_ratio"].item() == pytest.approx(5 * one["kl_gradient_ratio"].item(), rel=1e-4)
    heavy, _ = norm("r3f:eps=0.3,weight=1e6")
    assert heavy / 1e6 / plain == pytest.approx(one["kl_gradient_ratio"].item(), rel=1e-3)


@pytest.mark.parametrize(
    ("steps", "per_epoch", "evaluations", "expected"),
    [
        (12, 6, 10, [6, 12]),
        (13, 6, 10, [6, 12, 13]),
        (3, 10, 10, [3]),
        (100, 10, 5, [20, 40, 60, 80, 100]),
        (100, 10, 3, [40, 80, 100]),
        (100, 10, 1, [100]),
        (5, 1, 2, [3, 5]),
    ],
)
def test_evaluation_steps(steps: int, per_epoch: int, evaluations: int, expected: list[int]) -> None:
    assert evaluation_steps(steps, per_epoch, evaluations) == expected


def test_evaluation_steps_end_epochs_and_the_run_and_are_not_too_many() -> None:
    for steps in (1, 7, 50, 333):
        for per_epoch in (1, 3, 10, 400):
            for evaluations in (1, 4, 10):
                found = evaluation_steps(steps, per_epoch, evaluations)
                assert found[-1] == steps and len(found) <= evaluations + 1
                assert all(step % per_epoch == 0 for step in found[:-1]) and found == sorted(set(found))


def test_a_run_is_evaluated_at_these_steps(
    data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    outcome = finetune_tiny(data, tiny_model, tmp_path, steps=7)  # 3 steps in an epoch
    assert [record["step"] for record in outcome.history if "evaluation" in record] == [3, 6, 7]
    assert outcome.result.facts["steps_per_epoch"] == 3


def test_the_learning_rate() -> None:
    rates = [lr_at(step, 100, 2.0, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0) and rates[99] == pytest.approx(2 / 90) and rates[100] == 0
    assert all(b > a for a, b in pairwise(rates[:10]))
    assert all(b < a for a, b in pairwise(rates[10:]))
    assert lr_at(0, 100, 2.0, 0.0) == 2.0 and lr_at(100, 100, 2.0, 0.0) == 0
    assert lr_at(0, 1, 2.0, 0.1) == 2.0 and lr_at(0, 1, 2.0, 0.9) == 2.0


def test_the_logged_learning_rate_is_the_one_used(
    data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    run = training_of(data, tiny_model, tmp_path, steps=5, warmup=0.4)
    used: list[float] = []
    train(run, lambda run: used.extend({group["lr"] for group in run.optimizer.param_groups}))
    assert used == [record["lr"] for record in run.state.history] == [lr_at(s, 5, 1e-2, 0.4) for s in range(5)]


def test_adamw_with_bias_correction_and_no_decay_on_vectors() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    backbone: Any = SimpleNamespace(model=model)
    optimizer = make_optimizer(parameter_groups(backbone, [], 0.5), 0.1)
    before = [p.detach().clone() for p in model.parameters()]
    gradients = [[torch.randn_like(p) for p in model.parameters()] for _ in range(3)]
    for step in gradients:
        for p, g in zip(model.parameters(), step, strict=True):
            p.grad = g.clone()
        optimizer.step()
    for i, (p, decay) in enumerate(zip(model.parameters(), (0.5, 0.0), strict=True)):
        m = v = torch.zeros_like(p)
        w = before[i]
        for t, step in enumerate(gradients, start=1):
            m = BETAS[0] * m + (1 - BETAS[0]) * step[i]
            v = BETAS[1] * v + (1 - BETAS[1]) * step[i] ** 2
            w = w - 0.1 * decay * w
            w = w - 0.1 * (m / (1 - BETAS[0] ** t)) / ((v / (1 - BETAS[1] ** t)).sqrt() + EPSILON)
        torch.testing.assert_close(p.detach(), w)


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_clipping(clip: float, data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path) -> None:
    run = training_of(data, tiny_model, tmp_path, clip=clip)
    run.backbone.model.train()
    norms: list[float] = []
    run.optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.stack([p.grad.norm() for p in run.parameters]).norm().item())
    )
    logged = optimizer_step(run, 0)["grad_norm"].item()
    assert logged > 0.1
    assert norms == [pytest.approx(clip or logged, rel=1e-3)]
    assert all(p.grad is None for p in run.parameters)


def test_the_task_loss() -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.e)) / 2
    assert task_loss(logits, labels, regression=False).item() == pytest.approx(expected)
    numbers = torch.tensor([[1.0], [3.0]], dtype=torch.bfloat16)
    loss = task_loss(numbers, torch.tensor([0.0, 1.0]), regression=True)
    assert loss.item() == 2.5 and loss.dtype == torch.float32


def test_a_window_means_what_was_logged_and_can_be_saved() -> None:
    window = Window()
    window.add({"loss": torch.tensor(1.0), "rare": torch.tensor(5.0)})
    window.add({"loss": torch.tensor(0.1)})
    again = Window(window.to_json())
    window.add({"loss": torch.tensor(0.7)})
    again.add({"loss": torch.tensor(0.7)})
    assert window.to_json() == again.to_json()
    means = window.flush()
    assert means == {"loss": pytest.approx(0.6), "rare": 5.0} == again.flush()
    assert window.flush() == {}


def test_diverged_is_raised_by_the_engine(
    own_methods: None, data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    run = training_of(data, tiny_model, tmp_path, "exploding", steps=5)
    with pytest.raises(Diverged, match="the loss is nan at step 2 of 5"):
        train(run, lambda run: None)


def test_seeds_are_unrelated() -> None:
    assert mix(0, 1) == mix(0, 1)
    assert len({mix(0, 1), mix(1, 0), mix(0, 1, "dropout"), mix(0, 1, "method"), mix(1), mix("0", 1)}) == 6
    assert all(0 <= mix(i) < 2**63 for i in range(100))
