"""CAPCORT / REPINA against a float64 reference, the direction of phi, the calibration, and phi's training.

The authors' code was not available: there is no oracle, so the reference is the formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftbench.errors import FtbenchError, UsageError
from ftbench.lookup import build
from ftbench.methods.capcort import CapcortI, CapcortMLP, constant_loss
from ftbench.methods.method import Batch, Group
from ftbench.models.backbone import Out
from ftbench.training.engine import make_batch, micro_step, optimizer_step
from ftbench.training.optim import parameter_groups

ARMS = ("capcort-i", "capcort-mlp")


@pytest.fixture
def run_of(tiny_data: Any, tiny_model_without_dropout: Path, training_of: Any, tmp_path: Path) -> Callable[..., Any]:
    def prepared(arm: str, data: Any = None, **fields: Any) -> Any:
        return training_of(data or tiny_data(32, 8, 3), tiny_model_without_dropout, tmp_path, arm, **fields)

    return prepared


def shaken(phi: torch.nn.Module) -> None:
    """A phi that is not the identity any more."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in phi.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def reference(state: Tensor, target: Tensor, mask: Tensor, token: str, phi: dict[str, Tensor] | None) -> Tensor:
    """R, row by row, in float64; ``state`` and ``target`` (rows, tokens, width) of one block."""
    values = []
    for z, t, real in zip(state, target, mask.bool(), strict=True):
        z, t = z[real], t[real]
        if token == "cls":
            z, t = z[:1], t[:1]
        if token == "mean":
            z, t = z.mean(0, keepdim=True), t.mean(0, keepdim=True)
        if phi is not None:
            z = z + torch.tanh(z @ phi["0.weight"].T + phi["0.bias"]) @ phi["2.weight"].T + phi["2.bias"]
        values.append(((z - t) ** 2).sum() / z.numel())
    return sum(values) / len(values)  # type: ignore[return-value]


@pytest.mark.parametrize("token", ["cls", "mean", "all"])
@pytest.mark.parametrize("arm", ARMS)
def test_the_term_equals_the_formula_in_float64(arm: str, token: str, run_of: Callable[..., Any]) -> None:
    run = run_of(f"{arm}:token={token},layer=1,weight=0.7")
    (method,) = run.methods
    batch = make_batch(run, 0, 0, np.array([7, 0, 21, 4]))
    mask = batch.inputs["attention_mask"]
    target = run.backbone.block_outputs(batch.inputs)[0].detach().double()
    state = (target + torch.randn(target.shape, generator=torch.Generator().manual_seed(0)).double()).float()
    states = [state.requires_grad_(), torch.zeros_like(state)]
    phi = None
    if arm == "capcort-mlp":
        shaken(method.phi)
        phi = {name: value.detach().double().requires_grad_() for name, value in method.phi.named_parameters()}
    term = method.penalty(batch, Out(torch.zeros(4, 3), states), [])
    exact = state.detach().double().requires_grad_()
    expected = reference(exact, target, mask, token, phi)
    assert (term.name, term.weight) == ("drift", 0.7)
    assert term.value.item() == pytest.approx(expected.item(), rel=1e-5) and expected > 0.1
    ours = torch.autograd.grad(term.value, [state, *(method.phi.parameters() if phi else [])])
    theirs = torch.autograd.grad(expected, [exact, *(phi.values() if phi else [])])
    for mine, theirs_ in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.double(), theirs_, rtol=1e-4, atol=1e-7)
    assert (ours[0][~mask.bool()] == 0).all(), "padding has no part"


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("arm", ARMS)
def test_at_the_pretrained_weights_without_dropout_it_is_0(arm: str, cache: str, run_of: Callable[..., Any]) -> None:
    run = run_of(f"{arm}:cache={cache}")
    run.backbone.model.train()
    values, _ = micro_step(run, 0, 0, np.arange(8), 1.0)
    assert values["drift"].item() < 1e-10
    for step in range(2):
        optimizer_step(run, step)
    values, _ = micro_step(run, 2, 0, np.arange(8), 1.0)
    assert values["drift"].item() > 1e-4


def test_with_dropout_it_has_a_floor(tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path) -> None:
    run = training_of(tiny_data(), tiny_model, tmp_path, "capcort-i")
    run.backbone.model.train()
    assert micro_step(run, 0, 0, np.arange(8), 1.0)[0]["drift"].item() > 1e-3


