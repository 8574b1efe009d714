"""Trials are in no mean, and what was chosen is compared with the std that was chosen alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbench.cli.output import print_records
from ftbench.reporting.render import render
from ftbench.reporting.searches import search_table
from ftbench.reporting.tables import runs_table
from ftbench.runs.store import Store, read_all
from ftbench.types import MethodSpec, Record, Search, Trial
from ftbench.types.run import TRIAL_SEED
from tests.reporting.conftest import R3F, REFS, references, row, run

SCORES = (0.6, 0.8, 0.7)
RATES = (1e-5, 2e-5, 4e-5)


def searched(
    methods: tuple[MethodSpec, ...], chosen: int, study: str = "s1", **spec: Any
) -> tuple[Search, list[Record]]:
    """A search over three learning rates, and its trials; the number ``chosen`` won."""
    trials = [
        run(0.99, TRIAL_SEED, methods, lr=lr, select_on=0.2, splits={"selection": {"accuracy": 0.1}}, **spec)
        for lr in RATES
    ]
    reported = run(None, 0, methods, lr=RATES[chosen], **spec).result.spec
    tried = [
        Trial(record.result.spec.id, f"lr {lr:g}", score)
        for record, lr, score in zip(trials, RATES, SCORES, strict=True)
    ]
    name = methods[0].label if methods else "std"
    return Search(
        study=study, arm=name, axes={"lr": RATES}, reported=reported, share=0.2, rows=60, metric="accuracy",
        trials=tuple(tried), chosen=chosen,
    ), trials  # fmt: skip


@pytest.fixture
def study() -> tuple[list[Search], list[Record]]:
    """std chose 2e-5, r3f 4e-5; each reported with two seeds."""
    (std, std_trials), (r3f, r3f_trials) = searched((), 1), searched(R3F, 2)
    reports = [run(0.70 + seed / 100, seed, lr=2e-5) for seed in (0, 1)]
    reports += [run(0.75 + seed / 100, seed, R3F, lr=4e-5) for seed in (0, 1)]
    return [std, r3f], [*std_trials, *r3f_trials, *reports, references(scores=REFS)]


def test_arms_with_other_learning_rates_are_compared(study: tuple[list[Search], list[Record]]) -> None:
    searches, records = study
    table = runs_table(records, searches)
    assert len(table.rows) == len(REFS) + 2
    r3f = row(table, "r3f", lr=4e-5)
    assert r3f["vs_std"] == pytest.approx(0.05) and r3f["n"] == 2 and r3f["verdict"] == ""
    assert row(table, "std", lr=2e-5)["mean"] == pytest.approx(0.705), "the trials' 0.99 is in no mean"
    assert row(runs_table(records), "r3f")["verdict"] == "no baseline", "without the search they would not be"


def test_the_notes_say_what_was_searched(study: tuple[list[Search], list[Record]]) -> None:
    searches, records = study
    (note,) = [note for note in runs_table(records, searches).notes if note.startswith("Searched")]
    for text in (
        "3 configurations of every arm",
        "60 rows of train (20%)",
        "6 runs more",
        "std: lr 2e-05",
        "r3f: lr 4e",
    ):
        assert text in note
    notes = runs_table(records).notes
    assert any("6 runs of searches that are not finished" in note for note in notes)


def test_plain_arms_keep_their_own_std(study: tuple[list[Search], list[Record]]) -> None:
    """std's choice is also the std of a plain r3f at that rate; another rate has its own."""
    searches, records = study
    plain = [run(0.72, seed, R3F, lr=2e-5) for seed in (0, 1)]
    other = [run(0.65, seed, lr=1e-5) for seed in (0, 1)] + [run(0.66, seed, R3F, lr=1e-5) for seed in (0, 1)]
    table = runs_table([*records, *plain, *other], searches)
    assert row(table, "r3f", lr=2e-5)["vs_std"] == pytest.approx(0.015)
    assert row(table, "r3f", lr=1e-5)["vs_std"] == pytest.approx(0.01)
    assert row(table, "r3f", lr=4e-5)["vs_std"] == pytest.approx(0.05)


