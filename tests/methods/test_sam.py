"""SAM and ASAM against davda54/sam's recorded steps, the formulas, and within a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftbench.errors import UsageError
from ftbench.lookup import build
from ftbench.methods.sam import ASAM, SAM, perturbation
from ftbench.training.engine import accumulate, optimizer_step

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "sam.json").read_text())
CLOSE = {"rtol": ORACLE["tolerance"]["rtol"], "atol": ORACLE["tolerance"]["atol"]}
GIVEN, EDGE = ORACLE["inputs"], "edge_missing_second_gradient"
BASES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd_momentum": torch.optim.SGD,
    "adamw": torch.optim.AdamW,
}


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"])).reshape(recorded["shape"])


class Problem(nn.Module):
    """The oracle's network or quadratic, float64."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.given = {key: tensor(value) for key, value in GIVEN[name].items() if isinstance(value, dict)}
        self.names = ("w1", "b1", "w2", "b2") if name == "mlp" else ("w",)
        for key in self.names:
            self.register_parameter(key, nn.Parameter(self.given[key].clone()))

    def loss(self) -> Tensor:
        given, w = self.given, dict(self.named_parameters())
        if "w" in w:
            return w["w"] @ given["A"] @ w["w"] / 2 - given["b"] @ w["w"]
        logits = (given["x"] @ w["w1"].T + w["b1"]).tanh() @ w["w2"].T + w["b2"]
        return F.cross_entropy(logits, given["labels"])


