"""A user's own task: any table or hub data set, described by a few words on the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ftbench.errors import UsageError
from ftbench.metrics import ROUGE
from ftbench.tasks.columns import require_apart
from ftbench.tasks.files import READERS, read_tables
from ftbench.types.task import Files, Hub, Kind, Task

METRICS_OF: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "regression": ("pearson", "spearman", "mse"),
    "summarization": ROUGE,
}
#: Columns that are taken for the text when none is named and just one of them is there.
USUAL_TEXT = ("text", "sentence", "headline", "content", "review")
#: The same of documents to summarize, and of their summaries.
USUAL_DOCUMENT = ("document", "article", "text", "dialogue", "body", "content", "source")
USUAL_SUMMARY = ("summary", "highlights", "headline", "title", "tldr", "abstract", "target")
HUB = "hub:"


def is_reference(name: str) -> bool:
    """Whether ``name`` means a file, a folder or a hub data set rather than a declared task."""
    if name.startswith(HUB) or "/" in name or "\\" in name:
        return True
    return bool(name) and (bool(Path(name).suffix) or os.path.exists(name))


def own_task(path_or_hub: str, text: tuple[str, ...], label: str, kind: Kind, encoding: str = "") -> Task:
    """A task from ``hub:ORG/NAME[@REVISION]``, ``hub:FOLDER`` or the path of a table.

    ``text`` names one column or two; empty looks for a usual one in the table. In summarization ``text`` is the column
    of the documents and ``label`` that of the summaries, which may be empty as well. The task is named after the file
    or the repository, never after its path. Only an empty ``text`` or summary makes this read the file.

    Raises UsageError: no repository, no revision after ``@``, two columns of documents, a column that is text and
    label, and without ``text`` what reading raises, or a table with none or several of the usual columns.
    """
    summarization = kind == "summarization"
    if summarization and len(text) > 1:
        raise UsageError(f"--text {','.join(text)}: a document is one column, expected one name")
    source: Hub | Files
    if path_or_hub.startswith(HUB):
        source = _hub(path_or_hub)
        name = source.repo.rstrip("/\\")
        if not text or (summarization and not label):
            raise _unclear(path_or_hub, "summary" if text else "text", pairs=not summarization)
        columns = text
    else:
        source = Files(path_or_hub, encoding=encoding)
        name = str(Path(path_or_hub).with_suffix("")) if Path(path_or_hub).suffix.lower() in READERS else path_or_hub
        columns = text or (_usual(source, USUAL_DOCUMENT if summarization else USUAL_TEXT, "text"),)
        if summarization and not label:
            label = _usual(source, USUAL_SUMMARY, "summary")
    task = Task(
        name=_slug(re.split(r"[/\\]", name.rstrip("/\\"))[-1]),
        kind=kind,
        source=source,
        inputs=columns,
        target=label,
        metrics=METRICS_OF[kind],
        description=f"your own {kind}",
        licence="your own data",
    )
    require_apart(task)
    return task


def _hub(text: str) -> Hub:
    """``hub:ORG/NAME@REVISION`` to its parts. Raises UsageError when one is empty."""
    repo, at, revision = text.removeprefix(HUB).partition("@")
    if not repo or (at and not revision):
        raise UsageError(f"'{text}' is not of the form hub:ORG/NAME or hub:ORG/NAME@REVISION")
    return Hub(repo, revision or None)


def _usual(source: Files, names: tuple[str, ...], what: str) -> str:
    """The one usual column of the table. Raises UsageError naming the columns when that is not clear."""
    columns = [str(column) for column in read_tables(source)["train"].columns]
    usual = [name for name in names if name in columns]
    if len(usual) != 1:
        raise _unclear(source.path, what, columns, pairs=names is USUAL_TEXT)
    return usual[0]


def _unclear(where: str, what: str, columns: Sequence[str] = (), *, pairs: bool) -> UsageError:
    hint = " (--text A,B for pairs)" if pairs else ""
    listed = f". Columns: {', '.join(columns)}" if columns else ""
    return UsageError(f"which column of '{where}' holds the {what}? Say it with --{what} COLUMN{hint}{listed}")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "own"
