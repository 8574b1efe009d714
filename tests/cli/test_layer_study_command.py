"""``ftbench variability --study`` as a user meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ftbench, Said, refused


@pytest.fixture
def study(ftbench: Ftbench, tiny_model: Path, tiny_folder: Callable[..., Path]) -> Ftbench:
    """A study of three steps on the tiny model (two blocks) and task."""

    def run(*arguments: object) -> Said:
        usual = ("--threads", 1, "--device", "cpu", "--data-seeds", 0)
        return ftbench("variability", "--task", tiny_folder(), "--model", tiny_model, *usual, *arguments)

    return run


STUDY = ("--study", "--budgets", 1, "--tune", "bitfit", "--seeds", "0,1", "--steps", 2, "--train-size", 32)


def test_a_study_is_done_once_printed_and_drawn(study: Ftbench, ftbench: Ftbench) -> None:
    said = study(*STUDY, "--figure", "study.png")
    assert said.code == 0, said.err
    for text in (
        "Where layers are tuned",
        "best place",
        "l*-down",
        "Claim 8:",
        "Claim 11:",
        "hidden-state",
    ):
        assert text in said.out, said.out
    assert Path("study.png").stat().st_size > 10_000
    again = study(*STUDY, "--json")
    shown = again.json()
    assert again.err.count("done before") == len(shown["runs"])
    assert {row["arm"] for row in shown["tuned"]["rows"]} >= {"l*-down", "top", "best place", "all"}
    assert {run["method"] for run in shown["runs"] if run["kind"] == "finetune"} == {"bitfit"}
    table = study(*STUDY, "--format", "csv")
    assert table.out.startswith("task,method,count,arm,")
    report = ftbench("report", "runs", "--claim", "8")
    assert report.code == 0 and "Claim 8: Layers chosen by hidden-state variability" in report.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--budgets", 1), ("--budgets is for tuning: add --study",)),
        (("--steps", 3), ("--steps is for tuning: add --study",)),
        (("--no-oracle",), ("--oracle is for tuning: add --study",)),
        (("--study", "--pooling", "cls"), ("--pooling: a study measures as `ftbench variability` does without flags",)),
        (("--study", "--bootstrap", 50), ("--bootstrap: a study measures",)),
        (("--study", "--lr", "1e-4,1e-3"), ("--lr: a study has one recipe, so it takes a single value",)),
        (("--study", "--budgets", 2), ("--budgets 2: model", "has 2 blocks; expected 1 to 1, fewer than all")),
        (("--study", "--budgets", "x"), ("--budgets",)),
        (("--study", "--tune", "lorra"), ("unknown way to tune 'lorra'. Did you mean 'lora'",)),
        (("--study", "--figure", "a.xyz"), ("a.xyz",)),
    ],
)
def test_wrong_input(arguments: tuple[object, ...], named: tuple[str, ...], study: Ftbench) -> None:
    refused(study(*arguments), *named)
    assert not Path("runs").exists()
