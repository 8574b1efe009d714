"""``ftbench predict`` as a user meets it: what it writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from ftbench.tasks.files import read_table
from ftbench.types import Rows
from tests.cli.conftest import Ftbench, call, refused

RECIPE = ("--steps", "12", "--batch-size", "8", "--lr", "1e-2", "--max-length", "32", "--seeds", "0")
QUIET = ("--no-references", "--save-model", "all", "--threads", "1", "--device", "cpu", "-q")


def write(path: Path, rows: Rows, names: tuple[str, ...]) -> Path:
    """A table of the rows; class ids as names, numbers as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = [names[i] for i in rows.labels] if names else rows.labels
    columns = dict(zip(("text", "other"), rows.texts, strict=False))
    pandas.DataFrame({**columns, "label": labels}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run_of(
    tiny_data: Callable[..., Any], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path]]:
    """``run_of("classes")``: a finished run's folder, and the table that it was validated on."""
    made: dict[str, tuple[Path, Path]] = {}
    flags = {
        "classes": ({"classes": 3}, ("--text", "text")),
        "pairs": ({"pairs": True}, ("--text", "text,other")),
        "regression": ({"regression": True}, ("--text", "text", "--kind", "regression")),
    }

    def train(kind: str) -> tuple[Path, Path]:
        if kind not in made:
            changes, own = flags[kind]
            data, folder = tiny_data(48, 24, **changes), tmp_path_factory.mktemp(kind)
            write(folder / "rows" / "train.csv", data.splits["train"], data.labels)
            table = write(folder / "rows" / "validation.csv", data.splits["validation"], data.labels)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("FTBENCH_HOME", str(folder / "home"))
                task = ("--task", folder / "rows", *own, "--model", tiny_model, "-o", folder / "runs")
                assert call("finetune", *task, *RECIPE, *QUIET) == 0
            made[kind] = next((folder / "runs").rglob("result.json")).parent, table
        return made[kind]

    return train


@pytest.fixture
def predict(ftbench: Ftbench) -> Ftbench:
    """``predict(run, file, ...)`` in a folder of its own."""
    return lambda *arguments: ftbench("predict", *arguments, "--device", "cpu")


