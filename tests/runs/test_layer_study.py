"""``ftbench variability --study``: which runs it asks for, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import UsageError
from ftbench.models.locate import Checkpoint
from ftbench.runs.layer_study import LayerStudy
from ftbench.runs.stages import Request, parse_arms
from ftbench.types import Cost, Data, Record, Result, RunSpec
from ftbench.types.layers import Layers, cost_share, places_of, random_place


@pytest.fixture
def study_of(tiny_data: Callable[..., Data]) -> Callable[..., LayerStudy]:
    """``study_of(budgets, oracle, tune=("full",), **request)`` of a model of six blocks."""

    def make(
        budgets: Sequence[int] = (2,), oracle: bool = True, tune: Sequence[str] = ("full",), **changed: Any
    ) -> LayerStudy:
        data = changed.pop("data", None) or tiny_data()
        usual: dict[str, Any] = {"seeds": [0, 1], "fixed": {"steps": 20}, "references": True}
        models = [Checkpoint("six", Path("six"), "w1", blocks=6)]
        arms = parse_arms([], baseline=True, tune=tune)
        return LayerStudy(Request(data=[data], models=models, arms=arms, **{**usual, **changed}), budgets, oracle)

    return make


def run(study: LayerStudy, best: int, status: Any = "ok") -> list[list[RunSpec]]:
    """The runs of each stage, where every measure gives ``best``, which is not recommended."""
    records: list[Record] = []
    found = []
    for stage in study.stages():
        specs = stage(records)
        found.append(specs)
        facts = {"best": best, "layer": None}
        records += [Record(Path(spec.id), Result(spec=spec, status=status, facts=facts), Cost()) for spec in specs]
    return found


def layers(specs: Sequence[RunSpec]) -> set[str]:
    return {spec.layers for spec in specs}


def test_what_asks_nothing_of_nu_comes_before_what_does(study_of: Callable[..., LayerStudy]) -> None:
    first, places, chosen = run(study_of(tune=["full", "adapter"]), best=4)
    assert [spec.kind for spec in first] == ["reference", "variability"] and first[1].probe
    assert layers(places) == {"", "1:2:2", "2:3:3", "3:4:4", "4:5:5", "5:6:6"}
    assert layers(chosen) == {"3:4:4", "3:4:6", "5:6:6"}
    assert {spec.method for spec in places} == {spec.method for spec in chosen} == {"std", "adapter"}
    assert len(places) == len({spec.id for spec in places}) == 6 * 2 * 2
    assert [spec.seed for spec in places] == sorted(spec.seed for spec in places), "complete pairs, if interrupted"


def test_fewer_layers_than_asked_are_compared_with_as_many(study_of: Callable[..., LayerStudy]) -> None:
    _, _, chosen = run(study_of((3,)), best=2)
    assert layers(chosen) == {"1:2:2", "1:2:6", "5:6:6", "3:5:5", "3:5:6", "4:6:6"}
    _, _, up = run(study_of((3,)), best=5)
    assert {"6:6:6", "3:5:5", "3:5:6", "4:6:6"} == layers(up)


def test_without_an_oracle_each_seed_draws_a_place(study_of: Callable[..., LayerStudy]) -> None:
    _, places, _ = run(study_of((1,), oracle=False, seeds=range(8)), best=6)
    for spec in places:
        assert spec.layers in ("", "6:6:6", str(random_place(1, 6, spec.seed)))
    assert len(layers(places)) > 3


def test_each_draw_of_rows_has_its_own_measure(study_of: Callable[..., LayerStudy]) -> None:
    study = study_of(axes={"train_size": [20, 30]}, data_seeds=[0, 1])
    first, places, chosen = run(study, best=3)
    measures = [spec for spec in first if spec.kind == "variability"]
    assert {(m.train_size, m.data_seed) for m in measures} == {(s.train_size, s.data_seed) for s in chosen}
    assert len(measures) == 4 and {(s.train_size, s.data_seed) for s in places} == {(20, 0), (20, 1), (30, 0), (30, 1)}


def test_a_measure_that_failed_leaves_its_part_out(study_of: Callable[..., LayerStudy]) -> None:
    assert run(study_of(), best=3, status="failed")[2] == []


def test_what_cannot_be_studied(study_of: Callable[..., LayerStudy], tiny_data: Callable[..., Data]) -> None:
    with pytest.raises(UsageError, match=r"--budgets 6: model 'six' has 6 blocks; expected 1 to 5, fewer than all"):
        study_of((2, 6))
    with pytest.raises(UsageError, match="--budgets 0"):
        study_of((0,))
    with pytest.raises(UsageError, match="is a regression"):
        study_of(data=tiny_data(regression=True)).stages()


def test_the_cost_model_counts_blocks() -> None:
    # unit: a block's forward pass. Xie et al.'s strategies at 24 layers, l* = 14, as the formula has them
    whole = cost_share(Layers(1, 24, 24), 24)
    assert whole == 1
    shares = {"1:14:14": 42, "12:14:14": 20, "12:14:24": 40, "22:24:24": 30, "15:24:24": 44}
    for text, units in shares.items():
        assert cost_share(Layers.parse(text), 24) == pytest.approx(units / 72)
    assert cost_share(Layers(22, 24, 24), 24, weights=False) == pytest.approx(27 / 72)
    assert [str(place) for place in places_of(5, 6)] == ["1:5:5", "2:6:6"]
