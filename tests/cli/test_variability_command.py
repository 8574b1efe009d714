"""``ftbench variability`` as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ftbench.cli.app import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ftbench(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_model: Path,
    tiny_folder: Callable[..., Path],
) -> Run:
    """``ftbench(*arguments)``: exit code, stdout and stderr; ``variability`` on the tiny model and task unless told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        command = arguments if arguments[0] in ("report", "finetune") else ("variability", *arguments)
        if command[0] != "report":
            command = (*command, "--threads", 1, "--device", "cpu", "--model", tiny_model)
            command = command if "--task" in command else (*command, "--task", tiny_folder(96, 24))
        monkeypatch.setattr(sys, "argv", ["ftbench", *map(str, command)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capfd.readouterr()

    return run


def test_tables_a_picture_and_nothing_done_twice(ftbench: Run, tmp_path: Path) -> None:
    code, out, err = ftbench("--train-size", 48, "--figure", "new/layers.png")
    assert code == 0, err
    said = " ".join(out.split())  # titles with long folders are wrapped
    assert (
        "hidden-state variability nu" in said and "companions of nu" in said and "Subsets against the full set" in said
    )
    assert "recommended" in out and "cost: the pass" in out and "[2/2]" in err
    assert (tmp_path / "new" / "layers.png").read_bytes()[:4] == b"\x89PNG"
    code, again, err = ftbench("--train-size", 48)
    assert code == 0 and again == out and err.count("done before") == 2


def test_scripts_get_json_and_csv_and_report_prints_them_again(ftbench: Run) -> None:
    code, out, err = ftbench("--json", "--quiet", "--no-probe", "--bootstrap", 20)
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert [row["layer"] for row in document["layers"]["rows"]] == [1, 2] and document["subsets"] is None
    assert document["runs"][0]["kind"] == "variability" and document["table"] is None
    rows = list(csv.DictReader(io.StringIO(ftbench("report", "--format", "csv")[1])))
    assert [row["nu"] for row in rows] == [str(row["nu"]) for row in document["layers"]["rows"]]
    assert "probe" not in rows[0]


def test_tuning_runs_and_layers_in_one_store_have_their_own_tables(ftbench: Run) -> None:
    assert ftbench("--no-probe", "--bootstrap", 20)[0] == 0
    assert ftbench("finetune", "--steps", 2, "--seeds", 0)[0] == 0
    code, out, _ = ftbench("report")
    assert code == 0 and "Validation scores" in out and "hidden-state variability nu" in out
    assert [line.split()[1] for line in out.splitlines()[3:6]] == ["majority", "accuracy", "accuracy"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "x"], "--limit 'x': expected a number of rows, or all"),
        (["--limit", "1,2"], "--limit is one number"),
        (["--pooling", "men"], "Did you mean 'mean'?"),
        (["--figure", "x.gif"], "--figure 'x.gif'"),
        (["--train-size", "999"], "train-size is 999"),
        (["--weighting", "clas"], "Did you mean 'class'?"),
        (["--dtype", "fp32"], "unknown dtype 'fp32'"),
        (["--permutations", "5"], "--permutations"),
    ],
)
def test_wrong_words_are_one_message(ftbench: Run, arguments: list[str], words: str) -> None:
    code, out, err = ftbench(*arguments)
    assert code == 2 and out == "" and words in err and "Traceback" not in err


def test_a_regression_is_offered_bins_or_logme(ftbench: Run, tmp_path: Path) -> None:
    rows = [f"the goal {'new ' * (i % 7)},{i % 7}.5" for i in range(60)]
    (tmp_path / "scores.csv").write_text("text,label\n" + "\n".join(rows))
    usual = ("--task", "scores.csv", "--kind", "regression", "--bootstrap", 20)
    code, _, err = ftbench(*usual)
    assert code == 2 and "--bins 5" in err and "--bins 0" in err
    code, out, _ = ftbench(*usual, "--bins", 3, "--no-probe")
    assert code == 0 and "made from quantiles of the numbers" in out and "bin 1" in out
    code, out, _ = ftbench(*usual, "--bins", 0)
    assert code == 0 and "companions of nu" in out and "hidden-state variability nu" not in out and "LogME" in out
