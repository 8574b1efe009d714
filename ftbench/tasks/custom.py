"""A user's own task: any table or hub data set, described by a few words on the command line."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ftbench.errors import UsageError
from ftbench.tasks.files import READERS, read_tables
from ftbench.types.task import Files, Hub, Kind, Task

METRICS_OF: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "regression": ("pearson", "spearman", "mse"),
}
#: Columns that are taken for the text when none is named and just one of them is there.
USUAL_TEXT = ("text", "sentence", "headline", "content", "review")
HUB = "hub:"


def is_reference(name: str) -> bool:
    """Whether ``name`` means a file, a folder or a hub data set rather than a declared task."""
    if name.startswith(HUB) or "/" in name or "\\" in name:
        return True
    return bool(name) and (bool(Path(name).suffix) or os.path.exists(name))


def own_task(path_or_hub: str, text: tuple[str, ...], label: str, kind: Kind, encoding: str = "") -> Task:
    """A task from ``hub:ORG/NAME[@REVISION]``, ``hub:FOLDER`` or the path of a table.

    ``text`` names one column or two; empty looks for a usual one in the table. The task is named after
    the file or the repository, never after its path. Only an empty ``text`` makes this read the file.

    Raises UsageError: no repository, no revision after ``@``, and without ``text`` what reading raises,
    or a table with none or several of the usual columns.
    """
    source: Hub | Files
    if path_or_hub.startswith(HUB):
        source = _hub(path_or_hub)
        name = source.repo.rstrip("/\\")
        columns = text or _no_text(path_or_hub)
    else:
        source = Files(path_or_hub, encoding=encoding)
        name = str(Path(path_or_hub).with_suffix("")) if Path(path_or_hub).suffix.lower() in READERS else path_or_hub
        columns = text or _usual_text(source)
    return Task(
        name=_slug(re.split(r"[/\\]", name.rstrip("/\\"))[-1]),
        kind=kind,
        source=source,
        inputs=columns,
        target=label,
        metrics=METRICS_OF[kind],
        description=f"your own {kind}",
        licence="your own data",
    )


def _hub(text: str) -> Hub:
    """``hub:ORG/NAME@REVISION`` to its parts. Raises UsageError when one is empty."""
    repo, at, revision = text.removeprefix(HUB).partition("@")
    if not repo or (at and not revision):
        raise UsageError(f"'{text}' is not of the form hub:ORG/NAME or hub:ORG/NAME@REVISION")
    return Hub(repo, revision or None)


def _no_text(reference: str) -> tuple[str, ...]:
    raise UsageError(f"which column of '{reference}' holds the text? Say it with --text COLUMN (--text A,B for pairs)")


def _usual_text(source: Files) -> tuple[str, ...]:
    """The one usual text column of the table. Raises UsageError naming the columns when that is not clear."""
    columns = [str(column) for column in read_tables(source)["train"].columns]
    usual = [name for name in USUAL_TEXT if name in columns]
    if len(usual) != 1:
        raise UsageError(
            f"which column of '{source.path}' holds the text? Say it with --text COLUMN (--text A,B for pairs). "
            f"Columns: {', '.join(columns)}"
        )
    return (usual[0],)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "own"
