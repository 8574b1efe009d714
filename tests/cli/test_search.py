"""``--method all``, ``--search`` and ``--budget`` as a user meets them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ftbench.cli.app import main

Ftbench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ftbench(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ftbench:
    """``ftbench("report", "runs")`` in this process: code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ftbench", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def finetune(ftbench: Ftbench, tiny_model: Path, tiny_folder: Callable[..., Path]) -> Ftbench:
    """``ftbench finetune`` on the tiny model and task: two steps of one seed, unless told otherwise."""

    def run(*arguments: object) -> tuple[int, str, str]:
        usual: list[object] = ["--threads", 1, "--device", "cpu", "--max-length", 16, "--task", tiny_folder()]
        for flag, value in (("--model", tiny_model), ("--steps", 2), ("--seeds", 0)):
            if flag not in map(str, arguments):
                usual += [flag, value]
        return ftbench("finetune", *usual, *arguments)

    return run


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "unknown field": (("--method", "r3f", "--search", "wieght=1,2"), "Did you mean 'weight'?"),
    "no values": (("--search", "weight"), "expected a field and its values"),
    "budget 0": (("--search", "lr", "--budget", 0), "--budget is 0: expected at least 2"),
    "a budget in words": (("--search", "lr", "--budget", "many"), "--budget"),
    "one configuration": (("--search", "lr=1e-4"), "--budget is 1"),
    "a value of another type": (("--method", "r3f", "--search", "weight=1,much"), "expected a number"),
    "a budget without a search": (("--budget", 4), "--budget is for a search"),
    "std++ by its partner": (("--method", "r3f", "--method", "std++", "--search", "lr"), "give a factor"),
    "seeds of trials": (("--seeds", 2**31), "seeds from 2147483648 on are kept for searches"),
    "a block that is not there": (("--method", "freeze:layers=3"), "freeze:layers=3: expected at most 2"),
    "one of the values": (
        ("--method", "freeze", "--search", "freeze:layers=1,3", "--search", "lr", "--budget", 3),
        "freeze:layers=3: expected at most 2",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_message_before_anything_runs(finetune: Ftbench, tmp_path: Path, case: str) -> None:
    arguments, named = WRONG[case]
    code, out, err = finetune(*arguments)
    assert (code, out) == (2, "") and named in err and "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_all_says_first_what_it_leaves_out(
    finetune: Ftbench, tiny_family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On ALBERT, whose blocks are one; nothing else is run here but the plan of it."""
    from ftbench.errors import Interrupted
    from ftbench.runs.grid import Grid

    planned = []

    def look(self: Grid, stages: object) -> None:
        planned.extend(stages[0]([]))  # type: ignore[index]
        raise Interrupted("looked")

    monkeypatch.setattr(Grid, "run", look)
    code, _, err = finetune("--method", "all", "--model", tiny_family("albert"), "--no-references")
    assert code == 130
    assert "left out freeze: freeze:layers=2: expected at most 1" in err and "left out reinit: " in err
    arms = {spec.method for spec in planned}
    assert "freeze" not in arms and "reinit" not in arms and {"std", "r3f", "l2sp", "early-stop"} <= arms


def test_a_search_is_printed_kept_and_reported(finetune: Ftbench, ftbench: Ftbench) -> None:
    asked = ("--method", "rdrop", "--search", "weight=0.5,2", "--budget", 2, "--no-references", "-o", "runs")
    code, out, err = finetune(*asked)
    assert code == 0, err
    assert "on the slice" in err and "Tried, and scored on 10 rows (20% of train)" in out and "chosen" in out
    code, again, err = finetune(*asked)
    assert code == 0 and err.count("done before") == 6 and again == out
    assert ftbench("report", "runs")[1].startswith(out.rstrip("\n"))
    said = json.loads(finetune(*asked, "--json")[1])
    assert [len(search["trials"]) for search in said["searches"]] == [2, 2]
    assert sum(run["trial"] for run in said["runs"]) == 4 and len(said["table"]["rows"]) == 2
    assert next(row for row in said["table"]["rows"] if row["method"] != "std")["vs_std_n"] == 1
