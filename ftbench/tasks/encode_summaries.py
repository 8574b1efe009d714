"""Tables of documents and summaries to rows. A summary may be a list: several references for one document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ftbench.errors import UsageError
from ftbench.tasks.columns import check_columns, text_cells
from ftbench.tasks.examine import leaks
from ftbench.tasks.splits import FEWEST_ROWS, carve
from ftbench.types.task import Data, Download, Rows, Task

if TYPE_CHECKING:
    from pandas import DataFrame, Series


def to_summary_data(task: Task, tables: Mapping[str, DataFrame], where: str) -> Data:
    """Rows with ``summaries`` from ``tables``: ``train``, and ``validation`` (carved from train where there is none).

    A document that is a list of sentences is joined by blanks. A download's column of all references is read where it
    is there, the summary first. Rows with an empty document or summary are left out and counted in ``notes``.

    Raises UsageError: a missing column, a cell that is no text, more than half of the rows empty, fewer than 10 rows to
    train on.
    """
    splits: dict[str, Rows] = {}
    notes: list[str] = []
    for split, table in tables.items():
        splits[split] = _rows(task, table.rename(columns=str), f"{where}, {split}" if len(tables) > 1 else where, notes)
    if len(splits["train"]) < FEWEST_ROWS:
        raise UsageError(f"{where} has {len(splits['train'])} rows to train on: expected at least {FEWEST_ROWS}")
    if "validation" not in splits:
        rows = splits["train"]
        train, validation = (rows.take(part) for part in carve(rows.labels, classes=False))
        aside = f"{len(validation):,} of {len(rows):,} rows were set aside (by a fixed seed)"
        notes.append(f"task '{task.name}' came without a validation split: {aside}")
        notes += [f"task '{task.name}': {leak}" for leak in leaks(train, validation)]
        splits |= {"train": train, "validation": validation}
    return Data(task, splits, (), tuple(notes))


def as_rows(documents: Sequence[str], summaries: Sequence[Sequence[str]], index: Sequence[int] | None = None) -> Rows:
    """n documents and their reference summaries, one or several each."""
    n = len(documents)
    numbers = np.arange(n, dtype=np.int64) if index is None else np.array(index, dtype=np.int64)
    references = tuple(tuple(texts) for texts in summaries)
    return Rows((tuple(documents),), np.zeros(n, dtype=np.int64), numbers, summaries=references)


def _rows(task: Task, table: DataFrame, where: str, notes: list[str]) -> Rows:
    check_columns(task, list(table.columns), where)
    if not len(table):
        raise UsageError(f"{where} has no rows")
    documents = _joined(table[task.inputs[0]], task.inputs[0], where)
    references = list(_references(task, table, where))
    kept = [i for i, document in enumerate(documents) if document.strip() and references[i]]
    empty = len(documents) - len(kept)
    if empty * 2 > len(documents):
        what, name = (
            ("summaries", task.target) if sum(map(bool, references)) == len(kept) else ("texts", task.inputs[0])
        )
        raise UsageError(f"{where}: most {what} are empty ({empty:,} of {len(documents):,}): is '{name}' their column?")
    if empty:
        notes.append(f"task '{task.name}': {empty:,} of {len(documents):,} rows without a text or a summary left out")
    return as_rows([documents[i] for i in kept], [references[i] for i in kept], kept)


def _references(task: Task, table: DataFrame, where: str) -> Iterator[tuple[str, ...]]:
    """The reference summaries of each row without empty ones, the one to train on first."""
    own = summary_cells(table[task.target], task.target, where)
    column = task.source.layout.references if isinstance(task.source, Download) else ""
    if column not in table.columns:
        yield from own
        return
    for first, every in zip(own, summary_cells(table[column], column, where), strict=True):
        others = list(every)
        for text in first:
            if text in others:
                others.remove(text)
        yield (*first, *others)


def _joined(column: Series[Any], name: str, where: str) -> tuple[str, ...]:
    return text_cells(column.map(lambda cell: " ".join(map(str, cell)) if _is_list(cell) else cell), name, where)


def summary_cells(column: Series[Any], name: str, where: str) -> Iterator[tuple[str, ...]]:
    """The texts of each cell, whether it holds one or a list of them, without empty ones."""
    import pandas

    cells = [list(cell) if _is_list(cell) else [cell] for cell in column]
    flat = iter(text_cells(pandas.Series([text for cell in cells for text in cell], dtype=object), name, where))
    for cell in cells:
        yield tuple(text for text in (next(flat) for _ in cell) if text.strip())


def _is_list(cell: Any) -> bool:
    return isinstance(cell, (list, tuple, np.ndarray))
