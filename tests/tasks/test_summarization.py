"""Summarization: declared tasks, a user's own table, several references, empty rows, folders, the real local data."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ftbench.errors import UsageError
from ftbench.metrics import ROUGE
from ftbench.tasks import GROUPS, TASKS, from_folder, resolve
from ftbench.tasks.sources import load, read_packaged
from ftbench.types import Data, RunSpec
from ftbench.types.task import Hub, Packaged

SUMMARIZATION = [name for name, task in TASKS.items() if task.kind == "summarization"]
FOLDER = Path(os.environ.get("FTBENCH_DATA", "none")) / "summarization"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="FTBENCH_DATA has no folder summarization")


def rows_of(n: int, **columns: Any) -> dict[str, list[Any]]:
    return {name: [value(i) if callable(value) else value for i in range(n)] for name, value in columns.items()}


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    frame = pd.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    return path


def own(path: Path, text: tuple[str, ...] = (), summary: str = "") -> Data:
    return load(resolve(str(path), text, summary, "summarization"))


@pytest.mark.parametrize("name", SUMMARIZATION)
def test_what_is_declared(name: str) -> None:
    task = TASKS[name]
    assert task.metrics == ROUGE and len(task.inputs) == 1 and not task.labels and task.published
    assert task.layout is not None or isinstance(task.source, Packaged)
    RunSpec(
        kind="summarize", task=name, data="d", weights="w", steps=1, **task.decoding
    )  # settings that a run can have
    assert task.decoding["max_length"] > task.decoding["max_target_length"]
    assert name not in GROUPS["embedded"]


def test_the_headline_task_gives_no_headline_away() -> None:
    data = load(TASKS["news-headline"])
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 1127, "validation": 1000}
    assert data.fingerprint == "79a128d7b1011478" and data.labels == ()
    titles = {document.title: document.body for document in read_packaged(TASKS["news-headline"].source)}  # type: ignore[arg-type]
    for rows in data.splits.values():
        for body, (headline,) in zip(rows.texts[0], rows.summaries, strict=True):
            assert titles[headline][:50] == body[:50] or headline in titles
            assert " ".join(headline.split()).casefold() not in " ".join(body.split()).casefold()
    train, validation = ({s for (s,) in rows.summaries} for rows in data.splits.values())
    assert not train & validation


# ------------------------------------------------------------------------------------ a user's own table


def test_usual_columns_are_found_and_a_fifth_is_set_aside(tmp_path: Path) -> None:
    path = write(tmp_path / "news.jsonl", rows_of(20, article="a text {}".format, headline="a head {}".format))
    task = resolve(str(path), (), "", "summarization")
    assert (task.name, task.inputs, task.target) == ("news", ("article",), "headline")
    data = load(task)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 16, "validation": 4}
    validation = data.splits["validation"]
    assert validation.summaries[0] == (f"a head {validation.index[0]}",)
    assert data.notes == ("task 'news' came without a validation split: 4 of 20 rows were set aside (by a fixed seed)",)


def test_documents_on_both_sides_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "news.jsonl", rows_of(20, document=lambda i: f"text {i // 2}", summary="head {}".format))
    data = load(resolve(str(path), (), "", "summarization"))
    assert data.notes[1].startswith("task 'news': validation: ") and "with a text that is in train too" in data.notes[1]


def test_a_list_of_summaries_is_several_references(tmp_path: Path) -> None:
    columns = rows_of(12, body=lambda i: [f"one {i}.", "two."], tl=lambda i: ["first", "", f"other {i}"][: 1 + i % 3])
    train = own(write(tmp_path / "own.parquet", columns), ("body",), "tl").splits["train"]
    assert train.texts[0][0] == f"one {train.index[0]}. two."
    for number, references in zip(train.index, train.summaries, strict=True):
        assert references == (("first", f"other {number}") if number % 3 == 2 else ("first",))


def test_rows_without_a_text_or_a_summary_are_left_out_and_counted(tmp_path: Path) -> None:
    texts = rows_of(20, document=lambda i: "" if i == 3 else "text", summary=lambda i: " " if i in (5, 6) else f"s {i}")
    data = own(write(tmp_path / "own.jsonl", texts))
    assert data.notes[0] == "task 'own': 3 of 20 rows without a text or a summary left out"
    kept = np.sort(np.concatenate([rows.index for rows in data.splits.values()]))
    assert kept.tolist() == [i for i in range(20) if i not in (3, 5, 6)]


REFUSED: dict[str, tuple[dict[str, list[Any]], tuple[str, ...], str]] = {
    "most summaries are empty (9 of 12): is 'summary' their column?":
        (rows_of(12, document="text", summary=lambda i: "x" * (i < 3)), (), ""),
    "most texts are empty (9 of 12): is 'document' their column?":
        (rows_of(12, document=lambda i: "x" * (i < 3), summary="x"), (), ""),
    "has no summary column 'sumary'. Did you mean 'summary'?":
        (rows_of(12, document="text", summary="x"), ("document",), "sumary"),
    "which column of": (rows_of(12, document="text", summary="x", title="y"), (), ""),
    "Say it with --summary COLUMN. Columns: document, summary, title":
        (rows_of(12, document="text", summary="x", title="y"), (), ""),
    "--text a,b: a document is one column": (rows_of(12, a="text", b="x", summary="y"), ("a", "b"), "summary"),
    "has 3 rows to train on: expected at least 10": (rows_of(3, document="text", summary="x"), (), ""),
    "column 'summary' holds dict, not text": (rows_of(12, document="text", summary=lambda i: {"a": i}), (), ""),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message: str, tmp_path: Path) -> None:
    columns, text, summary = REFUSED[message]
    with pytest.raises(UsageError) as error:
        own(write(tmp_path / "own.jsonl", columns), text, summary)
    assert message in str(error.value)


def test_the_hub_needs_both_columns() -> None:
    with pytest.raises(UsageError, match=r"holds the summary\? Say it with --summary COLUMN$"):
        resolve("hub:org/name", ("text",), "", "summarization")
    task = resolve("hub:org/name", ("text",), "tldr", "summarization")
    assert task.source == Hub("org/name") and (task.inputs, task.target) == (("text",), "tldr")


def test_a_task_file(tmp_path: Path) -> None:
    write(tmp_path / "own.jsonl", rows_of(12, body="text {}".format, tldr="x {}".format))
    path = tmp_path / "mine.toml"
    path.write_text('kind = "summarization"\ntext = "body"\nsummary = "tldr"\ntrain = "own.jsonl"\n')
    task = resolve(str(path))
    assert (task.kind, task.target, task.metrics) == ("summarization", "tldr", ROUGE)
    assert len(load(task).splits["train"]) == 10
    path.write_text(path.read_text() + 'metrics = ["accuracy"]\n')
    with pytest.raises(UsageError, match=r"unknown metric 'accuracy'.* Known: rouge1, rouge2, rougeL, rougeLsum"):
        resolve(str(path))


# ------------------------------------------------------------------------------------ downloads and the hub


def test_a_download_with_usual_names_and_all_references(tmp_path: Path) -> None:
    folder = tmp_path / "aeslc"
    folder.mkdir()
    write(folder / "train.jsonl", rows_of(12, document="mail {}".format, summary="s {}".format))
    every = {"document": ["mail"] * 3, "summary": ["s"] * 3, "references": [["t", "s"], ["s", "s"], []]}
    write(folder / "validation.parquet", every)
    data = load(from_folder([TASKS["aeslc"]], str(tmp_path))[0])
    assert data.splits["validation"].summaries == (("s", "t"), ("s", "s"), ("s",))
    assert data.notes == (
        "task 'aeslc': not the published rows (12 of 14,436 train rows, 3 of 1,960 validation rows): compare no score "
        "with published ones",
    )


def test_a_folder_of_a_repository_of_the_hub(tmp_path: Path) -> None:
    """As the hub's conversion to Parquet lays it out: folders for configurations, in them folders for splits."""
    for config in ("Abstract", "FullText"):
        for split in ("train", "validation"):
            (tmp_path / config / split).mkdir(parents=True)
            rows = rows_of(11, source=lambda i, c=config: [c, f"{i}."], target=lambda i: [f"t {i}", "u"])
            write(tmp_path / config / split / "0000.parquet", rows)
    data = load(replace(TASKS["scitldr"], source=Hub(str(tmp_path), folder="Abstract")))
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 11, "validation": 11}
    assert data.splits["train"].texts[0][2] == "Abstract 2."
    assert data.splits["train"].summaries[2] == ("t 2", "u")


REAL = {
    "gigaword": (10_000, 1000, 1), "reddit_tifu_long": (748, 101, 1), "reddit_tifu_short": (1065, 129, 1),
    "samsum": (14_731, 818, 1), "aeslc": (14_436, 1960, 4), "scitldr": (1992, 619, 4), "cnn_dailymail": (200, 1000, 1),
}  # fmt: skip


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_folders(name: str) -> None:
    data = load(from_folder([TASKS[name]], str(FOLDER))[0])
    train, validation, most = REAL[name]
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": train, "validation": validation}
    assert max(len(references) for references in data.splits["validation"].summaries) == most
    assert all(len(references) == 1 for references in data.splits["train"].summaries)


@needs_data
@pytest.mark.data
def test_what_the_real_folders_lack_is_said() -> None:
    with pytest.raises(UsageError, match=r"no file .*train\.parquet'\. Did you mean 'test_500\.parquet'"):
        load(from_folder([TASKS["xsum"]], str(FOLDER))[0])
