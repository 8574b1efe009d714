"""Tables of arms, tasks, cost, budget and stability."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.reporting.charts import charts
from ftbench.reporting.costs import seconds_to_best
from ftbench.reporting.marks import Chart
from ftbench.reporting.render import FORMS, render
from ftbench.reporting.reports import DEFAULT, REPORTS, make
from ftbench.reporting.study import Study
from ftbench.types import Cost, MethodSpec, Record, Table
from tests.reporting.conftest import R3F, REFS, arms, keys, references, row, run, study_on_disk

TASKS = ("rte", "mrpc", "cola", "sst2", "trec", "boolq")


def over_tasks(n: int, **more: Any) -> list[Record]:
    """std, r3f (two points better) and bss (as std) on ``n`` tasks, six seeds."""
    found = []
    for i, task in enumerate(TASKS[:n]):
        base = 0.6 + 0.05 * i
        std = [base + 0.001 * s for s in range(6)]
        rows = {"task": task, "data": f"d-{task}", **more}
        found += arms(std, [score + 0.02 + 0.0001 * s for s, score in enumerate(std)], **rows)
        found += [run(score + 0.001 * (-1) ** s, s, (MethodSpec("bss"),), **rows) for s, score in enumerate(std)]
    return found


def table(records: list[Record], name: str) -> Table:
    found = make(Study(records), name)
    assert found is not None
    return found


@pytest.mark.parametrize("form", FORMS)
def test_every_table_has_every_form(tmp_path: Path, form: str) -> None:
    study = Study([*over_tasks(5), *study_on_disk(tmp_path, task="own", data="own")])
    shown = {name: render(found, form) for name in REPORTS if (found := make(study, name))}
    assert set(shown) == {*REPORTS} - {"sensitivity", "spread", "scores"}
    assert all("r3f" in text for text in shown.values())


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize(
    "records",
    [[], [run(0.7)], [run(None, status="failed", error="boom")], [run(float("nan"))], [references(scores=REFS)],
     [run(0.7), run(0.8, 0, R3F)], [run(None, s, R3F, status="diverged") for s in range(3)] + [run(0.7), run(0.8, 1)]],
    ids=["none", "one run", "one failed", "not finite", "references", "one seed", "a method that failed everywhere"],
)  # fmt: skip
def test_hardly_any_runs_are_no_error(name: str, records: list[Record], recwarn: pytest.WarningsRecorder) -> None:
    found = make(Study(records), name)
    assert found is None or all(render(found, form) for form in FORMS)
    assert not recwarn.list


def test_the_default_is_known() -> None:
    assert set(DEFAULT) <= set(REPORTS)


def test_a_table_does_not_depend_on_which_others_are_made(tmp_path: Path) -> None:
    records = study_on_disk(tmp_path)
    first, second = Study(records), Study(records)
    make(second, "tests")
    assert make(first, "arms") == make(second, "arms") and make(first, "differences") == make(second, "differences")


# ------------------------------------------------------------------------------------------------ arms


def test_an_arm_has_all_its_statistics() -> None:
    found = row(table([run(s, i) for i, s in enumerate((0.70, 0.72, 0.74, 0.78))], "arms"), "std")
    assert (found["n"], found["failed"], found["degenerate"], found["bad"]) == (4, 0, 0, None)
    assert (found["min"], found["max"], found["median"]) == (0.70, 0.78, pytest.approx(0.73))
    assert (found["q1"], found["q3"]) == pytest.approx((0.715, 0.75))
    assert found["rest_low"] < found["mean"] < found["rest_high"] and found["interval"] == "t"


def test_failures_give_two_numbers() -> None:
    """The rate of bad runs, and the mean of the others: neither hides in the other."""
    good = [run(s, i) for i, s in enumerate((0.80, 0.82, 0.81))]
    bad = [run(0.5, 3), run(None, 4, status="failed")]
    found = row(table([*good, *bad], "arms"), "std")
    assert (found["n"], found["failed"], found["degenerate"]) == (4, 1, 1)
    assert found["mean"] == pytest.approx(0.7325) and found["rest"] == pytest.approx(0.81)
    assert found["bad"] == 0.4 and 0.1 < found["bad_low"] < 0.4 < found["bad_high"] < 0.8
    assert found["rest_low"] > 0.78


def test_twenty_scores_are_bootstrapped() -> None:
    scores = np.random.default_rng(0).normal(0.8, 0.01, 20)
    assert row(table([run(float(s), i) for i, s in enumerate(scores)], "arms"), "std")["interval"] == "BCa"


def test_what_is_not_worse_than_the_best_is_marked() -> None:
    far = [run(0.6 + 0.001 * s, s, (MethodSpec("bss"),)) for s in range(5)]
    records = [*arms([0.70, 0.72, 0.71, 0.73, 0.70], [0.71, 0.70, 0.73, 0.72, 0.71]), *far, references(scores=REFS)]
    found = table(records, "arms")
    assert {r["method"]: r.get("style") for r in found.rows} == {"std": "near", "bss": None, "r3f": "best"}


# ---------------------------------------------------------------------------------------- across tasks


def test_across_tasks() -> None:
    found = table(over_tasks(6), "across")
    best, std = row(found, "r3f"), row(found, "std")
    assert (best["tasks"], best["won"], best["undecided"], best["lost"]) == (6, 6, 0, 0)
    assert best["rank"] == 1 and best["iqm_low"] <= best["iqm"] <= best["iqm_high"]
    assert best["iqm"] > std["iqm"] and std["won"] is None and best["improvement_mean"] == 1.0
    assert row(found, "bss")["undecided"] == 6
    assert any("Friedman" in note and "Nemenyi" in note for note in found.notes)


def test_more_runs_of_an_easy_task_do_not_raise_the_mean() -> None:
    """std with many runs where scores are high, r3f a point better on both tasks."""
    easy, hard = {"task": "rte", "data": "d-rte"}, {"task": "mrpc", "data": "d-mrpc"}
    records = [*arms([0.90] * 20, [0.91] * 5, **easy), *arms([0.60] * 5, [0.61] * 5, **hard)]
    found = table(records, "across")
    assert (row(found, "std")["iqm"], row(found, "r3f")["iqm"]) == pytest.approx((0.75, 0.76))
    shares = {mark.label: dict(zip(mark.x, mark.y, strict=True)) for mark in picture(records, "profile").marks}
    assert all(share[x] == pytest.approx(0.5) for share in shares.values() for x in share if 0.62 < x < 0.89)


def test_single_runs_give_no_interval_of_the_iqm() -> None:
    fewer = [r for r in over_tasks(3) if r.result.spec.seed == 0 or r.result.spec.method != "r3f"]
    found = table([r for r in fewer if r.result.spec.seed == 0 or r.result.spec.task != "rte"], "across")
    best, std = row(found, "r3f"), row(found, "std")
    assert best["iqm"] and (best["iqm_low"], best["iqm_high"], std["iqm_low"]) == (None, None, None)
    (note,) = [note for note in found.notes if note.startswith("IQM has no interval where a task has one run")]
    assert note.endswith(": std, bss on rte; r3f on cola, mrpc, rte.")
    assert not any("no interval" in note for note in table(over_tasks(3), "across").notes)
    assert all(render(found, form) for form in FORMS)


def test_few_tasks_are_not_ranked_by_a_test() -> None:
    found = table(over_tasks(4), "across")
    assert not any("Friedman" in note for note in found.notes) and any("fewer than 5 tasks" in n for n in found.notes)
    assert make(Study(over_tasks(1)), "across") is None


def test_several_recipes_of_one_task_are_refused_with_the_reason() -> None:
    again = arms([0.6, 0.61], [0.62, 0.63], task="rte", data="d-rte", lr=1e-3)
    found = table([*over_tasks(4), *again], "across")
    assert row(found, "std")["tasks"] == 3
    assert any(note.startswith("rte is left out: several recipes") and "--where" in note for note in found.notes)


def test_other_sizes_are_other_blocks() -> None:
    small = over_tasks(3, train_size=100)
    found = table([*over_tasks(3), *small], "across")
    assert sorted((r["train_size"] or 0, r["tasks"]) for r in found.rows if r["method"] == "r3f") == [(0, 3), (100, 3)]


def test_a_method_that_lacks_a_task_is_named() -> None:
    found = table([*over_tasks(3), run(0.9, 0, (MethodSpec("sam"),), task="rte", data="d-rte")], "across")
    assert not [r for r in found.rows if r["method"] == "sam"] and any("sam" in note for note in found.notes)


def test_a_task_that_std_did_not_learn_is_left_out() -> None:
    bar = references(scores={"linear": 0.99}, task="rte", data="d-rte")
    found = table([*over_tasks(3), bar], "across")
    assert row(found, "r3f")["tasks"] == 2 and any("rte is left out: std did not learn" in n for n in found.notes)


def test_revisions_of_a_method_stand_apart() -> None:
    second = (MethodSpec("r3f", 2),)
    again = [run(0.1 + 0.01 * s, s, second, task=task, data=f"d-{task}") for task in TASKS[:3] for s in range(6)]
    found = table([*over_tasks(3), *again], "across")
    assert row(found, "r3f", method_revision="1")["won"] == 3 and row(found, "r3f", method_revision="2")["lost"] == 3
    labels = {mark.label for mark in picture([*over_tasks(3), *again], "profile").marks}
    assert labels == {"std", "bss", "r3f (method rev 1)", "r3f (method rev 2)"}
    fewer = table([*over_tasks(3), *again[:12]], "across")
    assert {r["method_revision"] for r in fewer.rows if r["method"] == "r3f"} == {"1"}
    assert any("every task, and left out: r3f (method rev 2)" in note for note in fewer.notes)


def test_a_method_with_several_recipes_is_left_out_and_named() -> None:
    twice = [run(0.7, s, (MethodSpec("std++"),), task=task, data=f"d-{task}", steps=steps)
             for task in TASKS[:3] for s in range(6) for steps in (200, 400)]  # fmt: skip
    found = table([*over_tasks(3), *twice], "across")
    assert {r["method"] for r in found.rows} == {"std", "r3f", "bss"} and "method_revision" not in keys(found)
    assert "Run with several recipes on a task, and left out: std++; use --where." in found.notes


LOWER = {"metric": "mse", "facts": {"lower_is_better": True, "kind": "regression"}}


def test_a_profile_of_many_draws_std_and_the_best_and_says_how_many_it_does_not() -> None:
    names = {
        "a1": 0.61,
        "a2": 0.62,
        "b1": 0.63,
        "b2": 0.64,
        "std++": 0.6,
        **{f"z{i}": 0.65 + 0.01 * i for i in range(6)},
    }
    rows = [{"task": task, "data": f"d-{task}"} for task in TASKS[:2]]
    records = [run(0.6 + 0.001 * s, s, **of) for of in rows for s in range(3)]
    records += [
        run(at + 0.001 * s, s, (MethodSpec(name),), **of) for of in rows for name, at in names.items() for s in range(3)
    ]
    found = picture(records, "profile")
    assert [mark.label for mark in found.marks] == ["std", "std++", *(f"z{i}" for i in (5, 4, 3, 2, 1, 0))]
    assert found.note.endswith("4 more methods are not drawn.")
    lost = [run(0.1, s, (MethodSpec("sam"),), **of) for of in rows for s in range(3)]
    far = picture([*records, *lost], "profile")
    assert [mark.label for mark in far.marks][-1] == "outside: sam 0.100" and min(far.marks[0].x) > 0.5
    assert "not drawn" not in picture(over_tasks(3), "profile").note


def stacked(records: list[Record]) -> list[Record]:
    """The same runs on lora."""
    specs = [(r, replace(r.result.spec, methods=(MethodSpec("lora"), *r.result.spec.methods))) for r in records]
    return [replace(record, result=replace(record.result, spec=spec)) for record, spec in specs]


@pytest.mark.parametrize("base", ["std", "lora"])
def test_squared_errors_are_not_pooled_with_accuracies(base: str) -> None:
    rows = {"task": "reviews", "data": "d-reviews"}
    errors = arms([0.5 + 0.01 * s for s in range(6)], [0.4 + 0.012 * s for s in range(6)], **rows, **LOWER)
    plain = [*(r for r in over_tasks(5) if r.result.spec.method != "bss"), *errors]
    records = plain if base == "std" else stacked(plain)
    found = table(records, "across")
    best = row(found, "r3f" if base == "std" else "lora+r3f")
    assert (best["tasks"], best["rank"], best["won"], best["lost"], best["iqm"]) == (6, 1, 6, 0, None)
    assert best["improvement_mean"] > 0.9
    assert {c.name for c in charts(Study(records))} & {"profile", "ranks"} == {"ranks"}


def test_stacks_on_lora_are_set_against_lora() -> None:
    found = table(stacked(over_tasks(3)), "across")
    best, base = row(found, "lora+r3f"), row(found, "lora")
    assert (best["won"], best["improvement_mean"], best["iqm"] > base["iqm"]) == (3, 1.0, True)
    assert base["won"] is None and base["improvement_mean"] is None
    assert "lora+bss, lora+r3f: compared with lora, not with std." in found.notes
    assert not any("compared with" in note for note in table(over_tasks(3), "across").notes)


def picture(records: list[Record], name: str) -> Chart:
    (found,) = [chart for chart in charts(Study(records)) if chart.name == name]
    return found


# ------------------------------------------------------------------------------------------------ cost


def costly(score: float, seed: int, methods: Any, seconds: float, memory: int, parameters: int = 100) -> Record:
    cost = Cost(
        process_seconds=seconds, steps=100, forward_passes=100, peak_memory=memory, trained_parameters=parameters,
        device="cpu", threads=1,
    )  # fmt: skip
    return run(score, seed, methods, cost=cost)


def test_the_front() -> None:
    slow, lean = (MethodSpec("smart"),), (MethodSpec("bitfit"),)
    records = [costly(0.70, 0, (), 10, 50), costly(0.72, 0, R3F, 20, 60), costly(0.71, 0, slow, 30, 70)]
    found = table([*records, costly(0.60, 0, lean, 12, 10, 3)], "cost")
    assert {r["method"]: r["front"] for r in found.rows} == {"std": "sm", "r3f": "smp", "smart": "", "bitfit": "mp"}
    assert row(found, "smart")["seconds"] == 30 and row(found, "bitfit")["parameters"] == 3


def flops_of(*flops: int) -> list[Record]:
    methods = ((), R3F, (MethodSpec("smart"),))
    costs = [Cost(process_seconds=10.0 * i + 10, steps=100, flops=n, device="cpu") for i, n in enumerate(flops)]
    return [run(0.7 + 0.01 * i, 0, m, cost=c) for i, (m, c) in enumerate(zip(methods, costs, strict=False))]


def test_flops_have_a_front_where_every_arm_was_counted() -> None:
    assert {r["method"]: r["front"] for r in table(flops_of(10**9, 3 * 10**9, 2 * 10**9), "cost").rows} == {
        "std": "sf", "r3f": "s", "smart": "sf"}  # fmt: skip
    old = table(flops_of(0, 3 * 10**9, 2 * 10**9), "cost")
    assert "f" not in "".join(r["front"] for r in old.rows) and row(old, "std")["flops"] is None
    pictures = {c.name for c in charts(Study(flops_of(1, 2, 3)))}
    assert {"cost-rte", "flops-rte"} <= pictures
    assert "flops-rte" not in {c.name for c in charts(Study(flops_of(0, 2, 3)))}


def test_several_devices_have_no_front_of_seconds() -> None:
    gpu = Cost(wall_seconds=1.0, steps=100, device="cuda:0", trained_parameters=100)
    found = table([costly(0.7, 0, (), 10, 50), run(0.8, 0, R3F, cost=gpu)], "cost")
    assert {r["front"] for r in found.rows} == {"", "p"} and len(found.notes) == 2


def test_seconds_to_within_a_point_of_the_best(tmp_path: Path) -> None:
    record = costly(0.8, 0, (), 50.0, 1)
    record = Record(tmp_path, record.result, record.cost)
    assert seconds_to_best(record, "accuracy") is None
    scores = {20: 0.5, 40: 0.795, 60: 0.8, 100: 0.78}
    lines = [json.dumps({"step": k, "evaluation": {"validation": {"accuracy": v}}}) for k, v in scores.items()]
    (tmp_path / "history.jsonl").write_text("\n".join(['{"step": 1, "loss": 2}', *lines]) + "\n")
    assert seconds_to_best(record, "accuracy") == 20.0
    (tmp_path / "history.jsonl").write_text('{"evaluation": 3')
    assert seconds_to_best(record, "accuracy") is None


def test_budget_pools_settings_and_seeds() -> None:
    records = [
        run(s, i, lr=lr) for lr, scores in ((1e-5, (0.6, 0.7)), (1e-4, (0.8, 0.5))) for i, s in enumerate(scores)
    ]
    found = row(table(records, "budget"), "std")
    assert (found["runs"], found["settings"]) == (4, 2)
    assert (found["best_1"], found["best_2"]) == pytest.approx((0.65, (0.8 * 3 + 0.7 * 2 + 0.6) / 6))
    assert found["seconds"] == 10 and found["budget"] == 40 and found["in_budget"] == pytest.approx(0.8)


def test_failed_runs_are_paid_for() -> None:
    """By hand: four finished runs of 10 s; two more diverged after 8 s each, and a setting never finished, 4 s."""
    cost = Cost(process_seconds=8.0, steps=40, device="cpu", threads=1)
    none = Cost(process_seconds=4.0, steps=20, device="cpu", threads=1)
    good = [costly(0.7 + 0.02 * s, s, R3F, 10.0, 1) for s in range(4)]
    bad = [run(None, s, R3F, status="diverged", cost=cost) for s in (4, 5)]
    lost = [run(None, 0, R3F, status="failed", cost=none, lr=1.0), run(float("nan"), 1, R3F, cost=none, lr=1.0)]
    std = [costly(0.7 + 0.01 * s, s, (), 10.0, 1) for s in range(4)]
    records = [*std, *good, *bad, *lost]
    found = table(records, "budget")
    r3f = row(found, "r3f")
    assert (r3f["runs"], r3f["failed"], r3f["settings"]) == (4, 4, 2) and row(found, "std")["failed"] == 0
    assert r3f["seconds"] == pytest.approx(16) and (r3f["budget"], row(found, "std")["seconds"]) == (40, 10)
    assert r3f["in_budget"] == pytest.approx(r3f["best_2"]) and r3f["best_1"] == pytest.approx(0.73)
    drawn = picture(records, "budget-rte")
    assert "Failed runs, whose seconds are shared out: r3f 4." in drawn.note
    assert next(mark for mark in drawn.marks if mark.label == "r3f").x == pytest.approx((16, 32, 48, 64))
    elsewhere = run(None, 6, R3F, status="failed", cost=Cost(wall_seconds=1.0, steps=40, device="cuda"))
    assert row(table([*records, elsewhere], "budget"), "r3f")["in_budget"] is None


def test_seconds_of_several_machines_are_no_budget() -> None:
    cuda = Cost(wall_seconds=3.0, steps=100, device="cuda", threads=1)
    one = [costly(0.7 + 0.01 * s, s, m, 10.0, 1) for m in ((), R3F) for s in range(3)]
    found = table(one, "budget")
    assert row(found, "r3f")["in_budget"] == pytest.approx(0.72) and len(found.notes) == 1
    assert picture(one, "budget-rte").marks
    several = [*one, *(run(0.7 + 0.02 * s, s, (MethodSpec("smart"),), cost=cuda) for s in range(3))]
    found = table(several, "budget")
    assert {(r["budget"], r["in_budget"]) for r in found.rows} == {(None, None)}
    assert row(found, "smart")["best_2"] is not None and "several devices" in found.notes[1]
    assert "budget-rte" not in {chart.name for chart in charts(Study(several))}


def test_settings_beside_the_learning_rate_have_lines_of_their_own() -> None:
    second = (MethodSpec("r3f", 2),)
    records = [
        run(score + lr * 1000, s, methods, lr=lr, precision=precision)
        for precision, score in (("fp32", 0.7), ("bf16", 0.6)) for lr in (2e-5, 5e-5) for s in (0, 1)
        for methods in ((), R3F, second)
    ]  # fmt: skip
    found = picture(records, "sensitivity-rte")
    assert {mark.label for mark in found.marks} == {
        f"{method} precision {precision}{revision}" for precision in ("fp32", "bf16")
        for method, revision in (("std", ""), ("r3f", " method rev 1"), ("r3f", " method rev 2"))
    }  # fmt: skip
    assert all(mark.x == (2e-5, 5e-5) for mark in found.marks)


def test_budget_where_lower_is_better_looks_for_the_lowest() -> None:
    lower = {"metric": "mse", "facts": {"lower_is_better": True}}
    found = row(table([run(s, i, **lower) for i, s in enumerate((0.4, 0.2, 0.3))], "budget"), "std")
    assert found["in_budget"] == pytest.approx(0.2) and found["best_1"] == pytest.approx(0.3)


# ------------------------------------------------------------------------------------------- stability


def test_stability_reads_predictions(tmp_path: Path) -> None:
    found = row(table(study_on_disk(tmp_path), "stability"), "r3f")
    assert 0 < found["disagreement"] < 0.3 and 0.3 < found["kappa"] < 1 and 0 < found["jsd"] < 0.3
    assert found["sd"] > 0 and found["n"] == 6


def test_stability_without_predictions_says_so() -> None:
    found = table(arms([0.7, 0.8], [0.7, 0.9]), "stability")
    assert row(found, "std")["disagreement"] is None and row(found, "std")["sd"] == pytest.approx(0.0707, abs=1e-4)
    assert any("Without kept predictions" in note for note in found.notes)


def test_calibration_stands_beside() -> None:
    found = table([run(0.7, s, others={"ece": 0.1, "brier": 0.3}) for s in (0, 1)], "stability")
    assert (row(found, "std")["ece"], row(found, "std")["brier"]) == pytest.approx((0.1, 0.3))
