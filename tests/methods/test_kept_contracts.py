"""What every method of the families "representations" and "trajectory" keeps, in tiny runs.

The same contracts as ``tests/contracts/test_methods.py``, for methods whose result may be other weights than the last.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.outcomes import RECIPE, assert_resumable, same, weights

NAMES = ("capcort-i", "capcort-mlp", "cka", "bss", "sam", "asam", "ema", "wise-ft", "lp-ft", "early-stop")
VARIANTS = (
    "capcort-i:cache=off,token=mean,calibrated=0.3",
    "capcort-mlp:token=all,layer=1",
    "cka:estimator=debiased,token=all",
    "bss:features=cls,weight=1",
    "asam:variant=released",
    "ema:window=0.5",
    "lp-ft:probe=fitted",
    "lp-ft+wise-ft",
    "sam+capcort-i",
    "r3f:eps=0.1+capcort-mlp+bss",
)
ARMS = (*NAMES, *VARIANTS)
TERMS = {"capcort-i": "drift", "capcort-mlp": "drift", "cka": "cka_loss", "bss": "bss"}


@pytest.mark.parametrize("arm", ARMS)
def test_a_method_does_something_and_leaves_a_plain_model(arm: str, run_of: Callable[[str], Any]) -> None:
    outcome, plain = run_of(arm), run_of("std")
    assert weights(outcome).keys() == weights(plain).keys()
    if arm not in ("early-stop", "ema"):  # never stopped; an average over the last tenth of 6 steps
        assert not same(weights(outcome), weights(plain))
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    for mine, other in zip(outcome.backbone.model.modules(), plain.backbone.model.modules(), strict=True):
        assert [len(getattr(mine, kind)) for kind in hooks] == [len(getattr(other, kind)) for kind in hooks]
    if "fitted" not in arm:
        assert outcome.history[0]["loss"] == plain.history[0]["loss"], "the first clean pass is the same"


@pytest.mark.parametrize("arm", TERMS)
def test_the_term_is_finite_and_not_negative(arm: str, run_of: Callable[[str], Any]) -> None:
    history = run_of(arm).history
    terms = [record[TERMS[arm]] for record in history if "loss" in record]
    assert len(terms) == 6 and all(0 <= term < 1e3 for term in terms) and max(terms) > 0
    ratios = [record[f"{TERMS[arm]}_gradient_ratio"] for record in history if f"{TERMS[arm]}_gradient_ratio" in record]
    assert len(ratios) == 5 and all(0 < ratio < 1e3 for ratio in ratios)


@pytest.mark.parametrize("arm", VARIANTS)
def test_interrupted_and_resumed_is_uninterrupted(
    arm: str, run_of: Callable[[str], Any], tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path
) -> None:
    assert_resumable(finetune_tiny, tiny_data(32, 16, 2), tiny_model, tmp_path, run_of(arm), 3)


@pytest.mark.parametrize("arm", ARMS)
def test_under_bf16_everything_is_finite(
    arm: str, tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path
) -> None:
    outcome = finetune_tiny(tiny_data(32, 16, 2), tiny_model, tmp_path, arm, precision="bf16", **RECIPE)
    numbers = [v for record in outcome.history for k, v in record.items() if k != "evaluation"]
    assert np.isfinite(numbers).all() and outcome.result.status == "ok"
    assert all(p.dtype == torch.float32 for p in outcome.backbone.model.parameters())


@pytest.mark.parametrize("arm", ["capcort-i", "cka", "bss"])
def test_joined_with_another_method_s_passes(
    arm: str, tiny_data: Any, tiny_model_without_dropout: Path, training_of: Any, tmp_path: Path
) -> None:
    from ftbench.training.engine import micro_step

    values = []
    for passes in ("separate", "joined"):
        run = training_of(tiny_data(), tiny_model_without_dropout, tmp_path, f"{arm}+r3f:eps=3", passes=passes)
        run.backbone.model.train()
        with torch.no_grad():
            run.backbone.model.bert.encoder.layer[0].output.dense.weight.mul_(1.5)
        values.append(micro_step(run, 0, 0, np.arange(8), 1.0)[0][TERMS[arm]].item())
    assert values[0] == pytest.approx(values[1], rel=1e-4) and values[0] > 1e-6