@pytest.mark.parametrize("arm", ["capcort-i:token=all,weight=3", "capcort-i:token=mean", "capcort-mlp:token=all"])
def test_a_batch_is_the_sum_of_its_micro_batches(arm: str, run_of: Callable[..., Any]) -> None:
    run = run_of(arm)
    run.backbone.model.train()
    for step in range(2):
        optimizer_step(run, step)  # away from the pretrained weights

    def gradients(pieces: list[Any]) -> tuple[float, list[Tensor]]:
        run.optimizer.zero_grad()
        value = sum(micro_step(run, 2, i, p, len(p) / 16)[0]["drift"].item() for i, p in enumerate(pieces))
        return value, [p.grad.clone() for p in run.parameters]

    (whole, ours), (cut, summed) = gradients([np.arange(16)]), gradients(np.split(np.arange(16), [5, 12]))
    assert whole == pytest.approx(cut, rel=1e-5) and whole > 1e-4
    for a, b in zip(ours, summed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------- direction


class Targets:
    """Fixed vectors in place of the pretrained network's."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.read = self

    width = property(lambda self: self.values.shape[1])

    def __call__(self, *arguments: Any) -> Tensor:
        return (arguments[0][0] if len(arguments) == 2 else self.values).unsqueeze(1)

    def shares(self, mask: Tensor) -> Tensor:
        return torch.ones(len(mask), 1)


def distances(fine_tuned: Tensor, pretrained: Tensor) -> tuple[float, float]:
    """R of the identity, and R of a phi that was fitted to it while the representations stay."""
    batch = Batch({"attention_mask": torch.ones(len(pretrained), 1)}, torch.zeros(0), torch.zeros(0), torch.Generator())
    identity, mlp = CapcortI(), CapcortMLP()
    for method in (identity, mlp):
        method.targets, method.strength = Targets(pretrained), 1.0  # type: ignore[assignment]
    torch.manual_seed(0)
    wide = pretrained.shape[1]
    mlp.phi = torch.nn.Sequential(torch.nn.Linear(wide, wide), torch.nn.Tanh(), torch.nn.Linear(wide, wide))
    out = Out(torch.zeros(0), [fine_tuned])
    optimizer = torch.optim.Adam(mlp.phi.parameters(), lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        term = mlp.penalty(batch, out, [])
        assert term is not None
        term.value.backward()
        optimizer.step()
    alone = identity.penalty(batch, out, [])
    assert alone is not None
    return alone.value.item(), term.value.item()


def test_phi_maps_the_fine_tuned_to_the_pretrained_representation() -> None:
    """A rotation can be undone; a constant cannot, though the reverse direction would be satisfied by it."""
    generator = torch.Generator().manual_seed(0)
    pretrained = torch.randn(256, 8, generator=generator)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator))
    far, undone = distances(pretrained @ rotation, pretrained)
    assert far > 0.5 and undone < 0.1 * far
    _, collapsed = distances(torch.zeros(256, 8), pretrained)
    assert collapsed == pytest.approx(pretrained.var(0, correction=0).mean().item(), rel=0.02)


def test_the_fine_tuned_side_has_the_gradient_also_where_phi_is_the_identity(run_of: Callable[..., Any]) -> None:
    run = run_of("capcort-mlp")
    (method,) = run.methods
    batch = make_batch(run, 0, 0, np.arange(4))
    states = [torch.randn(*batch.inputs["input_ids"].shape, 32).requires_grad_() for _ in range(2)]
    term = method.penalty(batch, Out(torch.zeros(4, 3), states), [])
    plain = CapcortI()
    plain.targets, plain.strength = method.targets, 1.0
    other = plain.penalty(batch, Out(torch.zeros(4, 3), states), [])
    assert other is not None and torch.equal(term.value, other.value)
    (gradient,) = torch.autograd.grad(term.value, states[1])
    assert gradient[:, 0].abs().min() > 0 and (gradient[:, 1:] == 0).all()


# ------------------------------------------------------------------------------------------ calibration


@pytest.mark.parametrize("cache", ["on", "off"])
def test_the_calibrated_weight_is_entropy_over_variance(cache: str, run_of: Callable[..., Any]) -> None:
    run = run_of(f"capcort-i:calibrated=0.1,cache={cache},layer=1")
    (method,) = run.methods
    batch = make_batch(run, 0, 0, np.arange(32))
    with torch.no_grad():
        z = run.backbone.block_outputs(batch.inputs)[0][:, 0].double().numpy()
    shares = np.bincount(batch.labels) / 32
    expected = 0.1 * -(shares * np.log(shares)).sum() / z.var(axis=0).mean()
    assert method.strength == pytest.approx(expected, rel=1e-5)
    states = [torch.zeros(*batch.inputs["input_ids"].shape, 32) + torch.tensor(z.mean(0)).float()] * 2
    collapsed = method.penalty(batch, Out(torch.zeros(0), states), [])
    assert collapsed.weight * collapsed.value.item() == pytest.approx(0.1 * np.log(3), rel=0.01)
    assert run_of("capcort-i:calibrated=0.1,layer=1", seed=5).methods[0].strength == pytest.approx(expected, rel=1e-5)
    run.backbone.model.train()
    assert optimizer_step(run, 0)["lambda"].item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_constant() -> None:
    assert constant_loss(torch.tensor([0, 0, 0, 2]), regression=False) == pytest.approx(
        -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    )
    assert constant_loss(torch.tensor([1.0, 3.0]), regression=True) == 1.0


def test_what_cannot_be_calibrated_is_refused(tiny_data: Any, run_of: Callable[..., Any]) -> None:
    data = tiny_data(32, 8, 2)
    data.splits["train"].labels[:] = 1
    with pytest.raises(FtbenchError, match="capcort-i: all labels or all representations are equal"):
        run_of("capcort-i:calibrated=1", data)


# ------------------------------------------------------------------------------------------ phi's training


def test_phi_is_trained_at_its_own_rate_without_decay(run_of: Callable[..., Any]) -> None:
    run = run_of("capcort-mlp:lr=7,width=5,activation=gelu", weight_decay=0.1)
    (method,) = run.methods
    shapes = {name: tuple(p.shape) for name, p in method.phi.named_parameters()}
    assert shapes == {"0.weight": (5, 32), "0.bias": (5,), "2.weight": (32, 5), "2.bias": (32,)}
    groups: list[Group] = parameter_groups(run.backbone, run.methods, 0.1)
    own = [group for group in groups if group.name.startswith("capcort-mlp.phi.")]
    assert {(group.lr, group.decay, group.depth) for group in own} == {(7.0, 0.0, 0)} and len(own) == 4
    run.backbone.model.train()
    before = [p.clone() for p in method.phi.parameters()]
    for step in range(3):
        optimizer_step(run, step)
    assert all(not torch.equal(a, b) for a, b in zip(before, method.phi.parameters(), strict=True))


def test_without_a_weight_phi_is_not_trained(run_of: Callable[..., Any]) -> None:
    run = run_of("capcort-mlp:weight=0")
    assert len(run.parameters) == len(list(run.backbone.model.parameters()))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("capcort-i", {"weight": "-1"}, "capcort-i:weight=-1: expected 0 or more"),
        ("capcort-i", {"weight": "inf"}, "capcort-i:weight=inf"),
        ("capcort-i", {"layer": "0"}, "capcort-i:layer=0: expected top or the number of a block from 1"),
        ("capcort-i", {"layer": "bottom"}, "capcort-i:layer=bottom: expected top"),
        ("capcort-i", {"token": "pooler"}, "capcort-i:token=pooler: expected cls or mean or all"),
        ("capcort-i", {"cache": "maybe"}, "capcort-i:cache=maybe: expected on or off"),
        ("capcort-i", {"calibrated": "-0.1"}, "capcort-i:calibrated=-0.1: expected 0 or more"),
        ("capcort-mlp", {"calibrated": "1", "weight": "2"}, "capcort-mlp:calibrated=1: expected no weight beside it"),
        ("capcort-mlp", {"width": "-1"}, "capcort-mlp:width=-1: expected 0 or more"),
        ("capcort-mlp", {"lr": "0"}, "capcort-mlp:lr=0: expected more than 0"),
        ("capcort-mlp", {"activation": "sin"}, "capcort-mlp:activation=sin: expected tanh or relu or gelu"),
    ],
)
def test_wrong_fields_are_refused(name: str, fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build(CapcortI if name == "capcort-i" else CapcortMLP, fields, name)
    assert message in str(error.value)


def test_the_layer_is_a_number_or_top() -> None:
    assert build(CapcortI, {"layer": "2"}, "capcort-i").layer == 2
    assert build(CapcortI, {"layer": "top"}, "capcort-i").set_fields() == {}
