"""Columns of tables: whether they are there, and their cells as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ftbench.errors import UsageError
from ftbench.lookup import nearest
from ftbench.types.task import Files, Task

if TYPE_CHECKING:
    from pandas import Series


def require_apart(task: Task) -> None:
    """Raises UsageError for a column of labels or summaries that is a text column too, and for one text twice."""
    if len(set(task.inputs)) < len(task.inputs):
        raise UsageError(f"text column '{task.inputs[0]}' is given twice: a pair has two columns")
    if task.target in task.inputs:
        what = "summary" if task.kind == "summarization" else "label"
        raise UsageError(
            f"column '{task.target}' is given as text and as {what}: say the other one with --{what} or --text"
        )


def check_columns(task: Task, columns: Sequence[Any], where: str, theirs: Mapping[str, str] | None = None) -> None:
    """Raises UsageError for a text, label or summary column that is not there; names those that are."""
    check_texts(task.inputs, columns, where, theirs=theirs)
    if task.target == "label" and isinstance(task.source, Files) and "label" not in map(str, columns):
        listed = ", ".join(map(str, columns))
        raise UsageError(f"{where} has no label column 'label' (another: --label COLUMN). Columns: {listed}")
    what = "summary" if task.kind == "summarization" else "label"
    check_texts((task.target,), columns, where, what=what, theirs=theirs)


def check_texts(
    wanted: Sequence[str],
    columns: Sequence[Any],
    where: str,
    *,
    what: str = "text",
    theirs: Mapping[str, str] | None = None,
) -> None:
    """Raises UsageError for a column that is not there; names those that are.

    theirs: what official files call a column, where that differs; either name will do.
    """
    known = [str(column) for column in columns]
    for name in wanted:
        names = dict.fromkeys(((theirs or {}).get(name, name), name))
        if not any(each in known for each in names):
            called = " or ".join(f"'{each}'" for each in names)
            near = nearest(next(iter(names)), known)
            raise UsageError(f"{where} has no {what} column {called}.{near} Columns: {', '.join(known)}")


def text_cells(column: Series[Any], name: str, where: str) -> tuple[str, ...]:
    """A column as texts: nothing becomes "", 3.0 becomes "3". Raises UsageError for lists, bytes and the like."""
    cells = []
    # a float32 column iterates as Python's floats: 3.8 would be 3.799999952316284
    values = column.to_numpy() if column.dtype == "float32" else column
    for number, (value, missing) in enumerate(zip(values, column.isna(), strict=True), start=1):
        if isinstance(value, (list, tuple, dict, set, bytes, np.ndarray)):
            raise UsageError(f"{where}: column '{name}' holds {type(value).__name__}, not text, in row {number}")
        if missing:
            cells.append("")
        elif isinstance(value, (float, np.floating)) and float(value).is_integer():
            cells.append(str(int(value)))
        else:
            cells.append(str(value))
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:  # JSON may hold half a character, "\ud83d": no tokenizer takes it
        number = next(n for n, cell in enumerate(cells, start=1) if cell.encode(errors="replace").decode() != cell)
        raise UsageError(f"{where}: column '{name}' holds half a character, not text, in row {number}") from None
    return tuple(cells)
