"""Tables of text and label columns to rows: what a user's file or a hub data set must satisfy is checked here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ftbench.errors import UsageError
from ftbench.lookup import nearest
from ftbench.tasks.columns import check_columns, text_cells
from ftbench.tasks.encode_summaries import to_summary_data
from ftbench.tasks.examine import leaks
from ftbench.tasks.splits import FEWEST_ROWS, carve
from ftbench.types.task import Data, Rows, Task

if TYPE_CHECKING:
    from pandas import DataFrame, Series

#: More distinct fractions than this in a label column are taken for measurements, not classes.
MOST_FRACTIONS = 20


def to_data(task: Task, tables: Mapping[str, DataFrame], where: str, names: tuple[str, ...] = ()) -> Data:
    """Rows from ``tables``: ``train``, ``validation`` (carved from train where there is none) and others to score.

    ``where`` is how messages call the source; ``names`` are the classes in order, if the source knows
    them (the task's own order wins). ``Rows.index`` are row numbers of the table, also after carving.

    Raises UsageError: no rows, fewer than 10 to train on, a missing column, a cell that is not text,
    and labels that do not fit the kind of the task (see ``_class_names`` and ``_targets``).
    """
    if task.kind == "summarization":
        return to_summary_data(task, tables, where)
    texts, raw = {}, {}
    for split, loaded in tables.items():
        table = loaded.rename(columns=str)
        place = f"{where}, {split}" if len(tables) > 1 else where
        check_columns(task, list(table.columns), place)
        if not len(table):
            raise UsageError(f"{place} has no rows")
        texts[split] = tuple(text_cells(table[column], column, place) for column in task.inputs)
        raw[split] = _named(task, _labels(table[task.target], task.target, place), place)
    if len(raw["train"]) < FEWEST_ROWS:
        raise UsageError(f"{where} has {len(raw['train'])} rows to train on: expected at least {FEWEST_ROWS}")
    classes = task.kind == "classification"
    labels = _class_names(task, raw, where, names) if classes else ()
    id_of = {label: number for number, label in enumerate(labels)}
    splits = {}
    for split, values in raw.items():
        ids = np.array([id_of[v] for v in values], dtype=np.int64) if classes else _targets(task, values, where)
        splits[split] = Rows(texts[split], ids, np.arange(len(values), dtype=np.int64))
    notes = _doubts(task, splits["train"], labels, where)
    if "validation" in splits:
        return Data(task, splits, labels, notes)
    rows = splits["train"]
    train, validation = (rows.take(part) for part in carve(rows.labels, classes=classes))
    how = "stratified, by a fixed seed" if classes else "by a fixed seed"
    # not ``where``: notes end up in reports, and a path says more about a user than is needed
    aside = f"{len(validation):,} of {len(rows):,} rows were set aside ({how})"
    notes = (*notes, f"task '{task.name}' came without a validation split: {aside}")
    notes += tuple(f"task '{task.name}': {leak}" for leak in leaks(train, validation))
    return Data(task, {"train": train, "validation": validation}, labels, notes)


def _doubts(task: Task, rows: Rows, labels: Sequence[str], where: str) -> tuple[str, ...]:
    """Notes on empty texts and classes of one row. Raises UsageError when most texts are empty."""
    empty = sum(not any(text.strip() for text in row) for row in zip(*rows.texts, strict=True))
    notes = []
    if empty * 2 > len(rows):
        columns = "', '".join(task.inputs)
        raise UsageError(f"{where}: {empty:,} of {len(rows):,} texts are empty: is '{columns}' the text column?")
    if empty:
        notes.append(f"task '{task.name}': {empty:,} of {len(rows):,} train rows have no text")
    alone = [name for i, name in enumerate(labels) if (rows.labels == i).sum() == 1]
    if alone:
        notes.append(f"task '{task.name}': {_some(alone)}: a single train row, too few to learn or to score")
    return tuple(notes)


def _labels(column: Series[Any], name: str, where: str) -> list[str]:
    """The label column as stripped texts, (n,). Raises UsageError for rows without a label."""
    labels = [text.strip() for text in text_cells(column, name, where)]
    empty = [number for number, text in enumerate(labels, start=1) if not text]
    if empty:
        rows = "1 row has" if len(empty) == 1 else f"{len(empty)} rows have"
        raise UsageError(f"{where}: {rows} no label in column '{name}', the first is row {empty[0]}")
    return labels


def _named(task: Task, labels: list[str], where: str) -> list[str]:
    """Labels by name where a declared task's file has their ids. Raises UsageError for hidden ones (-1)."""
    hidden = sum(label == "-1" for label in labels) if task.kind == "classification" else 0
    if hidden and "-1" not in task.labels and (task.labels or hidden == len(labels)):
        raise UsageError(hidden_labels(task, hidden, len(labels), where))
    ids = {str(number): name for number, name in enumerate(task.labels)}
    if set(labels) & set(task.labels) or set(ids) & set(task.labels):
        return labels
    return [ids.get(label, label) for label in labels]


def hidden_labels(task: Task, hidden: int, rows: int, where: str) -> str:
    """What is wrong with a split of which labels are -1."""
    return (
        f"{where}: {hidden:,} of {rows:,} labels in column '{task.target}' are hidden (-1), so these rows "
        "cannot be scored"
    )


def _class_names(task: Task, raw: Mapping[str, list[str]], where: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The class names in the order of their ids.

    Raises UsageError for a single class, for many fractions (a regression), for a label that the
    declared order lacks, and for one in validation that train lacks.
    """
    train = set(raw["train"])
    fractions = {label for label in train if _is_fraction(label)}
    if len(fractions) > MOST_FRACTIONS:
        raise UsageError(
            f"column '{task.target}' of {where} has {len(fractions)} different fractions, such as {min(fractions)}: "
            "they look like numbers to predict. Try --kind regression"
        )
    if len(train) < 2:
        raise UsageError(
            f"task '{task.name}' has one class in column '{task.target}' of {where} ('{raw['train'][0]}'): expected at "
            "least two"
        )
    order = task.labels or names
    unknown = sorted({label for values in raw.values() for label in values} - set(order)) if order else []
    if unknown:
        raise UsageError(f"{where}: {_some(unknown)} in column '{task.target}' is none of {', '.join(order)}")
    for split, values in raw.items():
        unseen = sorted(set(values) - train)
        if unseen:
            raise UsageError(
                f"{where}: {split} has {_some(unseen)} in column '{task.target}', which no row of train has."
                f"{nearest(unseen[0], train)}"
            )
    return order or _sorted_names(train)


def _sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """By number if all are whole numbers ("2" before "10"), else by text."""
    try:
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(names))


def _some(labels: list[str]) -> str:
    more = f" and {len(labels) - 3} more labels" if len(labels) > 3 else ""
    return ", ".join(f"'{label}'" for label in labels[:3]) + more


def _is_fraction(text: str) -> bool:
    try:
        return not float(text).is_integer()
    except (ValueError, OverflowError):  # not a number, or infinite
        return False


def _targets(task: Task, values: Sequence[str], where: str) -> np.ndarray[Any, Any]:
    """(n,) float64. Raises UsageError for a target that is not a finite number."""
    targets = np.empty(len(values))
    for number, text in enumerate(values, start=1):
        try:
            targets[number - 1] = float(text)
        except ValueError:
            targets[number - 1] = math.nan
        if not math.isfinite(targets[number - 1]):
            raise UsageError(f"{where}: '{text}' in column '{task.target}', row {number}, is not a finite number")
    return targets
