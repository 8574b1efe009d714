"""The command line as a user meets it: wrong input, outputs for scripts, help."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from ftbench.cli.app import app
from ftbench.methods import ALIASES
from tests.cli.conftest import Ftbench, Said, refused


@pytest.fixture
def finetune(ftbench: Ftbench, tiny_model: Path, tiny_folder: Callable[..., Path]) -> Ftbench:
    """``ftbench finetune`` on the tiny model and task, unless told otherwise."""

    def run(*arguments: object) -> Said:
        given = set(map(str, arguments))
        usual: list[object] = ["--threads", 1, "--device", "cpu"]
        if not given & {"--task", "-t"}:
            usual += ["--task", tiny_folder()]
        if not given & {"--model", "-m"}:
            usual += ["--model", tiny_model]
        if not given & {"--steps", "--epochs"}:
            usual += ["--steps", 3]
        return ftbench("finetune", *usual, *arguments)

    return run


# ---------------------------------------------------------------------------------- wrong input


#: arguments of finetune -> what the message must name
WRONG: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "unknown method": (("--method", "r3ff"), ("unknown method 'r3ff'", "Did you mean 'r3f'?", "Known: ", "std++")),
    "unknown method in a stack": (("--method", "r3f+smrt"), ("unknown method 'smrt'",)),
    "empty method": (("--method", ""), ("name:field=value",)),
    "a method twice": (("--method", "r3f+r3f"), ("'r3f' is given twice",)),
    "unknown task": (("--task", "news-topc"), ("unknown task 'news-topc'", "Did you mean 'news-topic'?")),
    "unknown model": (("--model", "minilmm"), ("model 'minilmm'", "Did you mean 'minilm'?", "Give a local folder")),
    "no such model folder": (("--model", "./nowhere"), ("model folder './nowhere' does not exist",)),
    "unknown field": (("--method", "r3f:wieght=1"), ("r3f has no field 'wieght'", "Did you mean 'weight'?", "eps")),
    "field without a value": (("--method", "r3f:eps"), ("'eps' is not of the form field=value",)),
    "unknown choice": (("--method", "r3f:noise=gaus"), ("r3f:noise=gaus", "expected uniform or normal")),
    "negative eps": (("--method", "r3f:eps=-1"), ("r3f:eps=-1: expected 0 or more",)),
    "eps in words": (("--method", "r3f:eps=small"), ("r3f:eps=small: expected a number",)),
    "eps that is no number": (("--method", "r3f:eps=nan"), ("r3f:eps=nan",)),
    "std++ alone": (("--method", "std++"), ("add --method r3f", "std++:compute=1.8")),
    "a small factor": (("--method", "std++:compute=0.5"), ("std++:compute=0.5", "a factor from 1 to 100")),
    "unknown precision": (("--precision", "bf17"), ("unknown precision 'bf17'", "Did you mean 'bf16'?", "fp32")),
    "unknown batching": (("--batching", "buckets"), ("unknown batching 'buckets'", "Did you mean 'bucket'?")),
    "unknown passes": (("--passes", "join"), ("unknown passes 'join'", "Did you mean 'joined'?")),
    "passes that cannot be joined": (
        ("--method", "r3f:dropout=off", "--passes", "joined"), ("--passes joined", "method r3f", "--passes separate"),
    ),
    "unknown save-model": (("--save-model", "bst"), ("--save-model 'bst'", "Did you mean 'best'?")),
    "unknown kind": (("--kind", "regresion"), ("unknown kind 'regresion'", "Did you mean 'regression'?")),
    "label of a declared task": (("--task", "news-topic", "--label", "topic"), ("--label is for your own tables",)),
    "kind of a declared task": (("--task", "news-topic", "--kind", "regression"), ("--kind is for your own tables",)),
    "encoding of a declared task": (("--task", "news-topic", "--encoding", "cp1252"), ("--encoding is for your own",)),
    "unknown device": (("--device", "gpu"), ("device 'gpu' cannot be used", "Expected auto, cpu, cuda")),
    "unknown option": (("--epoch", "3"), ("--epoch", "--epochs")),
    "seeds backwards": (("--seeds", "3-1"), ("--seeds '3-1'", "runs backwards", "Did you mean 1-3?")),
    "seeds in words": (("--seeds", "a"), ("--seeds 'a'", "such as 0-4 or 0,2,5")),
    "no seeds": (("--seeds", ""), ("--seeds ''", "such as 0-4 or 0,2,5")),
    "a negative seed": (("--seeds", "-1"), ("--seeds '-1'",)),
    "half a range": (("--seeds", "1-"), ("--seeds '1-'",)),
    "too many seeds": (("--seeds", "0-99999999"), ("more than 10000 seeds",)),
    "a huge seed": (("--seeds", "99999999999"), ("seed is 99999999999", "to 4294967295")),
    "data seeds in words": (("--data-seeds", "x"), ("--data-seeds 'x'",)),
    "zero epochs": (("--epochs", "0"), ("epochs is 0: expected above 0",)),
    "epochs in words": (("--epochs", "three"), ("--epochs 'three'", "a number above 0")),
    "endless epochs": (("--epochs", "inf"), ("epochs is inf",)),
    "epochs and steps": (("--epochs", "1", "--steps", "5"), ("--epochs or --steps, not both",)),
    "zero steps": (("--steps", "0"), ("steps is 0",)),
    "half a step": (("--steps", "1.5"), ("--steps '1.5'", "a whole number above 0")),
    "no learning rate": (("--lr", "0"), ("lr is 0.0: expected above 0",)),
    "an empty learning rate": (("--lr", ""), ("--lr ''", "5e-5")),
    "a comma too many": (("--lr", "1e-5,"), ("--lr ''",)),
    "zero batch": (("--batch-size", "0", "--epochs", "1"), ("batch-size is 0: expected at least 1",)),
    "zero micro-batch": (("--micro-batch", "0"), ("micro-batch is 0", "1 to the batch size")),
    "a micro-batch too large": (("--micro-batch", "99"), ("micro-batch is 99", "1 to the batch size")),
    "too much label noise": (("--label-noise", "1.5"), ("label-noise is 1.5: expected from 0 to below 1",)),
    "negative label noise": (("--label-noise", "-0.1"), ("label-noise is -0.1",)),
    "label noise in per cent": (("--label-noise", "20%"), ("--label-noise '20%'", "such as 0.2")),
    "more rows than there are": (("--train-size", "49"), ("train-size is 49", "has 48 train rows")),
    "no rows": (("--train-size", "0"), ("train-size is 0: expected at least 1",)),
    "train size in words": (("--train-size", "most"), ("--train-size 'most'", "a number of rows, or all")),
    "select on test": (("--select-on", "test"), ("--select-on 'test'", "train:0.1")),
    "select on everything": (("--select-on", "train:1"), ("--select-on 'train:1'",)),
    "zero limit": (("--limit", "0"), ("limit is 0",)),
    "short texts": (("--max-length", "1"), ("max-length is 1: expected at least 4 tokens",)),
    "warm-up that never ends": (("--warmup", "1"), ("warmup is 1.0",)),
    "negative clip": (("--clip", "-1"), ("clip is -1.0",)),
    "no evaluation": (("--evaluations", "0"), ("evaluations is 0",)),
    "zero threads": (("--threads", "0"), ("--threads",)),
    "negative checkpoints": (("--checkpoint-every", "-1"), ("--checkpoint-every",)),
    "text of a declared task": (("--task", "news-topic", "--text", "a"), ("--text is for your own tables",)),
    "no such file": (("--task", "nowhere.csv", "--text", "a"), ("nowhere.csv",)),
    "no such column": (("--text", "txt"), ("txt", "text")),
    "no such label": (("--label", "lable"), ("lable", "label")),
    "noise in a regression": (("--kind", "regression", "--label-noise", "0.1"), ("tiny",)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_clear_message(finetune: Ftbench, tmp_path: Path, case: str) -> None:
    arguments, named = WRONG[case]
    said = finetune(*arguments)
    refused(said, *named)
    assert not list((tmp_path / "runs").rglob("result.json")) if (tmp_path / "runs").exists() else True


def test_a_task_with_one_class(finetune: Ftbench, tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    table.write_text("text,label\n" + "".join(f"text number {i},good\n" for i in range(20)))
    refused(finetune("--task", table), "one.csv", "class")


@pytest.mark.parametrize(("content", "named"), [
    ("", ("a.csv",)), ("text,label\n", ("a.csv",)), ("text;label\na;b\n", ("a.csv",)), ("\0\1\2", ("a.csv",)),
    ("text,label\n,x\n,y\n", ("a.csv",)),
])  # fmt: skip
def test_tables_that_are_none(finetune: Ftbench, tmp_path: Path, content: str, named: tuple[str, ...]) -> None:
    (tmp_path / "a.csv").write_text(content)
    refused(finetune("--task", tmp_path / "a.csv", "--text", "text"), *named)


@pytest.mark.parametrize("lost", ["config.json", "tokenizer", "weights", "pickled", "rubbish", "broken config"])
def test_model_folders_that_are_none(finetune: Ftbench, tiny_model: Path, tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "my-model"
    shutil.copytree(tiny_model, folder)
    weights = folder / "model.safetensors"
    if lost == "config.json":
        (folder / "config.json").unlink()
    elif lost == "tokenizer":
        for path in folder.glob("*token*"):
            path.unlink()
    elif lost == "weights":
        weights.unlink()
    elif lost == "pickled":
        weights.rename(folder / "pytorch_model.bin")
    elif lost == "rubbish":
        weights.write_bytes(b"\0" * 100)
    else:
        (folder / "config.json").write_text("{")
    named = {
        "config.json": "no config.json", "tokenizer": "no tokenizer", "weights": "no model.safetensors",
        "pickled": "pickled weights only", "rubbish": "cannot be loaded", "broken config": "is not JSON",
    }[lost]  # fmt: skip
    refused(finetune("--model", folder), "my-model", named)


def test_an_output_folder_that_cannot_be(finetune: Ftbench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "runs"):
        refused(finetune("-o", folder), f"cannot make the output folder {folder}", "Not a directory", code=1)
    assert (tmp_path / "file").read_text() == ""


def test_an_unknown_log_level(ftbench: Ftbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTBENCH_LOG_LEVEL", "loud")
    refused(ftbench("list", "methods"), "FTBENCH_LOG_LEVEL is 'LOUD'", "DEBUG, INFO, WARNING or ERROR")


@pytest.mark.parametrize("arguments", [("--nothing",), ("finetun",), ("list", "metods"), ("report", "--format")])
def test_unknown_commands_and_options(ftbench: Ftbench, arguments: tuple[str, ...]) -> None:
    refused(ftbench(*arguments), arguments[-1])


def test_a_whole_card(ftbench: Ftbench) -> None:
    """Equation, paper, defaults and their origin, cost, where code differs; then the fields, for an alias too."""
    said = ftbench("list", "methods", "r3f")
    for text in (
        "lambda * [KL(p || q)",
        "ICLR 2021",
        "Defaults: eps = 1e-5",
        "Cost: two forward",
        "released code differ",
    ):
        assert text in said.out
    for line in (
        "Family: noise and adversaries",
        "Cost of a step: 2 forward, 2 backward",
        "Fields: weight=1.0, eps=1e-05",
    ):
        assert line in said.out
    alias = ftbench("list", "methods", "prior-wd")
    assert alias.out.startswith("prior-wd stands for l2sp:mode=decoupled") and "Method: l2sp" in alias.out
    listed = ftbench("list", "methods")
    assert all(word in listed.out for word in ("family", "cost", "cite", "repina-i is capcort-i"))


def test_an_unknown_method_has_no_card(ftbench: Ftbench) -> None:
    refused(ftbench("list", "methods", "r3"), "unknown method 'r3'", "Did you mean 'r3f'?")
    refused(ftbench("list", "methods", "r3f+sam"), "'r3f+sam' is a stack", "name one method, such as r3f")


def test_a_card_as_json_has_the_fields_that_were_asked_for(ftbench: Ftbench) -> None:
    (alias,) = ftbench("list", "methods", "alum", "--json").json()
    assert (alias["alias"], alias["method"]) == ("alum", "smart")
    assert (alias["fields"]["variant"], alias["fields"]["inner"]) == ("released", "kl")
    (given,) = ftbench("list", "methods", "r3f:weight=0.5", "--json").json()
    assert given["fields"]["weight"] == 0.5 and "alias" not in given
    (plain,) = ftbench("list", "methods", "std", "--json").json()
    assert plain["method"] == "std"
    listed = ftbench("list", "methods", "--json").json()
    assert {row["alias"] for row in listed if "alias" in row} == set(ALIASES)


# ------------------------------------------------------------------------------------- outputs


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal but for the order of runs: by folder in a report, by seed after a study."""
    return one["table"] == other["table"] and sorted(map(str, one["runs"])) == sorted(map(str, other["runs"]))


