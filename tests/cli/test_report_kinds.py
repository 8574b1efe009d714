"""``ftbench report`` of a folder that holds every kind of run: each in its own tables, and only its own."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftbench.runs.store import Store
from ftbench.types import Cost, MethodSpec, Record, Result, RunSpec
from tests.cli.test_report import Report, report
from tests.reporting.conftest import R3F, REFS, arms, references, run
from tests.reporting.test_layers import record as layers
from tests.reporting.test_searches import searched

__all__ = ["report"]
LORA = (MethodSpec("lora"),)
TABLES = ("table", "scores", "sensitivity", "spread", "differences", "across", "arms", "tests", "cost", "budget",
          "stability")  # fmt: skip


def probe(score: float, seed: int = 0, encoder: str = "", methods: tuple[MethodSpec, ...] = ()) -> Record:
    spec = RunSpec(
        kind="probe", task="trec", data="d9", weights="w1", repeats=2, seed=seed, encoder=encoder, methods=methods,
        parents=(f"run{seed}",) if methods else (),
    )  # fmt: skip
    layer = {"validation": {"accuracy": score}, "control": {"accuracy": 0.2}, "collapse": {"effective_rank": 9.0}}
    facts: dict[str, Any] = {"layers": 2, "headline": "accuracy"}
    return Record(
        Path("x"), Result(spec=spec, status="ok", metrics={f"layer {n}": layer for n in (1, 2)}, facts=facts), Cost()
    )


def apart() -> list[Record]:
    """Measured layers and probes."""
    full = layers([4.0, 1.0, 2.0])
    part = replace(full, result=replace(full.result, spec=replace(full.result.spec, train_size=100)))
    return [full, part, probe(0.3, encoder="random"), probe(0.8), probe(0.7, 0, "rte", R3F), probe(0.6, 1, "rte", R3F)]


def fill(records: list[Record]) -> Store:
    store = Store(Path("runs"))
    for record in records:
        store.folder(record.result.spec).mkdir(parents=True)
        store.save(record.result, record.cost)
    return store


@pytest.fixture
def mixed(report: Report) -> Report:
    """Beside the runs of ``report``: trials, measured layers, probes."""
    search, trials = searched((), 1, steps=50)
    fill([*apart(), *trials]).save_search(search)
    return report


def test_no_statistic_moves(report: Report) -> None:
    before = json.loads(report("--json").out)
    search, trials = searched((), 1, steps=50)
    fill([*apart(), *trials]).save_search(search)
    after = json.loads(report("--json").out)
    for name in TABLES:
        old, new = before[name], after[name]
        assert (old and old["rows"]) == (new and new["rows"]), name
    assert len(after["runs"]) == len(before["runs"]) + 9 and len(after["searches"]) == 1
    assert [sum(run["kind"] == kind for run in after["runs"]) for kind in ("variability", "probe")] == [2, 4]
    assert sum(run["trial"] for run in after["runs"]) == 3


def test_every_kind_has_its_tables(mixed: Report) -> None:
    said = mixed()
    assert said.code == 0 and said.err == ""
    titles = ("Validation scores", "Tried, and scored on", "Differences to std",
              "hidden-state variability nu", "Subsets against the full set", "What is left in the encoder",
              "Probe score by layer", "In short")  # fmt: skip
    places = [said.out.index(title) for title in titles]
    assert places == sorted(places) and "\nCollapse metrics\n" not in said.out
    document = json.loads(mixed("--json").out)
    names = ("search", "layers", "subsets", "probe", "probe_layers", "collapse")
    assert [len(document[name]["rows"]) for name in names] == [3, 6, 1, 3, 3, 6]
    tuned = next(row for row in document["probe"]["rows"] if row["method"] == "r3f")
    assert tuned["n"] == 2 and tuned["kept"] == pytest.approx(0.7)


def test_kinds_are_asked_for_by_name_and_filter(mixed: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(mixed("--table", "probe", "--format", "csv").out)))
    assert [row["encoder"] for row in rows] == ["random", "pretrained", "rte"]
    assert "Collapse metrics" in mixed("--table", "collapse").out
    only = mixed("--where", "task=trec").out
    assert "What is left" in only and "Validation scores" not in only and "Tried" not in only
    assert "kept of that lead (seeds in brackets): r3f 70% (2)" in only
    groups = {group["by"]["task"]: group for group in json.loads(mixed("--by", "task", "--json").out)["groups"]}
    assert groups["trec"]["probe"]["rows"] and groups["trec"]["table"] is None and groups["trec"]["searches"] == []
    assert groups["rte"]["search"]["rows"] and groups["rte"]["layers"] is None and groups["sst2"]["layers"]["rows"]
    long = list(csv.DictReader(io.StringIO(mixed("--format", "csv-long").out)))
    assert {row["trial"] for row in long if row["lr"] in ("2e-05", "4e-05")} == {"True"}
    assert {row["method"] for row in long if row["kind"] == "probe"} == {"std", "r3f"}
    assert mixed("--metric", "accuracy").out.count("hidden-state variability nu") == 1


def test_the_page_has_them_all(mixed: Report) -> None:
    assert mixed("--html", "page.html").code == 0
    text = Path("page.html").read_text()
    for title in ("Validation scores", "Tried, and scored on", "hidden-state variability nu", "What is left in the"):
        assert title in text


def test_a_folder_of_one_kind_shows_that_alone(report: Report) -> None:
    store = Store(Path("probes"))
    for record in (probe(0.8), probe(0.3, encoder="random")):
        store.folder(record.result.spec).mkdir(parents=True)
        store.save(record.result, record.cost)
    said = report("probes")
    assert said.out.startswith("What is left in the encoder") and "No runs" not in said.out
    assert report("probes", "--format", "csv").out.startswith("task,encoder,method")
    assert report("probes", "--require", "metric>=0.1").code == 1


def test_stacks_on_lora_are_compared_with_lora(report: Report) -> None:
    tuned = [run(score, i, LORA + R3F, task=task, data=data) for task, data in (("rte", "d1"), ("qnli", "d3"))
             for i, score in enumerate((0.80, 0.81, 0.83))]  # fmt: skip
    lora = [run(score, i, LORA, task=task, data=data) for task, data in (("rte", "d1"), ("qnli", "d3"))
            for i, score in enumerate((0.70, 0.72, 0.73))]  # fmt: skip
    other = [*arms([0.70, 0.72, 0.74], [0.75, 0.76, 0.79], task="qnli", data="d3"),
             references(scores=REFS, task="qnli", data="d3")]  # fmt: skip
    fill([*tuned, *lora, *other])
    document = json.loads(report("--json", "--where", "task=rte,qnli").out)
    found = {(row["task"], row["method"]): row["difference"] for row in document["differences"]["rows"]}
    assert found["rte", "lora+r3f"] == pytest.approx(0.29 / 3) and found["rte", "lora"] == pytest.approx(-0.01 / 3)
    assert {row["method"] for row in document["across"]["rows"]} == {"std", "r3f", "lora"}
    assert "rte: lora accuracy 0.717 over 3 runs" in report().out
