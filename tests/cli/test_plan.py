"""``ftbench plan``: what it says that the rest of a study takes, from a short sample and from runs that are done."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ftbench, refused

STUDY = """
[defaults]
task = "{task}"
model = "{model}"
seeds = "{seeds}"
steps = {steps}
batch-size = 8
max-length = 32

[axes]
method = ["r3f"]
"""
MACHINE = ("--threads", 1, "--device", "cpu", "-o", "runs")


@pytest.fixture
def plan(ftbench: Ftbench, tiny_folder: Callable[..., Path], tiny_model: Path) -> Callable[..., Any]:
    """``plan(100, "0-1", "--sample", 5)`` of a study with so many steps and these seeds."""

    def run(steps: int, seeds: str, *arguments: object, command: str = "plan") -> Any:
        text = STUDY.format(task=tiny_folder(), model=tiny_model, seeds=seeds, steps=steps)
        Path("study.toml").write_text(text)
        return ftbench(command, "study.toml", *MACHINE, *arguments)

    return run


def estimate_of(said: Any) -> dict[str, Any]:
    (stage,) = said.json()["stages"]
    found: dict[str, Any] = stage["estimate"]
    return found


def test_a_sample_is_timed_and_nothing_is_run(plan: Callable[..., Any]) -> None:
    none = estimate_of(plan(500, "0-1", "--sample", 0, "--json"))
    assert (none["hours"], none["measured"], none["guessed"]) == (None, 0, 3), "reference rows, std and r3f"
    said = plan(500, "0-1", "--sample", 60)
    assert said.code == 0
    assert re.search(r"5 runs: 0 done, 5 to do. About \d+ minutes with 1 at a time, \d+ [kM]B on disk", said.out)
    assert all(f"timing tiny-48-24-2 {method}" in said.err for method in ("std", "r3f"))
    assert not list(Path("runs").rglob("result.json")) and not list(Path("runs").rglob("spec.json"))
    short = estimate_of(plan(500, "0-1", "--sample", 60, "--json"))
    long = estimate_of(plan(50_000, "0-1", "--sample", 60, "--json"))
    assert short["measured"] == 3 and short["guessed"] == 0
    assert 500 * 4 * 1e-4 < short["hours"] * 3600 < 500 * 4, "a step of the tiny model is no second"
    assert long["hours"] > 10 * short["hours"], "a hundred times the steps"
    assert short["bytes"] == none["bytes"] > 0


def test_what_is_done_is_the_measure(plan: Callable[..., Any]) -> None:
    assert plan(4, "0", "--quiet", command="run").code == 0
    said = plan(4, "0")
    assert "3 runs: 3 done, 0 to do." in said.out and "timing" not in said.err
    more = plan(4, "0-2", "--sample", 0, "--json")
    found = estimate_of(more)
    assert (found["measured"], found["guessed"]) == (2, 0) and found["hours"] > 0
    states = [run["state"] for run in more.json()["stages"][0]["runs"]]
    assert sorted(states) == ["done"] * 3 + ["to do"] * 4
    assert 0 < found["bytes"] < 4 * 50_000


def test_names_that_are_near(plan: Callable[..., Any], ftbench: Ftbench) -> None:
    assert plan(5, "0", "--print-commands").code == 0
    refused(ftbench("plan", "study.tml"), "unknown study 'study.tml'. Did you mean 'study.toml'?")
    refused(ftbench("plan", "studdy.toml"), "cannot read the study 'studdy.toml'", "Did you mean 'study.toml'?")
    refused(ftbench("status", "rums"), "'rums' is no folder", "Did you mean 'runs'?")
    Path("all").mkdir()
    Path("runs").rename("all/mine")
    refused(ftbench("status", "all"), "'all' has no study", "Below it: all/mine")


def test_commands_are_no_json(plan: Callable[..., Any]) -> None:
    refused(plan(5, "0", "--print-commands", "--json"), "--print-commands and --json")
