"""The gate of summarization: std has to beat lead and lead-3, never the oracle; who does not is named."""

from __future__ import annotations

from typing import Any

from ftbench.reporting.cells import NOT_LEARNED
from ftbench.reporting.tables import runs_table
from ftbench.types import Record
from tests.reporting.conftest import R3F, references, row, run

RUN: dict[str, Any] = {"task": "gigaword", "metric": "rouge1"}


def floors(**scores: float) -> Record:
    named = {name.replace("_", "-"): score for name, score in scores.items()}
    return references("rouge1", task="gigaword", scores=named)


def notes_of(*records: Record) -> str:
    return "\n".join(runs_table(list(records)).notes)


def test_std_above_lead_is_compared_whatever_the_oracle_says() -> None:
    records = [floors(oracle=0.6, lead=0.3, lead_3=0.28), run(0.35, **RUN), run(0.36, 0, R3F, **RUN)]
    table = runs_table(records)
    assert [r["method"] for r in table.rows] == ["lead", "lead-3", "oracle", "std", "r3f"]
    assert row(table, "r3f")["vs_std"] is not None and row(table, "std")["verdict"] == ""
    text = "\n".join(table.notes)
    assert "oracle: the sentences" in text and "lead-3: its first three sentences" in text
    assert "Below the beginning" not in text


def test_below_the_better_lead_nothing_is_compared() -> None:
    records = [floors(lead=0.3, lead_3=0.4), run(0.35, **RUN), run(0.36, 0, R3F, **RUN)]
    assert row(runs_table(records), "std")["verdict"] == NOT_LEARNED
    assert "Below the beginning of the document: gigaword std (lead-3); gigaword r3f (lead-3)." in notes_of(*records)


def test_a_method_below_lead_is_named_where_std_is_above() -> None:
    records = [floors(lead=0.3), run(0.35, **RUN), run(0.3, 0, R3F, **RUN)]
    assert "Below the beginning of the document: gigaword r3f (lead)." in notes_of(*records)


def test_classification_says_nothing_of_leads() -> None:
    assert "lead:" not in notes_of(references(scores={"linear": 0.9}), run(0.8))
