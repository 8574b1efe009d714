"""ftbench.cli.output: what ``finetune`` and ``report`` print, as people and as scripts read it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from ftbench.cli.output import print_records
from ftbench.types import Record
from tests.reporting.conftest import R3F, REFS, references, run


def study(**more: Any) -> list[Record]:
    """Two methods at two learning rates, two metrics, and the reference rows."""
    others = {"f1": 0.65}
    std = [run(0.7, i, lr=lr, others=others, **more) for i in (0, 1) for lr in (1e-5, 1e-4)]
    return [*std, *(run(0.8, 0, R3F, lr=lr, others=others, **more) for lr in (1e-5, 1e-4)), references(scores=REFS)]


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_json_has_every_table_and_every_run(capsys: pytest.CaptureFixture[str]) -> None:
    records = study()
    print_records(records, form="json")
    document = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    assert document.keys() >= {"table", "scores", "sensitivity", "runs"}
    for name, column in (("table", "vs_std"), ("scores", "f1"), ("sensitivity", "within_point")):
        table = document[name]
        assert table["schema"] == 1 and column in {c["key"] for c in table["columns"]} and table["rows"], name
    assert [r["id"] for r in document["runs"]] == [record.result.spec.id for record in records]
    first = document["runs"][0]
    assert first["metrics"] == {"last": {"validation": {"accuracy": 0.7, "f1": 0.65}}}
    assert (first["task"], first["method"], first["seed"], first["status"]) == ("rte", "std", 0, "ok")


def test_json_of_the_headline_alone_says_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_records([run(0.7), run(0.8, 0, R3F)], form="json")
    document = json.loads(capsys.readouterr().out)
    assert document["scores"] is None and document["sensitivity"] is None and len(document["runs"]) == 2


def test_json_of_no_runs(capsys: pytest.CaptureFixture[str]) -> None:
    print_records([], form="json")
    document = json.loads(capsys.readouterr().out)
    assert document["runs"] == [] and document["table"]["notes"] == ["No runs to show."]


def test_json_of_a_score_that_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    """A regression may have blown up in its last step: its mean squared error overflows."""
    print_records([run(0.7, others={"mse": float("inf"), "f1": float("nan")})], form="json")
    document = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    assert document["runs"][0]["metrics"]["last"]["validation"] == {"accuracy": 0.7, "mse": None, "f1": None}


@pytest.mark.parametrize("form", ["rich", "markdown"])
def test_people_see_the_tables_one_below_the_other(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_records(study(), form=form)
    text = capsys.readouterr().out
    titles = ("Validation scores", "All scores", "Sensitivity to lr")
    places = [text.index(title) for title in titles]
    assert places == sorted(places) and text.endswith("\n") and not text.endswith("\n\n")


def test_csv_is_one_table_that_a_script_can_read(capsys: pytest.CaptureFixture[str]) -> None:
    print_records(study(), form="csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [r["method"] for r in rows] == ["majority", "cosine", "linear", "std", "r3f", "std", "r3f"]
    assert all(None not in r and r["mean"] for r in rows)


def test_only_the_tables_that_say_something_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_records([run(0.7), run(0.8, 0, R3F)])
    text = capsys.readouterr().out
    assert "Validation scores" in text and "All scores" not in text and "Sensitivity" not in text
