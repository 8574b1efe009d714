"""Every verdict on a curve made for it, the trap of the isotropic layer, and how often noise is taken for signal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ftbench.analysis.grouping import classes_of
from ftbench.analysis.layer_choice import choose
from ftbench.analysis.variability import Variability, variability
from ftbench.types import Features

Array = np.ndarray[Any, Any]
#: permuted nu over its mean: between 0.8 and 1.2
FLOOR = np.linspace(0.8, 1.2, 20)


def curve(nu: list[float], floor: list[float] | float = 10.0, noise: float = 0.01, bias: float = 1.0) -> Variability:
    """A curve with resamples of that log-normal spread around ``bias`` times nu."""
    values = np.array(nu, dtype=np.float64)
    floors = np.broadcast_to(floor, values.shape)
    draws = np.random.default_rng(0).normal(size=(len(nu), 200))
    blank = np.ones(len(nu))
    return Variability(
        values,
        floors[:, None] * FLOOR,
        bias * values[:, None] * np.exp(noise * draws),
        blank,
        blank,
        blank,
        classes_of(np.array([0, 0, 1, 1])),
    )


def test_a_clear_minimum_is_recommended() -> None:
    choice = choose(curve([5, 3, 1, 2]))
    assert choice.verdict == "recommended" and choice.layer == choice.best == choice.best_ratio == 3
    assert choice.shares.tolist() == [0, 0, 1, 0] and (choice.low, choice.high) == (3, 3)
    assert choice.signal.all() and choice.p_value == pytest.approx(1 / 21)


def test_a_curve_on_the_floor_has_no_layer() -> None:
    choice = choose(curve([10, 9, 8.1, 9.5]))
    assert choice.verdict == "floor" and choice.layer is None and choice.best == 3
    assert not choice.signal.any() and "shuffled labels" in choice.reason


def test_a_layer_that_wins_by_its_geometry_is_not_recommended() -> None:
    choice = choose(curve([5, 4, 3, 2.5], floor=[10, 10, 10, 2.5]))
    assert choice.verdict == "floor" and choice.best == 4 and choice.best_ratio == 3
    assert choice.signal.tolist() == [True, True, True, False] and "geometry" in choice.reason


def test_a_flat_curve_has_no_layer() -> None:
    choice = choose(curve([1.0, 1.05, 1.02, 1.09], noise=1e-6))
    assert choice.verdict == "flat" and choice.layer is None and "1.09 times" in choice.reason


def test_resamples_that_disagree_leave_it_open() -> None:
    choice = choose(curve([1.2, 1.1, 1.0, 1.15], noise=0.5))
    assert choice.verdict == "open" and choice.layer is None and choice.high - choice.low >= 2
    assert choice.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize(("layers", "span", "verdict"), [(2, 2, "open"), (6, 3, "recommended"), (6, 4, "open"),
    (12, 4, "open"), (24, 6, "recommended"), (24, 7, "open")])  # fmt: skip
def test_how_far_resamples_may_spread_depends_on_the_depth(layers: int, span: int, verdict: str) -> None:
    found = curve([1.0] + [2.0] * (layers - 1), noise=1e-9)
    found.resampled[:] = found.nu[:, None]
    found.resampled[span - 1, :20] = 1e-6  # a tenth of the resamples choose that layer
    found.resampled[:] *= (found.nu / np.exp(np.log(found.resampled).mean(1)))[:, None]
    assert choose(found).verdict == verdict


def test_two_rules_that_disagree_are_told() -> None:
    choice = choose(curve([1, 2, 3, 1.2], floor=[4, 10, 10, 10]))
    assert choice.verdict == "divided" and (choice.best, choice.best_ratio) == (1, 4)


def test_the_bias_of_resampling_does_not_choose() -> None:
    """Resampling halves layer 2's nu, whose floor is low, and leaves the others."""
    found = curve([1.0, 1.5, 2.0])
    found.resampled[1] *= 0.5
    assert choose(found).verdict == "recommended" and choose(found).shares[0] == 1


def test_layers_without_distances_between_classes_are_no_trouble() -> None:
    found = curve([2.0, 1.0, 3.0])
    for part in (found.nu, found.permuted, found.resampled):
        part[0] = np.inf
    choice = choose(found)
    assert choice.verdict == "recommended" and choice.layer == 2 and not choice.signal[0]


@pytest.mark.parametrize("nothing", [0.0, -1e-17, 1e-17])
def test_a_resample_without_spread_is_no_vote(nothing: float) -> None:
    """Every class one row, drawn again: that says nothing of any layer, and least of all that they all agree."""
    found = curve([1.2, 1.1, 1.0, 1.15], noise=0.5)
    found.resampled[:, ::4] = nothing
    found.resampled[1, 1] = nothing  # in one layer only: the draw is left out of all
    choice = choose(found)
    assert choice.verdict == "open" and choice.high - choice.low >= 2
    assert choice.shares.sum() == pytest.approx(1) and choice.shares.max() < 0.9


def test_classes_too_small_to_resample_are_no_recommendation() -> None:
    found = curve([5, 3, 1, 2])
    assert choose(found).verdict == "recommended"
    found.resampled[:, :120] = 0.0
    choice = choose(found)
    assert choice.verdict == "open" and choice.layer is None
    assert "in 120 of 200 resamples every class is one row" in choice.reason


def test_one_row_twice_in_every_class_has_no_spread() -> None:
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), 2)
    centres = 3 * generator.normal(size=(6, 3, 8))
    hidden = (centres[:, labels] + generator.normal(size=(6, 6, 8))).astype(np.float32)
    found = variability(Features(hidden, labels), permutations=20)
    none = found.resampled == 0
    assert none.any() and (none.all(0) == none.any(0)).all(), "an eighth of the resamples, in every layer"
    assert (found.resampled >= 0).all() and not ((found.resampled > 0) & (found.resampled < 1e-9)).any()


def test_it_wants_enough_permutations_to_test_with() -> None:
    features = Features(np.random.default_rng(0).normal(size=(3, 40, 4)).astype(np.float32), np.tile([0, 1], 20))
    with pytest.raises(ValueError, match="18 permutations"):
        choose(variability(features, permutations=18))


def layers_of_noise(seed: int, n: int = 60, widths: tuple[int, ...] = (40, 8)) -> Array:
    """Layers of noise that differ in how many directions they vary in, float32 (layers, n, 40)."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.normal(size=(n, 40)) * (np.arange(40) < w) for w in widths]).astype(np.float32)


def test_noise_is_taken_for_signal_in_one_of_twenty_sets_at_most() -> None:
    labels = np.tile([0, 1], 30)
    choices = [choose(variability(Features(layers_of_noise(s), labels), resamples=1, seed=s)) for s in range(60)]
    assert sum(choice.signal.any() for choice in choices) <= 8  # binomial: 3 expected, 8 or fewer in 99.8 %


@pytest.mark.parametrize("n", [100, 400, 2000])
def test_an_isotropic_layer_without_signal_is_never_recommended(n: int) -> None:
    """The trap: layer 1 varies in 40 directions and tells nothing, layer 2 in 4 and tells the class."""
    hidden = layers_of_noise(n, n, (40, 4, 4))
    labels = np.tile([0, 1], n // 2)
    hidden[1, :, 0] += 0.5 * labels
    hidden[2, :, 0] += 0.2 * labels
    choice = choose(variability(Features(hidden, labels), resamples=20))
    assert choice.layer in (None, 2)
    assert choice.best_ratio == 2
