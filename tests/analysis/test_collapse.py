"""All metrics of all layers in one pass: the rows, what is left out, float32 on disk, what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.analysis.collapse import COLLAPSE, SIMILARITY, collapse, measure
from ftbench.errors import UsageError
from ftbench.types.features import Features

LAYERS, N, WIDTH = 3, 50, 24


def features(seed: int = 0, **replaced: Any) -> Features:
    generator = np.random.default_rng(seed)
    hidden = (generator.normal(size=(LAYERS, N, WIDTH)) * np.linspace(2, 0.2, WIDTH) + 0.3).astype(np.float32)
    return Features(**{"hidden": hidden, "labels": np.arange(N) % 3, **replaced})


def test_a_row_for_every_layer_and_metric() -> None:
    own, other = features(), features(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = collapse(own, other)
    assert [(row["layer"], row["metric"]) for row in rows] == [(i, m) for i in (1, 2, 3) for m in COLLAPSE]
    for row in rows:
        at = row["layer"] - 1
        assert row["value"] == measure(row["metric"], own.hidden[at], own.labels, other.hidden[at])
        assert type(row["value"]) is float


def test_what_the_data_do_not_permit_is_left_out() -> None:
    def measured(found: list[dict[str, Any]]) -> set[str]:
        return {row["metric"] for row in found}

    needs = {name: card.needs for name, card in COLLAPSE.items()}
    assert measured(collapse(features())) == {name for name, need in needs.items() if need != "reference"}
    numbers = features(labels=np.linspace(0, 5, N))
    assert measured(collapse(numbers)) == {name for name, need in needs.items() if not need}
    assert measured(collapse(numbers, features(1), SIMILARITY)) == set(SIMILARITY)
    assert [row["metric"] for row in collapse(features(), names=["nc1", "gm_5"])] == ["nc1", "gm_5"] * 3


def test_float32_on_disk_equals_float64_in_memory(tmp_path: Path) -> None:
    """All is summed in float64, so the two agree far below float32's rounding."""
    own, other = features(), features(1)
    mapped = []
    for name, each in (("own", own), ("other", other)):
        np.save(tmp_path / f"{name}.npy", each.hidden)
        mapped.append(Features(np.load(tmp_path / f"{name}.npy", mmap_mode="r"), each.labels))
    doubled = [Features(each.hidden.astype(np.float64), each.labels) for each in (own, other)]
    for a, b in zip(collapse(*mapped), collapse(*doubled), strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-11), a["metric"]


def test_a_far_mean_costs_no_digits_but_those_of_float32() -> None:
    """A mean a thousand times the spread, as outlier dimensions have."""
    own = features()
    shifted = own.hidden.astype(np.float64) + 1000
    near = {row["metric"]: row["value"] for row in collapse(own) if row["layer"] == 1}
    for row in collapse(Features(shifted, own.labels)):
        if row["layer"] == 1 and "shift" in COLLAPSE[row["metric"]].invariant:
            assert row["value"] == pytest.approx(near[row["metric"]], rel=1e-8), row["metric"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("whose", ["own", "reference"])
def test_values_that_are_not_finite_are_named(value: float, whose: str) -> None:
    own, other = features(), features(1)
    (own if whose == "own" else other).hidden[1, 17, 3] = value
    name = "layer 2" if whose == "own" else "reference, layer 2"
    with pytest.raises(UsageError, match=rf"^{name}: example 17 \(from 0\) has values that are not finite"):
        collapse(own, other)


@pytest.mark.parametrize("name", ["nc1", "nc1_trace", "alignment"])
def test_one_class_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="layer 1: expected two classes or more, all 50 examples are of one"):
        collapse(features(labels=np.full(N, 2)), names=[name])


def test_alignment_needs_a_pair() -> None:
    with pytest.raises(UsageError, match="expected a class with two examples or more, every class has one"):
        collapse(features(labels=np.arange(N)), names=["alignment"])


def test_wrong_requests_are_refused() -> None:
    own = features()
    with pytest.raises(UsageError, match=r"unknown collapse metric 'effective-rank'\. Did you mean 'effective_rank'\?"):
        collapse(own, names=["effective-rank"])
    with pytest.raises(UsageError, match="layer 1: cka needs the features of the network to compare with"):
        collapse(own, names=["cka"])
    with pytest.raises(UsageError, match=r"layer 1: nc1 needs class labels \(whole numbers\)"):
        collapse(features(labels=np.zeros(N)), names=["nc1"])
    deeper = Features(np.concatenate([own.hidden, own.hidden[:1]]), own.labels)
    with pytest.raises(UsageError, match=r"the reference has \(layers, examples\) \(4, 50\), expected \(3, 50\)"):
        collapse(own, deeper)
    with pytest.raises(UsageError, match="layer 1: gm_20 needs at least 21 examples, got 12"):
        collapse(Features(own.hidden[:, :12], own.labels[:12]))
    with pytest.raises(UsageError, match=r"expected \(examples, width\), got the shape \(0, 24\)"):
        collapse(Features(own.hidden[:, :0], own.labels[:0]))
    with pytest.raises(UsageError, match="50 examples, but 49 labels or reference examples"):
        measure("nc1", own.hidden[0], own.labels[1:])


def test_a_reference_of_another_width_is_compared() -> None:
    wider = Features(np.pad(features().hidden, ((0, 0), (0, 0), (0, 8))), features().labels)
    for row in collapse(wider, features(), ["cka", "cka_debiased"]):
        assert row["value"] == pytest.approx(1, abs=1e-9)
