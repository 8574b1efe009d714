"""What a run takes: training apart from evaluation, passes, and a peak that starts anew."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.training.cost import Meter
from ftbench.types import Cost

CPU = torch.device("cpu")


def work(seconds: float) -> None:
    """Keeps the processor busy."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))


def test_a_pause_is_evaluation_and_not_training() -> None:
    meter = Meter(Cost(), CPU)
    meter.start()
    work(0.05)
    with meter.pause():
        work(0.2)
    work(0.05)
    meter.stop()
    cost = meter.cost
    assert 0.09 < cost.process_seconds < 0.16
    assert cost.wall_seconds >= 0.09 and cost.evaluate_seconds >= 0.19
    meter.stop()
    assert meter.cost.process_seconds == cost.process_seconds, "stopping twice counts once"


def test_a_pause_ends_after_an_error_and_does_not_start_a_stopped_meter() -> None:
    meter = Meter(Cost(), CPU)
    with pytest.raises(ArithmeticError), meter.pause():
        raise ArithmeticError
    work(0.02)
    meter.stop()
    assert meter.cost.process_seconds == 0
    meter.start()
    with pytest.raises(ArithmeticError), meter.pause():
        raise ArithmeticError
    work(0.02)
    meter.stop()
    assert meter.cost.process_seconds > 0.01


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is reset by the Linux kernel")
def test_memory_freed_before_the_reset_does_not_count() -> None:
    meter = Meter(Cost(), CPU)
    size = 200 * 2**20
    block = np.ones(size // 8)
    meter.record_peak()
    del block
    before = meter.cost.peak_memory
    assert before > size
    fresh = Meter(Cost(), CPU)
    fresh.reset_peak()
    fresh.record_peak()
    if not Path("/proc/self/clear_refs").exists() or fresh.cost.peak_memory == before:
        pytest.skip("this kernel does not reset the peak")
    assert fresh.cost.peak_memory < before - size / 2
    block = np.ones(size // 8)
    del block
    fresh.record_peak()
    assert fresh.cost.peak_memory > before - size / 2, "what came and went since the reset does"
    assert fresh.cost.memory_of == "process"


@pytest.mark.parametrize(("methods", "passes"), [("std", 1), ("r3f", 2), ("r3f:dropout=off", 2)])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_passes_are_counted_per_micro_batch(
    methods: str,
    passes: int,
    micro_batch: int | None,
    tiny_data: Callable[..., Any],
    tiny_model: Path,
    finetune_tiny: Callable[..., Any],
    tmp_path: Path,
) -> None:
    outcome = finetune_tiny(tiny_data(16, 8), tiny_model, tmp_path, methods, steps=3, micro_batch=micro_batch)
    pieces = 3 if micro_batch else 1
    cost = outcome.cost
    assert cost.forward_passes == cost.backward_passes == 3 * passes * pieces
    assert cost.steps == 3 and cost.tokens > 3 * 8 * 3
    assert cost.wall_seconds > 0 and cost.process_seconds > 0 and cost.evaluate_seconds > 0
    assert cost.peak_memory > 10**7 and cost.threads == 1 and cost.device == "cpu"
    assert cost.trained_parameters == sum(p.numel() for p in outcome.backbone.model.parameters())


@pytest.mark.parametrize(("methods", "forward", "backward"), [
    ("smart", 3, 3), ("smart:proximal=1", 4, 3), ("smart:proximal=1,weight=0", 2, 1), ("vat", 3, 3), ("freelb", 3, 3),
    ("capcort-i", 1, 1), ("capcort-i:cache=off", 2, 1), ("capcort-i:cache=off,calibrated=1", 2, 1),
    ("cka:cache=off", 2, 1), ("sam+cka:cache=off", 4, 2), ("r3f+smart:proximal=1,weight=0", 3, 2),
])  # fmt: skip
def test_passes_without_gradient_are_forward_passes_only(
    methods: str,
    forward: int,
    backward: int,
    tiny_data: Callable[..., Any],
    tiny_model: Path,
    finetune_tiny: Callable[..., Any],
    tmp_path: Path,
) -> None:
    cost = finetune_tiny(tiny_data(16, 8), tiny_model, tmp_path, methods, steps=2).cost
    assert (cost.forward_passes, cost.backward_passes) == (2 * forward, 2 * backward)


def test_the_tokens_counted_are_real_ones(
    tiny_data: Callable[..., Any], tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    data = tiny_data(16, 8)
    one = finetune_tiny(data, tiny_model, tmp_path / "a", steps=2)  # an epoch
    words = sum(len(text.split()) + 2 for text in data.splits["train"].texts[0])
    assert one.cost.tokens == words
    assert finetune_tiny(data, tiny_model, tmp_path / "b", "r3f", steps=2).cost.tokens == words
