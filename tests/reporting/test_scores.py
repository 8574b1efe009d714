"""ftbench.reporting.scores: every metric and split beside the headline, means by hand."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from ftbench.reporting.render import FORMS, render
from ftbench.reporting.scores import scores_table
from ftbench.types import Cost, MethodSpec, Record, Result, RunSpec, Table
from tests.reporting.conftest import FACTS, R3F, REFS, keys, references, row, run

TWO_SPLITS = {"mismatched": {"accuracy": 0.4, "f1": 0.2}}


def scores(*records: Record, **options: Any) -> Table:
    table = scores_table(records, **options)
    assert table is not None
    return table


def full_references() -> Record:
    """Reference rows with two metrics on two splits."""
    metrics = {
        "majority": {"validation": {"accuracy": 0.5, "f1": 0.6}, "mismatched": {"accuracy": 0.45}},
        "linear": {"validation": {"accuracy": 0.55, "f1": 0.65}, "mismatched": {"accuracy": 0.5}},
    }
    spec = RunSpec(kind="reference", task="rte", data="d1", weights="w1")
    return Record(run(0.1).folder, Result(spec=spec, status="ok", metrics=metrics, facts=FACTS), Cost())


# --------------------------------------------------------------------------------- when there is a table


def test_the_headline_alone_needs_no_second_table() -> None:
    assert scores_table([run(0.7), run(0.8, 0, R3F), references(scores=REFS)]) is None


def test_no_records_no_table() -> None:
    assert scores_table([]) is None


def test_two_tasks_with_one_metric_each_need_no_second_table() -> None:
    assert scores_table([run(0.7), run(0.6, task="cola", data="d2", metric="matthews")]) is None


def test_rows_that_chose_the_best_epoch_are_no_score() -> None:
    assert scores_table([run(0.7, splits={"selection": {"accuracy": 0.9}})]) is None


def test_runs_that_all_failed_need_no_second_table() -> None:
    assert scores_table([run(None, status="failed", error="boom")]) is None


# ------------------------------------------------------------------------------------------ the numbers


def test_means_of_every_metric_and_split() -> None:
    first = run(0.7, 0, others={"f1": 0.6}, splits={"mismatched": {"accuracy": 0.5, "f1": 0.1}})
    second = run(0.8, 1, others={"f1": 0.9}, splits={"mismatched": {"accuracy": 0.6, "f1": 0.4}})
    table = scores(first, second)
    assert keys(table) == ["task", "method", "n", "accuracy", "f1", "mismatched_accuracy", "mismatched_f1"]
    assert [column.label for column in table.columns][3:] == [
        "accuracy", "f1", "accuracy (mismatched)", "f1 (mismatched)",
    ]  # fmt: skip
    std = row(table, "std")
    assert std["n"] == 2
    assert [std[key] for key in keys(table)[3:]] == [pytest.approx(x) for x in (0.75, 0.75, 0.55, 0.25)]


def test_references_and_arms_in_the_order_of_the_first_table() -> None:
    records = [run(0.8, 0, R3F, others={"f1": 0.7}), run(0.7, others={"f1": 0.6}), full_references()]
    table = scores(*records)
    assert [r["method"] for r in table.rows] == ["majority", "linear", "std", "r3f"]
    assert [r.get("style") for r in table.rows] == ["reference", "reference", None, None]
    assert row(table, "linear")["mismatched_accuracy"] == 0.5
    assert "mismatched_accuracy" not in row(table, "std")


def test_failed_runs_are_in_no_mean_also_where_they_have_scores() -> None:
    bad = run(0.0, 1, others={"f1": 0.0}, status="diverged", error="nan")
    table = scores(run(0.7, 0, others={"f1": 0.6}), bad, run(None, 2, status="failed"))
    assert (row(table, "std")["n"], row(table, "std")["accuracy"], row(table, "std")["f1"]) == (1, 0.7, 0.6)


def test_a_method_whose_runs_all_failed_keeps_its_row() -> None:
    table = scores(run(0.7, others={"f1": 0.6}), run(None, 0, R3F, status="failed"))
    assert row(table, "r3f")["n"] == 0 and row(table, "r3f").get("accuracy") is None
    line = next(line for line in render(table, "markdown").splitlines() if "r3f" in line)
    assert line.count("\N{EN DASH}") == 2


def test_degenerate_runs_stay_in_the_mean() -> None:
    constant = run(0.5, 1, others={"f1": 0.0}, facts={"distinct_predictions": 1})
    assert row(scores(run(0.7, 0, others={"f1": 0.6}), constant), "std")["f1"] == pytest.approx(0.3)


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_left_out(missing: Any) -> None:
    table = scores(run(0.7, 0, others={"f1": 0.6}), run(0.8, 1, others={"f1": missing}))
    assert (row(table, "std")["n"], row(table, "std")["f1"]) == (2, 0.6)
    only = scores(run(0.7, 0, others={"f1": missing}))
    assert row(only, "std")["f1"] is None


def test_a_metric_that_is_lower_is_better_is_a_mean_like_any() -> None:
    regression = {"metric": "pearson", "facts": {"kind": "regression"}}
    table = scores(run(0.9, 0, others={"mse": 0.5}, **regression), run(0.7, 1, others={"mse": 1.5}, **regression))
    assert (row(table, "std")["pearson"], row(table, "std")["mse"]) == (pytest.approx(0.8), pytest.approx(1.0))


def test_the_selection_decides_which_weights_are_scored() -> None:
    record = run(0.7, others={"f1": 0.6})
    best = {"validation": {"accuracy": 0.9, "f1": 0.8}}
    result = Result(spec=record.result.spec, status="ok", metrics={**record.result.metrics, "best": best}, facts=FACTS)
    both = Record(record.folder, result, record.cost)
    assert row(scores(both), "std")["f1"] == 0.6
    table = scores(both, selection="best")
    assert row(table, "std")["f1"] == 0.8 and "best weights" in table.title


# ---------------------------------------------------------------------------------- what stands apart


def test_several_tasks_have_a_column_for_each_metric_of_any() -> None:
    mrpc = {"task": "mrpc", "data": "d2"}
    table = scores(run(0.7), run(0.8, others={"f1": 0.85}, **mrpc), run(0.9, 0, R3F, others={"f1": 0.95}, **mrpc))
    assert [(r["task"], r["method"], r.get("f1")) for r in table.rows] == [
        ("mrpc", "std", 0.85), ("mrpc", "r3f", 0.95), ("rte", "std", None),
    ]  # fmt: skip


def test_what_varies_has_a_column_and_is_not_averaged() -> None:
    table = scores(*(run(s, others={"f1": s}, lr=lr) for s, lr in ((0.6, 1e-5), (0.8, 1e-4))))
    assert row(table, "std", lr=1e-5)["f1"] == 0.6 and row(table, "std", lr=1e-4)["f1"] == 0.8


def test_a_run_found_twice_counts_once() -> None:
    low, high = run(0.7, 0, others={"f1": 0.6}), run(0.8, 1, others={"f1": 0.8})
    std = row(scores(low, high, high), "std")
    assert (std["n"], std["f1"]) == (2, pytest.approx(0.7))


def test_names_are_columns_of_text() -> None:
    """As in the first table: numbers never fold, names may."""
    varied = {"model": "b", "weights": "w2", "precision": "bf16", "batching": "bucket", "passes": "joined"}
    table = scores(run(0.7, others={"f1": 0.6}), run(0.7, others={"f1": 0.6}, **varied))
    numeric = {column.key for column in table.columns if column.numeric}
    assert numeric == {"n", "accuracy", "f1"}


# ------------------------------------------------------------------------------------------ rendering


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_holds_the_numbers(form: str) -> None:
    methods = (MethodSpec("r3f", fields={"weight": 0.5}),)
    records = [full_references(), run(0.7, others={"f1": 0.61}, splits=TWO_SPLITS)]
    records.append(run(0.75, 0, methods, others={"f1": 0.66}, splits=TWO_SPLITS))
    text = render(scores(*records), form)
    assert text.endswith("\n") and "nan" not in text.lower() and "None" not in text
    if form == "csv":
        read = list(csv.DictReader(io.StringIO(text)))
        assert [(r["method"], r["f1"], r["mismatched_f1"]) for r in read[2:]] == [
            ("std", "0.61", "0.2"), ("r3f:weight=0.5", "0.66", "0.2"),
        ]  # fmt: skip
        assert read[0]["mismatched_f1"] == ""
    elif form == "json":
        document = json.loads(text)
        assert document["rows"][3]["f1"] == 0.66 and document["rows"][0]["mismatched_f1"] is None
        assert document["rows"][0]["style"] == "reference"
    else:
        assert all(part in text for part in ("0.610", "0.660", "0.400", "0.200", "r3f:weight=0.5", "majority"))
        assert "accuracy (mismatched)" in text.replace("\n", " ")
