"""Probe tables: which probes are averaged, and what tells encoders apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftbench.reporting.probe_figure import draw_probes
from ftbench.reporting.probes import probe_tables
from ftbench.runs.store import Store
from ftbench.types import Cost, Record, Result, RunSpec
from tests.reporting.conftest import run


def probe(score: float, parent: Record | None, encoder: str = "", **spec: Any) -> Record:
    """A probe of one layer, of the encoder that ``parent`` left."""
    own = {} if parent is None else {"parents": (parent.result.spec.id,), "seed": parent.result.spec.seed}
    about = {"kind": "probe", "task": "trec", "data": "d2", "weights": "w1", "repeats": 1}
    fields: dict[str, Any] = {**about, **own, **spec}
    found = {"validation": {"accuracy": score}, "control": {"accuracy": 0.2}, "collapse": {"effective_rank": 3.0}}
    metrics = {"last": found, "layer 1": found}
    facts = {"headline": "accuracy", "layers": 1, "kind": "classification"}
    result = Result(spec=RunSpec(encoder=encoder, **fields), status="ok", metrics=metrics, facts=facts)
    return Record(Path("run"), result, Cost())


@pytest.fixture
def tuned() -> list[Record]:
    """Two recipes with two seeds each."""
    return [run(0.8, seed, train_size=size) for size in (500, 1000) for seed in (0, 1)]


@pytest.fixture
def probes(tuned: list[Record]) -> list[Record]:
    ends = [probe(0.9, None), probe(0.1, None, "random")]
    return [*ends, *(probe(score, one, "rte") for score, one in zip((0.3, 0.5, 0.7, 0.9), tuned, strict=True))]


def rows(records: list[Record]) -> list[tuple[Any, ...]]:
    table = probe_tables(records)["probe"]
    assert table is not None
    shown = [column.key for column in table.columns]
    return [
        (row["encoder"], row["tuned_train_size"] if "tuned_train_size" in shown else None, row["n"], row["score"])
        for row in table.rows
        if row["method"]
    ]


def test_encoders_that_were_tuned_otherwise_are_never_averaged(tuned: list[Record], probes: list[Record]) -> None:
    assert rows([*tuned, *probes]) == [("rte", "500", 2, 0.4), ("rte", "1000", 2, 0.8)]


def test_the_runs_that_tuned_them_are_found_in_the_store(
    tuned: list[Record], probes: list[Record], tmp_path: Path
) -> None:
    """Also where a filter has left them out."""
    store = Store(tmp_path)
    for record in (*tuned, *probes):
        store.folder(record.result.spec).mkdir(parents=True)
    for record in tuned:
        store.save(record.result, record.cost)
    stored = [store.save(record.result, record.cost) for record in probes]
    assert rows(stored) == [("rte", "500", 2, 0.4), ("rte", "1000", 2, 0.8)]


def test_without_them_tasks_and_methods_tell_encoders_apart(probes: list[Record]) -> None:
    assert rows(probes) == [("rte", None, 4, pytest.approx(0.6))]


def test_a_recipe_that_all_share_is_no_column(tuned: list[Record], probes: list[Record]) -> None:
    assert rows([*tuned[:2], *probes[:4]]) == [("rte", None, 2, 0.4)]


def test_a_step_before_counts_too(tuned: list[Record]) -> None:
    later = [
        replace(one, result=replace(one.result, spec=replace(run(0.8).result.spec, parents=(one.result.spec.id,))))
        for one in tuned
    ]
    records = [*tuned, *later, *(probe(0.5, one, "rte>rte") for one in later)]
    assert {(encoder, size, n) for encoder, size, n, _ in rows(records)} == {
        ("rte>rte", "500>all", 2), ("rte>rte", "1000>all", 2),
    }  # fmt: skip


def test_the_picture_names_them_too(tuned: list[Record], probes: list[Record], tmp_path: Path) -> None:
    draw_probes([*tuned, *probes], tmp_path / "probes.svg")
    text = (tmp_path / "probes.svg").read_text()
    assert "std, train 500" in text and "std, train 1000" in text