@pytest.fixture
def no_model_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model is an error: what is wrong is said before."""

    def load(*arguments: object, **options: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr("ftbench.training.predict.predict_texts", load)


# --------------------------------------------------------------------------------- what is predicted


@pytest.mark.parametrize("kind", ["classes", "pairs", "regression"])
def test_the_validation_rows_get_the_predictions_of_the_run(
    run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench, kind: str
) -> None:
    run, table = run_of(kind)
    said = predict(run, table)
    assert (said.code, said.err) == (0, ""), said
    found = pandas.read_csv(io.StringIO(said.out))
    stored = pandas.read_parquet(run / "predictions.parquet")
    given = pandas.read_csv(table)
    assert found[list(given.columns)].equals(given), "the columns of the table are kept"
    added = [name for name in found.columns if name not in given.columns]
    if kind == "regression":
        assert added == ["prediction"]
        np.testing.assert_allclose(found["prediction"], stored["prediction"], rtol=1e-5)
        return
    facts = json.loads((run / "result.json").read_text())["facts"]
    assert added == ["prediction", *(f"probability_{label}" for label in facts["labels"])]
    assert found["prediction"].tolist() == [facts["labels"][i] for i in stored["prediction"]]
    np.testing.assert_allclose(found[added[1:]].to_numpy(), np.stack(stored["probabilities"].tolist()), atol=2e-6)
    score = json.loads((run / "result.json").read_text())["metrics"]["last"]["validation"]["accuracy"]
    assert (found["prediction"] == found["label"]).mean() == pytest.approx(score)


def test_another_column_and_a_shorter_length(run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench) -> None:
    run, table = run_of("classes")
    renamed = pandas.read_csv(table).rename(columns={"text": "title"})
    renamed.to_csv("titles.csv", index=False)
    refused(predict(run, "titles.csv"), "'titles.csv' has no text column 'text'", "Columns: title, label")
    assert predict(run, "titles.csv", "--text", "title").out == predict(run, table).out.replace("text,", "title,", 1)
    short = predict(run, table, "--max-length", 4)
    assert short.code == 0 and "24 of 24 rows were cut (--max-length)" in short.err
    refused(predict(run, table, "--max-length", 3), "--max-length")


def test_another_encoding(run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench) -> None:
    run, table = run_of("classes")
    Path("new.csv").write_bytes(table.read_text().replace("text,", "t\xe9xt,", 1).encode("cp1252"))
    refused(predict(run, "new.csv", "--text", "t\xe9xt"), "--encoding cp1252")
    said = predict(run, "new.csv", "--text", "t\xe9xt", "--encoding", "cp1252")
    assert said.code == 0 and said.out.startswith("t\xe9xt,label,prediction")


def test_a_text_a_line(run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench) -> None:
    run, table = run_of("classes")
    texts = pandas.read_csv(table)["text"]
    Path("new.txt").write_text("".join(f"{text}\n" for text in texts))
    found = pandas.read_csv(io.StringIO(predict(run, "new.txt").out))
    assert found.equals(pandas.read_csv(io.StringIO(predict(run, table).out)).drop(columns="label"))
    assert predict(run, "new.txt", "-o", "labels.txt").code == 0
    assert Path("labels.txt").read_text().splitlines() == found["prediction"].tolist()
    refused(predict(run_of("pairs")[0], "new.txt"), "'new.txt' has a text a line", "text and other")


def test_one_text_for_a_model_of_pairs(run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench) -> None:
    run, table = run_of("pairs")
    swapped = predict(run, table, "--text", "other,text")
    assert swapped.code == 0 and swapped.out != predict(run, table).out
    assert swapped.out == predict(run, table, "--text", "other", "--text", "text").out


def test_the_only_run_of_a_study_needs_no_name(run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench) -> None:
    run, table = run_of("classes")
    assert predict(run.parents[1], table).out == predict(run / "model", table).out == predict(run, table).out


# ------------------------------------------------------------------------------------ what is written


TEXTS = ['said "goal", twice', "a, b; c", "'single'", "Ünïcode 😀 日本", "=1+1", "NA", "", " padded "]


def as_read(path: Path) -> tuple[list[str], list[str], np.ndarray[Any, Any]]:
    """Texts, predictions and probabilities of a file, as ftbench itself reads tables."""
    table = read_table(path)
    numbers = table[[name for name in table.columns if name.startswith("probability_")]].astype(float)
    return table["text"].tolist(), table["prediction"].tolist(), numbers.to_numpy()


@pytest.mark.parametrize("source", ["csv", "jsonl", "tsv", "parquet"])
def test_every_kind_of_file_holds_the_same(
    run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench, source: str, tmp_path: Path
) -> None:
    run, _ = run_of("classes")
    new = pandas.DataFrame({"id": [str(i) for i in range(len(TEXTS))], "text": TEXTS})
    {
        "csv": lambda path: new.to_csv(path, index=False),
        "jsonl": lambda path: new.to_json(path, orient="records", lines=True),
        "tsv": lambda path: new.to_csv(path, index=False, sep="\t", quoting=csv.QUOTE_NONE),
        "parquet": lambda path: new.to_parquet(path, index=False),
    }[source](f"new.{source}")
    printed = predict(run, f"new.{source}")
    Path("stdout.csv").write_text(printed.out)
    Path("stdout.jsonl").write_text(predict(run, f"new.{source}", "--json").out)
    for kind in ("csv", "tsv", "jsonl", "parquet"):
        said = predict(run, f"new.{source}", "-o", tmp_path / "made" / f"out.{kind}")
        assert (said.code, said.out) == (0, "") and f"wrote {tmp_path}/made/out.{kind}" in said.err, said
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "out.csv",
        "out.jsonl",
        "out.parquet",
        "out.tsv",
    ]
    _, predictions, numbers = as_read(Path("stdout.csv"))
    assert len(predictions) == len(TEXTS) and set(predictions) <= {"sport", "money", "stage"}
    for path in (Path("stdout.csv"), Path("stdout.jsonl"), *sorted((tmp_path / "made").iterdir())):
        texts, found, probabilities = as_read(path)
        assert texts == TEXTS, path.name
        assert found == predictions and np.array_equal(probabilities, numbers), path.name


def test_other_columns_are_kept_as_they_were(run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench) -> None:
    run, _ = run_of("classes")
    rows = [
        {"text": "goal", "small": 1e-13, "long": 0.1234567890123456, "whole": 2**53 + 1, "list": [1, {"a": None}]},
        {"text": "bank", "small": None, "long": 0.5, "whole": 1, "list": "mixed"},
    ]
    Path("new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [json.loads(line) for line in predict(run, "new.jsonl", "--json").out.splitlines()]
    assert [{name: row[name] for name in rows[0]} for row in found] == rows


def test_a_column_that_parquet_cannot_hold_is_said(
    run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench
) -> None:
    Path("new.jsonl").write_text('{"text": "goal", "mixed": 1}\n{"text": "bank", "mixed": "x"}\n')
    refused(predict(run_of("classes")[0], "new.jsonl", "-o", "out.parquet"), "Parquet", "mixed", ".jsonl")
    assert [path.name for path in Path().iterdir()] == ["new.jsonl"]


def test_a_file_is_replaced_and_stdout_stays_for_data(
    run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench
) -> None:
    run, table = run_of("classes")
    Path("out.csv").write_text("old")
    said = predict(run, table, "-o", "out.csv")
    assert (said.code, said.out, said.err) == (0, "", "wrote out.csv\n")
    assert Path("out.csv").read_text() == predict(run, table).out


# ---------------------------------------------------------------------------------- what is refused


def test_the_table_that_is_read_is_never_overwritten(
    run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench, no_model_needed: None
) -> None:
    run, table = run_of("classes")
    Path("new.csv").write_text(table.read_text())
    Path("link.csv").symlink_to("new.csv")
    for output in ("new.csv", "./new.csv", Path("new.csv").absolute(), "link.csv"):
        refused(predict(run, "new.csv", "-o", output), f"--output '{output}'".replace("./", ""), "give another name")
    assert Path("new.csv").read_text() == table.read_text()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("-o", "out.xlsx"), ("unknown kind of --output '.xlsx'", ".csv")),
        (("-o", "out"), ("unknown kind of --output 'out'",)),
        (("-o", "out.csw"), ("Did you mean '.csv'?",)),
        (("--text", "txt"), ("no text column 'txt'", "Did you mean 'text'?", "Columns: text, label")),
        (("--task", "rt"), ("unknown task 'rt'", "Did you mean 'rte'?")),
        (("--glue",), ("--glue: the model was not trained on a GLUE task", "--task")),
        (("--glue", "--task", "news-topic"), ("--glue", "--task")),
        (("--glue", "--task", "ag_news"), ("--glue: ", "GLUE task")),
        (("--revision", "main"), ("--revision is for models of the hub",)),
        (("--json", "-o", "out.csv"), ("--json is for stdout", ".jsonl")),
        (("--json", "--glue", "--task", "rte"), ("--json is for stdout", "--glue")),
    ],
    ids=str,
)
def test_wrong_flags(
    run_of: Callable[[str], tuple[Path, Path]],
    predict: Ftbench,
    no_model_needed: None,
    flags: tuple[str, ...],
    named: tuple[str, ...],
) -> None:
    run, table = run_of("classes")
    refused(predict(run, table, *flags), *named)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("new.csv", "", ("'new.csv' is empty",)),
        ("new.csv", "text\n", ("'new.csv' has no rows",)),
        ("new.csv", "title\ngoal\n", ("'new.csv' has no text column 'text'", "Columns: title")),
        ("new.doc", "text\ngoal\n", ("'new.doc' is of no known kind", ".csv, .tsv, .jsonl")),
        ("new.jsonl", '{"text": ["goal"]}\n', ("column 'text' holds list, not text, in row 1",)),
        ("new.jsonl", '{"text": "goal"}\n{"text": "half \\ud83d"}\n', ("'new.jsonl'", "column 'text'", "row 2")),
        ("new.csv", "text,prediction\ngoal,mine\n", ("'new.csv'", "column 'prediction'")),
        ("new.csv", "text,probability_sport\ngoal,1\n", ("'new.csv'", "column 'probability_sport'")),
    ],
)
def test_wrong_tables(
    run_of: Callable[[str], tuple[Path, Path]],
    predict: Ftbench,
    no_model_needed: None,
    name: str,
    content: str,
    named: tuple[str, ...],
) -> None:
    Path(name).write_text(content)
    refused(predict(run_of("classes")[0], name, "-o", "out.csv"), *named)
    assert not Path("out.csv").exists()


def test_wrong_models(
    run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench, tiny_model: Path, tmp_path: Path
) -> None:
    _, table = run_of("classes")
    refused(predict(tiny_model, table), "which column of", "--text COLUMN")
    refused(predict(tiny_model, table, "--text", "text"), "has not been trained as a classifier", "--save-model best")
    (tmp_path / "empty").mkdir()
    refused(predict(tmp_path / "empty", table), "no run with weights in", "--save-model best")
    refused(predict("./nowhere", table), "model folder './nowhere' does not exist")


def test_a_run_without_weights_says_the_command(
    predict: Ftbench, tiny_model: Path, tiny_folder: Callable[..., Path], run_of: Callable[[str], tuple[Path, Path]]
) -> None:
    """And that command does it."""
    quiet = [flag for flag in QUIET if flag not in ("--save-model", "all")]
    assert call("finetune", "--task", tiny_folder(), "--model", tiny_model, *RECIPE, *quiet) == 0
    run = next(Path("runs").rglob("result.json")).parent
    said = predict(run, tiny_folder() / "validation.csv")
    refused(said, "kept no weights", "ftbench finetune", "--save-model all")
    command = said.err.strip().rpartition("keeps them: ")[2].split()
    assert command[0] == "ftbench" and call(*command[1:]) == 0
    assert predict(run, tiny_folder() / "validation.csv").code == 0


# ---------------------------------------------------------------------------------------- full disks


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KiB: a full disk without a disk.

    Held around one call only: the limit is the process's, and pytest's own output may be a longer file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_full_disk_leaves_the_old_file(
    run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench, kind: str
) -> None:
    run, _ = run_of("classes")
    numbers = np.random.default_rng(0).random((400, 3))
    pandas.DataFrame({"text": [f"goal {row}" for row in numbers]}).to_csv("new.csv", index=False)
    output = Path(f"out.{kind}")
    output.write_text("what was there")
    with small_files():
        said = predict(run, "new.csv", "-o", output)
    refused(said, f"cannot write {output}", "larger than allowed", code=1)
    assert output.read_text() == "what was there"
    assert sorted(path.name for path in Path().iterdir()) == ["new.csv", output.name]


@pytest.mark.parametrize("output", ["file/out.csv", "file/deep/out.csv", "folder.csv"])
def test_an_output_that_cannot_be_is_said_clearly(
    run_of: Callable[[str], tuple[Path, Path]], predict: Ftbench, output: str
) -> None:
    run, table = run_of("classes")
    Path("file").write_text("a file where a folder should be")
    Path("folder.csv").mkdir()
    refused(predict(run, table, "-o", output), output.partition("/")[0], code=1)
    assert sorted(path.name for path in Path().iterdir()) == ["file", "folder.csv"]
