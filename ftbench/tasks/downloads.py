"""Unpacked downloads, one folder a task, as GLUE's official script leaves them (``--data-dir``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ftbench.errors import UsageError
from ftbench.lookup import nearest
from ftbench.tasks.columns import check_columns
from ftbench.tasks.files import VALIDATION_NAMES, only_table, read_table
from ftbench.types.task import Download, Layout, Task

if TYPE_CHECKING:
    from pandas import DataFrame


def read_download(task: Task, source: Download) -> tuple[dict[str, DataFrame], tuple[str, ...]]:
    """A table for each split, with the columns of the task, and notes on what was left out.

    Rows that end before their label (the official QQP has some) are left out, as in the hub's copy.
    Raises UsageError: no such folder, a missing file or column, and what ``read_table`` raises.
    """
    layout, folder = source.layout, task_folder(task, source)
    tables: dict[str, DataFrame] = {}
    notes = []
    for split, name in layout.files.items():
        path = _file(folder, split, name)
        if split in layout.optional and not path.exists():
            notes.append(f"task '{task.name}' has no {name} in {layout.folder}/: its {split} rows are not scored")
            continue
        table = read_table(path, layout.header)
        check_columns(task, list(table.columns), f"'{path}'", layout.columns)
        table = to_task_columns(table, layout)
        if task.kind == "summarization":  # its empty rows are left out when they are encoded
            tables[split] = table
            continue
        table[task.target] = table[task.target].replace(dict(layout.names))
        missing = ["", "-", "-1", -1] if task.unlabelled == "drop" else [""]
        whole = table[~table[task.target].isin(missing)]
        if len(whole) and len(whole) < len(table):
            notes.append(
                f"task '{task.name}': {len(table) - len(whole)} of {len(table):,} rows of {name} have no label"
            )
            table = whole.reset_index(drop=True)
        tables[split] = table
    return tables, (*notes, *_other_sizes(task.name, layout, {split: len(table) for split, table in tables.items()}))


def task_folder(task: Task, source: Download) -> Path:
    """The task's folder, whatever its capitals, in the download or in a folder of it (several downloads side by side).

    Raises UsageError naming what is there.
    """
    root = Path(source.path).expanduser()
    wanted = source.layout.folder
    if not root.is_dir():
        raise UsageError(f"--data-dir '{source.path}' is not a folder")
    within = _folders(root)
    both = [*within, *(deeper for folder in within for deeper in _folders(folder))]
    found = next((folder for folder in both if folder.name.lower() == wanted.lower()), None)
    if found is None:
        there = [folder.name for folder in within]
        listed = ", ".join(there[:12]) or "no folders"
        raise UsageError(
            f"--data-dir '{source.path}' has no folder {wanted} for task '{task.name}'.{nearest(wanted, there)} "
            f"It holds {listed}"
        )
    return found


def _other_sizes(name: str, layout: Layout, rows: Mapping[str, int]) -> list[str]:
    """A note where a download is not the published split."""
    apart = [split for split in rows if rows[split] != layout.rows.get(split, rows[split])]
    shown = ", ".join(f"{rows[split]:,} of {layout.rows[split]:,} {split} rows" for split in apart)
    return [f"task '{name}': not the published rows ({shown}): compare no score with published ones"] if apart else []


def _file(folder: Path, split: str, name: str) -> Path:
    """The file that the layout names; where it is not there, the table with a usual name of the split, if any."""
    named = folder / name
    usual = VALIDATION_NAMES if split == "validation" else (split,)
    return named if named.exists() else only_table(folder, usual) or named


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir())


def to_task_columns(table: DataFrame, layout: Layout) -> DataFrame:
    """The table with the task's names for its columns."""
    names = {theirs: ours for ours, theirs in layout.columns.items() if theirs in table.columns}
    return table.drop(columns=[c for c in names.values() if c in table.columns and c not in names]).rename(
        columns=names
    )
