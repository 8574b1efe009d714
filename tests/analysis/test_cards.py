"""Every claim of every collapse metric's card is tried: ranges, invariances, direction, what constant features give."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ftbench.analysis.card import ANY, Change
from ftbench.analysis.collapse import COLLAPSE, SIMILARITY, measure
from ftbench.errors import UsageError

Array = np.ndarray[Any, Any]
N, WIDTH, CLASSES = 120, 24, 3


def data(seed: int = 0, n: int = N, width: int = WIDTH) -> tuple[Array, Array, Array]:
    """Features whose variances fall off, with a mean and three classes; labels; a noisy other network's features."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    centres = generator.normal(size=(CLASSES, width))
    x = generator.normal(size=(n, width)) * np.linspace(2, 0.2, width) + centres[labels] + 0.5
    return x, labels, x @ generator.normal(size=(width, width)) + generator.normal(size=(n, width))


def rotated(x: Array, labels: Array, other: Array) -> tuple[Array, Array, Array]:
    return x @ np.linalg.qr(np.random.default_rng(1).normal(size=(x.shape[1],) * 2))[0], labels, other


def shuffled(x: Array, labels: Array, other: Array) -> tuple[Array, Array, Array]:
    order = np.random.default_rng(2).permutation(len(x))
    return x[order], labels[order], other[order]


CHANGES: dict[Change, Callable[[Array, Array, Array], tuple[Array, Array, Array]]] = {
    "rotation": rotated,
    "scaling": lambda x, labels, other: (3.7 * x, labels, other),
    "shift": lambda x, labels, other: (x + np.linspace(-3, 5, x.shape[1]), labels, other),
    "order": shuffled,
}


@pytest.mark.parametrize("change", sorted(ANY))
@pytest.mark.parametrize("name", COLLAPSE)
def test_it_is_invariant_to_what_its_card_says_and_to_nothing_else(name: str, change: Change) -> None:
    x, labels, other = data()
    before, after = measure(name, x, labels, other), measure(name, *CHANGES[change](x, labels, other))
    moved = abs(after - before) > 1e-8 * abs(before)
    assert moved is (change not in COLLAPSE[name].invariant), f"{before} became {after}"


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("name", COLLAPSE)
def test_no_scale_overflows(name: str, scale: float) -> None:
    x, labels, other = data()
    before, after = measure(name, x, labels, other), measure(name, scale * x, labels, other)
    expected = before if "scaling" in COLLAPSE[name].invariant else before * scale**2
    assert after == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("n", [22, N])
@pytest.mark.parametrize("name", COLLAPSE)
def test_it_stays_in_the_range_that_its_card_gives(name: str, n: int) -> None:
    least, most = bounds(name, n)
    for seed in range(3):
        x, labels, other = data(seed, n)
        value = measure(name, x, labels, other)
        assert least - 1e-12 <= value <= most + 1e-12


def bounds(name: str, n: int) -> tuple[float, float]:
    """The two numbers in the card's words."""
    words = re.split(r"[;,(]| where ", COLLAPSE[name].range.replace("-1/(n - 1)", "neg").replace("min(n", "min n"))[0]
    k = int(name.split("_")[1]) if name[:3] in ("gm_", "hm_") else 1
    known = {
        "0": 0.0, "1": 1.0, "-1": -1.0, "-8": -8.0, "4": 4.0, "1/k": 1 / k, "neg": -1 / (n - 1), "below 0": -math.inf,
        "infinite": math.inf, "min n - 1": min(n - 1, WIDTH), "min n": min(n, WIDTH),
    }  # fmt: skip
    if words.strip().endswith("and up"):
        return known[words.split(" and up")[0]], math.inf
    if name == "ridge_r2":
        return -math.inf, 1.0
    low, high = words.strip().split(" to ")
    return known[low], known[high.strip()]


@pytest.mark.parametrize("name", COLLAPSE)
def test_collapse_lies_where_its_card_says(name: str) -> None:
    """All directions but three shrink to a hundredth, examples come nearer their class and all stand together."""
    x, labels, other = data()
    narrow = (x - x.mean(0)) * np.where(np.arange(WIDTH) < 3, 1.0, 0.01)
    means = np.stack([narrow[labels == c].mean(0) for c in range(CLASSES)])[labels]
    collapsed = 0.3 * (means + 0.1 * (narrow - means)) + 20 * x.mean(0)
    before, after = measure(name, x, labels, other), measure(name, collapsed, labels, other)
    assert (after < before) is (COLLAPSE[name].collapse == "low")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", COLLAPSE)
def test_constant_features_give_what_the_card_says(name: str, dtype: Any) -> None:
    _, labels, other = data()
    constant = np.full((N, WIDTH), 0.1, dtype) * np.linspace(-1, 2, WIDTH, dtype=dtype)
    assert measure(name, constant, labels, other) == pytest.approx(COLLAPSE[name].constant, abs=1e-12)
    assert measure(name, np.zeros((N, WIDTH), dtype), labels, other) == 0
    if COLLAPSE[name].needs == "reference":
        assert measure(name, other, labels, constant) == 0, "the other network's are constant"


@pytest.mark.parametrize("name", COLLAPSE)
def test_rounding_of_constant_features_is_not_taken_for_directions(name: str) -> None:
    """What one text gives in batches of different lengths: one vector, but for the last bits."""
    _, labels, other = data()
    generator = np.random.default_rng(0)
    noise = 1 + generator.uniform(-1, 1, (N, WIDTH)) * np.finfo(np.float32).eps
    rounded = (np.linspace(-1, 2, WIDTH) * noise).astype(np.float32)
    assert measure(name, rounded, labels, other) == pytest.approx(COLLAPSE[name].constant, abs=1e-9)


@pytest.mark.parametrize("name", COLLAPSE)
def test_fewer_examples_than_dimensions_are_measured(name: str) -> None:
    x, labels, other = data(n=30, width=50)
    value = measure(name, x, labels, other)
    assert math.isfinite(value)
    if COLLAPSE[name].needs != "labels" and name != "ridge_r2":  # wider by dimensions in which nothing happens
        wider = measure(name, np.pad(x, ((0, 0), (0, 40))), labels, other)
        assert wider == pytest.approx(value * 49 / 89 if name == "isoscore" else value, rel=1e-9)


@pytest.mark.parametrize("name", COLLAPSE)
def test_too_few_examples_are_refused(name: str) -> None:
    x, labels, other = data()
    least = COLLAPSE[name].examples
    labels[:2] = 0, 0 if name == "alignment" else 1
    labels[2] = 1
    if name != "alignment":
        assert not math.isnan(measure(name, x[:least], labels[:least], other[:least]))
    with pytest.raises(UsageError, match=f"{name} needs at least {least} examples, got {least - 1}"):
        measure(name, x[: least - 1], labels[: least - 1], other[: least - 1])


def test_a_mean_of_k_needs_more_than_k_examples_and_k_dimensions() -> None:
    x, _, _ = data()
    with pytest.raises(UsageError, match="gm_20 needs at least 21 examples, got 20"):
        measure("gm_20", x[:20])
    with pytest.raises(UsageError, match="hm_20_top needs a width of at least 20, got 19"):
        measure("hm_20_top", x[:, :19])


def test_every_card_is_filled_in() -> None:
    for name, card in COLLAPSE.items():
        assert all(
            len(text) > 3 and text == text.strip()
            for text in (card.means, card.formula, card.range, card.traps, card.cite)
        ), name
        assert card.means.endswith(".") and card.traps.endswith("."), name
    assert {name for name, card in COLLAPSE.items() if card.needs == "reference"} == set(SIMILARITY)
