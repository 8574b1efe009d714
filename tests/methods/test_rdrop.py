"""R-Drop's four objectives against the released code's recorded numbers, the paper's against a float64 reference.

``tests/oracles/rdrop_*.json`` record losses and their gradients for two given matrices of logits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.lookup import build
from ftbench.methods.method import Batch
from ftbench.methods.rdrop import RDrop
from ftbench.models.backbone import Out

FOLDER = Path(__file__).parents[1] / "oracles"
README, HF, FAIRSEQ = (json.loads((FOLDER / f"rdrop_{name}.json").read_text()) for name in ("readme", "hf", "fairseq"))


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"])).reshape(recorded["shape"])


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(logits[:, 0], labels) if labels.is_floating_point() else F.cross_entropy(logits, labels)


def objective_of(method: RDrop, first: Tensor, second: Tensor, labels: Tensor) -> tuple[Tensor, Batch]:
    """The engine's objective: the clean pass's task loss with weight 1, and the term."""
    ids = torch.arange(len(labels))
    batch = Batch({}, labels, ids, torch.Generator(), regression=labels.is_floating_point())
    batch.task_loss = lambda out: task_loss(out.logits, labels)
    assert [view.dropout for view in method.views(batch, None)] == ["independent"]
    term = method.penalty(batch, Out(first), [Out(second)])
    assert term is not None
    return task_loss(first, labels) + term.weight * term.value, batch


def logits_of(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return tensor(given["logits1"]).requires_grad_(), tensor(given["logits2"]).requires_grad_()


def check(
    given: dict[str, Any], expected: dict[str, Any], tolerance: dict[str, float], scale: int = 1, **f: Any
) -> None:
    """``scale``: the recorded loss and gradients are so many times ours."""
    first, second = logits_of(given)
    objective, _ = objective_of(RDrop(**f), first, second, tensor(given["labels"]))
    close = {"rtol": tolerance["rtol"], "atol": tolerance["atol"]}
    torch.testing.assert_close(objective * scale, tensor(expected["loss"]), **close)
    for ours, name in zip(torch.autograd.grad(objective * scale, (first, second)), ("1", "2"), strict=True):
        torch.testing.assert_close(ours, tensor(expected[f"grad_logits{name}"]), **close)


@pytest.mark.parametrize("case", ["b4c3", "b3c5_alpha0_5", "b4c2_alpha5"])
def test_the_readme(case: str) -> None:
    given = README["inputs"][case]
    check(given, README["outputs"][case], README["tolerance"], variant="readme", weight=given["alpha"])


@pytest.mark.parametrize("case", ["b4c3", "b3c5", "b4c2", "regression_b4"])
@pytest.mark.parametrize(("variant", "weights"), [("bert", (0.5, 1.0)), ("roberta", (0.7, 0.8))])
def test_the_sentence_classes(variant: str, weights: tuple[float, float], case: str) -> None:
    weight = weights[case.startswith("regression")]
    check(HF["inputs"][case], HF["outputs"][case][variant], HF["tolerance"], variant=variant, weight=weight)


@pytest.mark.parametrize("case", ["sentence_b4c3", "sentence_b3c5"])
def test_paper_is_what_the_fairseq_criterion_computes(case: str) -> None:
    given, expected = FAIRSEQ["inputs"][case], FAIRSEQ["outputs"][case]
    check(given, expected, FAIRSEQ["tolerance"], expected["sample_size"], variant="paper", weight=given["reg_alpha"])


@pytest.mark.parametrize("case", ["b4c3", "b3c5", "regression_b4"])
def test_paper_equals_a_float64_reference(case: str) -> None:
    given = HF["inputs"][case]
    first, second = logits_of(given)
    labels = tensor(given["labels"])
    objective, batch = objective_of(RDrop(weight=0.3), first, second, labels)
    a, b = (logits.detach().double().requires_grad_() for logits in (first, second))
    if labels.is_floating_point():
        apart = ((a - b) ** 2).sum(-1).mean()
        expected = ((a[:, 0] - labels) ** 2).mean() + ((b[:, 0] - labels) ** 2).mean() + 0.3 * apart
    else:
        p, q = a.softmax(-1), b.softmax(-1)
        apart = ((p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)).mean() / 2
        rows = torch.arange(len(labels))
        expected = -p[rows, labels].log().mean() - q[rows, labels].log().mean() + 0.3 * apart
    torch.testing.assert_close(objective.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(batch.notes["kl"].double(), apart.detach(), rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad(objective, (first, second))
    for got, wanted in zip(ours, torch.autograd.grad(expected, (a, b)), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["paper", "readme", "bert", "roberta"])
def test_equal_passes_leave_the_task_loss(variant: Any) -> None:
    first = tensor(HF["inputs"]["b4c3"]["logits1"])
    labels = tensor(HF["inputs"]["b4c3"]["labels"])
    objective, _ = objective_of(RDrop(variant=variant), first, first.clone(), labels)
    share = {"paper": 2.0, "readme": 1.0, "bert": 2.0, "roberta": 0.5}[variant]
    torch.testing.assert_close(objective, share * task_loss(first, labels))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": "-1"}, "rdrop:weight=-1: expected 0 or more"),
        ({"weight": "nan"}, "rdrop:weight=nan"),
        ({"variant": "fairsec"}, "expected paper or readme or bert or roberta"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(RDrop, fields, "rdrop")
