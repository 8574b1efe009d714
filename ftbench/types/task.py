"""What is learned: a task, declared as data, and its rows once loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ftbench.errors import UsageError

Kind = Literal["classification", "regression", "summarization"]


@dataclass(frozen=True)
class Packaged:
    """Text files inside an installed package, found by its metadata; its code is never imported.

    ``sha256`` is the hash of the documents as read (see ``tasks.sources``), so that an edited or
    newer package is noticed. ``build`` turns documents into rows.
    """

    distribution: str
    folder: str
    sha256: str
    build: Callable[[list[Document]], dict[str, Rows]]


@dataclass(frozen=True)
class Files:
    """A user's own table (CSV, TSV, JSONL, Parquet), or a folder with train and validation files.

    files:    the file of each split, where a task file names them; ``path`` is then the task file
    encoding: of CSV and TSV; empty: UTF-8, or UTF-16 where the file says so
    """

    path: str
    files: Mapping[str, str] = field(default_factory=dict)
    encoding: str = ""


@dataclass(frozen=True)
class Hub:
    """A data set of the Hugging Face hub, or a local folder in its format, at one revision.

    splits: ours to theirs; empty: train, and validation, valid or dev
    names:  labels as they stand there to the task's label names
    groups: configurations whose validation rows together are our validation, each scored apart as well
    folder: the folder inside the repository, where it has no configurations to name
    """

    repo: str
    revision: str | None = None
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    folder: str = ""


@dataclass(frozen=True)
class Layout:
    """How an unpacked download keeps a task: tab-separated files without quoting.

    folder:   its folder inside the download, such as ``MRPC``
    files:    our splits to file names
    columns:  columns of the task to those of the files, where they differ
    header:   column names of files that have no header line
    tests:    unlabelled files to the names of the submission files made from them
    ids:      labels in the files are ids, not names
    names:    labels as they stand there to the task's label names
    optional: splits that a download may lack
    references: column with the lists of all reference summaries, where a file has several
    rows:     what the published splits hold; a download with other numbers is said to be no such split
    """

    folder: str
    files: Mapping[str, str] = field(default_factory=lambda: {"train": "train.tsv", "validation": "dev.tsv"})
    columns: Mapping[str, str] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    tests: Mapping[str, str] = field(default_factory=dict)
    ids: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    references: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Download:
    """A folder with unpacked downloads, one folder a task (``--data-dir``)."""

    path: str
    layout: Layout


@dataclass(frozen=True)
class Part:
    """Of the rows of ``of`` those that one may choose by (``pool``, which has no validation), or those to train on at
    the end with the test part as validation (``whole``). See ``tasks.parts``."""

    of: Packaged | Files | Hub | Download
    which: Literal["pool", "whole"]


@dataclass(frozen=True)
class Document:
    """One text of a packaged corpus."""

    label: str
    title: str
    body: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task. Importing a declaration loads neither torch nor datasets.

    ``inputs`` names one text column, or two for pairs. ``labels`` lists the class names in the order
    of their ids; empty means: found in the data, sorted. The first metric is the headline. ``layout`` says
    how a download on disk keeps the task. ``unlabelled`` rows (-1, or a dash, where annotators did not agree)
    are refused unless the task says that they are left out. ``revision`` is raised whenever the rows or the
    scoring can change.

    In summarization ``inputs`` is the column of the documents and ``target`` that of the summaries, and ``decoding``
    holds what published systems set: fields of RunSpec from ``max_target_length`` to ``early_stopping``, and
    ``max_length`` for the documents. They are defaults; what a run used is in its spec. ``published`` says how
    published systems treated the texts.
    """

    name: str
    kind: Kind
    source: Packaged | Files | Hub | Download | Part
    inputs: tuple[str, ...]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    target: str = "label"
    layout: Layout | None = None
    unlabelled: Literal["refuse", "drop"] = "refuse"
    default_train_size: int | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)
    published: str = ""
    description: str = ""
    licence: str = ""
    cite: str = ""
    revision: int = 1

    def __post_init__(self) -> None:
        if len(self.inputs) not in (1, 2):
            raise UsageError(f"task '{self.name}': expected one or two text columns, got {len(self.inputs)}")
        if not self.metrics:
            raise UsageError(f"task '{self.name}': no metric given")

    def origin(self) -> dict[str, Any]:
        """Where the rows come from, for people: a file's name, never its path."""
        columns = {"text": list(self.inputs), "label": self.target}
        match self.source.of if isinstance(self.source, Part) else self.source:
            case Packaged(distribution=name):
                return {"package": name}
            case Hub(repo=repo, revision=revision, config=config):
                return {"hub": repo, "revision": revision, **({"config": config} if config else {}), **columns}
            case Download(layout=layout):
                return {"folder": layout.folder, **columns}
            case Files(path=path):
                return {"file": Path(path).name, **columns}


@dataclass(frozen=True)
class Rows:
    """Rows of one split.

    texts:     one tuple of strings for each input column, each of length n
    labels:    (n,) int64 class ids, or float64 targets of a regression; in summarization int64 zeros
    index:     (n,) int64 row numbers in the split as loaded; they stay when rows are taken away
    groups:    n names of the groups (languages, say) that are scored apart as well; empty where there are none
    summaries: n tuples of one or several reference summaries, the first of which is trained on; empty but in
               summarization
    """

    texts: tuple[tuple[str, ...], ...]
    labels: np.ndarray[Any, Any]
    index: np.ndarray[Any, Any]
    groups: tuple[str, ...] = ()
    summaries: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray[Any, Any]) -> Rows:
        """The rows at ``positions`` (k,), in that order."""
        texts = tuple(tuple(column[i] for i in positions) for column in self.texts)
        groups = tuple(self.groups[i] for i in positions) if self.groups else ()
        summaries = tuple(self.summaries[i] for i in positions) if self.summaries else ()
        return Rows(texts, self.labels[positions], self.index[positions], groups, summaries)

    def with_labels(self, labels: np.ndarray[Any, Any]) -> Rows:
        """The same rows with other labels."""
        return replace(self, labels=labels)


@dataclass(frozen=True)
class Data:
    """A loaded task: its splits ``train`` and ``validation``, further ones that are scored as well (such as
    ``mismatched``), and ``selection`` where one is carved out of train."""

    task: Task
    splits: Mapping[str, Rows]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every text, label and label name: another row, another fingerprint (16 hex digits)."""
        digest = hashlib.sha256()
        digest.update(repr((self.task.kind, self.task.metrics, self.labels)).encode())
        for name in sorted(self.splits):
            rows = self.splits[name]
            digest.update(f"\x1d{name}\x1d{len(rows)}".encode())
            for column in rows.texts:
                for text in column:
                    digest.update(_escaped(text))
            digest.update(np.ascontiguousarray(rows.labels).tobytes())
            if not np.array_equal(rows.index, np.arange(len(rows))):  # label noise is drawn by row number
                digest.update(np.ascontiguousarray(rows.index).tobytes())
            if rows.groups:
                digest.update("\x1e".join(rows.groups).encode())
            for references in rows.summaries:
                digest.update(f"{len(references)}\x1e".encode())
                for text in references:
                    digest.update(_escaped(text))
        return digest.hexdigest()[:16]


def _escaped(text: str) -> bytes:
    """The text and an end mark that nothing in it can be taken for."""
    return text.replace("\x1b", "\x1b0").replace("\x1e", "\x1b1").encode("utf-8", "surrogatepass") + b"\x1e"
