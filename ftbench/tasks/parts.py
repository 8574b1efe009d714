"""Rows to choose a method by, and rows that are looked at once, at the end.

A table's rows become two parts with no text in common: the *test part*, which is the task's validation split, and the
*pool*, which is the rest without rows whose text is in the test part or stands in the pool before. What is chosen is
chosen on the pool alone; ``Parts.pool`` does not hold the test rows at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ftbench.errors import UsageError
from ftbench.tasks.examine import other_notes, text_key
from ftbench.tasks.files import read_tables
from ftbench.types.task import Data, Files, Part, Task

#: fewer test rows than this say nothing: a score would be known to 20 points
FEWEST_TESTED = 20
#: fewer test rows than this are warned of
FEW_TESTED = 100
#: more classes than this share of the rows are no classes
MOST_CLASSES = 1 / 3


@dataclass(frozen=True)
class Parts:
    """pool: train only. whole: the pool to train on, the test part as validation. notes: what was removed, what is
    doubtful."""

    pool: Data
    whole: Data
    notes: tuple[str, ...]


def set_aside(data: Data) -> Parts:
    """The parts of a task. Raises UsageError for a table that nothing can be chosen by: too few rows, labels that are
    no labels."""
    _require_labels(data)
    train, test = data.splits["train"], data.splits["validation"]
    tested = {text_key(row) for row in zip(*test.texts, strict=True)}
    seen: set[str] = set()
    kept, leaked = [], 0
    for place, row in enumerate(zip(*train.texts, strict=True)):
        key = text_key(row)
        leaked += key in tested
        if key not in tested and key not in seen:
            kept.append(place)
        seen.add(key)
    notes = []
    if leaked:
        notes.append(f"left out of what is chosen by, for their text is in the test part too: {_rows(leaked)}")
    if repeated := len(train) - len(kept) - leaked:
        notes.append(f"left out of what is chosen by, for their text stands in an earlier row: {_rows(repeated)}")
    pool = train.take(np.array(kept, dtype=np.int64)) if len(kept) < len(train) else train
    _require_enough(data, len(pool), len(test))
    if data.labels:
        _require_classes(data, pool.labels)
    if len(test) < FEW_TESTED:
        half = 100 * math.sqrt(0.25 / len(test)) * 1.96
        notes.append(f"the test part has {len(test)} rows only: a score there is known to about {half:.0f} points")
    parts = {"pool": {"train": pool}, "whole": {"train": pool, "validation": test}}
    notes_of = other_notes(data)
    found = {
        which: replace(data, task=_part(data.task, which), splits=splits, notes=notes_of)
        for which, splits in parts.items()
    }
    return Parts(found["pool"], found["whole"], tuple(notes))


def _rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"


def _part(task: Task, which: Any) -> Task:
    """All of its rows are trained on: what is not fine-tuned, such as ``linear``, knows no default size."""
    assert not isinstance(task.source, Part)
    return replace(task, source=Part(task.source, which), default_train_size=None)


def _require_labels(data: Data) -> None:
    """Raises UsageError where the label column has nearly as many values as rows."""
    task, rows = data.task, sum(map(len, data.splits.values()))
    if len(data.labels) > MOST_CLASSES * rows:
        numbers = all(name.lstrip("+-").isdigit() for name in data.labels)
        hint = ", a number to predict (--kind regression)" if numbers else ""
        raise UsageError(
            f"column '{task.target}' has {len(data.labels):,} different values in {rows:,} rows: an id or a text{hint},"
            f" but no label{_columns(data)}"
        )


def _columns(data: Data) -> str:
    """``. Say it with --label; columns: id, text, stars (3 values)`` where the table can tell."""
    if not isinstance(data.task.source, Files):
        return ". Say it with --label"
    table = read_tables(data.task.source)["train"]
    names = [f"{name} ({n} values)" if (n := table[name].astype(str).nunique()) <= 20 else str(name) for name in table]
    return f". Say it with --label. Columns: {', '.join(names)}"


def _require_enough(data: Data, pool: int, test: int) -> None:
    if test < FEWEST_TESTED:
        raise UsageError(
            f"{pool + test:,} rows are too few to choose by: with {test} set aside, a score there would be known to "
            f"{100 * math.sqrt(0.25 / max(1, test)) * 1.96:.0f} points or so. Expected at least {5 * FEWEST_TESTED} "
            f"rows (or {FEWEST_TESTED} in a validation file). Until then the frozen model is the safe choice: the row "
            "'linear' of ftbench finetune"
        )
    if pool < 2 * FEWEST_TESTED:
        raise UsageError(
            f"{pool:,} rows are left to choose by, once texts that repeat are left out: expected at least "
            f"{2 * FEWEST_TESTED}"
        )


def _require_classes(data: Data, labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    if len(np.unique(labels)) < 2:
        raise UsageError(
            f"task '{data.task.name}': one class is left, once texts that repeat are left out: expected two"
        )
