"""Moments batch by batch against numpy's covariances, and the float32 product against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ftbench.analysis.grouping import classes_of
from ftbench.analysis.moments import Moments, moments_of
from ftbench.analysis.variability import nu

Array = np.ndarray[Any, Any]


def rows(n: int, width: int, classes: int, offset: float = 0.0) -> tuple[Array, Array]:
    """Float32 rows with a common mean of size ``offset``, 12 times that in three outlier dimensions."""
    generator = np.random.default_rng(n)
    labels = generator.integers(0, classes, n)
    common = generator.normal(size=width) * offset
    common[:3] *= 12
    x = generator.normal(size=(n, width)) * np.linspace(1, 4, width) + generator.normal(size=(classes, width))[labels]
    return (x + common).astype(np.float32), labels


@pytest.mark.parametrize("weighting", ["class", "sample"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_of_any_size_give_the_covariances(size: int, weighting: str) -> None:
    x, labels = rows(100, 6, 3)
    classes = classes_of(labels)
    moments = Moments(classes.counts, classes.shares(weighting), 6)
    for where, block in classes.chunks(x, size):
        moments.add(block, classes.ids[where])
    of_class = [x[labels == c].astype(np.float64) for c in range(3)]
    assert moments.means == pytest.approx(np.stack([part.mean(0) for part in of_class]), rel=1e-12)
    covariances = [np.cov(part.T, bias=True) for part in of_class]
    within = sum(share * c for share, c in zip(classes.shares(weighting), covariances, strict=True))
    assert moments.within == pytest.approx(within, rel=1e-10, abs=1e-12)
    assert moments.spreads == pytest.approx([np.trace(c) for c in covariances], rel=1e-12)
    assert moments.nu().nu == pytest.approx(nu(x, labels, weighting=weighting), rel=1e-10)  # type: ignore[arg-type]
    assert moments.participation() == pytest.approx(np.trace(within) ** 2 / np.square(within).sum(), rel=1e-10)


def test_rows_of_one_class_after_the_other_are_no_trouble() -> None:
    x, labels = rows(200, 5, 4, offset=100)
    order = np.argsort(labels)
    assert moments_of(x[order], classes_of(labels[order])).nu().nu == pytest.approx(nu(x, labels), rel=1e-10)


@pytest.mark.parametrize("offset", [1.0, 30.0, 1000.0])
def test_products_in_float32_of_rows_centred_in_float64_keep_nu_within_1e8(offset: float) -> None:
    x, labels = rows(4000, 96, 3, offset)
    classes = classes_of(labels)
    moments = Moments(classes.counts, classes.shares("class"), 96, gemm=np.float32)
    for where, block in classes.chunks(x, 32):
        moments.add(block, classes.ids[where])
    assert moments.nu().nu == pytest.approx(nu(x, labels), rel=1e-8)


def test_constant_rows_vary_in_no_direction() -> None:
    moments = moments_of(np.full((6, 3), 2.5, dtype=np.float32), classes_of(np.tile([0, 1], 3)))
    assert moments.participation() == 0
    assert moments.nu().nu == np.inf and moments.nu().rank == 0
