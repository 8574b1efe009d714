"""Means of scalars since the last record, kept on the device so that training does not wait for it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Window:
    """Sums in float64 by name, and how many values went in (a scalar may be logged at a few steps only)."""

    def __init__(self, saved: Mapping[str, tuple[float, int]] | None = None) -> None:
        self._sums = {name: torch.tensor(total, dtype=torch.float64) for name, (total, _) in (saved or {}).items()}
        self._counts = {name: count for name, (_, count) in (saved or {}).items()}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds one value to each name."""
        for name, value in values.items():
            kind = torch.float32 if value.device.type == "mps" else torch.float64  # MPS has no float64
            value = value.detach().to(kind)
            self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def flush(self) -> dict[str, float]:
        """The means, and a fresh start. This waits for the device."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means

    def to_json(self) -> dict[str, tuple[float, int]]:
        """For a checkpoint."""
        return {name: (float(total), self._counts[name]) for name, total in self._sums.items()}
