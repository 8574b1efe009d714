"""``--tune`` and ``--layers``: which runs they ask for, and that another way to say it is the same run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import UsageError
from ftbench.methods import METHODS, method_class
from ftbench.models.locate import Checkpoint
from ftbench.runs.able import settle
from ftbench.runs.stages import Request, parse_arms, plan
from ftbench.types import Data, RunSpec
from ftbench.types.run import TUNING


@pytest.fixture
def specs_of(tiny_data: Callable[..., Data]) -> Callable[..., list[RunSpec]]:
    """The fine-tuning runs of a model of six blocks."""

    def make(*methods: str, tune: Any = (), baseline: bool = True, **changed: Any) -> list[RunSpec]:
        request = Request(
            data=[tiny_data()],
            models=[Checkpoint("six", Path("six"), "w1", blocks=6)],
            seeds=[0],
            arms=parse_arms(methods, baseline=baseline, tune=tune),
            **{"fixed": {"steps": 20}, **changed},
        )
        return [spec for spec in plan(request)[0]([]) if spec.kind == "finetune"]

    return make


def arms(*texts: str, tune: Any = (), baseline: bool = True) -> list[str]:
    return ["+".join(m.label for m in stack) or "std" for stack in parse_arms(texts, baseline=baseline, tune=tune)]


def test_what_is_tuned_comes_before_every_arm() -> None:
    assert arms(tune=["lora"]) == ["lora"]
    assert arms("r3f", tune=["lora:rank=4"]) == ["lora:rank=4", "lora:rank=4+r3f"]
    assert arms("r3f", "llrd+r4f", tune=["adapter"], baseline=False) == ["adapter+r3f", "adapter+llrd+r4f"]
    assert arms("r3f", tune=["full", "bitfit"]) == ["std", "r3f", "bitfit", "bitfit+r3f"]
    assert arms("r3f", tune=["full"]) == arms("r3f")


@pytest.mark.parametrize("way", ["lora", "lora:rank=16,alpha=32", "adapter:width=64", "bitfit"])
def test_tuning_and_the_method_of_that_name_are_one_run(way: str, specs_of: Callable[..., list[RunSpec]]) -> None:
    tuned = specs_of("r3f", tune=[way])
    named = specs_of(way, f"{way}+r3f", baseline=False)
    assert [spec.id for spec in tuned] == [spec.id for spec in named] and len(tuned) == 2


def test_all_leaves_out_what_does_not_stack() -> None:
    under = arms("all", tune=["lora"])
    assert under[0] == "lora" and all(name.startswith("lora") for name in under)
    assert len(under) == len(METHODS) - 1 - len(TUNING)
    left = settle(["all"], baseline=True, axes={}, tune=["full", "lora"])
    assert "lora+r3f" in ["+".join(m.label for m in stack) for stack in left.optional]
    assert [stack for stack in left.stacks if stack not in left.optional] == parse_arms(
        [], baseline=True, tune=["full", "lora"]
    )


@pytest.mark.parametrize(
    ("tune", "methods", "message"),
    [
        (["lorra"], [], "unknown way to tune 'lorra'. Did you mean 'lora'"),
        (["r3f"], [], "unknown way to tune 'r3f'"),
        (["lora:rank=0"], [], "lora:rank=0: expected 1 or more"),
        (["lora"], ["bitfit"], "lora and bitfit do not stack"),
        (["lora"], ["std++"], "std.. is plain fine-tuning with more steps and does not stack"),
    ],
)
def test_what_cannot_be_tuned(tune: Any, methods: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_arms(methods, baseline=True, tune=tune)


def test_the_names_are_those_of_the_methods_that_choose() -> None:
    assert set(TUNING) == {name for name in METHODS if method_class(name).tunes}


def test_layers_are_resolved_by_the_model(specs_of: Callable[..., list[RunSpec]]) -> None:
    found = specs_of(axes={"layers": ["top:2", "2:4:4", "all"]})
    assert [spec.layers for spec in found] == ["5:6:6", "2:4:4", ""]
    plain = specs_of()
    assert found[2].id == plain[0].id == specs_of(axes={"layers": ["1:6:6"]})[0].id
    assert len({spec.id for spec in found}) == 3
    assert len(specs_of(axes={"layers": ["top:6", "all", "1:6:6"]})) == 1
    with pytest.raises(UsageError, match="layers '7:9:9': model 'six' has 6 blocks"):
        specs_of(axes={"layers": ["7:9:9"]})


def test_dropout_in_frozen_layers_is_another_run_where_layers_are_frozen(
    specs_of: Callable[..., list[RunSpec]],
) -> None:
    on = specs_of(axes={"layers": ["top:2", "all"]}, fixed={"steps": 20, "frozen_dropout": True})
    off = specs_of(axes={"layers": ["top:2", "all"]})
    assert [spec.frozen_dropout for spec in on] == [True, False]
    assert on[0].id != off[0].id and on[1].id == off[1].id