def passes_of(model: nn.Module, loss: Callable[[], Tensor]) -> tuple[Callable[[], dict[str, Tensor]], list[Any]]:
    """What the engine gives, and a list of what happened in each pass: weights, loss, gradients."""
    seen: list[Any] = []

    def compute() -> dict[str, Tensor]:
        weights = [p.detach().clone() for p in model.parameters()]
        value = loss()
        value.backward()
        seen.append((weights, value.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
        return {"loss": value.detach()}

    return compute, seen


@pytest.mark.parametrize("case", [name for name in GIVEN["cases"] if name != EDGE])
def test_three_steps_equal_the_recorded_ones(case: str) -> None:
    given = GIVEN["cases"][case]
    model = Problem(given["problem"])
    backbone: Any = SimpleNamespace(model=model)
    base = BASES[given["base"]](model.parameters(), **given["base_arguments"])
    method = ASAM(eps=given["rho"], variant="released") if given["adaptive"] else SAM(eps=given["rho"])
    for expected in ORACLE["outputs"][case]["steps"]:
        compute, seen = passes_of(model, model.loss)
        logged = method.gradients(backbone, compute)
        (here, there) = seen
        for found, name in ((here[1], "loss"), (there[1], "perturbed_loss")):
            torch.testing.assert_close(found, tensor(expected[name]), **CLOSE)
        for found, name in ((here[2], "gradient"), (there[0], "perturbed"), (there[2], "perturbed_gradient")):
            for ours, theirs in zip(found, expected[name], strict=True):
                torch.testing.assert_close(ours, tensor(theirs), **CLOSE)
        assert all(torch.equal(a, b) for a, b in zip(here[0], model.parameters(), strict=True)), "exactly back"
        assert torch.equal(logged["sharpness"], there[1] - here[1]) and torch.equal(logged["loss"], here[1])
        base.step()
        base.zero_grad()
        for ours, theirs in zip(model.parameters(), expected["after"], strict=True):
            torch.testing.assert_close(ours.detach(), tensor(theirs), **CLOSE)


def test_a_parameter_without_a_second_gradient_is_put_back() -> None:
    """The recorded code leaves it perturbed."""
    given, recorded = GIVEN[EDGE], ORACLE["outputs"][EDGE]
    model = nn.ParameterDict({name: nn.Parameter(tensor(given[name])) for name in ("first", "second")})
    backbone: Any = SimpleNamespace(model=model)
    base = torch.optim.SGD(model.parameters(), lr=given["lr"])
    losses = iter(
        [lambda: sum(p.square().sum() / 2 for p in model.values()), lambda: model["first"].square().sum() / 2]
    )
    compute, seen = passes_of(model, lambda: next(losses)())  # type: ignore[return-value]
    SAM(eps=given["rho"]).gradients(backbone, compute)
    base.step()
    torch.testing.assert_close(model["first"].detach(), tensor(recorded["first"]), **CLOSE)
    assert torch.equal(model["second"], tensor(given["second"]))
    torch.testing.assert_close(seen[1][0][1], tensor(recorded["second"]), **CLOSE)


def test_asam_equals_the_formula_of_its_authors() -> None:
    """T = |w| + eta for weights, 1 for biases."""
    generator = torch.Generator().manual_seed(0)
    w, b, gw, gb = (torch.randn(n, generator=generator).double() for n in (4, 3, 4, 3))
    method = ASAM(eps=0.7, eta=0.2)
    scales = [method.scale("block.dense.weight", w), method.scale("block.dense.bias", b)]
    moved_w, moved_b = perturbation([gw, gb], scales, 0.7)
    t = w.abs() + 0.2
    norm = (((t * gw) ** 2).sum() + (gb**2).sum()) ** 0.5
    torch.testing.assert_close(moved_w, 0.7 * t**2 * gw / norm)
    torch.testing.assert_close(moved_b, 0.7 * gb / norm)
    plain = SAM(eps=0.7)
    straight = perturbation([gw, gb], [plain.scale("weight", w), plain.scale("bias", b)], 0.7)
    assert torch.cat(straight).norm().item() == pytest.approx(0.7)
    scaled = perturbation([1000 * gw, 1000 * gb], scales, 0.7)
    torch.testing.assert_close(scaled[0], moved_w)


# ------------------------------------------------------------------------------------------- in a run


def test_a_step_takes_the_gradient_at_the_perturbed_weights_under_the_same_masks(
    tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    run = training_of(tiny_data(), tiny_model, tmp_path, "sam:eps=0.3", micro_batch=5)
    by_hand = training_of(tiny_data(), tiny_model, tmp_path, micro_batch=5)
    for training in (run, by_hand):
        training.backbone.model.train()
    start = [p.detach().clone() for p in run.parameters]
    found: list[Tensor] = []
    run.optimizer.register_step_pre_hook(lambda *_: found.extend(p.grad.clone() for p in run.parameters))
    run.spec.__dict__["clip"] = 0.0
    logged = optimizer_step(run, 2)
    here = accumulate(by_hand, 2)
    norm = torch.stack([p.grad.norm() for p in by_hand.parameters]).norm()
    with torch.no_grad():
        for p in by_hand.parameters:
            p.add_(0.3 * p.grad / norm)
    by_hand.optimizer.zero_grad()
    there = accumulate(by_hand, 2)
    for ours, p in zip(found, by_hand.parameters, strict=True):
        torch.testing.assert_close(ours, p.grad, rtol=1e-4, atol=1e-7)
    assert logged["loss"] == here["loss"]
    assert logged["sharpness"].item() == pytest.approx((there["loss"] - here["loss"]).item(), abs=1e-6)
    assert logged["sharpness"] > 0
    assert any(not torch.equal(a, b) for a, b in zip(start, run.parameters, strict=True))
    assert run.meter.cost.forward_passes == run.meter.cost.backward_passes == 4


def test_weights_are_put_back_when_a_pass_fails() -> None:
    model = nn.Linear(2, 1)
    before = [p.detach().clone() for p in model.parameters()]
    turns = iter([0, 1])

    def compute() -> dict[str, Tensor]:
        if next(turns):
            raise MemoryError
        model(torch.ones(1, 2)).sum().backward()
        return {"loss": torch.zeros(())}

    with pytest.raises(MemoryError):
        SAM().gradients(SimpleNamespace(model=model), compute)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("overflow", [False, True])
@pytest.mark.parametrize("arm", ["sam", "asam"])
def test_the_loss_scale_of_fp16_does_not_matter(arm: str, overflow: bool) -> None:
    """Scaled gradients give the same perturbation, and one that overflows leaves the weights finite."""
    found = []
    for scale in (1.0, 65536.0):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
        compute, seen = passes_of(model, lambda s=scale, m=model, x=x: m(x).square().sum() * s)  # type: ignore[misc]
        if overflow and scale > 1:
            compute, seen = passes_of(model, lambda m=model, x=x: m(x).square().sum() * 1e38 * 1e10)  # type: ignore[misc]
        before = [p.detach().clone() for p in model.parameters()]
        {"sam": SAM(), "asam": ASAM()}[arm].gradients(SimpleNamespace(model=model), compute)  # type: ignore[arg-type]
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        found.append(seen)
        if overflow and scale > 1:
            assert not all(p.grad.isfinite().all() for p in model.parameters()), "so the step is left out"
            assert len(seen) == 1, "no pass at weights that are not finite: it would spoil what methods keep of it"
            return
    for ours, theirs in zip(found[0][1][0], found[1][1][0], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_sign_of_its_work(tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path) -> None:
    outcome = finetune_tiny(tiny_data(), tiny_model, tmp_path, "sam:eps=0.1", steps=6)
    sharpness = [record["sharpness"] for record in outcome.history if "sharpness" in record]
    assert len(sharpness) == 6 and np.mean(sharpness) > 0


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (SAM, {"eps": "-1"}, "sam:eps=-1: expected 0 or more"),
        (SAM, {"eta": "1"}, "sam has no field 'eta'"),
        (ASAM, {"eta": "-1"}, "asam:eta=-1: expected 0 or more"),
        (ASAM, {"eps": "nan"}, "asam:eps=nan: expected 0 or more"),
        (ASAM, {"variant": "official"}, "asam:variant=official: expected paper or released"),
    ],
)
def test_wrong_fields_are_refused(cls: type[SAM], fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build(cls, fields, cls.name)
    assert message in str(error.value)
