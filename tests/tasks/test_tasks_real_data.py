"""Real files in the wild: run where FTBENCH_DATA points to the folder with ``glue/`` and ``extra/``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ftbench.tasks import resolve
from ftbench.tasks.sources import load

FOLDER = os.environ.get("FTBENCH_DATA", "")
pytestmark = [pytest.mark.data, pytest.mark.skipif(not FOLDER, reason="FTBENCH_DATA is not set")]


@pytest.mark.parametrize(
    ("folder", "text", "label", "kind", "rows", "classes"),
    [
        ("extra/TREC", ("sentence",), "label", "classification", (4907, 545), 6),
        ("extra/MR", ("sentence",), "label", "classification", (8530, 1066), 2),
        ("glue/SST-2", ("sentence",), "label", "classification", (67349, 872), 2),
        ("glue/MRPC", ("#1 String", "#2 String"), "Quality", "classification", (3668, 408), 2),
        ("glue/RTE", ("sentence1", "sentence2"), "label", "classification", (2490, 277), 2),
        ("glue/STS-B", ("sentence1", "sentence2"), "score", "regression", (5749, 1500), 0),
        ("extra/IMDb", ("sentence",), "label", "classification", (22500, 2500), 2),
    ],
)
def test_every_row_is_read(
    folder: str, text: tuple[str, ...], label: str, kind: str, rows: tuple[int, int], classes: int
) -> None:
    """Row counts are those of the files: no quote swallows a line, no BOM hides a column."""
    data = load(resolve(str(Path(FOLDER) / folder), text, label, kind))  # type: ignore[arg-type]
    assert (len(data.splits["train"]), len(data.splits["validation"])) == rows
    assert len(data.labels) == classes
    for split in data.splits.values():
        assert len(split.texts) == len(text) and all(len(column) == len(split) for column in split.texts)
        assert np.isfinite(split.labels).all()
