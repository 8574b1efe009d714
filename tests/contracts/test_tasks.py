"""Every declared task keeps every contract: pinned, cited, its metrics exist, it loads in the hub's format."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbench.metrics import METRICS
from ftbench.tasks import GROUPS, TASKS, expand, from_folder, sources
from ftbench.tasks.sources import load
from ftbench.types.task import Hub, Packaged, Task

ON_THE_HUB = [name for name, task in TASKS.items() if isinstance(task.source, Hub)]
IN_DOWNLOADS = [name for name, task in TASKS.items() if task.layout]
ROWS = 12
#: no commit of these could be verified; docs/tasks.md says so
BRANCHES = {
    "gigaword": "main", "xsum": "main", "samsum": "main", "scitldr": "refs/convert/parquet",
    "reddit_tifu_long": "refs/convert/parquet", "reddit_tifu_short": "refs/convert/parquet",
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_the_declaration(name: str) -> None:
    task = TASKS[name]
    assert task.name == name and task.cite and task.licence and task.description
    assert task.metrics and set(task.metrics) <= set(METRICS)
    assert (task.kind == "classification") == bool(task.labels)
    assert len(set(task.labels)) == len(task.labels)
    if isinstance(task.source, Hub):
        pinned = re.fullmatch(r"[0-9a-f]{40}", task.source.revision or "")
        assert pinned or task.source.revision == BRANCHES[name], "a branch is no pin"
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", task.source.repo)
    else:
        assert isinstance(task.source, Packaged) and re.fullmatch(r"[0-9a-f]{64}", task.source.sha256)


def made_up(task: Task, split: str) -> Any:
    """Rows as the hub keeps them: ids of a ClassLabel, or the source's own words for the labels."""
    import datasets

    assert isinstance(task.source, Hub)
    texts = {column: [f"{split} {column} {i}" for i in range(ROWS)] for column in task.inputs}
    if task.kind == "summarization":
        return datasets.Dataset.from_dict({**texts, task.target: [[f"{split} {i}", "other"] for i in range(ROWS)]})
    if not task.labels:
        return datasets.Dataset.from_dict({**texts, task.target: [i / 3 for i in range(ROWS)]})
    names = list(task.labels)
    if task.source.names:
        theirs = {ours: word for word, ours in task.source.names.items()}
        words = [theirs[name] for name in names]
        if set(words) == {"True", "False"}:
            values = [words[i % len(names)] == "True" for i in range(ROWS)]
            return datasets.Dataset.from_dict({**texts, task.target: values})
        names = words
    rows = datasets.Dataset.from_dict({**texts, task.target: [i % len(names) for i in range(ROWS)]})
    return rows.cast_column(task.target, datasets.ClassLabel(names=names))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """``datasets.load_dataset`` gives made-up rows, and what was asked of it is written down."""
    import datasets

    asked: list[Any] = []

    def load_dataset(repo: str, config: str | None = None, *, revision: str | None = None, data_dir: str = "") -> Any:
        asked.append((repo, config, revision))
        task = next(t for t in TASKS.values() if isinstance(t.source, Hub)
                    and (t.source.repo, t.source.folder) == (repo, data_dir)
                    and (t.source.config == config or config in t.source.groups))  # fmt: skip
        assert isinstance(task.source, Hub)
        names = {"train", "validation", "test", *task.source.splits.values()}
        return datasets.DatasetDict({name: made_up(task, f"{config} {name}") for name in names})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_it_loads_in_the_hubs_format(name: str, hub: list[Any]) -> None:
    task = TASKS[name]
    data = load(task)
    assert isinstance(task.source, Hub)
    assert {(repo, revision) for repo, _, revision in hub} == {(task.source.repo, task.source.revision)}
    assert {"train", "validation"} <= set(data.splits) and data.labels == task.labels
    for split, rows in data.splits.items():
        assert len(rows.texts) == len(task.inputs) and len(rows) > 0
        assert not any("test" in text for column in rows.texts for text in column), f"{split} has rows of test"
    if task.labels:
        assert set(data.splits["train"].labels.tolist()) == set(range(len(task.labels)))
    assert bool(data.splits["train"].summaries) == (task.kind == "summarization")
    if task.source.groups:
        assert set(data.splits["validation"].groups) == set(task.source.groups)


@pytest.mark.parametrize("name", IN_DOWNLOADS)
def test_it_loads_from_a_download(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    assert task.layout
    layout = task.layout
    folder = tmp_path / layout.folder
    folder.mkdir()
    theirs = {ours: layout.columns.get(ours, ours) for ours in (*task.inputs, task.target)}
    words = {ours: word for word, ours in layout.names.items()}
    for split, file in layout.files.items():
        columns = list(layout.header or theirs.values())
        rows = []
        for i in range(ROWS):
            label = i / 4 if not task.labels else i % len(task.labels)
            if task.labels and not layout.ids:
                label = words.get(task.labels[i % len(task.labels)], task.labels[i % len(task.labels)])
            values = {theirs[c]: f"{split} {c} {i}" for c in task.inputs} | {theirs[task.target]: label}
            rows.append({column: values.get(column, "x") for column in columns})
        _write(folder / file, columns, rows, header=not layout.header)
    data = load(from_folder([task], str(tmp_path))[0])
    assert set(data.splits) == set(layout.files) and data.labels == task.labels
    assert data.splits["train"].texts[0][1] == f"train {task.inputs[0]} 1"


def _write(path: Path, columns: list[str], rows: list[dict[str, Any]], *, header: bool) -> None:
    import pandas

    table = pandas.DataFrame(rows)[columns]
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t", index=False, header=header)


def test_groups_name_tasks_that_exist() -> None:
    for name, tasks in GROUPS.items():
        assert name not in TASKS and set(tasks) <= set(TASKS)
        assert expand([name]) == list(tasks)
    assert len(GROUPS["glue"]) == 9 and len(GROUPS["capcort-13"]) == 13
    assert expand(["glue", "rte", "trec"]) == [*GROUPS["glue"], "trec"]


def test_a_hidden_label_is_refused_everywhere(hub: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """-1 stands for a label that the source keeps to itself."""
    import datasets

    from ftbench.errors import FtbenchError

    make: Callable[..., Any] = datasets.load_dataset

    def hidden(*arguments: Any, **options: Any) -> Any:
        found = make(*arguments, **options)
        features = found["validation"].features
        rows = found["validation"].map(lambda row, i: {**row, "label": -1 if i == 3 else row["label"]},
                                       with_indices=True, features=features)  # fmt: skip
        return datasets.DatasetDict({**found, "validation": rows})

    monkeypatch.setattr(datasets, "load_dataset", hidden)
    with pytest.raises(FtbenchError, match="hidden"):
        sources.load(TASKS["rte"])
    assert len(sources.load(TASKS["snli"]).splits["validation"]) == ROWS - 1
