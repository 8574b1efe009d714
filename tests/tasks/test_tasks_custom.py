"""How a word on the command line becomes a task."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftbench.errors import UsageError
from ftbench.metrics import METRICS
from ftbench.tasks import TASKS, resolve, sources
from ftbench.tasks.custom import own_task
from ftbench.types.task import Files, Hub


def table(path: Path, columns: str, rows: int = 12) -> Path:
    cells = columns.count(",")
    path.write_text(columns + "\n" + "".join(f"{f't{i},' * cells}{i % 2}\n" for i in range(rows)))
    return path


def test_the_table_is_keyed_by_name_and_its_metrics_exist() -> None:
    assert set(TASKS) >= {"news-topic", "news-article", "news-match"}
    for name, task in TASKS.items():
        assert name == task.name and set(task.metrics) <= set(METRICS)


def test_a_declared_name_wins_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "news-topic").mkdir()
    assert resolve("news-topic") is TASKS["news-topic"]


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"unknown task 'news-topics'. Did you mean 'news-topic'\?"):
        resolve("news-topics")
    with pytest.raises(UsageError, match="unknown task ''"):
        resolve("")


def test_text_is_for_own_tables() -> None:
    with pytest.raises(UsageError, match="--text is for your own tables"):
        resolve("news-topic", ("title",))


@pytest.mark.parametrize("name", ["a/b", "a\\b.csv", "reviews.csv", "REVIEWS.TSV", "r.jsonl", "r.parquet", "r.xlsx"])
def test_paths_are_recognised_whether_they_exist_or_not(name: str) -> None:
    assert resolve(name, ("text",)).source == Files(name)


def test_anything_that_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "folder", "text,label")
    assert resolve("folder", ("text",)).source == Files("folder")


@pytest.mark.parametrize(("reference", "source", "name"), [
    ("hub:org/My_Data", Hub("org/My_Data"), "my-data"),
    ("hub:org/data@v1.2", Hub("org/data", "v1.2"), "data"),
    ("hub:./some/Folder/", Hub("./some/Folder/"), "folder"),
    ("/home/someone/My Reviews (2).csv", Files("/home/someone/My Reviews (2).csv"), "my-reviews-2"),
    ("C:\\data\\a.v2.jsonl", Files("C:\\data\\a.v2.jsonl"), "a-v2"),
    ("data/v1.5/", Files("data/v1.5/"), "v1-5"),
    ("data/отзывы.csv", Files("data/отзывы.csv"), "own"),
])  # fmt: skip
def test_sources_and_names(reference: str, source: object, name: str) -> None:
    task = resolve(reference, ("a", "b"), "answer", "classification")
    assert (task.source, task.name, task.inputs, task.target) == (source, name, ("a", "b"), "answer")


def test_metrics_of_each_kind() -> None:
    assert own_task("a.csv", ("text",), "label", "classification").metrics == ("accuracy", "macro_f1")
    assert own_task("a.csv", ("text",), "label", "regression").metrics == ("pearson", "spearman", "mse")


def test_a_table_named_like_a_declared_task_gets_another_name() -> None:
    assert resolve("my/news-topic.csv", ("text",)).name == "news-topic-own"


@pytest.mark.parametrize("reference", ["hub:", "hub:@v1", "hub:org/data@"])
def test_incomplete_hub_references(reference: str) -> None:
    with pytest.raises(UsageError, match="hub:ORG/NAME"):
        resolve(reference, ("text",))


@pytest.mark.parametrize("column", ["text", "sentence", "headline", "content", "review"])
def test_the_usual_text_column_is_found(tmp_path: Path, column: str) -> None:
    task = resolve(str(table(tmp_path / "a.csv", f"id,{column},label")))
    assert task.inputs == (column,)
    assert len(sources.load(task).splits["train"]) == 10


@pytest.mark.parametrize("columns", ["body,label", "text,review,label"])
def test_a_text_column_that_is_not_clear(tmp_path: Path, columns: str) -> None:
    with pytest.raises(UsageError, match=rf"--text COLUMN.*Columns: {columns.replace(',', ', ')}"):
        resolve(str(table(tmp_path / "a.csv", columns)))


def test_without_text_a_missing_file_is_still_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        resolve(str(tmp_path / "a.csv"))


def test_the_hub_needs_text() -> None:
    with pytest.raises(UsageError, match="--text COLUMN"):
        resolve("hub:org/data")


def test_three_text_columns_are_too_many() -> None:
    with pytest.raises(UsageError, match="one or two text columns"):
        resolve("a.csv", ("a", "b", "c"))
