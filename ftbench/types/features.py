"""What a network makes of texts: one vector a text and block."""

from __future__ import annotations

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
