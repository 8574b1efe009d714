"""What methods note beside their terms: the mean over the whole batch, never another thing under the same name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.methods.r3f import R3F
from ftbench.methods.rdrop import RDrop
from ftbench.training.engine import accumulate


@pytest.fixture
def logged_of(
    tiny_data: Callable[..., Any], tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> Callable[..., dict[str, float]]:
    """``logged_of("rdrop")``: what the first step logs, its 8 rows in micro-batches of 3, 3 and 2."""

    def run(arm: str, **fields: Any) -> dict[str, float]:
        training = training_of(tiny_data(20, 12), tiny_model, tmp_path, arm, **{"micro_batch": 3, **fields})
        training.backbone.model.train()
        return {name: value.item() for name, value in accumulate(training, 0).items()}

    return run


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Rows and R-Drop's divergence of each micro-batch, as they come."""
    found: list[tuple[int, float]] = []
    penalty = RDrop.penalty

    def watched(self: Any, batch: Any, out: Any, views: Any) -> Any:
        term = penalty(self, batch, out, views)
        found.append((len(batch.labels), batch.notes["kl"].item()))
        return term

    monkeypatch.setattr(RDrop, "penalty", watched)
    return found


def mean(found: list[tuple[int, float]]) -> float:
    rows, values = zip(*found, strict=True)
    return float(np.average(values, weights=rows))


def test_a_note_is_the_mean_over_the_batch(logged_of: Callable[..., Any], noted: list[tuple[int, float]]) -> None:
    logged = logged_of("rdrop")
    assert [rows for rows, _ in noted] == [3, 3, 2]
    assert logged["kl"] == pytest.approx(mean(noted), rel=1e-6)
    assert logged["kl"] != pytest.approx(noted[-1][1], rel=1e-3)


@pytest.mark.parametrize("other", ["r3f", "vat"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_note_with_the_name_of_a_term_keeps_apart_from_it(
    other: str, order: int, logged_of: Callable[..., Any], noted: list[tuple[int, float]]
) -> None:
    """The other's term is what it is without R-Drop; its draws do not depend on who else is there."""
    logged = logged_of("+".join(["rdrop", f"{other}:dropout=shared"][::order]))
    assert logged["rdrop.kl"] == pytest.approx(mean(noted), rel=1e-6)
    assert logged["kl"] == pytest.approx(logged_of(f"{other}:dropout=shared")["kl"], rel=1e-5, abs=1e-12)


def test_two_notes_of_one_name_are_both_kept(logged_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(R3F, "add_noise", _silent)
    logged = logged_of("r3f+r4f:variant=released")
    assert (logged["r3f.noise_alive"], logged["r4f.noise_alive"]) == (0.0, 1.0)


def _silent(self: Any, embeddings: Any, batch: Any) -> Any:
    if batch.diagnose:
        batch.notes["noise_alive"] = embeddings.new_zeros(())
    return embeddings


def test_what_only_the_first_micro_batch_notes_is_exactly_that(logged_of: Callable[..., Any]) -> None:
    """Though it has three eighths of the rows."""
    assert logged_of("r3f")["noise_alive"] == 1.0
