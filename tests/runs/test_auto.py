"""``--layers auto``: what is measured for which runs, and that the runs have the layers that were found in their id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import UsageError
from ftbench.models.locate import Checkpoint
from ftbench.runs import auto
from ftbench.runs.stages import Request, parse_arms, plan
from ftbench.runs.study import plan_study
from ftbench.types import Cost, Data, Record, Result, RunSpec
from ftbench.types.layers import LayerRule

DOWN = LayerRule("down")


@pytest.fixture
def request_of(tiny_data: Callable[..., Data]) -> Callable[..., Request]:
    """``request_of("auto:2", "all", methods=("r3f",), **fields)`` of a model of six blocks."""

    def make(*layers: str, methods: Sequence[str] = (), data: Data | None = None, **changed: Any) -> Request:
        axes = {"layers": list(layers), **changed.pop("axes", {})}
        usual: dict[str, Any] = {"seeds": [0, 1], "fixed": {"steps": 20}, "references": False}
        models = [Checkpoint("six", Path("six"), "w1", blocks=6)]
        arms = parse_arms(methods, baseline=True)
        return Request(data=[data or tiny_data()], models=models, arms=arms, axes=axes, **{**usual, **changed})

    return make


def measured(spec: RunSpec, best: int | None, *, status: str = "ok") -> Record:
    """A finished measure that recommends a layer, or none."""
    facts = {"layers": 6, "layer": best, "best": best or 3, "rows": {"train": spec.train_size or 48}}
    facts |= {"verdict": "recommended" if best else "flat", "reason": "the curve says so"}
    return Record(Path(spec.id), Result(spec=spec, status=status, facts=facts), Cost())  # type: ignore[arg-type]


def two_stages(request: Request, best: Callable[[RunSpec], int | None]) -> tuple[list[RunSpec], list[RunSpec]]:
    """The runs that measure and those that tune."""
    first, second = auto.stages(request)
    measures = first(())
    return measures, second([measured(spec, best(spec)) for spec in measures])


def test_the_triple_that_was_found_is_in_the_id(request_of: Callable[..., Request]) -> None:
    (measure,), tuned = two_stages(request_of("auto:2", methods=["r3f"]), lambda _: 4)
    assert measure.kind == "variability" and not measure.methods and measure.steps == 0
    (explicit,) = plan(request_of("3:4:4", methods=["r3f"]))
    assert [spec.id for spec in tuned] == [spec.id for spec in explicit(())] and len(tuned) == 4


def test_each_set_of_rows_is_measured_as_the_runs_have_it(request_of: Callable[..., Request]) -> None:
    rows = {"axes": {"train_size": [20, None], "label_noise": [0.0, 0.25]}, "data_seeds": [0, 3]}
    fixed = {"steps": 20, "max_length": 16, "select_on": 0.25, "precision": "bf16", "lr": 1e-3}
    measures, tuned = two_stages(request_of("auto", "top:3", fixed=fixed, **rows), lambda spec: 2 + spec.data_seed)
    assert len(measures) == len({spec.id for spec in measures}) == 2 * 2 * 2
    assert {(m.max_length, m.select_on, m.precision, m.limit) for m in measures} == {(16, 0.25, "bf16", None)}
    assert {(m.train_size, m.label_noise, m.data_seed) for m in measures} == {
        (spec.train_size, spec.label_noise, spec.data_seed) for spec in tuned
    }
    assert {(s.data_seed, s.layers) for s in tuned} == {
        (0, "1:2:2"), (3, "1:5:5"), (0, "4:6:6"), (3, "4:6:6"),
    }  # fmt: skip
    assert [(s.data_seed, s.seed) for s in tuned] == sorted((s.data_seed, s.seed) for s in tuned)


def test_where_none_is_recommended_all_are_tuned_and_it_is_said(request_of: Callable[..., Request]) -> None:
    request = request_of("auto", "l*-up", "all")
    measures, tuned = two_stages(request, lambda _: None)
    assert [(spec.layers, spec.seed) for spec in tuned] == [("", 0), ("", 1)]
    lines = auto.answers(request, [measured(measures[0], None)])
    assert len(lines) == 2 and all("all (no layer is recommended (the curve says so), so all" in line for line in lines)
    _, tuned = two_stages(request_of("l*-up:2"), lambda _: 6)
    assert {spec.layers for spec in tuned} == {""}
    assert "none lies above it" in auto.choose_layers(measured(measures[0], 6), LayerRule("up", 2)).reason


def test_the_whole_network_is_plain_fine_tuning() -> None:
    record = measured(RunSpec(kind="variability", task="t", data="d", weights="w"), 6)
    assert auto.choose_layers(record, DOWN).text == ""
    assert auto.choose_layers(record, LayerRule("down", 2)).text == "5:6:6"
    assert auto.describe(record, LayerRule("down", 2)) == "layers l*-down:2 of t, 48 rows: 5:6:6 (the curve says so)"


def test_a_measure_that_failed_tunes_nothing_and_spares_the_others(
    request_of: Callable[..., Request], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = auto.stages(request_of("auto", "top:2"))
    (measure,) = first(())
    assert {spec.layers for spec in second([measured(measure, 3, status="failed")])} == {"5:6:6"}
    assert "they were not measured" in caplog.text


def test_more_rows_than_are_needed_are_not_measured(request_of: Callable[..., Request], monkeypatch: Any) -> None:
    monkeypatch.setattr(auto, "MOST", 30)
    assert auto.stages(request_of("auto"))[0](())[0].limit == 30
    assert auto.stages(request_of("auto", fixed={"limit": 12}))[0](())[0].limit == 12
    assert auto.stages(request_of("auto", fixed={"train_size": 20}))[0](())[0].limit is None


def test_one_measure_where_only_its_own_limit_draws(request_of: Callable[..., Request], monkeypatch: Any) -> None:
    monkeypatch.setattr(auto, "MOST", 30)
    measures, tuned = two_stages(request_of("auto", data_seeds=[0, 1, 2]), lambda spec: 2 + spec.data_seed)
    assert [(spec.limit, spec.data_seed) for spec in measures] == [(30, 0)]
    assert [(spec.layers, spec.data_seed, spec.seed) for spec in tuned] == [("1:2:2", 0, 0), ("1:2:2", 0, 1)]
    drawn, _ = two_stages(request_of("auto", data_seeds=[0, 1], fixed={"label_noise": 0.1}), lambda _: 2)
    assert [(spec.limit, spec.data_seed) for spec in drawn] == [(30, 0), (30, 1)]


def test_equal_compute_comes_after(request_of: Callable[..., Request]) -> None:
    first, second, third = auto.stages(request_of("auto:2", methods=["std++:compute=1.5", "r3f"]))
    measures = [measured(spec, 4) for spec in first(())]
    assert {spec.method for spec in second(measures)} == {"std", "r3f"}
    stretched = third(measures)
    assert {(spec.layers, spec.steps) for spec in stretched} == {("3:4:4", 30)}


def test_arms_are_rehearsed_and_references_are_scored_before(request_of: Callable[..., Request]) -> None:
    request = replace(request_of("auto", methods=["r3f"]), references=True)
    study = plan_study(request)
    assert {name for name, _ in study.first} == {"std", "r3f"}
    assert [spec.kind for spec in study.stages[0](())] == ["reference", "variability"]


def test_what_cannot_be_measured_is_named_before_anything_runs(
    request_of: Callable[..., Request], tiny_data: Callable[..., Data]
) -> None:
    with pytest.raises(UsageError, match=r"layers 'auto:2': task 'tiny' is a regression.*--bins 5.*--layers 2:4:4"):
        plan_study(request_of("auto:2", data=tiny_data(regression=True)))
    with pytest.raises(UsageError, match=r"--layers l\*-down:2 has to be measured first, and a search cannot wait"):
        plan_study(request_of("auto:2"), search=["lr=1e-4,1e-3"])
