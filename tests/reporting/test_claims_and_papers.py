"""Claims and published figures: what is said of them, and what is never set side by side."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from ftbench.errors import UsageError
from ftbench.reporting import claims, papers, wins
from ftbench.reporting.judging import JUDGES, judge
from ftbench.reporting.render import FORMS, render
from ftbench.reporting.reports import claim_names, make
from ftbench.reporting.study import Study
from ftbench.types import Cost, MethodSpec, Record
from tests.reporting.conftest import R3F, run


def named(name: str, **fields: Any) -> tuple[MethodSpec, ...]:
    return (MethodSpec(name, 1, fields),) if name != "std" else ()


def arm(
    name: str, scores: list[float], seconds: float = 10.0, device: str = "cpu", revision: int = 1, **spec: Any
) -> list[Record]:
    cost = Cost(process_seconds=seconds, steps=100, forward_passes=100, device=device)
    fields = spec.pop("fields", {})
    methods = tuple(replace(method, revision=revision) for method in named(name, **fields))
    return [run(s, i, methods, cost=cost, **spec) for i, s in enumerate(scores)]


def line(start: float, n: int = 20) -> list[float]:
    return [start + 0.001 * ((7 * i) % 5) for i in range(n)]


def test_the_data_are_whole() -> None:
    every = claims.claims()
    assert [claim.number for claim in every] == list(range(1, 13))
    for claim in every:
        assert claim.kind in JUDGES or (claim.kind == "" and claim.needs)
        assert bool(claim.better) == bool(claim.than) and (claim.contradicted_if or not claim.kind)
        assert claim.text and claim.source and claim.supported_if


@pytest.mark.parametrize("form", FORMS)
def test_every_claim_has_a_verdict_on_no_runs(form: str) -> None:
    for name in claim_names(["all"]):
        table = make(Study([]), name)
        assert (table and "UNDECIDED" in render(table, form)) or form == "csv"


def test_claim_names() -> None:
    assert claim_names(["3", "3"]) == ["claim:3"] and len(claim_names(["all"])) == 12
    with pytest.raises(UsageError, match="unknown claim '13'"):
        judge(Study([]), "13")


# claim 1: R3F better than std on small GLUE tasks


def on_glue(gain: float, names: tuple[str, ...] = ("r3f", "r4f"), tasks: str = "rte mrpc cola stsb") -> list[Record]:
    """std, and ``gain`` above it the others, on small tasks."""
    starts = {"std": 0.70, **dict.fromkeys(names, 0.70 + gain)}
    return [r for t in tasks.split() for name, at in starts.items() for r in arm(name, line(at), task=t, data=t)]


def test_superiority_is_supported_by_every_task() -> None:
    found = judge(Study(on_glue(0.05)), "1")
    assert (found.verdict, found.why) == ("supported", "8 of 8 comparisons support it")
    mixed = judge(Study([*on_glue(0.05, tasks="rte"), *on_glue(-0.05, ("r3f",), "cola")]), "1")
    assert mixed.verdict == "contradicted"
    assert [row["verdict"] for row in mixed.rows] == ["contradicted", "supported", "supported"]


def test_nothing_is_supported_while_methods_or_tasks_are_missing() -> None:
    found = judge(Study(on_glue(0.05, ("r3f",), "rte")), "1")
    wanted = "missing where std learned: r3f beside std on mrpc, cola, stsb; r4f beside std"
    assert (found.verdict, found.why) == ("undecided", f"1 of 1 comparisons support it; {wanted}")
    half = judge(Study([*on_glue(0.05, ("r3f",), "rte mrpc"), *on_glue(0.05, ("r4f",), "cola stsb")]), "1")
    assert half.verdict == "undecided" and "r3f beside std on cola, stsb; r4f beside std on rte, mrpc" in half.why
    worse = judge(Study(on_glue(-0.05, ("r3f",), "rte")), "1")
    assert worse.verdict == "contradicted" and worse.why.endswith(wanted)
    assert judge(Study([]), "1").why.startswith("nothing to compare; missing where std learned: r3f beside std; r4f")


def test_rows_have_the_settings_of_their_comparison() -> None:
    sizes = [
        r for n in (100, 1000) for name, s in (("std", 0.7), ("r3f", 0.75)) for r in arm(name, line(s), train_size=n)
    ]
    table = make(Study(sizes), "claim:1")
    assert table and "train_size" in [column.key for column in table.columns]
    assert [row["train_size"] for row in table.rows] == [100, 1000]


@pytest.mark.parametrize("number", ["1", "2", "3"])
def test_two_versions_of_a_method_are_not_chosen_from(number: str) -> None:
    base = {"1": "std", "2": "smart", "3": "r3f:dropout=shared,eps=0"}[number]
    shared = {"dropout": "shared"} if number == "3" else {}
    name = "r3f:dropout=shared" if shared else "r3f"
    records = [*arm("std", line(0.70)), *arm("r3f", line(0.75), 5, fields=shared)]
    records += [r for r in arm("smart", line(0.70), 20) if base == "smart"]
    records += [r for r in arm("r3f", line(0.70), fields={**shared, "eps": 0}) if shared]
    assert [(row["method"], row["than"]) for row in judge(Study(records), number).rows] == [(name, base)]
    found = judge(Study([*records, *arm("r3f", line(0.60), 5, revision=2, fields=shared)]), number)
    assert found.verdict == "undecided" and found.rows == ()
    assert f"several versions of {name} stand side by side: none is judged there" in found.why


def test_a_gain_that_cannot_matter_contradicts() -> None:
    tiny = [score + 0.0001 * (-1) ** i for i, score in enumerate(line(0.70))]
    assert judge(Study([*arm("std", line(0.70)), *arm("r3f", tiny)]), "1").verdict == "contradicted"


def test_few_seeds_decide_nothing() -> None:
    found = judge(Study([*arm("std", line(0.70, 6)), *arm("r3f", line(0.75, 6))]), "1")
    assert found.verdict == "undecided" and "fewer than 20 pairs" in found.why


def test_other_tasks_are_not_the_claims() -> None:
    other = {"task": "sst2", "data": "d2"}
    assert judge(Study([*arm("std", line(0.70), **other), *arm("r3f", line(0.75), **other)]), "1").rows == ()


def test_the_table_names_model_and_sizes() -> None:
    records = [
        *arm("std", line(0.70), model="minilm", train_size=500),
        *arm("r3f", line(0.75), model="minilm", train_size=500),
    ]
    table = make(Study(records), "claim:1")
    assert table and table.notes[0].startswith("UNDECIDED: 1 of 1 comparisons support it; missing")
    assert "On minilm, rte with 500 rows: nothing is said of others." in table.notes[0]
    assert table.rows[0]["than"] == "std" and table.rows[0]["difference"] == pytest.approx(0.05)


def test_noise_is_judged_with_shared_masks() -> None:
    shared = {"dropout": "shared"}
    noises: list[dict[str, Any]] = [{}, {"eps": 0.001}, {"eps": 0.1}]
    records = [*arm("std", line(0.70)), *(r for of in noises for r in arm("r3f", line(0.75), fields={**shared, **of}))]
    records += arm("r3f", line(0.70), fields={**shared, "eps": 0})
    found = judge(Study(records), "3")
    assert found.verdict == "supported" and found.rows[0]["than"] == "r3f:dropout=shared,eps=0"


@pytest.mark.parametrize(
    ("score", "seconds", "verdict"),
    [(0.75, 15, "supported"), (0.75, 25, "contradicted"), (0.70, 15, "contradicted"), (0.748, 15, "supported")],
)
def test_not_worse_and_cheaper(score: float, seconds: float, verdict: str) -> None:
    assert judge(Study(beside_smart(score, seconds)), "2").verdict == verdict


def beside_smart(score: float, seconds: float, device: str = "cpu") -> list[Record]:
    rest = [r for name in ("smart", "freelb") for r in arm(name, line(0.75), 20)]
    return [*arm("std", line(0.70)), *rest, *arm("r3f", line(score), seconds, device)]


def test_seconds_of_several_devices_are_not_compared() -> None:
    found = judge(Study(beside_smart(0.75, 2, "cuda")), "2")
    assert found.verdict == "undecided" and [row["cost"] for row in found.rows] == [None, None]
    assert found.why.endswith("seconds of 2 of 2 comparisons come from several devices or thread counts")
    assert judge(Study(beside_smart(0.70, 2, "cuda")), "2").verdict == "contradicted"  # by its scores
    assert "2 of 2 comparisons were not measured" in judge(Study(beside_smart(0.75, 0)), "2").why


def test_cheaper_than_one_of_two_supports_nothing() -> None:
    records = [r for r in beside_smart(0.75, 15) if r.result.spec.method != "freelb"]
    found = judge(Study(records), "2")
    assert found.verdict == "undecided" and found.why.endswith("missing where std learned: r3f beside freelb")


def on(task: str, gain: float, plus: dict[str, Any] | None = None) -> list[Record]:
    """All methods of claim 5 on a task, CAPCORT ``gain`` above the others; plus: fields of std++."""
    names = ("std", "std++", "l2sp", "reinit", "r3f")
    scores = {**dict.fromkeys(names, line(0.70, 10)), **dict.fromkeys(CAPCORT, line(0.70 + gain, 10))}
    fields = {"std++": plus or {}}
    return [r for name, of in scores.items() for r in arm(name, of, task=task, data=task, fields=fields.get(name, {}))]


CAPCORT = ("capcort-i", "capcort-mlp")


def test_wins_need_all_tasks() -> None:
    thirteen = [record for i in range(13) for record in on(f"t{i}", 0.02 if i < 8 else -0.02)]
    found = judge(Study(thirteen), "5")
    assert found.verdict == "supported" and found.why.startswith("best on 8 of 13 tasks")
    lost = [record for i in range(13) for record in on(f"t{i}", 0.02 if i < 3 else -0.02)]
    assert judge(Study(lost), "5").verdict == "contradicted"
    again = arm("l2sp", line(0.90, 10), revision=2, task="t0", data="t0")
    assert "several versions of l2sp stand side by side" in judge(Study([*thirteen, *again]), "5").why
    few = judge(Study(on("t0", 0.1)), "5")
    assert few.verdict == "undecided" and few.why.startswith("1 of 13 tasks")


def test_ties_are_matched_and_chance_decides_nothing() -> None:
    """The claim is "matches or exceeds": by as much as 0.5 points behind matches, if the runs can tell so much."""
    equal = judge(Study([record for i in range(13) for record in on(f"t{i}", 0.0)]), "5")
    assert equal.verdict == "supported" and equal.why.startswith("best on 13 of 13 tasks, ties counted")
    generator = np.random.default_rng(0)
    names = ("std", "std++", "l2sp", "reinit", "r3f", *CAPCORT)
    noisy = [
        record
        for i in range(13)
        for name in names
        for record in arm(name, generator.normal(0.7, 0.02, 10).tolist(), task=f"t{i}", data=f"t{i}")
    ]
    found = judge(Study(noisy), "5")
    assert found.verdict == "undecided" and " on 0 to 13 (95 % interval)" in found.why
    assert len(found.rows) == 13 and all(row["low"] < row["difference"] < row["high"] for row in found.rows)


def test_the_number_of_matched_tasks_has_an_interval() -> None:
    mixed = [record for i in range(13) for record in on(f"t{i}", 0.02 if i < 6 else -0.02 if i < 8 else 0.0)]
    found = judge(Study(mixed), "5")
    assert "on 11 to 13 (95 % interval)" in found.why, "two lost of 13, each beside four others, may be chance"
    assert [row["verdict"] for row in found.rows].count("contradicted") == 2
    assert wins.at_least([0.001, 0.011, 0.02, 0.9]) == 1 and wins.at_least([0.012, 0.001, 0.9, 0.012]) == 3
    assert wins.at_least([0.9]) == 0 and wins.at_least([0.024]) == 1


@pytest.mark.parametrize("number", ["5", "6"])
def test_std_plus_with_other_steps_is_std_plus(number: str) -> None:
    plus = {"compute": 3}
    thirteen = [record for i in range(13) for record in on(f"t{i}", 0.02, plus)]
    grown = [*sizes(0.06, 0.04, 0.02), *noises(0.04, 0.06)]
    named = [replace(r, result=replace(r.result, spec=replace(r.result.spec, methods=(MethodSpec("std++", 1, plus),))))
             if r.result.spec.method == "std++" else r for r in grown]  # fmt: skip
    assert judge(Study(thirteen if number == "5" else named), number).verdict == "supported"
    again = arm("std++", line(0.70, 10), task="t0", data="t0")
    assert "several versions of std++" in judge(Study([*thirteen, *again]), "5").why


def beside_plus(gain: float, names: tuple[str, ...] = ("capcort-i", "capcort-mlp"), **spec: Any) -> list[Record]:
    """std++, and CAPCORT ``gain`` above it, give or take a little by seed."""
    ours = [x + gain + 0.001 * gain * ((3 * i) % 4) for i, x in enumerate(line(0.70, 25))]
    scores = {"std": line(0.6, 25), "std++": line(0.70, 25), **dict.fromkeys(names, ours)}
    return [r for name, of in scores.items() for r in arm(name, of, **spec)]


def sizes(*gains: float, **more: Any) -> list[Record]:
    """At 100, 200, 400, ... rows."""
    return [r for i, gain in enumerate(gains) for r in beside_plus(gain, **{"train_size": 100 * 2**i, **more})]


def noises(*gains: float, **more: Any) -> list[Record]:
    """At 400 rows, of which 10 %, 20 %, ... have another label."""
    given = [{"train_size": 400, "label_noise": 0.1 * i, **more} for i in range(1, len(gains) + 1)]
    return [r for gain, spec in zip(gains, given, strict=True) for r in beside_plus(gain, **spec)]


def test_slopes_need_sizes_and_noises_of_both_variants() -> None:
    records = [*sizes(0.06, 0.04, 0.02), *noises(0.04, 0.06)]
    found = judge(Study(records), "6")
    assert (found.verdict, found.why) == ("supported", "4 of 4 comparisons support it")
    slopes = {row["method"]: row["difference"] for row in found.rows}
    assert slopes == {
        "capcort-i over train_size": pytest.approx(-0.02, abs=1e-3),
        "capcort-mlp over train_size": pytest.approx(-0.02, abs=1e-3),
        "capcort-i over label_noise": pytest.approx(0.2, abs=1e-3),
        "capcort-mlp over label_noise": pytest.approx(0.2, abs=1e-3),
    }
    one = judge(Study([r for r in records if r.result.spec.method != "capcort-mlp"]), "6")
    assert one.verdict == "undecided" and one.why.endswith("capcort-mlp over train_size; capcort-mlp over label_noise")
    quiet = judge(Study(sizes(0.06, 0.04, 0.02)), "6")
    assert quiet.verdict == "undecided" and "capcort-i over label_noise" in quiet.why
    assert judge(Study(sizes(0.02, 0.04, 0.06)), "6").verdict == "contradicted"
    assert judge(Study(sizes(0.02)), "6").why.startswith("nothing to compare")


def test_slopes_go_through_like_runs_only() -> None:
    """Noise, models and recipes that vary beside the axis are other lines, or none."""
    grid = [*sizes(0.06, 0.04, 0.02), *noises(0.10, 0.14)]  # the gain at 400 rows would grow, were noise left in
    rows = [row for row in judge(Study(grid), "6").rows if row["method"] == "capcort-i over train_size"]
    assert [(row["train_size"], row["label_noise"]) for row in rows] == [("100 to 400", 0.0)]
    assert rows[0]["difference"] == pytest.approx(-0.02, abs=1e-3)
    big = {"weights": "w2", "model": "big"}
    models = [*sizes(0.02, 0.02), *(r for n in (200, 400) for r in beside_plus(0.08, train_size=n, **big))]
    found = judge(Study(models), "6")
    assert found.verdict == "undecided"
    assert sorted((row["weights"], row["verdict"]) for row in found.rows) == 2 * [("w1", "undecided")] + 2 * [
        ("w2", "undecided")]  # fmt: skip
    assert (
        judge(Study([*beside_plus(0.02, train_size=100), *beside_plus(0.08, train_size=400, lr=1e-5)]), "6").rows == ()
    )


def test_steps_may_follow_from_the_size() -> None:
    table = make(Study([*sizes(0.06), *beside_plus(0.04, train_size=200, steps=200)]), "claim:6")
    assert table and {(row["train_size"], row["steps"]) for row in table.rows} == {("100 to 200", "100 to 200")}


def test_slopes_are_corrected_over_all_of_them() -> None:
    """By hand: Student's t of the slopes, the smaller p twice (Holm 1979)."""
    wide, narrow = ([0.01 * math.cos(i) - lead for i in range(25)] for lead in (0.005, 0.012))
    records = sizes(0.06, 0.04, names=())
    for k, size in enumerate((100, 200)):
        for name, slopes in (("capcort-i", wide), ("capcort-mlp", narrow)):
            records += arm(name, [x + k * s for x, s in zip(line(0.70, 25), slopes, strict=True)], train_size=size)
    p = [scipy_stats.ttest_1samp(slopes, 0).pvalue for slopes in (wide, narrow)]
    rows = {row["method"]: row["p_holm"] for row in judge(Study(records), "6").rows}
    assert rows["capcort-i over train_size"] == pytest.approx(p[0])
    assert rows["capcort-mlp over train_size"] == pytest.approx(2 * p[1], rel=1e-4)


