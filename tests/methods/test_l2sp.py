"""L2-SP against the released codes' recorded numbers, and against formulas in float64."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ftbench.methods.l2sp import L2SP
from ftbench.methods.method import Group, Start, Step

ORACLES = Path(__file__).parents[1] / "oracles"
OFFICIAL = json.loads((ORACLES / "l2_sp_official.json").read_text())
PORTS = json.loads((ORACLES / "l2_sp_ports.json").read_text())
PRIOR = json.loads((ORACLES / "prior_weight_decay.json").read_text())
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"]))


def tensors(recorded: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor(value) for name, value in recorded.items()}


def started(method: L2SP, starts: dict[str, Tensor], decay: float = 0.01) -> tuple[dict[str, Tensor], list[Group]]:
    """The method prepared on a model whose parameters are copies of ``starts``; others than ``base.`` are the head."""
    parameters = {name: start.clone().requires_grad_() for name, start in starts.items()}
    model = SimpleNamespace(base_model_prefix="base", named_parameters=parameters.items)
    backbone: Any = SimpleNamespace(model=model, base="base.")
    method.prepare(Start(backbone, 1, 1, lambda: iter(())))
    return parameters, method.groups([Group(name, p, decay, 0) for name, p in parameters.items()])


def place(recorded: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    return {("head." if head in name else "base.") + name: value for name, value in recorded.items()}


def check_loss(method: L2SP, starts: dict[str, Tensor], now: dict[str, Tensor], expected: Any, gradient: Any) -> None:
    parameters, _ = started(method, starts)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(now[name])
    term = method.penalty(None, None, [])  # type: ignore[arg-type]
    assert term is not None and term.name == "l2sp"
    objective = term.weight * term.value
    torch.testing.assert_close(objective, tensor(expected), **CLOSE)
    objective.backward()
    for name, parameter in parameters.items():
        wanted = gradient.get(name.partition(".")[2], None)
        wanted = torch.zeros_like(parameter) if wanted is None else tensor(wanted)
        ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(ours, wanted, **CLOSE)


@pytest.mark.parametrize(
    ("case", "variant", "origin"),
    [
        ("mode_1_l2sp_weights_only", "released", False),
        ("mode_101_l2sp_all_parameters", "paper", False),
        ("mode_0_plain_l2", "released", True),
    ],
)
def test_loss_equals_the_released_code(case: str, variant: Any, origin: bool) -> None:
    """``paper`` is the code's mode for all parameters; plain L2 is a start at 0."""
    given, expected = OFFICIAL["inputs"], OFFICIAL["outputs"][case]
    starts = place(tensors(given["start"]), "logits")
    if origin:
        starts = {name: torch.zeros_like(start) for name, start in starts.items()}
    method = L2SP(weight=given["alpha"], head=given["beta"], variant=variant)
    now = place(tensors(given["weights"]), "logits")
    check_loss(method, starts, now, expected["penalty"], expected["gradient"])


def test_loss_equals_the_later_versions() -> None:
    given, expected = PORTS["inputs"], PORTS["outputs"]
    start, now = (place(tensors(given[name]), "nothing") for name in ("source", "target"))
    check_loss(L2SP(weight=1.0, head=0.0), start, now, expected["sp"]["value"], expected["sp"]["gradient"])
    zeros = {name: torch.zeros_like(value) for name, value in start.items()}
    check_loss(L2SP(weight=1.0, head=0.0), zeros, now, expected["l2"]["value"], expected["l2"]["gradient"])
    at_start = expected["sp_at_the_start"]
    check_loss(L2SP(weight=1.0, head=0.0), start, start, at_start["value"], at_start["gradient"])
    start, now = (place(tensors(given[name]), ".fc.") for name in ("lpft_initial", "lpft_current"))
    lpft = expected["lpft_l2_dist"]
    check_loss(L2SP(weight=2.0, head=0.0), start, now, lpft["value"], lpft["gradient"])


def test_the_start_is_a_copy() -> None:
    method = L2SP(weight=2.0, head=0.0)
    parameters, _ = started(method, {"base.w": torch.zeros(3, dtype=torch.float64)})
    with torch.no_grad():
        parameters["base.w"].add_(1)
    assert method.penalty(None, None, []).value == 1.5  # type: ignore[arg-type, union-attr]


