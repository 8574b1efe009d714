"""A stack under lora, adapter or bitfit is compared with that alone; layers are a setting."""

from __future__ import annotations

import pytest

from ftbench.reporting import cells
from ftbench.reporting.tables import runs_table
from ftbench.types import MethodSpec
from tests.reporting.conftest import R3F, REFS, arms, references, row, run

LORA = (MethodSpec("lora", 1, {"rank": 4}),)
NAME = "lora:rank=4"


def test_a_stack_is_compared_with_what_is_tuned_alone() -> None:
    tuned = [run(0.7, i, LORA) for i in range(3)] + [run(0.75, i, LORA + R3F) for i in range(3)]
    for more in ([], arms([0.8, 0.8, 0.8], [0.9, 0.9, 0.9])):
        table = runs_table([*tuned, *more, references(scores=REFS)])
        assert row(table, f"{NAME}+r3f")["vs_std"] == pytest.approx(0.05)
        assert row(table, f"{NAME}+r3f")["verdict"] == ""
        assert row(table, f"{NAME}+r3f")["cost"] == pytest.approx(1.0)
        assert any(note.startswith(f"{NAME} chooses what is tuned") for note in table.notes)
    assert row(table, NAME)["vs_std"] == pytest.approx(-0.1), "beside std it is an arm as others are"
    assert row(table, "r3f")["vs_std"] == pytest.approx(0.1)


def test_alone_and_without_std_it_stands_in_its_place() -> None:
    table = runs_table([*(run(0.7, i, LORA) for i in range(3)), references(scores=REFS)])
    assert row(table, NAME)["verdict"] == "" and row(table, NAME)["vs_std"] is None
    low = runs_table([*(run(0.55, i, LORA) for i in range(3)), references(scores=REFS)])
    assert row(low, NAME)["verdict"] == cells.NOT_LEARNED


def test_a_stack_without_its_base_has_no_baseline() -> None:
    table = runs_table([*(run(0.7, i, LORA + R3F) for i in range(3)), *arms([0.7], [0.8]), references(scores=REFS)])
    assert row(table, f"{NAME}+r3f")["verdict"] == cells.NO_BASELINE


def test_layers_are_a_column_and_never_averaged() -> None:
    records = [*arms([0.7, 0.7], [0.8, 0.8]), *arms([0.6, 0.6], [0.65, 0.65], layers="5:6:6")]
    table = runs_table(records)
    assert [(r["layers"], r["method"], r["n"]) for r in table.rows] == [
        ("5:6:6", "std", 2), ("5:6:6", "r3f", 2), ("all", "std", 2), ("all", "r3f", 2),
    ]  # fmt: skip
    assert row(table, "r3f", layers="5:6:6")["vs_std"] == pytest.approx(0.05)
    assert not next(column for column in table.columns if column.key == "layers").numeric
    dropout = runs_table(
        [*arms([0.7], [0.8], layers="2:6:6"), *arms([0.7], [0.8], layers="2:6:6", frozen_dropout=True)]
    )
    assert {r["frozen_dropout"] for r in dropout.rows} == {"on", "off"}