def test_two_versions_have_no_slope() -> None:
    twice = [
        *sizes(0.06, 0.04),
        *(r for n in (100, 200) for r in arm("capcort-i", line(0.9, 25), revision=2, train_size=n)),
    ]
    found = judge(Study(twice), "6")
    assert {row["method"] for row in found.rows} == {"capcort-mlp over train_size"}
    assert "several versions of capcort-i stand side by side" in found.why


def test_what_these_runs_cannot_tell_is_said() -> None:
    found = judge(Study(arm("std", line(0.7))), "4")
    assert found.verdict == "undecided" and "no probes of r3f" in found.why


# ---------------------------------------------------------------------------------------------- papers

LARGE = {"model": "FacebookAI/roberta-large"}


def beside(records: list[Record], paper: str = "r3f", **wanted: Any) -> dict[str, Any]:
    table = papers.paper_table(records, paper)
    assert all(render(table, form) for form in FORMS)
    found = [row for row in table.rows if wanted.items() <= row.items()]
    assert len(found) == 1, found
    return dict(found[0])


def test_published_figures_are_whole() -> None:
    every = papers.published()
    assert {figure.paper for figure in every} == {"r3f", "hype", "minilm"}
    assert all(0 < figure.value < 1 for figure in every)
    assert {figure.verified for figure in every if figure.paper == "minilm"} == {False}
    (rte,) = [f for f in every if (f.paper, f.task, f.method, f.statistic) == ("r3f", "rte", "r3f", "median")]
    assert (rte.value, rte.how, rte.metric) == (0.884, "median of 10", "accuracy")


