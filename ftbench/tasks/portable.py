"""A task as JSON and back, so that another process, on this machine or another, loads the same rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftbench.errors import UsageError
from ftbench.tasks import TASKS
from ftbench.types.task import Download, Files, Hub, Layout, Packaged, Part, Task

#: the dataclasses that a task is made of, but for packaged corpora, which have code: those are found by their name
PARTS = {part.__name__: part for part in (Task, Files, Hub, Download, Layout, Part)}
PLACES = (Files, Download)
ALONE = "do its runs in one process, without --jobs"


def task_to_json(task: Task) -> dict[str, Any]:
    """``task`` as JSON can hold it; paths become absolute. Raises UsageError for a packaged task that is not ours."""
    packed: dict[str, Any] = _pack(task)
    return packed


def task_from_json(packed: Mapping[str, Any]) -> Task:
    """The task of ``task_to_json``. Raises KeyError, TypeError or UsageError for what is none."""
    task = _unpack(packed)
    if not isinstance(task, Task):
        raise TypeError("not a task")
    return task


def _pack(value: Any) -> Any:
    if isinstance(value, Packaged):
        owner = next((task.name for task in TASKS.values() if task.source == value), None)
        if owner is None:
            raise UsageError(f"the texts of package '{value.distribution}' are read by code of their own: {ALONE}")
        return {"packaged": owner}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value).__name__ not in PARTS:
            raise UsageError(f"a {type(value).__name__} cannot be handed to another process: {ALONE}")
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        if isinstance(value, PLACES):
            fields["path"] = str(Path(value.path).expanduser().absolute())
        return {"is": type(value).__name__, **{name: _pack(each) for name, each in fields.items()}}
    if isinstance(value, Mapping):
        return {"map": [[key, _pack(each)] for key, each in value.items()]}
    if isinstance(value, tuple | list):
        return [_pack(each) for each in value]
    return value


def _unpack(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "packaged" in value:
            return TASKS[value["packaged"]].source
        if "map" in value:
            return {key: _unpack(each) for key, each in value["map"]}
        fields = {name: _unpack(each) for name, each in value.items() if name != "is"}
        return PARTS[value["is"]](**fields)
    return tuple(_unpack(each) for each in value) if isinstance(value, list) else value
