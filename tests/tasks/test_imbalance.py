"""Imbalance: the profile asked for, as many rows as it allows, seeded, nested, refused where it means nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbench.errors import UsageError
from ftbench.tasks.perturb import perturb
from ftbench.types.task import Data, Files, Rows, Task


def data(labels: Any, kind: Any = "classification") -> Data:
    values = np.asarray(labels)
    task = Task(name="toy", kind=kind, source=Files("x.csv"), inputs=("text",), metrics=("accuracy",))
    rows = Rows((tuple(f"t{i}" for i in range(len(values))),), values, np.arange(len(values)))
    names = tuple(str(i) for i in range(int(max(values)) + 1)) if kind == "classification" else ()
    return Data(task, {"train": rows, "validation": rows}, names)


def kept(whole: Data, **asked: Any) -> Rows:
    return perturb(whole, **asked).splits["train"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(5, 60), min_size=2, max_size=5),
    st.floats(0.05, 1.0),
    st.integers(0, 5),
)
def test_the_profile_is_geometric_and_as_large_as_it_can_be(sizes: list[int], ratio: float, seed: int) -> None:
    whole = data(np.repeat(np.arange(len(sizes)), sizes))
    rows = kept(whole, imbalance=ratio, data_seed=seed)
    counts = np.bincount(rows.labels, minlength=len(sizes))
    order = np.argsort(-np.array(sizes), kind="stable")
    weights = ratio ** (np.arange(len(sizes)) / (len(sizes) - 1))
    most = min(np.array(sizes)[order] / weights)
    assert all(abs(c - max(1, most * w)) < 1 + 1e-6 for c, w in zip(counts[order], weights, strict=True))
    assert all(counts <= sizes) and any(counts[order] == np.array(sizes)[order])
    assert len(set(rows.index.tolist())) == len(rows)
    assert all(rows.labels == whole.splits["train"].labels[rows.index])


def test_seeded_and_nested_in_size() -> None:
    whole = data(np.arange(200) % 4)
    same, again, other = (kept(whole, imbalance=0.1, data_seed=s) for s in (1, 1, 2))
    assert np.array_equal(same.index, again.index) and not np.array_equal(same.index, other.index)
    small, large = (set(kept(whole, imbalance=0.1, train_size=n).index.tolist()) for n in (20, 60))
    assert small < large


def test_it_stacks_with_noise_and_leaves_validation_alone() -> None:
    whole = data(np.arange(200) % 2)
    changed = perturb(whole, imbalance=0.5, label_noise=0.2)
    assert len(changed.splits["validation"]) == 200
    rows = changed.splits["train"]
    assert len(rows) == 150 and (rows.labels != rows.index % 2).sum() == 30


def test_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="between classes: task 'toy' is a regression"):
        kept(data([0.5, 1.5, 2.5], "regression"), imbalance=0.5)
    with pytest.raises(UsageError, match=r"train-size is 160: .* has 150 train rows at imbalance 0\.5"):
        kept(data(np.arange(200) % 2), imbalance=0.5, train_size=160)