def test_like_stands_beside_like() -> None:
    records = [run(s, i, R3F, **LARGE) for i, s in enumerate((0.85, 0.86, 0.90))]
    found = beside(records, method="r3f", statistic="median of 10")
    assert (found["published"], found["ours"], found["n"], found["why"]) == (0.884, 0.86, 3, "")
    best = beside(records, method="r3f", statistic="best of 10")
    assert best["ours"] is None and best["why"] == "best of 10 needs as many runs"
    ten = [run(0.80 + 0.01 * i, i, R3F, **LARGE) for i in range(10)]
    assert beside(ten, method="r3f", statistic="best of 10")["ours"] == pytest.approx(0.89)


@pytest.mark.parametrize(
    ("spec", "why"),
    [({"model": "minilm"}, "model minilm"), ({**LARGE, "train_size": 500}, "500 rows"),
     ({**LARGE, "label_noise": 0.1}, "other rows"), ({**LARGE, "metric": "f1"}, "no accuracy"), ({}, "model unnamed"),
     ({**LARGE, "layers": "23:24:24"}, "layers 23:24:24"), ({**LARGE, "encoder": "mnli"}, "tuned on mnli before"),
     ({**LARGE, "head": "kept"}, "head of the checkpoint")],
)  # fmt: skip
def test_unlike_never_stands_beside(spec: dict[str, Any], why: str) -> None:
    found = beside([run(0.9, 0, R3F, **spec)], method="r3f", statistic="median of 10")
    assert (found["ours"], found["why"]) == (None, why)


def test_several_recipes_are_not_chosen_from() -> None:
    found = beside(
        [run(0.9, 0, R3F, **LARGE), run(0.9, 0, R3F, lr=1e-5, **LARGE)], method="r3f", statistic="median of 10"
    )
    assert found["ours"] is None and found["why"].startswith("several recipes")


def test_unverified_is_said_and_unknown_papers_are_named() -> None:
    assert beside([run(0.7, model="minilm")], "minilm")["statistic"] == "mean, unverified"
    with pytest.raises(UsageError, match="Did you mean 'r3f'"):
        papers.paper_table([], "r3")
    assert "no figure for nothing-known" in papers.paper_table([run(0.7, task="nothing-known")], "r3f").notes[1]
