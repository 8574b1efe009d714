"""``--tune``, ``--layers`` and what is saved, as a user meets them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Ftbench, Said, refused


@pytest.fixture
def finetune(ftbench: Ftbench, tiny_model: Path, tiny_folder: Callable[..., Path]) -> Ftbench:
    """Three steps on the tiny model and task."""
    usual = ("--threads", 1, "--device", "cpu", "--steps", 3, "--seeds", 0, "--no-references")

    def run(*arguments: object, model: Path = tiny_model) -> Said:
        return ftbench("finetune", "--task", tiny_folder(), "--model", model, *usual, *arguments)

    return run


@pytest.mark.parametrize("way", ["lora:rank=2", "adapter:width=4"])
def test_a_tuned_model_is_kept_and_predicts_what_it_was_scored_with(
    way: str, finetune: Ftbench, ftbench: Ftbench, tiny_folder: Callable[..., Path]
) -> None:
    (run,) = finetune("--tune", way, "--layers", "2:2:2", "--save-model", "all", "--json").runs()
    assert run["method"] == way
    spec = json.loads(Path(run["folder"], "spec.json").read_text())
    assert spec["layers"] == "2:2:2" and spec["frozen_dropout"] is False
    cost = json.loads(Path(run["folder"], "cost.json").read_text())
    added = 2 * 2 * (32 + 32) if "lora" in way else 2 * (2 * 32 * 4 + 32 + 4) + 2 * 2 * 32
    assert cost["trained_parameters"] == added + (32 * 32 + 32) + (2 * 32 + 2)
    table = tiny_folder() / "validation.csv"
    said = ftbench("predict", run["folder"], table, "-o", "out.csv", "--device", "cpu")
    assert said.code == 0, said.err
    stored = pd.read_parquet(Path(run["folder"], "predictions.parquet"))
    chances = pd.read_csv("out.csv").filter(like="probability_").to_numpy()
    assert abs(chances - pd.DataFrame(stored["probabilities"].tolist()).to_numpy()).max() < 1e-5
    assert finetune("--method", way, "--layers", "top:1", "--no-baseline").err.count("done before") == 1


def test_layers_and_ways_to_tune_are_arms_and_axes(finetune: Ftbench) -> None:
    ways = ("--tune", "full", "--tune", "bitfit", "--layers", "1:1:1,all")
    shown = finetune(*ways, "--method", "r3f", "--json").json()
    assert [run["method"] for run in shown["runs"]] == ["std", "r3f", "bitfit", "bitfit+r3f"] * 2
    assert {row["layers"] for row in shown["table"]["rows"]} == {"1:1:1", "all"}


def test_layers_that_are_measured_first(finetune: Ftbench) -> None:
    said = finetune("--layers", "auto,top:1", "--tune", "full", "--tune", "bitfit", "--train-size", 30, "--json")
    shown = said.json()
    (measure,) = [run for run in shown["runs"] if run["kind"] == "variability"]
    found = json.loads(Path(measure["folder"], "result.json").read_text())["facts"]
    layer = found["layer"]
    expected = "all" if layer in (None, 2) else f"1:{layer}:{layer}"
    assert {row["layers"] for row in shown["table"]["rows"]} == {expected, "2:2:2"}
    assert [run["method"] for run in shown["runs"] if run["kind"] == "finetune"] == ["std", "bitfit"] * 2
    assert (
        f"layers l*-down of tiny-48-24-2, 30 rows: {expected} ({'no layer' if layer is None else 'layer'}" in said.err
    )
    again = finetune("--layers", "auto", "--train-size", 30, "--label-noise", 0.1)
    assert again.code == 0 and "done before" not in again.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--layers", "7:9:9"), ("layers '7:9:9': model", "has 2 blocks; expected numbers from 1 to 2")),
        (("--layers", "1:2:1"), ("layers 1:2:1: the head is below the top",)),
        (("--layers", "top:3"), ("has 2 blocks; expected top:1 to top:2",)),
        (("--layers", "upper"), ("layers 'upper': expected all, top:COUNT, BOTTOM:TOP:HEAD, auto",)),
        (("--tune", "lora:rank=0"), ("lora:rank=0: expected 1 or more",)),
        (("--tune", "adaptor"), ("unknown way to tune 'adaptor'", "Did you mean 'adapter'?")),
        (("--tune", "lora", "--method", "adapter"), ("lora and adapter do not stack",)),
        (("--prefix-cache", "yes"), ("unknown choice of --prefix-cache 'yes'",)),
        (("--prefix-cache", "on"), ("--prefix-cache on: expected frozen layers without dropout",)),
        (
            ("--prefix-cache", "on", "--layers", "top:1", "--frozen-dropout"),
            ("--prefix-cache on: expected frozen layers without dropout",),
        ),
        (("--frozen-dropout",), ("--frozen-dropout says what frozen layers do", "--layers top:3")),
    ],
)
def test_wrong_input(arguments: tuple[str, ...], named: tuple[str, ...], finetune: Ftbench) -> None:
    refused(finetune(*arguments), *named)


def test_the_cache_is_no_part_of_the_id(finetune: Ftbench) -> None:
    layers = ("--layers", "top:1")
    found = [finetune(*layers, "--prefix-cache", use, "--json").runs() for use in ("on", "off", "auto")]
    assert len({run["id"] for runs in found for run in runs}) == 1
    assert list(Path(os.environ["FTBENCH_HOME"]).glob("prefix-*.npy"))


@pytest.mark.parametrize("way", ["adapter", "lora"])
def test_a_family_that_is_not_known_is_named_before_anything_runs(
    way: str, finetune: Ftbench, tiny_family: Callable[[str], Path]
) -> None:
    refused(finetune("--tune", way, model=tiny_family("megatron-bert")), "megatron-bert")
    assert not Path("runs").exists()
