"""nu against the authors' recorded numbers, closed forms, the full pseudo-inverse, and its invariances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import pinvh

from ftbench.analysis.grouping import CHUNK, Classes, bin_targets, classes_of
from ftbench.analysis.thin import redrawn, thin
from ftbench.analysis.variability import nu, nu_paper, permute, resample, variability
from ftbench.errors import UsageError
from ftbench.types import Features

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "nc.json").read_text())
CASES = sorted(ORACLE["inputs"])
WEIGHTINGS = ("class", "sample")
Array = np.ndarray[Any, Any]


def recorded(case: str) -> tuple[Array, Classes]:
    """Features and classes of a recorded case; a class of one row takes part, as in the authors' code."""
    given = ORACLE["inputs"][case]
    x = np.array(given["features"]["data"], dtype=np.float32)
    values, ids, counts = np.unique(given["labels"]["data"], return_inverse=True, return_counts=True)
    return x, Classes(np.arange(len(ids)), ids, values, counts, ())


def clouds(n: int = 300, width: int = 8, classes: int = 3, *, apart: float = 1.0, seed: int = 0) -> tuple[Array, Array]:
    """Float64 rows (n, width) around a mean of each class, and their labels; classes differ in size and spread."""
    generator = np.random.default_rng(seed)
    labels = np.sort(generator.integers(0, classes, n) * generator.integers(0, 2, n)) if classes > 2 else None
    labels = generator.integers(0, classes, n) if labels is None else labels
    labels[: 2 * classes] = np.tile(np.arange(classes), 2)
    mix = generator.normal(size=(width, width))
    return generator.normal(size=(n, width)) @ mix + apart * generator.normal(size=(classes, width))[labels], labels


def in_full(x: Array, labels: Array, weighting: str = "class") -> float:
    """nu by its definition: covariance matrices and their pseudo-inverse."""
    values, counts = np.unique(labels, return_counts=True)
    shares = np.full(len(values), 1 / len(values)) if weighting == "class" else counts / counts.sum()
    within = sum(s * np.cov(x[labels == v].T, bias=True) for s, v in zip(shares, values, strict=True))
    means = np.stack([x[labels == v].mean(0) for v in values])
    apart = means - shares @ means
    return float(np.trace(within @ pinvh(apart.T @ apart / len(values))) / len(values))


@pytest.mark.parametrize("case", CASES)
def test_it_equals_the_authors_code_in_float64(case: str) -> None:
    x, classes = recorded(case)
    expected = ORACLE["outputs"][case]["float64"]
    assert thin(x, classes).nu == pytest.approx(expected["compute_nc"], rel=1e-12)
    assert thin(x, classes, "sample").nu == pytest.approx(expected["compare_nc"][0], rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_paper_numerics_equal_the_authors_code_in_float32(case: str) -> None:
    x, classes = recorded(case)
    expected = ORACLE["outputs"][case]["float32"]
    close = 2e-5 if case == "c6_more_classes_than_dims" else 1e-6  # full rank: pinv inverts what float32 rounded
    assert nu_paper(x, classes) == pytest.approx(expected["compute_nc"], rel=close)
    assert nu_paper(x, classes, "sample") == pytest.approx(expected["compare_nc"][0], rel=close)


def test_paper_numerics_drop_a_weak_direction_that_float64_keeps() -> None:
    """float32's pseudo-inverse cuts at width x 1.2e-7 of the largest singular value; so nu falls by orders."""
    generator = np.random.default_rng(0)
    means = np.zeros((3, 256))
    means[:, 0], means[2, 1] = (-1, 1, 0), 0.004
    labels = np.repeat(np.arange(3), 40)
    x = (means[labels] + 1e-2 * generator.normal(size=(120, 256))).astype(np.float32)
    x -= np.stack([x[labels == c].mean(0) - means[c] for c in range(3)])[labels].astype(np.float32)
    assert nu(x, labels) > 100 * nu(x, labels, dtype="paper")


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("n", "width", "classes"), [(60, 5, 2), (90, 7, 3), (200, 64, 10), (40, 64, 3), (150, 4, 9)])
def test_the_thin_form_is_the_full_pseudo_inverse(n: int, width: int, classes: int, weighting: Any) -> None:
    x, labels = clouds(n, width, classes)
    assert nu(x, labels, weighting=weighting) == pytest.approx(in_full(x, labels, weighting), rel=1e-12)


