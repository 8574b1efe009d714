"""How much the encoders of several seeds differ: their features, and what their probes predict."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ftbench.types import Record

PREDICTIONS = "predictions.parquet"


class Agreement(NamedTuple):
    """Means over pairs of runs: linear CKA (biased) of the top layer's features on validation rows, and the share of
    these rows for which the probes' predictions differ (None in regression)."""

    pairs: int
    cka: float
    disagreement: float | None


def between_seeds(records: Sequence[Record]) -> Agreement | None:
    """Of finished probe runs on the same rows that have kept their predictions; None below two."""
    from ftbench.analysis.collapse import measure
    from ftbench.analysis.similarity import disagreement

    read = [_read(record.folder / PREDICTIONS) for record in records if (record.folder / PREDICTIONS).is_file()]
    if len(read) < 2:
        return None
    pairs = list(itertools.combinations(read, 2))
    similar = [measure("cka", one["features"], reference=other["features"]) for one, other in pairs]
    classes = records[0].result.facts["kind"] != "regression"
    differ = [disagreement(one["prediction"], other["prediction"]) for one, other in pairs] if classes else []
    return Agreement(len(pairs), statistics.fmean(similar), statistics.fmean(differ) if differ else None)


def _read(path: Path) -> dict[str, Any]:
    """predictions (n,), and features (m, width) of the rows that have them."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    features = [row for row in table["features"].to_pylist() if row is not None]
    return {"prediction": table["prediction"].to_numpy(), "features": np.array(features, dtype=np.float32)}
