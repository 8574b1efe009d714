"""From runs of a race to what the race compares: each score on resamples of the rows, the same ones for all."""

from __future__ import annotations

from typing import Any

import numpy as np

from ftbench.reporting.predictions import read_columns
from ftbench.reporting.resample import WEIGHTED
from ftbench.runs.race import Scored
from ftbench.types import Record, Rows

Array = np.ndarray[Any, np.dtype[Any]]
RESAMPLES = 400


class Scorer:
    """Draws the resamples of the pool once. Scores are turned so that larger is better."""

    def __init__(self, pool: Rows, metric: str) -> None:
        self.metric, self.sign = metric, 1.0
        n = len(pool)
        generator = np.random.default_rng(0)
        self._order = np.argsort(pool.index, kind="stable")
        self._index = pool.index[self._order]
        self._weights = np.stack(
            [np.bincount(generator.integers(0, n, n), minlength=n).astype(np.uint8) for _ in range(RESAMPLES)]
        )

    def score(self, record: Record, selection: str) -> float | None:
        """The headline score as it is; None for a run without one."""
        found = record.result.score(self.metric, selection)
        return found if found is not None and np.isfinite(found) else None

    def scored(self, record: Record, selection: str, seconds: float) -> Scored | None:
        """None for a run without a score. Where its predictions cannot be resampled the rows are taken as given."""
        found = self.score(record, selection)
        if found is None:
            return None
        self.sign = -1.0 if record.result.facts.get("lower_is_better") else 1.0
        drawn = self._resampled(record, "prediction" if selection == "last" else selection, found)
        return Scored(self.sign * found, self.sign * drawn, seconds)

    def _resampled(self, record: Record, column: str, score: float) -> Array:
        columns = read_columns(record, ("example", "label", column))
        if columns is None or self.metric not in WEIGHTED:
            return np.full(RESAMPLES, score)
        places = self._order[np.searchsorted(self._index, columns["example"])]
        weights = self._weights[:, places].astype(np.float64)
        weights = weights[weights.sum(axis=1) > 0]
        again = WEIGHTED[self.metric](weights, columns[column][None], columns["label"])[0]
        return np.resize(again, RESAMPLES)