def test_without_a_pull_the_head_has_its_norm() -> None:
    start = {"base.w": torch.ones(3), "head.v": torch.tensor([3.0, 4.0])}
    method = L2SP(weight=0.0, head=0.5)
    started(method, start)
    term = method.penalty(None, None, [])  # type: ignore[arg-type]
    assert term is not None and (term.weight, term.value.item()) == (0.5, 12.5)
    method = L2SP(weight=0.0, head=0.0)
    started(method, start)
    assert method.penalty(None, None, []) is None  # type: ignore[arg-type]


def moment(lr: float, number: int = 0) -> Step:
    return Step(number, 5, lr, torch.Generator())


@pytest.mark.parametrize("case", ["prior_sgd", "prior_torch_adamw"])
@pytest.mark.parametrize("group", [0, 1, 2])
def test_decoupled_equals_the_released_code(case: str, group: int) -> None:
    """Each of the recorded groups has a rate and a weight of its own; the last is the head, which is pulled too."""
    given, expected = PRIOR["inputs"], PRIOR["outputs"][case]["parameters_after_step"]
    lr, weight = given["group_lr"][group], given["group_weight_decay"][group]
    method = L2SP(weight=weight, mode="decoupled", variant="released")
    prefix = "head" if group == 2 else "base"
    starts = {f"{prefix}.{i}": tensor(value) for i, value in enumerate(given["initial"][group])}
    parameters, groups = started(method, starts, decay=weight)
    assert [g.decay for g in groups] == [0.0] * len(groups)
    packed = [{"params": list(parameters.values()), "weight_decay": groups[0].decay}]
    optimizer: Any = torch.optim.SGD(packed, lr=lr)
    if case == "prior_torch_adamw":
        optimizer = torch.optim.AdamW(packed, lr=lr, betas=given["betas"], eps=given["eps"])
    for number, factor in enumerate(given["lr_multiplier_per_step"]):
        optimizer.param_groups[0]["lr"] = lr * factor
        for parameter, gradient in zip(parameters.values(), given["gradients"][number][group], strict=True):
            parameter.grad = tensor(gradient)
        method.after_backward(None, moment(lr * factor, number))  # type: ignore[arg-type]
        optimizer.step()
        method.after_step(None, moment(lr * factor, number))  # type: ignore[arg-type]
        for parameter, wanted in zip(parameters.values(), expected[number][group], strict=True):
            torch.testing.assert_close(parameter.detach(), tensor(wanted), **CLOSE)


def test_decoupled_as_in_the_formula() -> None:
    """After the step, at the parameter's own learning rate, whenever that was set; the head goes to 0."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(4, 3, dtype=torch.float64, generator=generator)  # noqa: E731
    starts = {"base.w": draw(), "head.v": draw()}
    method = L2SP(weight=0.7, head=0.3, mode="decoupled")
    parameters, groups = started(method, starts)
    groups[0].lr = 0.5  # a method behind it in the stack
    w, v = draw(), draw()
    with torch.no_grad():
        parameters["base.w"].copy_(w), parameters["head.v"].copy_(v)
    method.after_backward(None, moment(0.1))  # type: ignore[arg-type]
    assert torch.equal(parameters["base.w"], w)
    method.after_step(None, moment(0.1))  # type: ignore[arg-type]
    torch.testing.assert_close(parameters["base.w"].detach(), w - 0.1 * 0.5 * 0.7 * (w - starts["base.w"]), **CLOSE)
    torch.testing.assert_close(parameters["head.v"].detach(), v - 0.1 * 0.3 * v, **CLOSE)
    assert method.penalty(None, None, []) is None and not method.has_term  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({}, [0.0, 0.0, 0.0]),
        ({"head": 0.0}, [0.0, 0.0, 0.01]),
        ({"weight": 0.0}, [0.01, 0.01, 0.0]),
        ({"variant": "released"}, [0.0, 0.01, 0.0]),
        ({"mode": "decoupled", "head": 0.0}, [0.0, 0.0, 0.01]),
        ({"mode": "decoupled", "variant": "released", "head": 0.0}, [0.0, 0.0, 0.0]),
    ],
)
def test_it_stands_in_for_weight_decay_where_it_acts(fields: dict[str, Any], left: list[float]) -> None:
    starts = {"base.w": torch.ones(2, 2), "base.b": torch.ones(2), "head.v": torch.ones(2, 2)}
    _, groups = started(L2SP(**fields), starts)
    assert [group.decay for group in groups] == left
