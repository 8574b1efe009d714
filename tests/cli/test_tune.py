"""``--tune``, ``--layers`` and what is saved, as a user meets them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ftbench.cli.app import main


@pytest.fixture
def ftbench(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """``ftbench("finetune", ...)`` in this process, in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ftbench", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def finetune(ftbench: Callable[..., Any], tiny_model: Path, tiny_folder: Callable[..., Path]) -> Callable[..., Any]:
    """Three steps on the tiny model and task."""
    usual = ("--threads", 1, "--device", "cpu", "--steps", 3, "--seeds", 0, "--no-references")

    def run(*arguments: object, model: Path = tiny_model) -> tuple[int, str, str]:
        answer: tuple[int, str, str] = ftbench(
            "finetune", "--task", tiny_folder(), "--model", model, *usual, *arguments
        )
        return answer

    return run


@pytest.mark.parametrize("way", ["lora:rank=2", "adapter:width=4"])
def test_a_tuned_model_is_kept_and_predicts_what_it_was_scored_with(
    way: str, finetune: Callable[..., Any], ftbench: Callable[..., Any], tiny_folder: Callable[..., Path]
) -> None:
    code, out, err = finetune("--tune", way, "--layers", "2:2:2", "--save-model", "all", "--json")
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    assert run["method"] == way
    spec = json.loads(Path(run["folder"], "spec.json").read_text())
    assert spec["layers"] == "2:2:2" and spec["frozen_dropout"] is False
    cost = json.loads(Path(run["folder"], "cost.json").read_text())
    added = 2 * 2 * (32 + 32) if "lora" in way else 2 * (2 * 32 * 4 + 32 + 4) + 2 * 2 * 32
    assert cost["trained_parameters"] == added + (32 * 32 + 32) + (2 * 32 + 2)
    code, _, err = ftbench(
        "predict", run["folder"], tiny_folder() / "validation.csv", "-o", "out.csv", "--device", "cpu"
    )
    assert code == 0, err
    stored = pd.read_parquet(Path(run["folder"], "predictions.parquet"))
    chances = pd.read_csv("out.csv").filter(like="probability_").to_numpy()
    assert abs(chances - pd.DataFrame(stored["probabilities"].tolist()).to_numpy()).max() < 1e-5
    assert finetune("--method", way, "--layers", "top:1", "--no-baseline")[2].count("done before") == 1


def test_layers_and_ways_to_tune_are_arms_and_axes(finetune: Callable[..., Any]) -> None:
    code, out, err = finetune(
        "--tune", "full", "--tune", "bitfit", "--layers", "1:1:1,all", "--method", "r3f", "--json"
    )
    assert code == 0, err
    shown = json.loads(out)
    assert [run["method"] for run in shown["runs"]] == ["std", "r3f", "bitfit", "bitfit+r3f"] * 2
    assert {row["layers"] for row in shown["table"]["rows"]} == {"1:1:1", "all"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--layers", "7:9:9"), ("layers '7:9:9': model", "has 2 blocks; expected numbers from 1 to 2")),
        (("--layers", "1:2:1"), ("layers 1:2:1: the head is below the top",)),
        (("--layers", "top:3"), ("has 2 blocks; expected top:1 to top:2",)),
        (("--layers", "upper"), ("layers 'upper': expected all, top:COUNT or BOTTOM:TOP:HEAD",)),
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
def test_wrong_input(arguments: tuple[str, ...], named: tuple[str, ...], finetune: Callable[..., Any]) -> None:
    code, out, err = finetune(*arguments)
    assert code == 2 and out == "" and "Traceback" not in err
    assert not [text for text in named if text not in err], err


def test_the_cache_is_no_part_of_the_id(finetune: Callable[..., Any]) -> None:
    layers = ("--layers", "top:1")
    found = [json.loads(finetune(*layers, "--prefix-cache", use, "--json")[1]) for use in ("on", "off", "auto")]
    assert len({run["id"] for shown in found for run in shown["runs"]}) == 1
    assert list(Path(os.environ["FTBENCH_HOME"]).glob("prefix-*.npy"))


@pytest.mark.parametrize("way", ["adapter", "lora"])
def test_a_family_that_is_not_known_is_named_before_anything_runs(
    way: str, finetune: Callable[..., Any], tiny_family: Callable[[str], Path]
) -> None:
    code, _, err = finetune("--tune", way, model=tiny_family("megatron-bert"))
    assert code == 2 and "megatron-bert" in err and "Traceback" not in err
    assert not Path("runs").exists()
