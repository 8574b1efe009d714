"""A fair search: equal budgets, a choice that sees the slice of train only, fresh seeds, nothing run twice."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.errors import UsageError
from ftbench.methods import METHODS
from ftbench.models.locate import Checkpoint, locate
from ftbench.runs.grid import Grid
from ftbench.runs.search import BUDGET, SLICE, FairSearch, choose
from ftbench.runs.space import balanced, configurations, ladder, parse_axes
from ftbench.runs.stages import Request, parse_arms
from ftbench.runs.store import Store, read_all
from ftbench.runs.study import plan_study
from ftbench.runs.work import Options
from ftbench.types import Cost, Data, Record, Result, RunSpec, Search
from ftbench.types.run import TRIAL_SEED
from tests.runs.conftest import Heard

MODEL = Checkpoint("one", Path("one"), "w1", 384)
SEARCH = ["weight=0.1,0.5,1,5"]


@pytest.fixture
def search_of(tiny_data: Callable[..., Data]) -> Callable[..., FairSearch]:
    """``search_of("r3f", search=[...], budget=8)`` over the tiny task."""

    def make(
        *methods: str, search: Sequence[str] = SEARCH, budget: int | None = None, baseline: bool = True, **changed: Any
    ) -> FairSearch:
        usual: dict[str, Any] = {"data": [tiny_data()], "models": [MODEL], "seeds": [0, 1], "fixed": {"steps": 20}}
        request = Request(arms=parse_arms(methods, baseline=baseline), **{**usual, **changed})
        return FairSearch(request, search, budget)

    return make


def runs(specs: Sequence[RunSpec]) -> list[RunSpec]:
    return [spec for spec in specs if spec.kind == "finetune"]


def record(spec: RunSpec, slice_score: float | None, validation: float = 0.5, **facts: Any) -> Record:
    """A finished run with its two scores; failed where the slice has none."""
    known = {"headline": "accuracy", "lower_is_better": False, "rows": {"selection": 10}, **facts}
    scores = {"selection": {"accuracy": slice_score}, "validation": {"accuracy": validation}}
    if slice_score is None:
        return Record(Path(), Result(spec=spec, status="failed"), Cost())
    return Record(Path(), Result(spec=spec, status="ok", metrics={"last": scores}, facts=known), Cost())


def both_stages(
    search: FairSearch, score: Callable[[RunSpec], float | None], validation: float = 0.5
) -> tuple[list[RunSpec], list[RunSpec], list[Search]]:
    """Trials, reported runs, answers."""
    first, second = search.stages()
    trials = runs(first([]))
    records = [record(spec, score(spec), validation) for spec in trials]
    return trials, second(records), search.answers(records)


# ------------------------------------------------------------------------------------- equal budgets


def test_every_arm_gets_the_budget(search_of: Callable[..., FairSearch]) -> None:
    """The command of the documentation: r3f has a weight and std has not."""
    search = search_of("r3f", "reinit", "r3f+llrd", budget=8)
    trials = runs(search.stages()[0]([]))
    tried = Counter("+".join(m.name for m in spec.methods) or "std" for spec in trials)
    assert tried == {"std": 8, "r3f": 8, "reinit": 8, "r3f+llrd": 8}
    assert len({spec.id for spec in trials}) == 32
    assert {spec.seed for spec in trials} == {TRIAL_SEED}


def test_every_arm_sees_the_same_learning_rates_and_every_value_its_share(search_of: Callable[..., FairSearch]) -> None:
    search = search_of("r3f", budget=8)
    by_arm: dict[str, list[RunSpec]] = {}
    for question in search.questions:
        by_arm[question.name] = list(question.trials)
    rates = {arm: sorted(spec.lr for spec in specs) for arm, specs in by_arm.items()}
    assert rates["std"] == rates["r3f"] == sorted(ladder(1e-4, 8))
    weights = Counter(spec.methods[0].fields.get("weight", 1.0) for spec in by_arm["r3f"])
    assert weights == {0.1: 2, 0.5: 2, 1.0: 2, 5.0: 2}


def test_the_first_of_all_arms_come_before_the_second_of_any(search_of: Callable[..., FairSearch]) -> None:
    trials = runs(search_of("r3f", "reinit", budget=3).stages()[0]([]))
    names = ["+".join(m.name for m in spec.methods) or "std" for spec in trials]
    assert names == ["std", "r3f", "reinit"] * 3


@pytest.mark.parametrize(("asked", "search", "expected"), [
    (None, SEARCH, BUDGET), (None, ["lr=1e-5,1e-4"], 2), (None, ["lr=1e-5,1e-4,1e-3", "weight=1,2"], 3), (3, SEARCH, 3),
    (None, ["lr=" + ",".join(f"{i}e-5" for i in range(1, 20))], BUDGET),
])  # fmt: skip
def test_the_default_budget_is_what_the_smallest_arm_has(
    search_of: Callable[..., FairSearch], asked: int | None, search: list[str], expected: int
) -> None:
    assert search_of("r3f", search=search, budget=asked).budget == expected


def test_a_learning_rate_that_is_given_is_the_middle(search_of: Callable[..., FairSearch]) -> None:
    search = search_of(search=["lr"], axes={"lr": [3e-5]}, budget=5)
    assert [spec.lr for spec in search.questions[0].trials] == [3e-5, 1.5e-5, 6e-5, 7.5e-6, 1.2e-4]


@pytest.mark.parametrize("count", [2, 3, 5, 8, 20])
def test_the_ladder_is_even_on_a_log_scale(count: int) -> None:
    rates = ladder(1e-4, count)
    assert rates[0] == 1e-4 and len(set(rates)) == count
    assert min(rates) > 2.4e-5 and max(rates) < 4.1e-4
    ratios = np.diff(np.log(sorted(rates)))
    np.testing.assert_allclose(ratios, ratios[0], atol=0.02)


def test_a_cut_product_is_balanced_and_has_no_point_twice() -> None:
    points = [{"a": a, "b": b} for a in range(6) for b in range(4)]
    for budget in (6, 12, 23, 24):
        taken = balanced(points, budget)
        assert len({(p["a"], p["b"]) for p in taken}) == budget
        for key, values in (("a", 6), ("b", 4)):
            uses = Counter(point[key] for point in taken)
            assert max(uses.values()) - min(uses.get(v, 0) for v in range(values)) <= 1
        assert taken == [point for point in points if point in taken], "in the product's order"
    assert balanced(points, 6) == balanced(points, 6)


# ----------------------------------------------------------------------------- the choice, and the report


def test_the_choice_is_the_best_on_the_slice(search_of: Callable[..., FairSearch]) -> None:
    search = search_of("r3f", budget=8)
    best = {question.name: question.trials[3 + number] for number, question in enumerate(search.questions)}
    wanted = {spec.id for spec in best.values()}
    _, reports, answers = both_stages(search, lambda spec: 0.9 if spec.id in wanted else 0.6)
    assert len(reports) == 2 * 2
    for spec in reports:
        trial = best["r3f" if spec.methods else "std"]
        assert (spec.lr, spec.methods) == (trial.lr, trial.methods)
    assert [answer.chosen for answer in answers] == [3, 4]
    assert all(answer.reported.arm() in [spec.arm() for spec in reports] for answer in answers)


def test_the_reports_have_other_seeds_and_all_rows(search_of: Callable[..., FairSearch]) -> None:
    trials, reports, _ = both_stages(search_of("r3f", seeds=[0, 1, 7], budget=4), lambda spec: spec.lr)
    assert {spec.seed for spec in reports} == {0, 1, 7} and all(spec.is_trial for spec in trials)
    assert {spec.select_on for spec in trials} == {SLICE} and {spec.select_on for spec in reports} == {0.0}
    assert not any(spec.is_trial for spec in reports)


def test_validation_is_not_looked_at(search_of: Callable[..., FairSearch]) -> None:
    """Whatever the validation scores are, the choice is the same; another score on the slice changes it."""
    search = search_of("r3f", budget=8)
    first, second = search.stages()
    trials = runs(first([]))

    def chosen(on_slice: Callable[[int], float], on_validation: Callable[[int], float]) -> list[str]:
        records = [record(spec, on_slice(i), on_validation(i)) for i, spec in enumerate(trials)]
        return [spec.id for spec in second(records)]

    plain = chosen(lambda i: i / 20, lambda i: 0.5)
    assert plain == chosen(lambda i: i / 20, lambda i: -i / 20) == chosen(lambda i: i / 20, lambda i: math.nan)
    assert plain != chosen(lambda i: -i / 20, lambda i: 0.5)


def test_failed_trials_are_the_worst_and_an_arm_without_any_is_left_out(
    search_of: Callable[..., FairSearch], caplog: pytest.LogCaptureFixture
) -> None:
    search = search_of("r3f", budget=4)
    first = search.questions[1].trials[0]
    _, reports, answers = both_stages(search, lambda spec: 0.5 if not spec.methods or spec.id == first.id else None)
    assert {spec.lr for spec in reports if spec.methods} == {first.lr}
    assert [trial.score for trial in answers[1].trials] == [0.5, None, None, None]
    _, reports, answers = both_stages(search, lambda spec: None if spec.methods else 0.5)
    assert len(answers) == 1 and not any(spec.methods for spec in reports)
    assert "no r3f: none of its 4 trials has a score" in caplog.text


def test_a_search_that_is_not_done_has_no_answer(search_of: Callable[..., FairSearch]) -> None:
    search = search_of("r3f", budget=4)
    done = [record(spec, 0.5) for spec in search.questions[0].trials]
    assert [answer.arm for answer in search.answers(done)] == ["std"]
    assert search.answers(done[:-1]) == []


@pytest.mark.parametrize(("scores", "lower", "expected"), [
    ([0.1, 0.9, 0.5], False, 1), ([0.1, 0.9, 0.5], True, 0), ([0.5, 0.5], False, 0), ([0.5, 0.5], True, 0),
    ([None, 0.1], False, 1), ([math.nan, 0.1], False, 1), ([None, None], False, None), ([-1.0, -2.0], False, 0),
])  # fmt: skip
def test_choose(scores: list[float | None], lower: bool, expected: int | None) -> None:
    assert choose(scores, lower_is_better=lower) == expected


def test_each_setting_is_searched_on_its_own(search_of: Callable[..., FairSearch]) -> None:
    search = search_of("r3f", budget=2, axes={"train_size": [20, 40]})
    trials, reports, answers = both_stages(search, lambda spec: spec.lr if spec.train_size == 20 else -spec.lr)
    assert Counter(spec.train_size for spec in trials) == {20: 4, 40: 4}
    assert {(s.train_size, s.lr) for s in reports} == {(20, max(ladder(1e-4, 2))), (40, min(ladder(1e-4, 2)))}
    assert len({answer.study for answer in answers}) == 2


def test_several_draws_are_reported_from_one_choice(search_of: Callable[..., FairSearch]) -> None:
    search = search_of(search=["lr"], budget=2, data_seeds=[5, 6], fixed={"steps": 20, "train_size": 30})
    trials, reports, _ = both_stages(search, lambda spec: spec.lr)
    assert {spec.data_seed for spec in trials} == {5}
    assert {spec.data_seed for spec in reports} == {5, 6} and len({spec.lr for spec in reports}) == 1


def test_a_slice_that_is_given_is_held_out_in_the_reports_too(search_of: Callable[..., FairSearch]) -> None:
    search = search_of(search=["lr"], budget=2, fixed={"steps": 20, "select_on": 0.5})
    trials, reports, _ = both_stages(search, lambda spec: spec.lr)
    assert {spec.select_on for spec in (*trials, *reports)} == {0.5}


def test_a_recipe_field_is_searched_for_every_arm(search_of: Callable[..., FairSearch]) -> None:
    """Rows a step decide the steps of an epoch."""
    search = search_of("r3f", search=["batch-size=8,16", "lr=1e-4,2e-4"], budget=4, fixed={}, axes={"epochs": [2.0]})
    trials, reports, _ = both_stages(search, lambda spec: spec.batch_size)
    assert {(s.batch_size, s.steps) for s in trials} == {(8, 10), (16, 6)}, "38 rows, 10 are held out"
    assert {(s.batch_size, s.steps) for s in reports} == {(16, 6)}, "48 rows"


def test_a_field_of_the_method_that_is_called_like_the_recipes(search_of: Callable[..., FairSearch]) -> None:
    search = search_of("bitfit", search=["bitfit:lr=1,10,100"], budget=3)
    trials = search.questions[1].trials
    assert {spec.methods[0].fields.get("lr", 10.0) for spec in trials} == {1.0, 10.0, 100.0}


def test_an_alias_names_its_method(search_of: Callable[..., FairSearch]) -> None:
    search = search_of("repina-i", search=["repina-i:weight=0.1,1"], budget=2)
    assert "capcort-i:weight" in search.questions[1].axes


def test_evaluations_count_only_where_a_method_acts_on_them(search_of: Callable[..., FairSearch]) -> None:
    search = search_of("early-stop", search=["lr=1e-5,1e-4"])
    assert [spec.evaluations for question in search.questions for spec in question.trials] == [1, 1, 10, 10]


def test_std_plus_plus_needs_a_factor(search_of: Callable[..., FairSearch]) -> None:
    with pytest.raises(UsageError, match=r"measured costs, which a search does not have: .*std\+\+:compute=1\.8"):
        search_of("r3f", "std++:compute=r3f")
    search = search_of("std++:compute=2", search=["lr"], budget=2)
    assert {spec.steps for spec in search.questions[1].trials} == {40}


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(("search", "budget", "message"), [
    (["wieght=1,2"], None, r"neither the recipe nor a method here has a field 'wieght'\. Did you mean 'weight'\?"),
    (["learning_rate=1,2"], None, "Known: batch_size, clip"),
    (["r3f:wieght=1,2"], None, r"method r3f has no field 'wieght'\. Did you mean 'weight'\?"),
    (["smart:weight=1,2"], None, "no arm has the method smart. Methods here: r3f"),
    (["smrat:weight=1,2"], None, "unknown method 'smrat'"),
    (["weight=1,two"], None, "r3f:weight=two: expected a number"),
    (["weight=1,-2"], None, "r3f:weight=-2: expected 0 or more"),
    (["lr=1e-5,fast"], None, "--search 'lr=1e-5,fast': expected numbers"),
    (["lr=1e-5,0"], None, "lr is 0.0: expected above 0"),
    (["batch-size=8,1.5"], None, "expected whole numbers"),
    (["noise=uniform,gaus"], None, "r3f:noise=gaus: expected uniform or normal"),
    (["weight"], None, "expected a field and its values"), (["=1"], None, "expected a field"),
    (["weight="], None, "expected a field and its values"), (["weight=1,,2"], None, "expected a field"),
    (["weight=1,2", "weight=3"], None, "'weight' is given twice"),
    (SEARCH, 0, "--budget is 0: expected at least 2"), (SEARCH, 1, "--budget is 1"), (SEARCH, -3, "--budget is -3"),
    (["lr=1e-5"], None, "--budget is 1: expected at least 2 configurations"),
    (["lr=1e-5,0.00001"], None, "--budget is 1"),
    (["lr=1e-5,1e-4", "weight=1,2"], 4, r"std has 2 configurations \(2 of lr\), and every arm gets 4: .*--budget 2"),
])  # fmt: skip
def test_searches_that_cannot_be(
    search_of: Callable[..., FairSearch], search: list[str], budget: int | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        search_of("r3f", search=search, budget=budget)


@pytest.mark.parametrize(("methods", "changed", "message"), [
    (["r3f:weight=2"], {}, "--method r3f:weight=2 fixes what is to be searched"),
    (["r3f+l2sp"], {}, "two methods of one arm have this field; say r3f:weight or l2sp:weight"),
    (["r3f"], {"axes": {"lr": [1e-5, 1e-4]}}, "--lr has several values: search them"),
    (["r3f"], {"axes": {"lr": [1e-5]}, "search": ["lr=1e-5,1e-4"]}, "--lr is given, and --search varies it"),
    (["r3f"], {"fixed": {"warmup": 0.3}, "search": ["warmup=0,0.1"]}, "--warmup is given, and --search varies it"),
    (["r3f"], {"axes": {"epochs": [1]}, "search": ["steps=10,20"]}, "--epochs is given, and --search varies it"),
    (["r3f"], {"seeds": [TRIAL_SEED]}, f"seeds from {TRIAL_SEED} on are kept for searches"),
    (["capcort-i"], {"search": ["weight=1,2", "calibrated=0,1"], "budget": 4}, "expected no weight beside it"),
])  # fmt: skip
def test_requests_that_cannot_be_searched(
    search_of: Callable[..., FairSearch], methods: list[str], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        search_of(*methods, **changed)


def test_too_many_configurations() -> None:
    values = list(range(101))
    with pytest.raises(UsageError, match="10,201 configurations of std, expected at most 10,000"):
        configurations((), {"lr": values, "warmup": values}, 8)
    assert parse_axes(["r3f:weight=1,2"])[0].owner == "r3f"


# ----------------------------------------------------------------------------------------- real runs


@dataclasses.dataclass
class Searched:
    """A search that was carried out."""

    records: list[Record]
    heard: Heard
    answers: list[Search]
    grid: Grid


@pytest.fixture
def carry_out(tmp_path: Path, tiny_model: Path, tiny_data: Callable[..., Data]) -> Callable[..., Searched]:
    """``carry_out("r3f", budget=2)``: real runs of 3 steps into tmp_path/runs."""

    def run(*methods: str, budget: int = 2, data: Data | None = None, **options: Any) -> Searched:
        data, model = data or tiny_data(), locate(str(tiny_model))
        fixed = {"steps": 3, "batch_size": 8, "max_length": 16}
        arms = parse_arms(methods, baseline=True)
        request = Request(data=[data], models=[model], arms=arms, seeds=[0], references=False, fixed=fixed)
        study, store, heard = plan_study(request, SEARCH, budget), Store(tmp_path / "runs"), Heard()
        options = {"device": "cpu", "threads": 1, **options}
        grid = Grid(store, {data.fingerprint: data}, {model.fingerprint: model}, heard, Options(**options))
        try:
            grid.run(study.stages)
        finally:
            answers = study.keep_answers(store, grid.records)
        return Searched(grid.records, heard, answers, grid)

    return run


def test_a_search_in_earnest_and_again(carry_out: Callable[..., Searched], tmp_path: Path) -> None:
    done = carry_out("r3f")
    assert len(done.records) == 2 * 2 + 2 and done.heard.total == 6
    assert sum(record.result.spec.is_trial for record in done.records) == 4
    for answer in done.answers:
        scores = [trial.score for trial in answer.trials]
        assert scores[answer.chosen] == max(score for score in scores if score is not None) and answer.rows == 10
    again = carry_out("r3f")
    assert again.heard.begun == [] and again.answers == done.answers
    found = read_all([tmp_path / "runs"])
    assert found.skipped == [] and len(found.records) == 6
    assert sorted(found.searches, key=str) == sorted(done.answers, key=str)
    more = carry_out("rdrop")
    assert len(more.heard.skipped) == 3 and len(more.heard.begun) == 3, "std's two trials and its report are there"
    assert {answer.study for answer in (*done.answers, *more.answers)} == {done.answers[0].study}


def test_an_interrupted_search_goes_on(carry_out: Callable[..., Searched]) -> None:
    from ftbench.errors import Interrupted

    asked = iter(range(1, 1000))
    with pytest.raises(Interrupted):
        carry_out("r3f", should_stop=lambda: next(asked) > 8)
    done = carry_out("r3f")
    assert len(done.heard.skipped) + len(done.heard.begun) == 6 and done.heard.skipped
    assert not set(done.heard.skipped) & set(done.heard.begun)


def test_other_validation_labels_other_scores_the_same_choice(
    carry_out: Callable[..., Searched], tiny_data: Callable[..., Data]
) -> None:
    """The trials' training and slices are equal to the last bit; only what they score on validation is not."""
    data = tiny_data()
    validation = data.splits["validation"]
    other_labels = np.arange(len(validation)) // 18
    turned = dataclasses.replace(data, splits={**data.splits, "validation": validation.with_labels(other_labels)})
    plain, other = carry_out("r3f"), carry_out("r3f", data=turned)
    validations = [
        [r.result.score("accuracy") for r in done.records if r.result.spec.is_trial] for done in (plain, other)
    ]
    assert validations[0] != validations[1]
    for ours, theirs in zip(plain.answers, other.answers, strict=True):
        assert [t.score for t in ours.trials] == [t.score for t in theirs.trials] and ours.chosen == theirs.chosen


def test_no_trial_keeps_its_weights(carry_out: Callable[..., Searched]) -> None:
    done = carry_out("r3f", keep_model=True)
    done.grid.keep_models("best")
    kept = {record.result.spec.is_trial for record in done.grid.records if (record.folder / "model").exists()}
    assert kept == {False}


def test_every_method_of_the_table_can_be_searched(search_of: Callable[..., FairSearch]) -> None:
    methods = ["std++:compute=2" if name == "std++" else name for name in METHODS]
    search = search_of(*methods, budget=4)
    assert Counter(len(question.trials) for question in search.questions) == {4: len(METHODS)}
