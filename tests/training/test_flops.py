"""FLOPs of a run: torch's count of what was really run, at next to no cost and without moving a number."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ftbench.runs.store import Store, read
from ftbench.training.cost import Meter
from ftbench.training.flops import Flops
from ftbench.types import Cost
from tests.conftest import SIZES
from tests.outcomes import assert_equal_outcomes, stop_after

Run = Callable[..., Any]


@pytest.fixture
def run(tiny_data: Any, tiny_model: Path, finetune_tiny: Run, tmp_path: Path) -> Run:
    """``run("r3f", **fields)``: three epochs of four batches of 8 rows."""

    def train(arm: str = "std", folder: str = "", **fields: Any) -> Any:
        place = tmp_path / (folder or f"run-{len(list(tmp_path.iterdir()))}")
        return finetune_tiny(tiny_data(32, 8), tiny_model, place, arm, **{"steps": 12, "evaluations": 1, **fields})

    return train


def by_hand(lengths: list[list[int]]) -> int:
    """Matrix products of the tiny BERT over batches of rows of these lengths; the backward pass takes twice as many."""
    width, layers = SIZES["width"], SIZES["layers"]
    forward = 0
    for batch in lengths:
        rows, tokens = len(batch), max(batch)
        linear = 4 * width * width + 2 * width * 2 * width
        attention = 2 * tokens * width
        forward += rows * (layers * tokens * 2 * (linear + attention) + 2 * (width * width + 2 * width))
    return 3 * forward


def test_plain_fine_tuning_is_what_one_counts_by_hand(
    training_of: Run, tiny_data: Any, tiny_model: Path, tmp_path: Path
) -> None:
    from ftbench.training.engine import optimizer_step

    training = training_of(tiny_data(32, 8), tiny_model, tmp_path, steps=12)
    batches = [[int(training.tokens.lengths[i]) for i in training.batch_at(step)] for step in range(12)]
    training.backbone.model.train()
    for step in range(12):
        optimizer_step(training, step)
    assert training.meter.cost.flops == by_hand(batches)
    assert len({max(batch) for batch in batches}) > len(training.flops.known[False]) >= 3, "some were read off"


@contextlib.contextmanager
def _all_counted(self: Flops, kind: Any, inputs: Any) -> Iterator[None]:
    with self.counted():
        yield


@contextlib.contextmanager
def _none_counted(self: Flops, kind: Any, inputs: Any) -> Iterator[None]:
    yield


ARMS = ("std", "freelb", "sam", "lora", "r4f")


@pytest.mark.parametrize("arm", ARMS)
def test_what_is_read_off_is_what_counting_everything_gives(arm: str, run: Run, monkeypatch: Any) -> None:
    found = run(arm)
    monkeypatch.setattr(Flops, "estimated", _all_counted)
    assert found.cost.flops == pytest.approx(run(arm).cost.flops, rel=1e-9)


@pytest.mark.parametrize("arm", ["std", "r4f", "child-tuning"])
def test_counting_moves_no_number(arm: str, run: Run, monkeypatch: Any) -> None:
    found = run(arm)
    assert found.cost.flops > 0
    monkeypatch.setattr(Flops, "estimated", _none_counted)
    assert_equal_outcomes(found, run(arm))


def test_every_pass_counts_and_diagnoses_do_not(run: Run) -> None:
    std, r3f, sam = (run(arm).cost.flops for arm in ("std", "r3f", "sam"))
    assert r3f == pytest.approx(2 * std, rel=1e-3)
    assert sam == pytest.approx(2 * std, rel=1e-3)
    assert run(micro_batch=4).cost.flops == pytest.approx(std, rel=0.1), "padded to shorter texts"


def test_what_is_frozen_costs_no_gradient_and_what_is_kept_no_pass(run: Run, tmp_path: Path) -> None:
    std, top, low = (run(layers=layers).cost.flops for layers in ("", "2:2:2", "1:1:1"))
    assert low < 0.55 * std and top < 0.75 * std
    assert run("lora:rank=2").cost.flops < 0.8 * std


def test_a_resumed_run_counts_what_was_done(run: Run) -> None:
    from ftbench.errors import Interrupted

    whole = run("capcort-i")
    with pytest.raises(Interrupted):
        run("capcort-i", "parts", control=stop_after(7))
    parts = run("capcort-i", "parts")
    assert parts.cost.interruptions == 1
    assert parts.cost.flops == pytest.approx(whole.cost.flops, rel=1e-9)


def test_attention_on_the_cpu_counts() -> None:
    q, k, v = (torch.randn(2, 4, 6, 8, requires_grad=True) for _ in range(3))
    flops = Flops(Meter(Cost(), torch.device("cpu")))
    with flops.counted(), torch.no_grad():
        scaled_dot_product_attention(q, k, v)
    forward = 2 * 4 * 2 * (2 * 6 * 6 * 8)
    assert flops.meter.cost.flops == forward
    with flops.counted():
        scaled_dot_product_attention(q, k, v).sum().backward()
    assert flops.meter.cost.flops in (forward * 2 + forward * 5 // 2, forward * 2 + forward * 2)


def test_a_cost_of_before_is_read(run: Run, tmp_path: Path) -> None:
    outcome = run()
    store = Store(tmp_path / "store")
    store.folder(outcome.result.spec).mkdir(parents=True)
    record = store.save(outcome.result, outcome.cost)
    assert read(record.folder).cost == outcome.cost
    path = record.folder / "cost.json"
    values = json.loads(path.read_text())
    del values["flops"]
    path.write_text(json.dumps(values))
    assert read(record.folder).cost == dataclasses.replace(outcome.cost, flops=0)