@pytest.fixture
def small_study(finetune: Ftbench) -> tuple[Ftbench, Said]:
    """A study of five runs, done once in this test."""
    said = finetune("--method", "r3f", "--seeds", "0,1", "-o", "runs")
    assert said.code == 0, said.both
    return finetune, said


def test_the_table_is_on_stdout_the_rest_on_stderr(small_study: tuple[Ftbench, Said], ftbench: Ftbench) -> None:
    finetune, said = small_study
    assert "std" in said.out and "r3f" in said.out and "majority" in said.out
    assert [line[:5] for line in said.err.splitlines() if line.startswith("[")] == [f"[{i}/5]" for i in range(1, 6)]
    assert "`ftbench report runs` prints this again" in said.err

    quiet = finetune("--method", "r3f", "--seeds", "0,1", "-o", "runs", "--quiet")
    assert (quiet.code, quiet.err) == (0, "") and quiet.out == said.out

    again = finetune("--method", "r3f", "--seeds", "0,1", "-o", "runs")
    assert again.err.count("done before") == 5 and again.out == said.out

    scripts = finetune("--method", "r3f", "--seeds", "0,1", "-o", "runs", "--json")
    whole = json.loads(scripts.out)
    assert (
        set(whole)
        == {"table", "cost", "intervals", "written", "search", "scores", "sensitivity", "spread", "runs", "searches"}
        and len(whole["runs"]) == 5
    )
    run = next(run for run in whole["runs"] if run["method"] == "r3f")
    assert run["status"] == "ok" and 0 <= run["metrics"]["last"]["validation"]["accuracy"] <= 1
    assert Path(run["folder"], "result.json").is_file()
    assert {row["method"] for row in whole["table"]["rows"]} >= {"std", "r3f", "majority"}

    for form in ("rich", "csv", "markdown", "json"):
        report = ftbench("report", "runs", "--format", form)
        assert report.code == 0 and report.err == "" and "r3f" in report.out, form
        if form == "rich":
            assert report.out.startswith(said.out.rstrip("\n"))
        elif form == "csv":
            rows = list(csv.DictReader(io.StringIO(report.out)))
            assert {row["method"] for row in rows} >= {"std", "r3f"}
        elif form == "markdown":
            assert report.out.count("|") > 10 and "| r3f" in report.out.replace("|r3f", "| r3f")
        else:
            assert same(json.loads(report.out), whole)
    assert same(ftbench("report", "runs", "--json").json(), whole)
    assert ftbench("report").out == ftbench("report", "runs").out, "runs is the default"
    assert ftbench("report", "runs", "--selection", "best").code == 0
    refused(ftbench("report", "runs", "--format", "cvs"), "unknown format 'cvs'", "Did you mean 'csv'?")
    refused(ftbench("report", "runs", "--selection", "first"), "unknown selection 'first'", "best, last")


