"""Probe runs of few rows: what cannot be measured is left out, and each class keeps a row to fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.errors import UsageError
from ftbench.models.locate import locate
from ftbench.training import probe as probes
from ftbench.training.run import Outcome, Place
from ftbench.training.watch import Control
from ftbench.types import Data, Features, RunSpec

Probe = Callable[..., Outcome]


@pytest.fixture
def probe(tiny_model: Path, tmp_path: Path) -> Probe:
    """``probe(data, **fields)``: a probe run of the tiny BERT."""

    def run(data: Data, **fields: Any) -> Outcome:
        source = locate(str(tiny_model))
        usual = {"pooling": "mean", "repeats": 2, "max_length": 32}
        about = {"task": "tiny", "data": data.fingerprint, "weights": source.fingerprint}
        spec = RunSpec(kind="probe", **about, **{**usual, **fields})
        return probes.probe(spec, data, source, Place(tmp_path / "run", torch.device("cpu")), Control())

    return run


def test_one_validation_row_a_class_leaves_alignment_out(probe: Probe, tiny_data: Callable[..., Data]) -> None:
    result = probe(tiny_data(40, 4, 4)).result
    assert "alignment" in result.facts["left_out"]
    assert "alignment" not in result.metrics["last"]["collapse"] and "nc1" in result.metrics["last"]["collapse"]
    result = probe(tiny_data(40, 5, 4)).result
    assert "alignment" not in result.facts["left_out"] and "alignment" in result.metrics["last"]["collapse"]


def test_numbers_have_no_classes_to_leave_out() -> None:
    x = np.random.default_rng(0).normal(size=(1, 30, 24)).astype(np.float32)
    assert probes.too_few(Features(x, np.arange(30) / 7)) == []
    assert probes.too_few(Features(x, np.arange(30))) == ["alignment"]
    assert probes.too_few(Features(x, np.arange(30) // 2)) == []


def test_a_repeat_has_as_many_rows_as_there_are_classes(probe: Probe, tiny_data: Callable[..., Data]) -> None:
    facts = probe(tiny_data(4, 8, 4)).result.facts
    assert len(facts["scores"][0]) == 2 and facts["rows"]["train"] == 4
    with pytest.raises(UsageError, match="a probe for 4 classes has 3 train rows"):
        probe(tiny_data(3, 8, 4))


@pytest.mark.parametrize(("rows", "classes", "size"), [(10, 4, 8), (5, 5, 5), (6, 6, 6), (7, 6, 6), (40, 3, 32)])
def test_the_rows_of_a_repeat(rows: int, classes: int, size: int) -> None:
    x, labels = np.zeros((1, rows, 2), dtype=np.float32), np.arange(rows) % classes
    features = Features(x, labels)
    assert probes._subsample(features, features, regression=False) == size
    numbers = Features(x, labels.astype(np.float64))
    assert probes._subsample(numbers, numbers, regression=True) == round(0.8 * rows)
