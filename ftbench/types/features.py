"""What a network makes of texts: one vector a text and block."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Features:
    """Pooled outputs of the blocks, lowest block first.

    hidden:  (layers, examples, width) float32, possibly memory-mapped
    labels:  (examples,) class numbers, or float targets in regression
    pooling: which of a text's tokens: ``mean``, ``ordinary``, ``cls`` or ``last``; see ``models.pooling``
    """

    hidden: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    pooling: str = "mean"

    def __post_init__(self) -> None:
        if self.hidden.ndim != 3 or len(self.labels) != self.hidden.shape[1]:
            raise ValueError(f"hidden {self.hidden.shape} and labels {self.labels.shape} do not fit each other")

    @property
    def layers(self) -> int:
        return len(self.hidden)

    def take(self, layers: slice, rows: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        """A copy (layers, rows, width), of all rows where None.

        Pages of a memory map, those around the rows too, are in the process's memory until they are let go of: after
        every layer.
        """
        chosen = self.hidden[layers]
        count = self.hidden.shape[1] if rows is None else len(rows)
        copied = np.empty((len(chosen), count, self.hidden.shape[2]), dtype=self.hidden.dtype)
        for own, hidden in zip(copied, chosen, strict=True):
            own[:] = hidden if rows is None else hidden[rows]
            pages = getattr(self.hidden, "_mmap", None)
            if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
                pages.madvise(mmap.MADV_DONTNEED)
        return copied
