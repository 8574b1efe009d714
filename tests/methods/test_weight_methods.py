"""The contracts, for what acts on weights: l2sp, mixout, reinit, llrd, recadam, child-tuning, freeze, bitfit.

What each computes is checked in a file of its own. Here: runs on a tiny BERT, with accumulation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.lookup import build
from ftbench.methods import method_class
from tests.outcomes import RECIPE, assert_resumable, neutral_arm, same, weights

NAMES = ("l2sp", "mixout", "reinit", "llrd", "recadam", "child-tuning", "freeze", "bitfit")
ARMS = (
    "l2sp:weight=3",
    "l2sp:weight=3,variant=released",
    "l2sp:weight=3,mode=decoupled",
    "l2sp:weight=3,mode=decoupled,variant=released",
    "mixout:p=0.3",
    "mixout:p=0.3,unit=weight,variant=released",
    "reinit:layers=1",
    "llrd:decay=0.5",
    "llrd:decay=0.5,variant=released",
    "recadam:weight=20,t0=3",
    "recadam:weight=20,t0=3,variant=released",
    "recadam:weight=20,t0=0.5,shape=linear",
    "child-tuning",
    "child-tuning:variant=released",
    "child-tuning:mode=F",
    "child-tuning:mode=F,variant=released",
    "freeze:layers=1",
    "bitfit",
)
#: the contracts know these arms already
KNOWN = ("reinit:layers=1", "child-tuning", "freeze:layers=1", "bitfit")
Finetune = Callable[..., Any]


@pytest.fixture(scope="module")
def data(tiny_data: Callable[..., Any]) -> Any:
    return tiny_data(32, 16, 2)


@pytest.fixture(scope="module")
def plain(run_of: Callable[[str], Any]) -> Any:
    return run_of("std")


@pytest.mark.parametrize("name", NAMES)
def test_neutral_scores_and_logs_nothing_of_its_own(name: str, run_of: Callable[[str], Any], plain: Any) -> None:
    if arm := neutral_arm(name):
        assert run_of(arm).result.metrics == plain.result.metrics and run_of(arm).history == plain.history


@pytest.mark.parametrize("arm", ARMS)
def test_a_method_does_something_and_leaves_a_plain_model(
    arm: str, data: Any, run_of: Callable[[str], Any], plain: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    outcome = run_of(arm)
    assert not same(weights(outcome), weights(plain))
    assert weights(outcome).keys() == weights(plain).keys()
    network, text = outcome.backbone, data.splits["validation"].texts[0][0]
    inputs = network.tokenizer([text], return_tensors="pt")
    network.save(tmp_path / "saved")
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        logits = network.model.eval()(**inputs).logits
        torch.testing.assert_close(saved(**inputs).logits, logits)
    ours = logits.softmax(-1)[0].numpy()
    np.testing.assert_allclose(outcome.predictions["probabilities"][0], ours, rtol=1e-4, atol=1e-5)
    rates = [module.p for module in network.model.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates == [0.1] * len(rates)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in KNOWN])
def test_interrupted_and_resumed_is_uninterrupted(
    arm: str, data: Any, tiny_model: Path, finetune_tiny: Finetune, run_of: Callable[[str], Any], tmp_path: Path
) -> None:
    assert_resumable(finetune_tiny, data, tiny_model, tmp_path, run_of(arm), 3)


@pytest.mark.parametrize("arm", [*ARMS, "l2sp", "mixout", "recadam", "llrd", "freeze", "reinit"])
def test_bf16_is_finite_and_not_fp32(
    arm: str, data: Any, tiny_model: Path, finetune_tiny: Finetune, run_of: Callable[[str], Any], tmp_path: Path
) -> None:
    """With the defaults too."""
    outcome = finetune_tiny(data, tiny_model, tmp_path, arm, **(RECIPE | {"steps": 3, "precision": "bf16"}))
    assert outcome.result.status == "ok"
    assert all(np.isfinite(v) for r in outcome.history for v in r.values() if isinstance(v, float))
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in outcome.backbone.model.parameters())
    if arm in ARMS:
        assert outcome.history[0]["loss"] == pytest.approx(run_of(arm).history[0]["loss"], rel=0.05)
        assert outcome.history[0]["loss"] != run_of(arm).history[0]["loss"]


@pytest.mark.parametrize("arm", ARMS)
def test_what_is_trained_gets_a_gradient(
    arm: str, data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    from ftbench.training.engine import accumulate

    run = training_of(data, tiny_model, tmp_path, arm)
    run.backbone.model.train()
    accumulate(run, 0)
    for name, parameter in run.backbone.model.named_parameters():
        if not parameter.requires_grad:
            assert arm.startswith(("freeze", "bitfit")) and parameter.grad is None
        else:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0 or name.endswith("key.bias"), name


@pytest.mark.parametrize(
    "stack",
    [
        "l2sp:weight=3+r3f:eps=0.1",
        "mixout:p=0.3+r3f:eps=0.1",
        "mixout:p=0.3+r4f:eps=0.1",
        "r4f:eps=0.1+mixout:p=0.3",
        "reinit:layers=1+llrd+recadam:weight=20",
        "freeze:layers=1+l2sp+child-tuning",
    ],
)
def test_stacks(stack: str, data: Any, tiny_model: Path, finetune_tiny: Finetune, plain: Any, tmp_path: Path) -> None:
    """The predictions before ``finish`` are those after."""
    outcome = finetune_tiny(data, tiny_model, tmp_path, stack, **RECIPE)
    assert outcome.result.status == "ok" and weights(outcome).keys() == weights(plain).keys()
    network = outcome.backbone
    inputs = network.tokenizer([data.splits["validation"].texts[0][0]], return_tensors="pt")
    with torch.no_grad():
        ours = network.model(**inputs).logits.softmax(-1)[0].numpy()
    np.testing.assert_allclose(outcome.predictions["probabilities"][0], ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("l2sp", {"weight": "-1"}, "l2sp:weight=-1: expected 0 or more"),
        ("l2sp", {"head": "inf"}, "l2sp:head=inf: expected 0 or more"),
        ("l2sp", {"weight": "nan"}, "l2sp:weight=nan"),
        ("l2sp", {"mode": "los"}, "Did you mean 'loss'"),
        ("mixout", {"p": "1"}, "mixout:p=1: expected 0 or more, below 1"),
        ("mixout", {"p": "-0.1"}, "mixout:p=-0.1"),
        ("mixout", {"unit": "row"}, "expected neuron or weight"),
        ("reinit", {"layers": "-1"}, "reinit:layers=-1: expected 0 or more"),
        ("llrd", {"decay": "0"}, "llrd:decay=0: expected more than 0, at most 1"),
        ("llrd", {"decay": "1.1"}, "llrd:decay=1.1"),
        ("recadam", {"weight": "-1"}, "recadam:weight=-1: expected 0 or more"),
        ("recadam", {"k": "-1"}, "recadam:k=-1"),
        ("recadam", {"t0": "nan"}, "recadam:t0=nan"),
        ("child-tuning", {"p": "0"}, "child-tuning:p=0: expected more than 0, at most 1"),
        ("child-tuning", {"p": "1.5"}, "child-tuning:p=1.5"),
        ("child-tuning", {"rows": "-1"}, "child-tuning:rows=-1: expected 0 or more"),
        ("child-tuning", {"mode": "G"}, "expected F or D"),
        ("freeze", {"layers": "-1"}, "freeze:layers=-1: expected 0 or more"),
        ("bitfit", {"lr": "0"}, "bitfit:lr=0: expected more than 0"),
    ],
)
def test_wrong_fields_are_refused(name: str, fields: dict[str, str], message: str) -> None:
    from ftbench.errors import UsageError

    with pytest.raises(UsageError, match=message):
        build(method_class(name), fields, name)
