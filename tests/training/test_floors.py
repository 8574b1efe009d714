"""Reference rows of summarization: scored like a system, on every scored split, after rows were taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ftbench.metrics import METRICS, ROUGE
from ftbench.models.locate import Checkpoint
from ftbench.tasks.encode_summaries import as_rows
from ftbench.training.reference import reference
from ftbench.training.run import Outcome, Place
from ftbench.training.watch import Control
from ftbench.types import Data, RunSpec, Task
from ftbench.types.task import Files

TASK = Task(name="tiny", kind="summarization", source=Files("x"), inputs=("document",), target="summary", metrics=ROUGE)
DOCUMENTS = ["alpha beta gamma delta", "one two three four", "red green blue black"]
SUMMARIES = [("alpha beta",), ("three", "one two"), ("green",)]


def floors_of(data: Data, **fields: Any) -> Outcome:
    spec = RunSpec(kind="reference", task="tiny", data=data.fingerprint, weights="w", **fields)
    return reference(spec, data, Checkpoint.__new__(Checkpoint), Place(Path("none"), torch.device("cpu")), Control())


@pytest.fixture
def data() -> Data:
    train = as_rows(["a document"] * 4, [("a b",), ("a",), ("a b",), ("a b c",)])
    rows = as_rows(DOCUMENTS, SUMMARIES)
    return Data(TASK, {"train": train, "validation": rows, "other": as_rows(DOCUMENTS[:1], SUMMARIES[:1])}, ())


def test_lead_of_the_median_length_needs_no_model(data: Data) -> None:
    outcome = floors_of(data)
    result = outcome.result
    assert set(result.metrics) == {"lead"} and set(result.metrics["lead"]) == {"validation", "other"}
    assert result.facts["lead_words"] == 2 and result.facts["headline"] == "rouge1"
    scores = result.metrics["lead"]["validation"]
    expected = METRICS["rouge1"](["alpha beta", "one two", "red green"], SUMMARIES)
    assert scores["rouge1"] == pytest.approx(expected) == pytest.approx((1 + 1 + 2 / 3) / 3)
    low, high = result.facts["intervals"]["lead"]["validation"]["rouge1"]
    assert low <= scores["rouge1"] <= high
    assert scores["copy_rate"] == 0.0 and scores["mean_rouge1"] < scores["rouge1"]
    assert result.metrics["lead"]["other"]["rouge1"] == 1.0
    assert outcome.cost.process_seconds > 0


def test_rows_are_taken_away_first_and_a_slice_of_train_is_not_scored(data: Data) -> None:
    outcome = floors_of(data, select_on=0.25, limit=2)
    assert set(outcome.result.metrics["lead"]) == {"validation", "other"}
    assert outcome.result.facts["rows"] == {"train": 2, "validation": 2, "other": 1, "selection": 1}


def test_several_sentences_bring_lead_3_and_the_oracle() -> None:
    story = "Alpha came. Beta went. Gamma stayed. Delta ran. The end."
    rows = as_rows([story] * 3, [("Delta ran",)] * 3)
    metrics = floors_of(Data(TASK, {"train": rows, "validation": rows}, ())).result.metrics
    assert list(metrics) == ["lead", "lead-3", "oracle"]
    assert metrics["oracle"]["validation"]["rouge1"] == 1.0 > metrics["lead-3"]["validation"]["rouge1"]