def test_two_studies_are_not_mixed(study: tuple[list[Search], list[Record]]) -> None:
    searches, records = study
    (smart, trials) = searched((MethodSpec("smart"),), 0, study="s2")
    reports = [run(0.9, seed, (MethodSpec("smart"),), lr=RATES[0]) for seed in (0, 1)]
    table = runs_table([*records, *trials, *reports], [*searches, smart])
    assert row(table, "smart")["vs_std"] is None


def test_a_tuning_that_was_searched_is_the_std_of_its_stacks(study: tuple[list[Search], list[Record]]) -> None:
    """Its own fields may differ from those in the stack; std stays the std of the tuning alone."""
    searches, records = study
    low, high = (MethodSpec("lora", fields={"rank": rank}) for rank in (4, 16))
    (alone, _), (stacked, _) = searched((low,), 1), searched((high, *R3F), 2)
    reports = [run(0.6 + seed / 100, seed, (low,), lr=2e-5) for seed in (0, 1)]
    reports += [run(0.8 + seed / 100, seed, (high, *R3F), lr=4e-5) for seed in (0, 1)]
    table = runs_table([*records, *reports], [*searches, alone, stacked])
    assert row(table, "lora:rank=16+r3f")["vs_std"] == pytest.approx(0.2)
    assert row(table, "lora:rank=4")["vs_std"] == pytest.approx(-0.1)


def test_the_table_of_what_was_tried(study: tuple[list[Search], list[Record]]) -> None:
    searches, _ = study
    table = search_table(searches)
    assert table is not None and len(table.rows) == 6
    assert [r["score"] for r in table.rows] == [*SCORES, *SCORES]
    assert [r["configuration"] for r in table.rows if r["chosen"]] == ["lr 2e-05", "lr 4e-05"]
    assert "60 rows (20% of train)" in table.title
    assert any("standard error of about 0.05" in note for note in table.notes)
    for form in ("rich", "csv", "markdown", "json"):
        assert "lr 4e-05" in render(table, form)
    assert search_table([]) is None


def test_settings_tell_searches_apart() -> None:
    searches = [searched((), 1, f"s{size}", train_size=size)[0] for size in (500, 200)]
    table = search_table(searches)
    assert table is not None and [r["train_size"] for r in table.rows] == [200] * 3 + [500] * 3


def test_json_has_the_trials(study: tuple[list[Search], list[Record]], capsys: pytest.CaptureFixture[str]) -> None:
    searches, records = study
    print_records(records, searches, form="json")
    said = json.loads(capsys.readouterr().out)
    assert [search["chosen"] for search in said["searches"]] == ["lr 2e-05", "lr 4e-05"]
    ids = {trial["id"] for search in said["searches"] for trial in search["trials"]}
    assert ids == {each["id"] for each in said["runs"] if each["trial"]} and len(ids) == 6
    assert said["search"]["rows"] and said["sensitivity"] is None, "trials are no settings of a sweep"


def test_searches_are_kept_and_read(study: tuple[list[Search], list[Record]], tmp_path: Path) -> None:
    searches, _ = study
    store = Store(tmp_path)
    for search in searches:
        store.save_search(search)
    store.save_search(searches[0])
    found = read_all([tmp_path, tmp_path])
    assert sorted(s.arm for s in found.searches) == ["r3f", "std"] and found.skipped == []
    std = next(search for search in found.searches if search.arm == "std")
    assert (std.trials, std.chosen, std.reported.id) == (searches[0].trials, 1, searches[0].reported.id)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"schema": 99}', '{"schema": 1, "trials": []}'])
def test_files_that_are_no_search_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "search-x.json").write_text(content)
    found = read_all([tmp_path])
    assert found.searches == [] and "search-x.json" in found.skipped[0]


def test_a_choice_that_is_none_of_the_trials_is_refused(study: tuple[list[Search], list[Record]]) -> None:
    raw = {**study[0][0].to_json(), "chosen": 3}
    with pytest.raises(ValueError, match="trial 3 of 3 is chosen"):
        Search.from_json(raw)