def test_a_truncated_result_is_named_by_report_and_done_again_by_finetune(finetune: Ftbench, ftbench: Ftbench) -> None:
    assert finetune("--no-references", "--seeds", "0,1", "-o", "runs").code == 0
    path = sorted(Path("runs").rglob("result.json"))[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    report = ftbench("report", "runs")
    assert report.code == 0 and f"skipped {path}: result.json cannot be read" in report.err and "std" in report.out
    assert finetune("--no-references", "--seeds", "0,1", "-o", "runs").code == 0
    assert path.read_bytes() == whole
    assert ftbench("report", "runs").err == ""


def test_a_failed_run_is_exit_code_one(finetune: Ftbench, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftbench.methods.r3f import R3F

    def out_of_memory(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(R3F, "penalty", out_of_memory)
    said = finetune("--method", "r3f", "--seeds", "0", "--no-references")
    assert said.code == 1 and "Traceback" not in said.both
    assert "1 failed; --retry-failed does them again" in said.err and "micro-batches of 1 row" in said.err
    assert "std" in said.out, "the table of the others is printed"
    monkeypatch.undo()


def test_underscores_are_dashes(finetune: Ftbench) -> None:
    said = finetune("--train_size=16", "--batch_size", "8", "--no_references", "--seeds", "0", "--json")
    assert said.code == 0, said.err
    spec = json.loads(next(Path("runs").rglob("spec.json")).read_text())
    assert (spec["train_size"], spec["batch_size"]) == (16, 8)


def test_a_column_with_an_underscore_is_left_alone(finetune: Ftbench, tmp_path: Path) -> None:
    rows = "".join(f"goal number {i},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "mine.csv").write_text("my_text,my_label\n" + rows)
    said = finetune("--task", "mine.csv", "--text=my_text", "--label", "my_label", "--seeds", "0", "--no-references")
    assert said.code == 0, said.err


def test_pairs_by_a_comma_or_by_two_flags(finetune: Ftbench, tmp_path: Path) -> None:
    rows = "".join(f"goal {i},bank {i},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "pairs.csv").write_text("one,two,label\n" + rows)
    for texts in (("--text", "one,two"), ("--text", "one", "--text", "two")):
        said = finetune("--task", "pairs.csv", *texts, "--seeds", "0", "--no-references")
        assert said.code == 0, said.err
    assert "done before" in said.err, "both say the same"


def test_a_report_without_runs(ftbench: Ftbench, tmp_path: Path) -> None:
    refused(ftbench("report", "nowhere"), "no folder 'nowhere'", "--output-dir")
    (tmp_path / "empty").mkdir()
    said = ftbench("report", "empty")
    assert said.code == 0 and "Traceback" not in said.both and said.both.strip()


# -------------------------------------------------------------------------------------- catalogue


@pytest.mark.parametrize(("what", "name"), [("tasks", "news-topic"), ("methods", "r3f"), ("models", "minilm")])
def test_lists(ftbench: Ftbench, what: str, name: str) -> None:
    said = ftbench("list", what)
    assert said.code == 0 and said.err == "" and name in said.out
    rows = ftbench("list", what, "--json").json()
    assert name in {row[what.removesuffix("s")] for row in rows}


def test_the_card_of_a_method(ftbench: Ftbench) -> None:
    said = ftbench("list", "methods", "r3f")
    assert said.code == 0
    for text in ("arXiv 2008.03156", "KL(p || q)", "eps", "released code differ", "weight=1.0"):
        assert text in said.out, text
    (row,) = ftbench("list", "methods", "r3f", "--json").json()
    assert row["fields"]["eps"] == 1e-5 and row["revision"] == 1


def test_doctor(ftbench: Ftbench) -> None:
    said = ftbench("doctor")
    assert said.code == 0, said.both
    for text in ("torch", "cpu", "model minilm", "task news-topic", "fingerprint", "cache", "output"):
        assert text in said.out
    rows = ftbench("doctor", "--json").json()
    assert {row["ok"] for row in rows} == {"ok"}


def test_doctor_finds_what_is_broken(ftbench: Ftbench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = ftbench("doctor", "-o", tmp_path / "file" / "runs", "--json")
    assert said.code == 1
    assert [row["check"] for row in json.loads(said.out) if row["ok"] == "FAIL"] == ["output"]


# ------------------------------------------------------------------------------------------- help


def commands() -> dict[tuple[str, ...], typer.core.TyperCommand]:
    found: dict[tuple[str, ...], typer.core.TyperCommand] = {}

    def below(command: object, path: tuple[str, ...]) -> None:
        found[path] = command  # type: ignore[assignment]
        for name, inner in getattr(command, "commands", {}).items():
            below(inner, (*path, name))

    below(typer.main.get_command(app), ())
    return found


def test_help_names_every_option_without_torch() -> None:
    """One new process for all: torch must not be loaded by any of them."""
    program = (
        "import sys, json\nfrom ftbench.cli.app import main\nout = {}\n"
        "import contextlib, io\n"
        f"for path in {sorted(commands())!r}:\n"
        "    sys.argv = ['ftbench', *path, '--help']\n"
        "    stream = io.StringIO()\n"
        "    with contextlib.redirect_stdout(stream), contextlib.suppress(SystemExit):\n        main()\n"
        "    out[' '.join(path)] = stream.getvalue()\n"
        "heavy = [m for m in ('torch', 'transformers', 'datasets', 'pandas', 'sklearn') if m in sys.modules]\n"
        "print(json.dumps([out, heavy]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    pages, heavy = json.loads(done.stdout)
    assert heavy == []
    for path, command in commands().items():
        page = pages[" ".join(path)]
        first = (command.help or "").split("\n")[0][:30]
        assert first and first in re.sub(r"\s+", " ", page.replace("`", ""))
        for parameter in command.params:
            longest = max(parameter.opts, key=len)
            shown = longest if longest.startswith("-") else (parameter.metavar or longest).upper()
            assert shown in page.upper() if not longest.startswith("-") else shown in page, f"{path}: {shown}"


def test_every_option_has_a_help_text() -> None:
    bare = [
        (path, parameter.name)
        for path, command in commands().items()
        for parameter in command.params
        if not getattr(parameter, "help", None) and parameter.name not in ("install_completion", "show_completion")
    ]
    assert bare == []


@pytest.mark.parametrize("arguments", [("--version",)])
def test_version(ftbench: Ftbench, arguments: tuple[str, ...]) -> None:
    import ftbench as package

    said = ftbench(*arguments)
    assert (said.code, said.out, said.err) == (0, f"ftbench {package.__version__}\n", "")


def test_a_closed_pipe_is_no_traceback() -> None:
    """``ftbench list methods | true``"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "ftbench", "list", "tasks"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    os.close(writer)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
