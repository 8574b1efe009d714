"""From a request to runs: which, in what order, with how many steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import UsageError
from ftbench.methods import METHODS
from ftbench.models.locate import Checkpoint
from ftbench.runs.able import settle
from ftbench.runs.recipe import BUCKET_FROM, FLOOR, batching_for, steps_for
from ftbench.runs.stages import Request, check_joined, parse_arms, plan
from ftbench.types import Cost, Data, Record, Result, RunSpec

MODELS = [Checkpoint("one", Path("one"), "w1"), Checkpoint("two", Path("two"), "w2")]


@pytest.fixture
def request_of(tiny_data: Callable[..., Data]) -> Callable[..., Request]:
    """A request over the tiny task: ``request_of("r3f", seeds=[0, 1])``."""

    def make(*methods: str, baseline: bool = True, **changed: Any) -> Request:
        usual: dict[str, Any] = {"data": [tiny_data()], "models": MODELS[:1], "seeds": [0], "fixed": {"steps": 20}}
        return Request(arms=parse_arms(methods, baseline=baseline), **{**usual, **changed})

    return make


def first_stage(request: Request) -> list[RunSpec]:
    return plan(request)[0]([])


def runs(specs: Sequence[RunSpec]) -> list[RunSpec]:
    return [spec for spec in specs if spec.kind == "finetune"]


def arms(*texts: str, baseline: bool = True) -> list[str]:
    return ["+".join(m.label for m in stack) or "std" for stack in parse_arms(texts, baseline=baseline)]


def test_std_runs_beside_every_method_once() -> None:
    assert arms() == ["std"]
    assert arms("r3f") == ["std", "r3f"]
    assert arms("std") == ["std"] == arms("std", baseline=False)
    assert arms("r3f", "std", "r3f") == ["std", "r3f"]
    assert arms("r3f:weight=0.5", "r3f:weight=1") == ["std", "r3f:weight=0.5", "r3f"]


def test_no_baseline() -> None:
    assert arms("r3f", baseline=False) == ["r3f"]
    assert arms("r3f", "std", baseline=False) == ["r3f", "std"]
    assert arms(baseline=False) == ["std"]


def test_all_is_every_method_in_the_tables_order_once() -> None:
    assert arms("all") == list(METHODS) == arms("all", baseline=False)
    assert arms("r3f", "all", "r3f:weight=2") == ["std", "r3f", *list(METHODS)[1:2], *list(METHODS)[3:], "r3f:weight=2"]
    with pytest.raises(UsageError, match="unknown method 'all'"):
        parse_arms(["all+r3f"], baseline=True)


def test_of_all_what_cannot_run_is_left_out_and_said() -> None:
    found = settle(["all"], baseline=True, axes={}, passes="joined")
    assert found.left_out.keys() == {"smart", "vat", "freelb"} and len(found.stacks) == len(METHODS) - 3
    assert "passes apart" in found.left_out["smart"]
    assert settle(["all"], baseline=True, axes={"steps": [10, 20]}).left_out.keys() == {"std++"}
    searched = settle(["all"], baseline=True, axes={}, searching=True)
    assert searched.left_out.keys() == {"std++"} and "give a factor" in searched.left_out["std++"]


def test_a_named_arm_that_cannot_run_is_an_error() -> None:
    with pytest.raises(UsageError, match="--passes joined: method smart needs its passes apart"):
        settle(["all", "smart"], baseline=True, axes={}, passes="joined")
    found = settle(["all", "smart"], baseline=True, axes={})
    with pytest.raises(UsageError, match="not either; no"):
        found.refuse({"smart": "no", "std": "not either", "vat": "nor this"})
    assert found.left_out == {"vat": "nor this"}, "vat is there by way of all"


def test_std_plus_plus_of_all_has_the_compute_of_r3f(request_of: Callable[..., Request]) -> None:
    specs = matched(request_of("all"), {name: 2.0 if name == "r3f" else 1.0 for name in METHODS})
    assert [(s.method, s.steps) for s in specs] == [("std++", 40)]


def test_a_default_that_is_spelt_out_is_the_same_arm() -> None:
    assert arms("r3f", "r3f:weight=1.0", "r3f:eps=1e-5,noise=uniform") == ["std", "r3f"]


def test_seeds_are_outermost(request_of: Callable[..., Request]) -> None:
    specs = runs(first_stage(request_of("r3f", seeds=[3, 1], axes={"lr": [1e-5, 1e-4]})))
    assert [(s.seed, s.lr, s.method) for s in specs] == [
        (3, 1e-5, "std"), (3, 1e-5, "r3f"), (3, 1e-4, "std"), (3, 1e-4, "r3f"),
        (1, 1e-5, "std"), (1, 1e-5, "r3f"), (1, 1e-4, "std"), (1, 1e-4, "r3f"),
    ]  # fmt: skip


def test_axes_models_and_data_seeds_are_crossed(request_of: Callable[..., Request]) -> None:
    axes = {"lr": [1e-5, 1e-4], "train_size": [20, 30], "label_noise": [0.0, 0.2]}
    specs = runs(first_stage(request_of("r3f", seeds=[0, 1], data_seeds=[0, 5], models=MODELS, axes=axes)))
    assert len(specs) == len({s.id for s in specs}) == 2 * 2 * 2 * 2 * 2 * 2 * 2
    assert {(s.weights, s.data_seed, s.lr, s.train_size, s.label_noise) for s in specs} == {
        (w, d, lr, n, e) for w in ("w1", "w2") for d in (0, 5) for lr in (1e-5, 1e-4)
        for n in (20, 30) for e in (0.0, 0.2)
    }  # fmt: skip


def test_references_once_for_each_set_of_rows(request_of: Callable[..., Request]) -> None:
    axes = {"lr": [1e-5, 1e-4], "batch_size": [8, 16], "label_noise": [0.0, 0.2]}
    specs = first_stage(request_of("r3f", seeds=[0, 1, 2], data_seeds=[0, 1], axes=axes))
    references = [spec for spec in specs if spec.kind == "reference"]
    assert {(s.label_noise, s.data_seed) for s in references} == {(0.0, 0), (0.2, 0), (0.2, 1)}
    assert len(references) == 3
    assert all(s.steps == 0 and s.seed == 0 and not s.methods for s in references)
    assert specs[: len(references)] == references, "they come first: cheap, and the first to look at"
    assert {s.rows_key() for s in references} == {s.rows_key() for s in runs(specs)}


@pytest.mark.parametrize("drawn", [{"train_size": 20}, {"label_noise": 0.2}, {"select_on": 0.5}, {"limit": 9}, {}])
def test_data_seeds_count_only_where_something_is_drawn(request_of: Callable[..., Request], drawn: Any) -> None:
    """Else three data seeds would be three copies of one run, and n, sd and interval would lie."""
    specs = first_stage(request_of(seeds=[0, 1], data_seeds=[0, 1, 2], fixed=drawn))
    draws = 3 if drawn else 1
    assert len(runs(specs)) == 2 * draws and len(specs) == 3 * draws
    assert {spec.data_seed for spec in specs} == set(range(draws))


def test_a_micro_batch_of_the_whole_batch_is_no_other_run(request_of: Callable[..., Request]) -> None:
    whole = runs(first_stage(request_of(fixed={"batch_size": 16, "micro_batch": 16})))
    assert [s.id for s in whole] == [s.id for s in runs(first_stage(request_of(fixed={"batch_size": 16})))]


def test_no_references(request_of: Callable[..., Request]) -> None:
    assert runs(first_stage(request_of(references=False))) == first_stage(request_of(references=False))


def test_the_task_has_its_own_size(tiny_data: Callable[..., Data], request_of: Callable[..., Request]) -> None:
    data = tiny_data()
    small = dataclasses.replace(data, task=dataclasses.replace(data.task, default_train_size=16))
    sizes = [runs(first_stage(request_of(data=[small], axes=a)))[0].train_size for a in ({}, {"train_size": [None]})]
    assert sizes == [16, None], "--train-size all overrules it"


# --------------------------------------------------------------------------------------- recipe


@pytest.mark.parametrize(("rows", "batch_size", "asked", "steps"), [
    (48, 16, {}, FLOOR),
    (16 * (FLOOR // 3), 16, {}, FLOOR),
    (16 * (FLOOR // 3 + 1), 16, {}, FLOOR // 3 * 3 + 3),
    (16 * (FLOOR // 3 + 1) + 1, 16, {}, FLOOR // 3 * 3 + 6),
    (100, 16, {"epochs": 1}, 7),
    (100, 16, {"epochs": 0.5}, 4),
    (100, 16, {"epochs": 0.001}, 1),
    (100, 16, {"steps": 5}, 5),
    (1, 16, {"epochs": 3}, 3),
])  # fmt: skip
def test_steps(rows: int, batch_size: int, asked: dict[str, Any], steps: int) -> None:
    assert steps_for(rows, batch_size, **asked) == steps


@pytest.mark.parametrize(("asked", "message"), [
    ({"epochs": 1, "steps": 1}, "--epochs or --steps, not both"),
    ({"steps": 0}, "steps is 0"), ({"steps": -1}, "steps is -1"),
    ({"epochs": 0}, "epochs is 0: expected above 0"), ({"epochs": -1}, "epochs is -1"),
    ({"epochs": float("nan")}, "epochs is nan"), ({"epochs": float("inf")}, "epochs is inf"),
])  # fmt: skip
def test_steps_that_cannot_be(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        steps_for(100, 16, **asked)


def test_batching_follows_the_rows(request_of: Callable[..., Request]) -> None:
    assert batching_for(BUCKET_FROM - 1) == "random" and batching_for(BUCKET_FROM) == "bucket"
    assert runs(first_stage(request_of()))[0].batching == "random"
    assert runs(first_stage(request_of(fixed={"steps": 1, "batching": "bucket"})))[0].batching == "bucket"


def test_steps_count_the_rows_that_are_trained_on(request_of: Callable[..., Request]) -> None:
    def steps(**fixed: Any) -> int:
        return runs(first_stage(request_of(fixed={"epochs": 2, **fixed})))[0].steps

    assert steps() == 2 * 3  # 48 rows of 16
    assert steps(train_size=17) == 2 * 2
    assert steps(select_on=0.5) == 2 * 2
    assert steps(limit=10) == 2 * 1
    assert steps(batch_size=48) == 2


@pytest.mark.parametrize(("fixed", "message"), [
    ({"train_size": 49}, r"train-size is 49: task 'tiny' has 48 train rows"),
    ({"train_size": 0}, "train-size is 0"),
    ({"label_noise": 1.5}, "label-noise is 1.5"),
    ({"select_on": 0.001}, "select-on is 0.001"),
    ({"batch_size": 0}, "batch-size is 0: expected at least 1"),
    ({"batch_size": -4}, "batch-size is -4: expected at least 1"),
    ({"micro_batch": 17}, "micro-batch is 17"),
    ({"lr": 0.0}, "lr is 0.0"),
    ({"max_length": 2}, "max-length is 2"),
])  # fmt: skip
def test_settings_that_no_run_can_have(request_of: Callable[..., Request], fixed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(request_of(fixed=fixed))


def test_a_regression_has_no_label_noise(tiny_data: Callable[..., Data], request_of: Callable[..., Request]) -> None:
    with pytest.raises(UsageError, match="label-noise flips classes"):
        plan(request_of(data=[tiny_data(regression=True)], fixed={"steps": 1, "label_noise": 0.1}))


# ---------------------------------------------------------------------------------------- std++


def record(spec: RunSpec, seconds: float, status: Any = "ok") -> Record:
    return Record(Path(), Result(spec=spec, status=status), Cost(process_seconds=seconds))


def matched(request: Request, seconds: dict[str, float], status: Any = "ok") -> list[RunSpec]:
    """The second stage, given what each method of the first took."""
    first, second = plan(request)
    return second([record(spec, seconds[spec.method], status) for spec in runs(first([]))])


@pytest.mark.parametrize(("std", "r3f", "steps"), [
    (10.0, 18.0, 36), (10.0, 18.4, 36), (10.0, 18.6, 38), (10.0, 5.0, 20), (10.0, 10.1, 20), (1.0, 3.14, 62),
])  # fmt: skip
def test_std_plus_plus_has_the_steps_that_the_cost_buys(
    request_of: Callable[..., Request], std: float, r3f: float, steps: int
) -> None:
    """20 steps times the ratio, rounded to 0.1 so that a noisy clock makes no new runs, never fewer."""
    specs = matched(request_of("r3f", "std++:compute=r3f", seeds=[0, 1]), {"std": std, "r3f": r3f})
    assert [(s.seed, s.steps, s.method) for s in specs] == [(0, steps, "std++"), (1, steps, "std++")]


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_adding_seeds_does_not_change_the_ratio(request_of: Callable[..., Request], seeds: list[int]) -> None:
    """Another number of steps would be another arm; the first seed decides."""
    first, second = plan(request_of("r3f", "std++", seeds=seeds))
    costs = {("std", 0): 1.0, ("std", 1): 3.0, ("r3f", 0): 2.0, ("r3f", 1): 4.0}
    specs = second([record(spec, costs[spec.method, spec.seed]) for spec in runs(first([]))])
    assert {spec.steps for spec in specs} == {40}


def test_an_arm_is_named_exactly_or_as_the_only_one_of_its_method(request_of: Callable[..., Request]) -> None:
    """Numbers are numbers, however they are written."""
    plan(request_of("r3f:eps=0.001", "std++:compute=r3f"))
    plan(request_of("r3f", "r3f:eps=0.001", "std++:compute=r3f"))
    with pytest.raises(UsageError, match=r"could be any of r3f:eps=0\.001, r3f:eps=0\.01"):
        plan(request_of("r3f:eps=1e-3", "r3f:eps=0.01", "std++:compute=r3f"))
    plan(request_of("r3f:eps=1e-3", "r3f:eps=0.01", "std++:compute=r3f:eps=0.001"))


def test_std_plus_plus_takes_one_number_of_steps(request_of: Callable[..., Request]) -> None:
    with pytest.raises(UsageError, match="a single value to --steps"):
        plan(request_of("r3f", "std++", axes={"steps": [10, 20]}))


def test_the_ratio_is_of_the_same_settings(request_of: Callable[..., Request]) -> None:
    first, second = plan(request_of("r3f", "std++", axes={"batch_size": [8, 16]}))
    costs = {("std", 8): 1.0, ("r3f", 8): 2.0, ("std", 16): 1.0, ("r3f", 16): 3.0}
    specs = second([record(spec, costs[spec.method, spec.batch_size]) for spec in runs(first([]))])
    assert {spec.batch_size: spec.steps for spec in specs} == {8: 40, 16: 60}


def test_a_factor_needs_no_partner(request_of: Callable[..., Request]) -> None:
    specs = matched(request_of("std++:compute=1.75", baseline=False, seeds=[0, 1]), {})
    assert [(s.seed, s.steps, s.method) for s in specs] == [
        (0, 35, "std++:compute=1.75"),
        (1, 35, "std++:compute=1.75"),
    ]


def test_a_partner_that_never_finished_leaves_std_plus_plus_out(request_of: Callable[..., Request]) -> None:
    assert matched(request_of("r3f", "std++"), {"std": 1.0, "r3f": 2.0}, status="failed") == []


def test_std_plus_plus_waits_for_what_it_follows(request_of: Callable[..., Request]) -> None:
    assert len(plan(request_of("r3f", "std++"))) == 2 and len(plan(request_of("r3f"))) == 1
    assert {s.method for s in runs(first_stage(request_of("r3f", "std++")))} == {"std", "r3f"}


@pytest.mark.parametrize("methods", [["std++"], ["std++:compute=r3f"]])
def test_std_plus_plus_without_its_partner(request_of: Callable[..., Request], methods: list[str]) -> None:
    with pytest.raises(UsageError, match=r"add --method r3f to the same command, or give a factor"):
        plan(request_of(*methods))
    with pytest.raises(UsageError, match="unknown method 'smrat'"):
        plan(request_of("r3f", "std++:compute=smrat"))


def test_std_plus_plus_without_std(request_of: Callable[..., Request]) -> None:
    with pytest.raises(UsageError, match="leave out --no-baseline"):
        plan(request_of("r3f", "std++", baseline=False))


# --------------------------------------------------------------------------------------- joined


@pytest.mark.parametrize("texts", [["std"], ["r3f"], ["r3f:weight=0.5"], ["std++:compute=2"]])
def test_methods_whose_passes_can_be_joined(texts: list[str]) -> None:
    check_joined(parse_arms(texts, baseline=True), "joined")


@pytest.mark.parametrize("dropout", ["shared", "off"])
def test_methods_whose_passes_cannot_be_joined(dropout: str) -> None:
    stacks = parse_arms([f"r3f:dropout={dropout}"], baseline=True)
    with pytest.raises(UsageError, match="--passes joined: method r3f needs its passes apart; use --passes separate"):
        check_joined(stacks, "joined")
    check_joined(stacks, "separate")
