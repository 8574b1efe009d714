"""Filters, groups, another headline, another order."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ftbench.errors import UsageError
from ftbench.metrics import LOWER_IS_BETTER
from ftbench.reporting import select
from ftbench.reporting.tables import runs_table
from ftbench.reporting.words import plain
from ftbench.types import Column, MethodSpec, Record, Table
from tests.reporting.conftest import R3F, REFS, references, row, run

SCALED = (MethodSpec("r3f", 1, {"weight": 0.5, "eps": 0.001}),)
RECORDS = [
    run(0.70, 0), run(0.71, 1, lr=1e-4), run(0.72, 0, R3F), run(0.73, 0, SCALED), run(0.8, 0, task="mrpc", data="d2"),
    run(None, 2, R3F, status="failed"), run(0.6, 0, train_size=100), references(scores=REFS),
]  # fmt: skip


def picked(*texts: str) -> list[tuple[str, str, int]]:
    found = [record.result.spec for record in select.where(RECORDS, texts)]
    return [(spec.task, spec.method if spec.kind == "finetune" else "ref", spec.seed) for spec in found]


@pytest.mark.parametrize(
    ("text", "n"),
    [("task=mrpc", 1), ("task=rte,mrpc", 8), ("task!=mrpc", 7), ("method=std", 5), ("method=r3f", 3),
     ("method=r3f*", 4), ("method=std,r3f:eps=0.001,weight=0.5", 6), ("lr<=5e-5", 7), ("lr>5e-5", 2), ("lr=0.0001", 2),
     ("train=100", 1),
     ("train_size>=101", 7), ("train=all", 7), ("status=failed", 2), ("seed=0 task=rte method=std", 3),
     ("kind=reference", 1), ("task = rte  lr <= 5e-5", 6), ("data-seed=0", 8), ("", 8)],
)  # fmt: skip
def test_where(text: str, n: int) -> None:
    assert len(picked(text)) == n


def test_a_stack_of_fields_is_one_method() -> None:
    assert picked("method=r3f:eps=0.001,weight=0.5") == [("rte", SCALED[0].label, 0), ("rte", "ref", 0)]


def test_clauses_add_up() -> None:
    assert picked("task=rte", "method=std", "lr>5e-5") == [("rte", "std", 1), ("rte", "ref", 0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [("tsak=rte", "Did you mean 'task'?"), ("task", "expected NAME=VALUE"), ("task<rte", "compares numbers"),
     ("lr<=much", "compares numbers"), ("=3", "expected NAME=VALUE")],
)  # fmt: skip
def test_wrong_filters_are_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        select.where(RECORDS, [text])


def test_by_keeps_references_with_their_rows() -> None:
    groups = select.by(RECORDS, ["lr"])
    assert [about for about, _ in groups] == [{"lr": 5e-5}, {"lr": 1e-4}]
    assert [len(found) for _, found in groups] == [7, 2]
    sizes = select.by(RECORDS, ["train"])
    assert [(about["train_size"], len(found)) for about, found in sizes] == [(100, 1), (None, 7)]
    with pytest.raises(UsageError, match="unknown setting of --by 'method'"):
        select.by(RECORDS, ["method"])


def test_by_of_nothing_is_nothing() -> None:
    assert select.by([], ["task"]) == [] and len(select.by([references(scores=REFS)], ["task"])) == 1


def test_another_metric_is_the_headline() -> None:
    records = [run(0.7, s, others={"f1": 0.9, "ece": 0.1 + s}) for s in (0, 1)]
    assert row(runs_table(select.with_metric(records, "f1")), "std")["mean"] == pytest.approx(0.9)
    worst = runs_table(select.with_metric(records, "ece"))
    assert row(worst, "std")["metric"] == "ece" and any("lower is better" in note for note in worst.notes)
    assert "ece" in LOWER_IS_BETTER
    assert row(runs_table(select.with_metric(records, "f1")), "std")["degenerate"] == 0
    with pytest.raises(UsageError, match="unknown metric of these runs 'f2'"):
        select.with_metric(records, "f2")


def test_sorting() -> None:
    def scores(key: str, records: list[Record]) -> list[float | None]:
        return [r["mean"] for r in select.sort_rows([runs_table(records)], key)[0].rows]

    records = [run(0.7), run(None, 0, (MethodSpec("bss"),), status="failed"), run(0.8, 0, R3F)]
    assert scores("mean", records) == [0.7, 0.8, None] and scores("-mean", records) == [0.8, 0.7, None]
    assert [r["method"] for r in select.sort_rows([runs_table(records)], "-method")[0].rows] == ["std", "r3f", "bss"]
    with pytest.raises(UsageError, match="unknown column of --sort 'meen'"):
        select.sort_rows([runs_table(records)], "meen")


@pytest.mark.parametrize(
    ("values", "up", "down"),
    [([2, "Spearman", 1, None, 10], [1, 2, 10, "Spearman", None], ["Spearman", 10, 2, 1, None]),
     (["b", None, "c", "a"], ["a", "b", "c", None], ["c", "b", "a", None]),
     ([math.nan, 0.2, None, 0.3], [0.2, 0.3, None, None], [0.3, 0.2, None, None])],
    ids=["numbers and texts", "texts", "numbers"],
)  # fmt: skip
def test_rows_without_a_value_come_last(values: list[Any], up: list[Any], down: list[Any]) -> None:
    table = Table("t", (Column("layer", "layer"),), tuple({"layer": value} for value in values))

    def found(key: str) -> list[Any]:
        return [plain(r["layer"]) for r in select.sort_rows([table], key)[0].rows]

    assert found("layer") == up and found("-layer") == down