def test_two_classes_have_a_closed_form() -> None:
    x, labels = clouds(classes=2)
    a, b = x[labels == 0], x[labels == 1]
    delta = a.mean(0) - b.mean(0)
    along = delta / np.linalg.norm(delta)
    distance = np.linalg.norm(delta) / np.sqrt(((a @ along).var() + (b @ along).var()) / 2)
    assert nu(x, labels) == pytest.approx(2 / distance**2, rel=1e-12)


def test_in_classes_of_one_size_it_is_papyans_nc1() -> None:
    x, _ = clouds(120, 6)
    labels = np.tile(np.arange(4), 30)
    assert nu(x, labels) == pytest.approx(nu(x, labels, weighting="sample"), rel=1e-12)
    assert nu(x[:-3], labels[:-3]) != pytest.approx(nu(x[:-3], labels[:-3], weighting="sample"), rel=1e-6)


def test_it_does_not_change_under_rotation_shift_and_scale_but_under_the_scale_of_one_dimension() -> None:
    x, labels = clouds()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    own = nu(x, labels)
    assert nu(7 * (x @ rotation) + 3, labels) == pytest.approx(own, rel=1e-10)
    assert nu(x * np.array([9, *[1] * 7]), labels) != pytest.approx(own, rel=0.05)


@pytest.mark.parametrize("dtype", ["fp64", "paper"])
def test_classes_with_the_same_mean_are_worst_not_best(dtype: Any) -> None:
    x = np.tile(clouds(20, 6)[0], (2, 1)).astype(np.float32) + 1000
    assert nu(x, np.repeat([0, 1], 20), dtype=dtype) == np.inf
    assert nu(np.full((8, 4), 0.1, dtype=np.float32), np.tile([0, 1, 2, 3], 2), dtype=dtype) == np.inf


def test_means_that_differ_by_rounding_alone_are_the_same() -> None:
    """Sums in another order differ in their last bits."""
    half = clouds(999, 6)[0] * 1e3
    x = np.concatenate([half, half[np.random.default_rng(0).permutation(999)]])
    labels = np.repeat([0, 1], 999)
    assert not np.array_equal(x[:999].mean(0), x[999:].mean(0))
    assert nu(x, labels) == np.inf


def test_collapsed_classes_that_lie_apart_give_0() -> None:
    assert nu(np.repeat(np.eye(3, 5), 4, axis=0), np.repeat(np.arange(3), 4)) == pytest.approx(0, abs=1e-30)


def test_labels_that_say_nothing_give_the_floor_of_the_formula() -> None:
    """n_c (C - 1) / PR, up to the spread of permutations; so a more isotropic layer has the lower floor."""
    generator = np.random.default_rng(0)
    wide = generator.normal(size=(400, 80))
    narrow = wide * np.r_[np.ones(30), np.full(50, 0.1)]
    found = variability(Features(np.stack([narrow, wide]).astype(np.float32), np.tile([0, 1], 200)), resamples=1)
    assert found.floor == pytest.approx(200 / found.participation, rel=0.2)
    assert found.ratio == pytest.approx(1, abs=0.35)
    assert found.nu[1] < 0.6 * found.nu[0]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("n", [80, CHUNK + 80])
def test_redrawn_rows_and_labels_equal_nu_of_them(weighting: Any, n: int) -> None:
    x, labels = clouds(n, 5, 3)
    classes = classes_of(labels)
    permuted, counts = permute(classes, 3, 0), resample(classes, 3, 0)
    once = np.ones_like(permuted)
    floors = redrawn(x, classes, permuted, once, weighting)
    assert floors == pytest.approx([nu(x, ids, weighting=weighting) for ids in permuted], rel=1e-10)
    again = redrawn(x, classes, np.broadcast_to(classes.ids, counts.shape), counts, weighting)
    drawn = [np.repeat(np.arange(n), row) for row in counts]
    assert again == pytest.approx([nu(x[rows], labels[rows], weighting=weighting) for rows in drawn], rel=1e-10)


