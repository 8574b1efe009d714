"""Which runs ``ftbench variability`` asks for, and subsets against their full set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import UsageError
from ftbench.models.locate import locate
from ftbench.runs.stages import Request
from ftbench.runs.variability import compare_subsets, layer_specs
from ftbench.types import Cost, Data, Record, Result, RunSpec

FIXED = {"limit": 40, "bins": None, "pooling": "ordinary", "permutations": 20, "resamples": 20}


@pytest.fixture
def ask(tiny_data: Callable[..., Data], tiny_model: Path) -> Callable[..., list[RunSpec]]:
    """``ask(data=..., axes=..., **request)``: the specs."""

    def specs(data: Data | None = None, **request: Any) -> list[RunSpec]:
        usual: dict[str, Any] = {"seeds": [0], "arms": [()], "fixed": FIXED, "references": False}
        models = [locate(str(tiny_model))]
        return layer_specs(Request(data=[data or tiny_data()], models=models, **{**usual, **request}))

    return specs


def test_one_run_a_task_and_seed(ask: Callable[..., list[RunSpec]]) -> None:
    (spec,) = ask()
    assert spec.kind == "variability" and spec.pooling == "ordinary" and spec.limit == 40 and spec.steps == 0
    assert len({s.id for s in ask(seeds=[0, 1], data_seeds=[0, 3])}) == 4
    assert RunSpec.from_json(spec.to_json()).id == spec.id
    assert len(ask(data_seeds=[0, 3], fixed={**FIXED, "limit": None})) == 1  # nothing is drawn


def test_the_full_set_stands_beside_its_subsets(ask: Callable[..., list[RunSpec]]) -> None:
    sizes = [spec.train_size for spec in ask(axes={"train_size": [10, 20]})]
    assert sizes == [10, 20, None]
    both = ask(axes={"train_size": [10], "label_noise": [0.2]})
    assert [(s.train_size, s.label_noise) for s in both] == [(10, 0.2), (10, 0), (None, 0.2), (None, 0)]


def test_what_no_run_can_have_is_refused_before_anything_runs(
    ask: Callable[..., list[RunSpec]], tiny_data: Callable[..., Data]
) -> None:
    with pytest.raises(UsageError, match="train-size is 999"):
        ask(axes={"train_size": [999]})
    with pytest.raises(UsageError, match=r"'tiny' is a regression.*--bins 5.*--bins 0.*LogME"):
        ask(tiny_data(regression=True))
    with pytest.raises(UsageError, match="bins is 1"):
        ask(tiny_data(regression=True), fixed={**FIXED, "bins": 1})
    with pytest.raises(UsageError, match="permutations is 5: expected at least 19"):
        ask(fixed={**FIXED, "permutations": 5})
    assert ask(fixed={**FIXED, "bins": 4})[0].bins is None  # a classification has classes
    assert ask(tiny_data(regression=True), fixed={**FIXED, "bins": 4})[0].bins == 4


def record(spec: RunSpec, nu: list[float | None], best: int) -> Record:
    metrics = {f"layer {n}": {"train": {"nu": value}} for n, value in enumerate(nu, start=1)}
    facts = {"layers": len(nu), "best": best, "best_ratio": 1, "p_value": 0.2, "verdict": "floor", "rows": {"train": 9}}
    return Record(Path("x"), Result(spec=spec, status="ok", metrics=metrics, facts=facts), Cost())  # type: ignore[arg-type]


def test_subsets_are_compared_with_the_full_set_of_their_draw(ask: Callable[..., list[RunSpec]]) -> None:
    small, full = ask(axes={"train_size": [10]}, data_seeds=[2])
    rows = compare_subsets([record(small, [4, 3, None, 1], 4), record(full, [3, 1, 4, 2], 2)])  # type: ignore[list-item]
    assert len(rows) == 1 and rows[0]["train_size"] == 10 and rows[0]["drift"] == 2
    assert rows[0]["spearman"] == pytest.approx(0.8)  # ranks 3 2 4 1 against 3 1 4 2
    assert compare_subsets([record(small, [1, 2, 3, 4], 1)]) == []
    other = record(replace(full, data_seed=3), [1, 2, 3, 4], 1)
    assert compare_subsets([record(small, [1, 2, 3, 4], 1), other]) == []


def test_a_full_set_without_a_limit_is_the_same_for_all_draws(ask: Callable[..., list[RunSpec]]) -> None:
    specs = ask(axes={"train_size": [10]}, data_seeds=[0, 1], fixed={**FIXED, "limit": None})
    assert [(s.train_size, s.data_seed) for s in specs] == [(10, 0), (None, 0), (10, 1)]
    assert len(compare_subsets([record(spec, [1, 2, 3, 4], 1) for spec in specs])) == 2


@pytest.mark.parametrize("limit", [48, 4000])
def test_a_limit_that_leaves_no_row_out_draws_nothing(
    limit: int, ask: Callable[..., list[RunSpec]], tiny_data: Callable[..., Data]
) -> None:
    fixed = {**FIXED, "limit": limit}
    (spec,) = ask(tiny_data(48), data_seeds=[0, 1, 2], fixed=fixed)
    assert spec.limit == limit and spec.data_seed == 0, "its id is what it was"
    specs = ask(tiny_data(48), axes={"train_size": [10]}, data_seeds=[0, 1, 2], fixed=fixed)
    assert [(s.train_size, s.data_seed) for s in specs] == [(10, 0), (None, 0), (10, 1), (10, 2)]
    found = [record(s, [1, 2, 3, 4], 1) for s in specs]
    for one in found:
        one.result.facts.update(rows={"train": one.result.spec.train_size or 48}, whole=not one.result.spec.train_size)
    assert [(row["train_size"], row["data_seed"]) for row in compare_subsets(found)] == [(10, 0), (10, 1), (10, 2)]
    assert len(ask(tiny_data(49), data_seeds=[0, 1, 2], fixed={**FIXED, "limit": 48})) == 3


def test_older_measures_are_compared_as_before(ask: Callable[..., list[RunSpec]]) -> None:
    """A full set of each draw, though nothing was drawn; and none that tells whether it is whole."""
    small, full = ask(axes={"train_size": [10]}, fixed={**FIXED, "limit": 4000})
    records = [record(replace(s, data_seed=draw), [1, 2, 3, 4], 1) for s in (small, full) for draw in (0, 2)]
    assert [row["data_seed"] for row in compare_subsets(records)] == [0, 2]
    cut = [record(replace(s, limit=9, train_size=None), [1, 2, 3, 4], 1) for s in (full,)]
    other = record(replace(small, limit=9, train_size=5, data_seed=2), [1, 2, 3, 4], 1)
    assert compare_subsets([*cut, other]) == [], "nine rows of another draw"
