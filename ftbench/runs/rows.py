"""A task's rows as a file, for workers: they have just what the command has, also where that was cut or put together.

One Parquet file a fingerprint, in the cache (never among results: texts may not be ours to hand on).
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from ftbench.errors import StoreError, explain
from ftbench.tasks.portable import task_from_json, task_to_json
from ftbench.types import Data, Rows


def path_of(folder: Path, fingerprint: str) -> Path:
    """Where the rows with this fingerprint are kept."""
    return folder / f"rows-{fingerprint}.parquet"


def save_rows(data: Data, folder: Path) -> None:
    """Writes the rows where they are not yet. Raises StoreError; UsageError for a task that is one process's own."""
    path = path_of(folder, data.fingerprint)
    if path.exists():
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    head = {"task": task_to_json(data.task), "labels": data.labels, "notes": data.notes, "splits": list(data.splits)}
    tables = [_table(name, rows) for name, rows in data.splits.items()]
    table = pa.concat_tables([pa.table(columns) for columns in tables], promote_options="default")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata({"ftbench": json.dumps(head)}), temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {explain(error)}") from error


def load_rows(folder: Path, fingerprint: str) -> Data | None:
    """The rows as they were; None where there is no such file, or another's or a damaged one."""
    path = path_of(folder, fingerprint)
    if not path.exists():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        head = json.loads(table.schema.metadata[b"ftbench"])
        splits = {name: _rows(table, name) for name in head["splits"]}
        data = Data(task_from_json(head["task"]), splits, tuple(head["labels"]), tuple(head["notes"]))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    return data if data.fingerprint == fingerprint else None


def _table(name: str, rows: Rows) -> dict[str, Any]:
    columns: dict[str, Any] = {f"text{i}": _encoded(column) for i, column in enumerate(rows.texts)}
    if rows.groups:
        columns["group"] = _encoded(rows.groups)
    if rows.summaries:
        columns["summaries"] = [_encoded(some) for some in rows.summaries]
    return {"split": [name] * len(rows), "label": rows.labels, "index": rows.index, **columns}


def _rows(table: Any, name: str) -> Rows:
    own = table.filter([each == name for each in table["split"].to_pylist()])
    names = [key for key in own.column_names if len(own) == 0 or own[key].null_count == 0]  # some splits have groups

    def column(key: str) -> tuple[str, ...]:
        return _decoded(own[key].to_pylist())

    return Rows(
        tuple(column(key) for key in names if key.startswith("text")),
        np.asarray(own["label"].to_numpy()),
        np.asarray(own["index"].to_numpy()),
        column("group") if "group" in names else (),
        tuple(_decoded(some) for some in own["summaries"].to_pylist()) if "summaries" in names else (),
    )


def _encoded(texts: Any) -> list[bytes]:
    return [text.encode("utf-8", "surrogatepass") for text in texts]


def _decoded(texts: Any) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "surrogatepass") for text in texts)
