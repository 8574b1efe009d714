"""What tests of whole runs share: a recipe with accumulation, and what it means that two runs are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftbench.errors import Interrupted
from ftbench.methods import method_class
from ftbench.training.engine import micro_step
from ftbench.training.watch import Control

STEPS = 6
#: batches of 8 rows in micro-batches of 5 and 3
RECIPE = {"steps": STEPS, "micro_batch": 5}


def weights(outcome: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in outcome.backbone.model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_equal_outcomes(a: Any, b: Any) -> None:
    """Bit for bit: scores, history, predictions, weights."""
    assert a.result.metrics == b.result.metrics and a.result.facts == b.result.facts
    assert a.history == b.history
    assert same(weights(a), weights(b))
    assert a.predictions.keys() == b.predictions.keys()
    for name, column in a.predictions.items():
        assert np.array_equal(column, b.predictions[name]), name


def neutral_arm(name: str) -> str:
    """The method at its neutral fields, as a user would type it; empty where there are none, which it must explain."""
    neutral = method_class(name).neutral
    if neutral is None:
        assert len(method_class(name).no_neutral) > 20
        return ""
    call = ",".join(f"{key}={value}" for key, value in neutral.items())
    return f"{name}:{call}" if call else name


def stop_after(steps: int) -> Control:
    """Asked to stop once ``steps`` optimizer steps of this call are done."""
    seen = iter(range(1, 10_000))
    return Control(should_stop=lambda: next(seen) >= steps)


def assert_resumable(
    finetune_tiny: Callable[..., Any], data: Any, model: Path, folder: Path, whole: Any, at: int
) -> None:
    """The run ``whole``, stopped after ``at`` steps and done again, is the same run."""
    arm, expected = whole.result.spec.method, f"stopped after step {at} of {STEPS}; run the same command to continue"
    with pytest.raises(Interrupted, match=expected):
        finetune_tiny(data, model, folder, arm, stop_after(at), **RECIPE)
    resumed = finetune_tiny(data, model, folder, arm, **RECIPE)
    assert whole.result.status == "ok"
    assert_equal_outcomes(whole, resumed)
    assert resumed.cost.interruptions == 1
    assert resumed.cost.forward_passes == whole.cost.forward_passes and resumed.cost.steps == STEPS


def gradients_of(run: Any, pieces: list[Any]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Logged sums and gradients of one step that is cut into ``pieces``."""
    run.backbone.model.train()
    run.backbone.model.zero_grad()
    logged: dict[str, float] = {}
    rows = sum(map(len, pieces))
    for micro, part in enumerate(pieces):
        for name, value in micro_step(run, 0, micro, part, len(part) / rows)[0].items():
            logged[name] = logged.get(name, 0.0) + value.item()
    return logged, {name: p.grad.clone() for name, p in run.backbone.model.named_parameters() if p.requires_grad}
