"""A task file (``my-task.toml``): a user's own task, declared for keeps.

name = "reviews"            # [the file's name]
text = ["review"]           # one column, or two for pairs
label = "stars"             # ["label"]
kind = "classification"     # or "regression", or "summarization"
summary = "tldr"            # ["summary"]; summarization has it in the place of label
train = "reviews.csv"       # beside this file; or hub = "org/name", with config and revision
validation = "held-out.csv" # [set aside from train]
labels = ["bad", "good"]    # [found in the data, sorted]
metrics = ["macro_f1"]      # [by the kind]; the first is the headline
description, licence, cite, encoding
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftbench.errors import UsageError
from ftbench.lookup import nearest
from ftbench.metrics import NAMED
from ftbench.tasks.columns import require_apart
from ftbench.types.task import Files, Hub, Kind, Task

SUFFIX = ".toml"
_TEXTS = (
    "name",
    "label",
    "summary",
    "kind",
    "train",
    "validation",
    "hub",
    "config",
    "revision",
    "description",
    "licence",
    "cite",
)
_LISTS = ("text", "labels", "metrics")
KEYS = (*_TEXTS, "encoding", *_LISTS)


def read_task_file(path: str, metrics_of: Mapping[Kind, tuple[str, ...]]) -> Task:
    """The task that a file declares. ``metrics_of``: the metrics of each kind where the file names none.

    Raises UsageError: no such file, not TOML (with the line), an unknown key, kind or metric (with the nearest),
    a value of another type, no text column, neither or both of train and hub.
    """
    place = Path(path).expanduser()
    values = _load(place)
    for key, value in values.items():
        if key not in KEYS:
            raise UsageError(f"'{path}' has an unknown key '{key}'.{nearest(key, KEYS)} Known: {', '.join(KEYS)}")
        values[key] = _checked(path, key, value)
    if not values.get("text"):
        raise UsageError(f"'{path}' names no text column: expected text = [\"COLUMN\"], or two for pairs")
    kind = values.get("kind", "classification")
    if kind not in metrics_of:
        raise UsageError(f"'{path}': kind is '{kind}'.{nearest(kind, metrics_of)} Expected {' or '.join(metrics_of)}")
    target, other = ("summary", "label") if kind == "summarization" else ("label", "summary")
    if other in values:
        raise UsageError(f"'{path}': {other} does not belong to kind {kind}, expected {target}")
    for name in values.get("metrics", ()):
        if name not in (known := NAMED[kind]):
            raise UsageError(f"'{path}': unknown metric '{name}'.{nearest(name, known)} Known: {', '.join(known)}")
    task = Task(
        name=values.get("name", place.stem),
        kind=kind,
        source=_source(place, values),
        inputs=tuple(values["text"]),
        target=values.get(target, target),
        labels=tuple(values.get("labels", ())),
        metrics=tuple(values.get("metrics", ())) or metrics_of[kind],
        description=values.get("description", f"your own {kind}"),
        licence=values.get("licence", "your own data"),
        cite=values.get("cite", ""),
    )
    require_apart(task)
    return task


def _load(place: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(place.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"'{place}' is not TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{place}' is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise UsageError(f"cannot read the task file '{place}': {error.strerror}") from error


def _checked(path: str, key: str, value: Any) -> Any:
    """The value; a single text stands for a list of one. Raises UsageError for another type."""
    if key in _LISTS:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise UsageError(f"'{path}': {key} is {value!r}: expected a list of texts")
        return items
    if not isinstance(value, str):
        raise UsageError(f"'{path}': {key} is {value!r}: expected a text in quotes")
    return value


def _source(place: Path, values: Mapping[str, Any]) -> Files | Hub:
    if ("train" in values) == ("hub" in values):
        raise UsageError(f'\'{place}\': expected train = "FILE" or hub = "ORG/NAME", and not both')
    if "hub" in values:
        return Hub(values["hub"], values.get("revision"), values.get("config"))
    files = {split: str(place.parent / values[split]) for split in ("train", "validation") if split in values}
    return Files(str(place), files, values.get("encoding", ""))
