"""Where features lie while they are made: in memory, or in a file on disk that is read back memory-mapped."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ftbench.errors import StoreError, explain

#: features of more bytes than this go to a file, where there is a folder for it
IN_MEMORY = 2**30

Array = np.ndarray[Any, np.dtype[Any]]
#: layers, rows, width
Shape = tuple[int, int, int]


class Store(Protocol):
    """Takes the features of all rows, a batch at a time."""

    def add(self, positions: Array, vectors: Array) -> None:
        """vectors (layers, rows, width) float32 of the rows numbered ``positions`` (rows,)."""

    def whole(self) -> Array:
        """The features of all rows, (layers, n, width). To be asked for when all were added."""

    def close(self) -> None:
        """Lets go of everything; a file that is not whole is removed."""


def open_stores(names: Sequence[Any], shape: Shape, window: int, folder: Path | None) -> dict[Any, Store]:
    """A store of features of ``shape`` for each name: ``<folder>/<name>.npy`` where they are larger than ``IN_MEMORY``.

    window: rows come in windows of so many, all rows of one before any of the next.
    Raises StoreError where the disk has no room for all of them, and for a file that cannot be written.
    """
    size = 4 * math.prod(shape)
    if folder is None or size <= IN_MEMORY:
        return {name: MemoryStore(shape) for name in names}
    _require_disk(folder, size * len(names), shape)
    return {name: FileStore(folder / f"{name}.npy", shape, window) for name in names}


def _require_disk(folder: Path, size: int, shape: Shape) -> None:
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if size > free:
        layers, n, width = shape
        raise StoreError(
            f"the features of {n:,} rows in {layers} layers of width {width} take {size / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB are free in {folder}: free some space, choose another folder, or take fewer rows"
        )


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write features to {path}: {explain(error)}") from error


class MemoryStore:
    """Features as an array."""

    def __init__(self, shape: Shape) -> None:
        self._array = np.empty(shape, dtype=np.float32)

    def add(self, positions: Array, vectors: Array) -> None:
        """As in ``Store``."""
        self._array[:, positions] = vectors

    def whole(self) -> Array:
        """As in ``Store``."""
        return self._array

    def close(self) -> None:
        """Nothing to let go of."""


class FileStore:
    """Features as a file in NumPy's format, written a window at a time and named when it is whole.

    Pages of a memory map that are written to count as the process's memory until they are taken away, so the map is
    for reading only.
    """

    def __init__(self, path: Path, shape: Shape, window: int) -> None:
        layers, self._n, width = shape
        self._path, self._part = path, path.with_name(f"{path.name}.part")
        self._window = np.empty((layers, window, width), dtype=np.float32)
        self._start = self._held = 0
        with _writing(path):
            self._file = self._part.open("wb")
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._file, header)
        self._offset = self._file.tell()

    def add(self, positions: Array, vectors: Array) -> None:
        """As in ``Store``. Raises StoreError when the file cannot be written."""
        self._window[:, positions - self._start] = vectors
        self._held += len(positions)
        full = min(self._window.shape[1], self._n - self._start)
        if self._held == full:
            self._write(full)
            self._start, self._held = self._start + full, 0

    def _write(self, rows: int) -> None:
        width = self._window.shape[2]
        with _writing(self._path):
            for layer, vectors in enumerate(self._window):
                self._file.seek(self._offset + 4 * width * (layer * self._n + self._start))
                self._file.write(np.ascontiguousarray(vectors[:rows], dtype="<f4").data)

    def whole(self) -> Array:
        """As in ``Store``: a read-only memory map. Raises StoreError when the file cannot be written."""
        with _writing(self._path):
            self._file.close()
            os.replace(self._part, self._path)
        return np.load(self._path, mmap_mode="r")

    def close(self) -> None:
        """As in ``Store``."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)