def test_many_classes_take_the_sparse_product_to_the_same_numbers() -> None:
    x, _ = clouds(400, 6)
    labels = np.tile(np.arange(40), 10)
    permuted = permute(classes_of(labels), 2, 0)
    floors = redrawn(x, classes_of(labels), permuted, np.ones_like(permuted))
    assert floors == pytest.approx([nu(x, ids) for ids in permuted], rel=1e-10)


def test_draws_keep_class_sizes_and_follow_the_seed() -> None:
    classes = classes_of(np.repeat([5, 7, 9], [30, 3, 12]))
    assert all((np.bincount(ids) == classes.counts).all() for ids in permute(classes, 4, 1))
    counts = resample(classes, 4, 1)
    assert all((np.bincount(classes.ids, row) == classes.counts).all() for row in counts)
    assert np.array_equal(counts, resample(classes, 4, 1)) and not np.array_equal(counts, resample(classes, 4, 2))
    assert len({tuple(row) for row in permute(classes, 4, 1)}) == 4


def test_layers_share_their_draws_and_lie_on_disk_if_they_like(tmp_path: Path) -> None:
    x, labels = clouds(90, 6)
    hidden = np.stack([x, 2 * x + 1, x[::-1]]).astype(np.float32)
    np.save(tmp_path / "hidden.npy", hidden)
    here = variability(Features(hidden, labels), resamples=5)
    there = variability(Features(np.load(tmp_path / "hidden.npy", mmap_mode="r"), labels), resamples=5)
    assert here.permuted[0] == pytest.approx(here.permuted[1], rel=1e-4)
    assert here.resampled[0] == pytest.approx(here.resampled[1], rel=1e-4)
    assert np.array_equal(here.nu, there.nu) and np.array_equal(here.permuted, there.permuted)
    assert here.permuted.shape == (3, 20) and here.resampled.shape == (3, 5)


def test_weights_of_classes_make_it_robust_to_a_rare_class() -> None:
    """With equal classes nu stays when one is thinned out; with equal rows it falls."""
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(size=(2000, 3)), generator.normal(size=(2000, 3)) + 4])
    labels, kept = np.repeat([0, 1], 2000), np.r_[0:2000, 2000:2300]
    assert nu(x[kept], labels[kept]) == pytest.approx(nu(x, labels), rel=0.1)
    assert nu(x[kept], labels[kept], weighting="sample") < 0.8 * nu(x, labels, weighting="sample")


def test_a_class_of_one_row_is_left_out_and_said() -> None:
    x, labels = clouds(40, 5, 2)
    alone = np.concatenate([x, 100 + x[:1]]), np.append(labels, 7)
    assert classes_of(alone[1]).dropped == (7,)
    assert nu(*alone) == nu(x, labels)


def test_what_it_cannot_measure_is_said() -> None:
    x, labels = clouds(40, 5, 2)
    with pytest.raises(UsageError, match="numbers, not classes: bin them"):
        nu(x, labels + 0.5)
    with pytest.raises(UsageError, match="1 classes have two examples"):
        nu(x, np.r_[1, np.zeros(39, dtype=int)])
    hidden = np.stack([x, x])
    hidden[1, 17, 2] = np.nan
    with pytest.raises(UsageError, match="layer 2, example 17"):
        variability(Features(hidden, labels))


def test_bins_are_quantiles_and_fewer_where_numbers_repeat() -> None:
    targets = np.random.default_rng(0).normal(size=1000)
    assert np.bincount(bin_targets(targets, 5)).tolist() == [200] * 5
    assert targets[bin_targets(targets, 2) == 0].max() < targets[bin_targets(targets, 2) == 1].min()
    assert np.bincount(bin_targets(np.array([0.0] * 8 + [1, 2]), 5)).tolist() == [8, 2]
    many = np.r_[np.zeros(600), np.random.default_rng(0).uniform(1, 5, 400)]
    for bins in (2, 3, 5):
        low, high = np.bincount(bin_targets(many, bins)), np.bincount(bin_targets(-many, bins))
        assert low[0] == high[-1] == 600, "the lowest number is a class of its own as the highest is"
    assert bin_targets(np.ones(9), 3).tolist() == [0] * 9
    with pytest.raises(UsageError, match="bins is 1"):
        bin_targets(targets, 1)
