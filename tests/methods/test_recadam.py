"""RecAdam against the released code's recorded numbers, and against its formula in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ftbench.methods.method import Group, Start, Step
from ftbench.methods.recadam import RecAdam

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "recadam.json").read_text())
GIVEN = ORACLE["inputs"]
#: without anneal_w, which is not a field here
CASES = tuple(case for case in GIVEN["cases"] if case != "sigmoid_w_half")
CLOSE = {"rtol": ORACLE["tolerance"]["rtol"], "atol": ORACLE["tolerance"]["atol"]}
NAMES = ("base.0", "base.1", "head.2")


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"]))


def started(method: RecAdam, decay: float) -> tuple[list[Tensor], list[Group]]:
    """Prepared on the recorded pretrained weights, with the recorded initial ones in their place."""
    named = {name: tensor(p).requires_grad_() for name, p in zip(NAMES, GIVEN["pretrained"], strict=True)}
    model = SimpleNamespace(base_model_prefix="base", named_parameters=named.items)
    backbone: Any = SimpleNamespace(model=model, base="base.")
    method.prepare(Start(backbone, 6, 1, lambda: iter(())))
    with torch.no_grad():
        for parameter, initial in zip(named.values(), GIVEN["initial"], strict=True):
            parameter.copy_(tensor(initial))
    return list(named.values()), method.groups([Group(name, p, decay, 0) for name, p in named.items()])


def moment(number: int, lr: float, steps: int = 6) -> Step:
    return Step(number, steps, lr, torch.Generator())


class TheirAdam:
    """Adam as in the recorded code: eps is added to the uncorrected root. Weight decay comes last."""

    def __init__(self, parameters: list[Tensor], correct: bool) -> None:
        self.parameters, self.correct = parameters, correct
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    @torch.no_grad()
    def step(self, number: int, gradients: list[Tensor], decays: list[float]) -> None:
        lr, (b1, b2), eps = GIVEN["lr"], GIVEN["betas"], GIVEN["eps"]
        for p, g, (m, v), decay in zip(self.parameters, gradients, self.moments, decays, strict=True):
            m.mul_(b1).add_((1 - b1) * g), v.mul_(b2).add_((1 - b2) * g * g)
            rate = lr * math.sqrt(1 - b2 ** (number + 1)) / (1 - b1 ** (number + 1)) if self.correct else lr
            p.sub_(rate * m / (v.sqrt() + eps))
            p.sub_(lr * decay * p)


@pytest.mark.parametrize("case", CASES)
def test_released_equals_the_released_code(case: str) -> None:
    fields, expected = GIVEN["cases"][case], ORACLE["outputs"][case]
    assert fields["anneal_w"] == 1.0
    method = RecAdam(GIVEN["pretrain_cof"], fields["anneal_k"], fields["anneal_t0"], fields["anneal_fun"], "released")
    parameters, groups = started(method, fields["weight_decay"])
    adam = TheirAdam(parameters, fields["correct_bias"])
    for number, gradients in enumerate(GIVEN["gradients"]):
        step = moment(number, GIVEN["lr"])
        assert method.share(step) == pytest.approx(expected["anneal_lambda"][number], rel=1e-12)
        method.after_backward(None, step)  # type: ignore[arg-type]
        adam.step(number, [tensor(g) for g in gradients], [group.decay for group in groups])
        method.after_step(None, step)  # type: ignore[arg-type]
        for parameter, wanted in zip(parameters, expected["parameters_after_step"][number], strict=True):
            torch.testing.assert_close(parameter.detach(), tensor(wanted), **CLOSE)


@pytest.mark.parametrize("weight", [12.0, 500.0])
def test_paper_as_in_the_formula(weight: float) -> None:
    """Around torch's AdamW with weight decay; the larger weight would pull beyond the start and is held there."""
    lr, decay, scale = 0.02, 0.1, 0.5
    method = RecAdam(weight=weight, k=0.9, t0=3)
    parameters, groups = started(method, decay)
    groups[0].lr = scale
    rates = [lr * group.lr for group in groups]
    packed = [{"params": [p], "lr": rate, "weight_decay": decay} for p, rate in zip(parameters, rates, strict=True)]
    optimizer = torch.optim.AdamW(packed, eps=1e-6)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    for number, gradients in enumerate(GIVEN["gradients"]):
        wanted = []
        for i, (p, recorded) in enumerate(zip(parameters, gradients, strict=True)):
            p.grad = tensor(recorded)
            w, (m, v), t = p.detach().clone(), moments[i], number + 1
            m.mul_(0.9).add_(0.1 * p.grad), v.mul_(0.999).add_(0.001 * p.grad**2)
            adam = m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-6) + decay * w
            s = 1 / (1 + math.exp(-0.9 * (t - 3))) if i < 2 else 1.0
            pull = min(1, rates[i] * (1 - s) * weight) * (w - tensor(GIVEN["pretrained"][i]))
            wanted.append(w - s * rates[i] * adam - pull)
        method.after_backward(None, moment(number, lr))  # type: ignore[arg-type]
        optimizer.step()
        method.after_step(None, moment(number, lr))  # type: ignore[arg-type]
        for parameter, value in zip(parameters, wanted, strict=True):
            torch.testing.assert_close(parameter.detach(), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "shares"),
    [
        ({"t0": 0.5, "k": 1.0}, [1 / (1 + math.e**4), 0.5, 1 / (1 + math.e**-5)]),
        ({"t0": 5, "k": 1.0}, [1 / (1 + math.e**4), 0.5, 1 / (1 + math.e**-5)]),
        ({"t0": 0.5, "shape": "linear"}, [0.2, 1.0, 1.0]),
        ({"t0": 0, "shape": "linear"}, [1.0, 1.0, 1.0]),
        ({"shape": "constant"}, [1.0, 1.0, 1.0]),
        ({"t0": 1000, "k": 100}, [0.0, 0.0, 0.0]),
    ],
)
def test_the_share_at_the_first_fifth_and_tenth_of_ten_steps(fields: dict[str, Any], shares: list[float]) -> None:
    method = RecAdam(**fields)
    assert [method.share(moment(number, 0.1, 10)) for number in (0, 4, 9)] == pytest.approx(shares)
