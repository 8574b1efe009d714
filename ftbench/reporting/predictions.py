"""What runs predicted for each test example, read from ``predictions.parquet`` and checked against their scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ftbench.metrics import ROUGE
from ftbench.reporting.resample import AT_ONCE, RESAMPLES, WEIGHTED, draws, weighted
from ftbench.types import Record

Array = np.ndarray[Any, np.dtype[Any]]

NOT_KEPT = "no predictions were kept"
NOT_LAST = "predictions are kept of the last weights only"
NOT_RESAMPLED = "this metric has no form for resampled examples"
OTHER_EXAMPLES = "runs were scored on other examples or labels"
OTHER_SCORE = "predictions do not give the score that was stored"


class Kept:
    """Predictions of runs, read once, and their scores on resamples of the test examples, drawn once.

    All runs scored on the same examples meet the same resamples, whichever comparison asks.
    """

    def __init__(self, seed: int = 0, resamples: int = RESAMPLES) -> None:
        self.seed = seed
        self.resamples = resamples
        self._labels: dict[str, Array] = {}
        self._read: dict[tuple[Path, str], tuple[str, Array] | None] = {}
        self._drawn: dict[tuple[Path, str], Array | None] = {}
        self._samples: dict[int, list[Array]] = {}

    def on_resamples(self, records: Sequence[Record], metric: str, selection: str) -> tuple[Array, int] | str:
        """Scores of the runs on the resamples (runs, resamples) and how many test examples there are; or why not."""
        if selection != "last":
            return NOT_LAST
        if metric not in WEIGHTED:
            return NOT_RESAMPLED
        found = [self._predictions(record, metric) for record in records]
        if not found or None in found:
            return NOT_KEPT
        examples = {item[0] for item in found if item}
        if len(examples) > 1:
            return OTHER_EXAMPLES
        labels = self._labels[examples.pop()]
        fresh = [record for record in records if (record.folder, metric) not in self._drawn]
        if fresh:
            self._draw(fresh, metric, labels)
        drawn = [self._drawn[record.folder, metric] for record in records]
        kept = [scores for scores in drawn if scores is not None]
        return (np.stack(kept), len(labels)) if len(kept) == len(drawn) else OTHER_SCORE

    def _predictions(self, record: Record, metric: str) -> tuple[str, Array] | None:
        """Which examples the run was scored on, and what it said of each; of ROUGE what it scored on each."""
        name = record.folder, metric if metric in ROUGE else ""
        if name not in self._read:
            wanted = ("example", metric) if metric in ROUGE else ("example", "label", "prediction")
            columns = read_columns(record, wanted)
            self._read[name] = None
            if columns is not None and len(columns["example"]):
                labels = columns.get("label", np.zeros(len(columns["example"])))
                digest = hashlib.sha256(columns["example"].tobytes() + labels.tobytes()).hexdigest()
                self._labels[digest] = labels
                self._read[name] = digest, columns[wanted[-1]]
        return self._read[name]

    def _draw(self, records: Sequence[Record], metric: str, labels: Array) -> None:
        predictions = np.stack([found[1] for record in records if (found := self._predictions(record, metric))])
        again = WEIGHTED[metric](np.ones((1, len(labels))), predictions, labels)[:, 0]
        scores = weighted(metric, predictions, labels, self._draws(len(labels)))
        for record, seen, of_run in zip(records, again, scores, strict=True):
            stored = record.result.score(metric)
            same = stored is not None and np.isclose(seen, stored, rtol=1e-6, atol=1e-9)
            self._drawn[record.folder, metric] = of_run if same else None

    def _draws(self, n: int) -> Iterable[Array]:
        """The samples of ``n`` examples: the same ones at every call, kept until others are asked for."""
        if n * self.resamples > AT_ONCE:
            return draws(n, np.random.default_rng(self.seed), self.resamples)
        if n not in self._samples:
            self._samples = {n: list(draws(n, np.random.default_rng(self.seed), self.resamples))}
        return self._samples[n]


def read_columns(record: Record, names: Sequence[str]) -> dict[str, Array] | None:
    """Columns of a run's predictions, each (examples,) or (examples, classes); None where one cannot be read."""
    path = record.folder / "predictions.parquet"
    if not path.exists():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path, pre_buffer=False).read(columns=list(names), use_threads=False)
        columns = {name: _array(table.column(name).combine_chunks()) for name in names}
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None
    return columns if all(np.isfinite(column).all() for column in columns.values()) else None


def _array(column: Any) -> Array:
    """Lists of one length become rows. Raises ValueError for lists of several, for text, and for gaps."""
    import pyarrow as pa

    if hasattr(column, "flatten") and str(column.type).startswith(("list", "large_list", "fixed_size_list")):
        flat = np.asarray(_array(column.flatten()), dtype=np.float64)
        return flat.reshape(len(column), -1)
    if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise ValueError(f"{column.type} is no number")
    return np.from_dlpack(column)  # to_numpy would load pandas
