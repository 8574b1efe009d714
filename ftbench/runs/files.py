"""Files that are whole or absent: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ftbench.errors import StoreError, explain


@contextlib.contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Within: the system's refusal to make ``folder`` or to write in it is a StoreError that names it."""
    try:
        yield
    except OSError as error:
        what = "write in" if folder.is_dir() else "make the output folder"
        raise StoreError(f"cannot {what} {folder}: {explain(error)}") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Writes ``path`` so that a reader sees the old bytes or the new ones. Raises StoreError; leaves no rest."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {explain(error)}") from error


def to_json(value: Any, indent: int | None = 2) -> bytes:
    """JSON in a fixed form: sorted keys, numbers that are not finite as null, a newline at the end."""
    return (json.dumps(plain(value), indent=indent, sort_keys=True, allow_nan=False) + "\n").encode()


def to_jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """One JSON object a line."""
    return b"".join(to_json(row, indent=None) for row in rows)


def plain(value: Any) -> Any:
    """Mappings, lists and numbers that JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@lru_cache(maxsize=1024)
def slug(text: str, length: int = 60) -> str:
    """``text`` as part of a file name: letters, digits, ``=._+-``; never a path, never hidden, never empty."""
    return re.sub(r"[^A-Za-z0-9=._+-]+", "-", text).strip("-.")[:length] or "unnamed"
