"""Features in memory and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ftbench.types import Features


@pytest.fixture
def hidden() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 50, 8)).astype(np.float32)


@pytest.mark.parametrize("mapped", [False, True])
def test_rows_are_taken_as_copies_wherever_they_lie(hidden: np.ndarray, mapped: bool, tmp_path: Path) -> None:
    if mapped:
        np.save(tmp_path / "mean.npy", hidden)
    found = Features(np.load(tmp_path / "mean.npy", mmap_mode="r") if mapped else hidden, np.zeros(50, dtype=int))
    rows = np.array([7, 3, 49])
    few = found.take(slice(1, 3), rows)
    assert np.array_equal(few, hidden[1:3][:, rows]) and few.flags.writeable
    whole = found.take(slice(None))
    assert np.array_equal(whole, hidden) and not np.shares_memory(whole, found.hidden)
    assert np.array_equal(found.hidden, hidden), "what was let go of can be read again"
