"""ftbench.reporting.tables: what is averaged, what is compared, and what the notes admit."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftbench.reporting import cells, stats
from ftbench.reporting.conclusions import conclusions
from ftbench.reporting.render import render
from ftbench.reporting.reports import make
from ftbench.reporting.study import Study
from ftbench.reporting.tables import runs_table
from ftbench.types import Cost, MethodSpec, Record, Result, RunSpec
from tests.reporting.conftest import R3F, REFS, STD_PLUS, arms, keys, references, row, run

# ----------------------------------------------------------------------------------------------- gate


def test_gate_passes() -> None:
    table = runs_table([*arms([0.70, 0.72, 0.74], [0.73, 0.75, 0.77]), references(scores=REFS)])
    assert [r["method"] for r in table.rows] == ["majority", "cosine", "linear", "std", "r3f"]
    assert row(table, "r3f")["vs_std"] == pytest.approx(0.03)
    assert row(table, "r3f")["verdict"] == "" == row(table, "std")["verdict"]
    assert row(table, "r3f")["style"] == "best"
    assert row(table, "linear")["style"] == "reference"
    assert row(table, "std")["vs_std"] is None
    assert stats.GATE_RULE in table.notes and stats.DEGENERATE_RULE in table.notes


@pytest.mark.parametrize("bar", [0.72, 0.8])
def test_gate_fails_also_on_a_tie(bar: float) -> None:
    table = runs_table([*arms([0.72, 0.72], [0.9, 0.9]), references(scores={**REFS, "cosine": bar})])
    for method in ("std", "r3f"):
        assert row(table, method)["verdict"] == cells.NOT_LEARNED
        assert row(table, method)["vs_std"] is None and row(table, method)["vs_std_low"] is None
        assert "style" not in row(table, method)
    assert row(table, "r3f")["mean"] == pytest.approx(0.9)


def test_gate_where_lower_is_better() -> None:
    lower = {"metric": "mse", "facts": {"lower_is_better": True}}
    bars = references("mse", scores={"mean": 1.0, "linear": 0.8})
    learned = runs_table([*arms([0.5, 0.6], [0.4, 0.5], **lower), bars])
    assert row(learned, "r3f")["vs_std"] == pytest.approx(-0.1)
    assert row(learned, "r3f")["style"] == "best"
    assert any(note.startswith("mse: lower is better") for note in learned.notes)
    not_learned = runs_table([*arms([0.9, 0.9], [0.4, 0.5], **lower), bars])
    assert row(not_learned, "r3f")["verdict"] == cells.NOT_LEARNED
    assert [r["method"] for r in not_learned.rows[:2]] == ["mean", "linear"]


def test_gate_without_references_still_compares() -> None:
    table = runs_table(arms([0.7, 0.7], [0.8, 0.8]))
    assert row(table, "r3f")["verdict"] == cells.NO_REFERENCE
    assert row(table, "r3f")["vs_std"] == pytest.approx(0.1)
    assert "style" not in row(table, "r3f")
    assert any(note.startswith(cells.NO_REFERENCE) for note in table.notes)


def test_references_of_other_rows_do_not_count() -> None:
    table = runs_table([*arms([0.7], [0.8]), references(scores=REFS, train_size=50)])
    assert row(table, "r3f")["verdict"] == cells.NO_REFERENCE


def test_no_baseline() -> None:
    table = runs_table([run(0.8, 0, R3F), references(scores=REFS)])
    assert row(table, "r3f")["verdict"] == cells.NO_BASELINE
    assert row(table, "r3f")["vs_std"] is None and row(table, "r3f")["cost"] is None


def test_a_method_without_a_seed_of_std_says_so_everywhere() -> None:
    records = [*arms([0.70, 0.72, 0.74], []), *(run(0.9, s, R3F) for s in (7, 8)), references(scores=REFS)]
    records += [run(0.75, s, (MethodSpec("bss"),)) for s in range(3)]
    table = runs_table(records)
    assert (row(table, "r3f")["vs_std"], row(table, "r3f")["verdict"]) == (None, cells.NO_SEED)
    assert row(table, "bss")["verdict"] == row(table, "std")["verdict"] == ""
    assert any(note.startswith(cells.NO_SEED) for note in table.notes) and cells.NO_SEED in render(table, "markdown")
    study = Study(records)
    differences = make(study, "differences")
    assert differences and "Left out, with no seed in common with std: rte r3f." in differences.notes
    assert "r3f: no seed in common with std, so not compared." in conclusions(study)[1].methods
    failed = runs_table([*arms([0.70], []), run(None, 0, R3F, status="failed"), references(scores=REFS)])
    assert row(failed, "r3f")["verdict"] == ""


def test_gate_is_taken_for_each_set_of_rows() -> None:
    records = [*arms([0.7, 0.7], [0.8, 0.8]), *arms([0.5, 0.5], [0.8, 0.8], label_noise=0.2)]
    table = runs_table([*records, references(scores=REFS), references(scores=REFS, label_noise=0.2)])
    assert row(table, "r3f", label_noise=0.0)["verdict"] == ""
    assert row(table, "r3f", label_noise=0.2)["verdict"] == cells.NOT_LEARNED


def test_references_are_averaged_over_data_seeds() -> None:
    found = [references(scores={"linear": s}, data_seed=i) for i, s in enumerate((0.5, 0.6, 0.7))]
    table = runs_table(found)
    assert row(table, "linear")["n"] == 3 and row(table, "linear")["mean"] == pytest.approx(0.6)
    assert row(table, "linear")["sd"] is None and row(table, "linear")["failed"] is None


# ---------------------------------------------------------------------------------- comparing, averaging


def test_pairs_share_both_seeds() -> None:
    records = [run(0.7, 0), run(0.8, 1), run(0.1, 0, data_seed=1)]
    records += [run(0.8, 0, R3F), run(0.9, 1, R3F), run(0.9, 2, R3F), run(0.9, 1, R3F, data_seed=1)]
    r3f = row(runs_table(records), "r3f")
    assert (r3f["n"], r3f["vs_std_n"]) == (4, 2)
    assert r3f["vs_std"] == pytest.approx(0.1)
    assert any("r3f 2 of 4" in note for note in runs_table(records).notes)


def test_diverged_runs_are_counted_and_not_averaged() -> None:
    bad = run(0.0, 2, R3F, status="diverged", error="loss is nan at step 3\nmore")
    table = runs_table([*arms([0.7, 0.7, 0.9], [0.8, 0.8]), bad, run(None, 3, R3F, status="failed", error="")])
    r3f = row(table, "r3f")
    assert (r3f["n"], r3f["failed"], r3f["mean"]) == (2, 2, pytest.approx(0.8))
    assert r3f["vs_std_n"] == 2
    assert "diverged: rte r3f, seed 2, data seed 0: loss is nan at step 3" in table.notes
    assert any("no message" in note for note in table.notes) and any("flatter" in note for note in table.notes)


def test_at_most_three_errors_are_shown() -> None:
    table = runs_table([run(None, i, status="failed", error=f"boom {i}") for i in range(5)])
    assert sum("boom" in note for note in table.notes) == 3
    assert table.notes[-1] == "2 more runs failed or diverged."
    only = row(table, "std")
    assert (only["n"], only["failed"], only["mean"], only["verdict"]) == (0, 5, None, cells.NO_BASELINE)


def test_degenerate_runs_are_counted_and_averaged() -> None:
    table = runs_table([run(0.9, 0), run(0.5, 1), run(0.7, 2, facts={"distinct_predictions": 1})])
    assert row(table, "std")["degenerate"] == 2
    assert row(table, "std")["mean"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    "other",
    [{"data": "d2"}, {"weights": "w2"}, {"task_revision": 2}, {"engine_revision": 2}],
    ids=lambda other: next(iter(other)),
)
def test_versions_are_never_averaged_nor_compared(other: dict[str, Any]) -> None:
    table = runs_table([run(0.6, 0), run(0.8, 1, **other), run(0.9, 1, R3F, **other)])
    (key,) = other
    assert key in keys(table)
    stds = [r for r in table.rows if r["method"] == "std"]
    assert sorted(r["mean"] for r in stds) == [0.6, 0.8] and len({r[key] for r in stds}) == 2
    assert row(table, "r3f")["vs_std"] == pytest.approx(0.1)
    assert any(f"rows differ in {cells.VERSIONS[key]}" in note for note in table.notes)


def test_method_revisions_are_never_averaged() -> None:
    table = runs_table([run(0.6, 0), run(0.6, 0, R3F), run(0.8, 0, (MethodSpec("r3f", revision=2),))])
    assert [(r["method_revision"], r["mean"]) for r in table.rows if r["method"] == "r3f"] == [("1", 0.6), ("2", 0.8)]


def test_two_models_need_no_fingerprint() -> None:
    table = runs_table([run(0.6, model="a"), run(0.7, model="b", weights="w2"), run(0.6, 0, R3F, model="a")])
    assert "model" in keys(table) and "weights" not in keys(table) and "method_revision" not in keys(table)


def test_a_setting_has_a_column_only_when_it_varies() -> None:
    settings = set(cells.SETTINGS) - {"task"}
    assert not settings & set(keys(runs_table(arms([0.7], [0.8]))))
    table = runs_table([run(0.7), run(0.8, lr=1e-3), run(0.8, train_size=50), references(scores=REFS)])
    assert settings & set(keys(table)) == {"lr", "train_size"}
    assert row(table, "linear")["lr"] is None


def test_every_field_that_decides_an_arm_has_a_column() -> None:
    fields = {field.name for field in dataclasses.fields(RunSpec)}
    assert fields - set(cells.SETTINGS) == {
        *("kind", "source", "methods", "seed", "data_seed", "parents"),
        *("pooling", "repeats", "bins", "permutations", "resamples", "weighting", "dtype", "probe"),  # of other kinds
    }


def test_other_recipes_are_not_compared() -> None:
    table = runs_table([run(0.7), run(0.9, 0, R3F, lr=1e-3)])
    assert row(table, "r3f")["verdict"] == cells.NO_BASELINE


def test_std_plus_may_take_more_steps() -> None:
    records = [run(0.7), run(0.8, 0, STD_PLUS, steps=200), run(0.75, 0, R3F), run(0.74, 0, (MethodSpec("bss"),))]
    table = runs_table(records)
    assert [r["method"] for r in table.rows] == ["std", "std++", "bss", "r3f"]
    assert row(table, "std++")["vs_std"] == pytest.approx(0.1)


def test_std_plus_beside_std_of_the_same_steps() -> None:
    table = runs_table([run(0.7), run(0.75, steps=200), run(0.8, 0, STD_PLUS, steps=200)])
    assert row(table, "std++")["vs_std"] == pytest.approx(0.1)


def test_std_plus_with_two_possible_baselines_has_none() -> None:
    table = runs_table([run(0.7), run(0.75, steps=200), run(0.8, 0, STD_PLUS, steps=400), run(0.8, steps=400)])
    assert row(table, "std++")["verdict"] == cells.NO_BASELINE
    assert row(table, "std++")["vs_std"] is None


def test_a_run_found_twice_counts_once() -> None:
    assert row(runs_table([run(0.7), run(0.7)]), "std")["n"] == 1


# -------------------------------------------------------------------------------- cost, selection, notes


def test_cost_is_relative_to_std() -> None:
    def cost(seconds: float, passes: int) -> Cost:
        return Cost(process_seconds=seconds, steps=100, forward_passes=passes, peak_memory=2**20, memory_of="gpu")

    records = [run(0.7, i, cost=cost(s, 100)) for i, s in enumerate((9.0, 11.0))]
    records += [run(0.7, 0, R3F, cost=cost(17.0, 200))]
    records += [run(None, 1, R3F, status="diverged", cost=cost(1.0, 5))]
    r3f = row(runs_table(records), "r3f")
    assert (r3f["cost"], r3f["forward"], r3f["memory"], r3f["seconds"]) == (pytest.approx(1.7), 2.0, 2**20, 17.0)
    assert r3f["memory_ratio"] == 1.0
    assert any("(gpu)" in note for note in runs_table(records).notes)


def test_costs_of_several_devices_are_flagged() -> None:
    records = [run(0.7, 0, cost=Cost(device="a", threads=1)), run(0.7, 1, cost=Cost(device="b", threads=1))]
    assert any("several devices" in note for note in runs_table(records).notes)
    assert row(runs_table(records), "std")["seconds"] is None


def test_best_is_said_to_be_optimistic() -> None:
    record = run(0.7, facts={"selected_on": "validation"})
    metrics = {**record.result.metrics, "best": {"validation": {"accuracy": 0.9}}}
    record = dataclasses.replace(record, result=dataclasses.replace(record.result, metrics=metrics))
    table = runs_table([record, run(0.7, 1)], selection="best")
    assert (row(table, "std")["n"], row(table, "std")["mean"]) == (1, 0.9)
    assert any("optimistic" in note for note in table.notes)
    assert "1 finished runs have no best score and are left out." in table.notes
    assert not any("optimistic" in note for note in runs_table([record]).notes)


def test_nan_scores_are_left_out() -> None:
    table = runs_table([run(0.7, 0), run(float("nan"), 1)])
    assert (row(table, "std")["n"], row(table, "std")["mean"]) == (1, 0.7)


@pytest.mark.parametrize(("n", "warned"), [(5, True), (6, False)])
def test_few_pairs_are_flagged(n: int, warned: bool) -> None:
    table = runs_table(arms([0.7] * n, [0.8] * n))
    assert any("fewer than 6 pairs" in note for note in table.notes) is warned


def test_single_seed() -> None:
    table = runs_table(arms([0.7], [0.8]))
    assert row(table, "r3f")["sd"] is None and row(table, "r3f")["vs_std_low"] is None


def test_no_records() -> None:
    table = runs_table([])
    assert table.rows == () and table.notes == ("No runs to show.",)


def test_torch_is_not_loaded() -> None:
    code = (
        "import sys, ftbench.reporting.tables, ftbench.reporting.render; "
        "sys.exit(str({'torch', 'scipy', 'pandas', 'rich'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_terms_say_whether_a_regulariser_did_anything() -> None:
    """The means that the runs logged stand below the table, by method; std has none."""
    logged = {"terms": {"kl": 4.2e-4, "kl_gradient_ratio": 0.016, "noise_alive": 1.0}}
    r3f = MethodSpec("r3f")
    records = [
        Record(
            Path("x"), Result(spec=spec, status="ok", metrics=SCORES, facts={"headline": "accuracy", **facts}), Cost()
        )
        for spec, facts in (
            (RunSpec(kind="finetune", task="news", data="d", weights="w", steps=1), {"terms": {}}),
            (RunSpec(kind="finetune", task="news", data="d", weights="w", steps=1, methods=(r3f,)), logged),
        )
    ]
    notes = [note for note in runs_table(records).notes if note.startswith("Terms")]
    assert notes == ["Terms, mean over the run: r3f (news): kl 0.00042, kl gradient ratio 0.016, noise alive 1."]


SCORES = {"last": {"validation": {"accuracy": 0.8}}}


def test_settings_of_summaries_are_no_columns_beside_other_tasks() -> None:
    short = {"kind": "summarize", "metric": "rouge1", "max_target_length": 32, "max_new_tokens": 32, "num_beams": 2}
    summaries = [run(0.3, s, task="xsum", data="x", **short) for s in (0, 1)]
    beside = runs_table([run(0.7), *summaries])
    assert not {"max_target_length", "num_beams"} & {*keys(beside)}
    several = runs_table([run(0.7), *summaries, run(0.3, task="xsum", data="x", **{**short, "num_beams": 4})])
    assert "num_beams" in keys(several) and "max_target_length" not in keys(several)
    assert [r["num_beams"] for r in several.rows] == [None, 2, 4]
