"""What the intervals and tests promise, held against made-up studies whose truth is known.

The gate runs a short form; ``FTBENCH_DEEP=1`` (see ``.ci/deep``) repeats more often, and bootstraps where the gate uses
the closed form that the bootstrap of a mean has.
"""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from scipy import stats as reference

from ftbench.reporting import crossed, intervals, pairs, resample
from ftbench.reporting.stats import t_interval

DEEP = bool(os.environ.get("FTBENCH_DEEP"))
ROWS = 277  # RTE's validation rows
#: sd of how the methods order the examples, of a seed's skill; what two arms of one seed share of their noise
WORLDS = {
    "examples differ": (0.3, 0.0, 0.3),
    "seeds differ": (0.1, 0.4, 0.3),
    "both": (0.5, 0.1, 0.3),
    "neither": (0, 0, 0),
}


@pytest.mark.parametrize("n", [5, 10])
def test_t_covers(n: int) -> None:
    repeats = 20_000 if DEEP else 2_000
    drawn = np.random.default_rng(n).normal(0.8, 0.02, (repeats, n)).tolist()
    found = [t_interval(scores) for scores in drawn]
    assert 0.93 <= np.mean([low <= 0.8 <= high for low, high in found if low is not None]) <= 0.97


@pytest.mark.parametrize(("bad", "n"), [(0.02, 50), (0.1, 20), (0.3, 10)])
def test_wilson_covers(bad: float, n: int) -> None:
    """A discrete count cannot hold 95 % exactly; the exact coverage is summed up over all counts."""
    ends = [intervals.wilson(k, n) for k in range(n + 1)]
    covered = sum(reference.binom.pmf(k, n, bad) for k, (low, high) in enumerate(ends) if low <= bad <= high)
    assert covered >= 0.92


def test_bca_covers_a_skewed_distribution_better_than_its_promise_less_four() -> None:
    repeats = 2_000 if DEEP else 400
    generator = np.random.default_rng(1)
    found = [
        intervals.bca_mean(generator.gamma(2.0, 0.5, 40).tolist(), generator, resamples=500) for _ in range(repeats)
    ]
    assert np.mean([i.low <= 1.0 <= i.high for i in found]) >= 0.91


def right(
    generator: np.random.Generator, seeds: int, world: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows two methods get right, (seeds, ROWS) each. Swapping them changes no probability: a true null.

    A row is right where skill + sign * taste + seed + noise > 0; both methods meet the same rows, and pairs
    of seeds share a part of their noise.
    """
    taste_sd, seed_sd, shared = world
    skill, taste = generator.normal(1, 1, ROWS), generator.normal(0, taste_sd, ROWS)
    common = math.sqrt(shared) * generator.normal(0, 1, (seeds, ROWS))

    def method(sign: int) -> np.ndarray:
        own = math.sqrt(1 - shared) * generator.normal(0, 1, (seeds, ROWS))
        return skill + sign * taste + generator.normal(0, seed_sd, (seeds, 1)) + common + own > 0

    return method(1), method(-1)


def estimate(a: np.ndarray, b: np.ndarray, generator: np.random.Generator) -> crossed.Estimate:
    gap = a.astype(float) - b
    if DEEP:
        both = np.concatenate([a, b]).astype(int)
        drawn = resample.resampled("accuracy", both, np.ones(ROWS, dtype=int), generator, 400)
        return crossed.crossed(gap.mean(axis=1), drawn[: len(a)] - drawn[len(a) :], ROWS)
    # columns with the covariance that infinitely many resamples of a mean have
    return crossed.crossed(gap.mean(axis=1), gap / math.sqrt(ROWS), ROWS)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("seeds", [5, 10, 25])
def test_crossed_test_keeps_its_level(seeds: int, world: str) -> None:
    """At most 6 % of true nulls are rejected; the gate's 500 repetitions add 2.5 standard errors."""
    repeats = 4_000 if DEEP else 500
    generator = np.random.default_rng([seeds, list(WORLDS).index(world)])
    rejected = np.mean([estimate(*right(generator, seeds, WORLDS[world]), generator).p < 0.05 for _ in range(repeats)])
    assert rejected <= 0.06 + (0 if DEEP else 2.5 * math.sqrt(0.06 * 0.94 / repeats))


def test_seeds_only_rejects_true_nulls_the_more_the_more_seeds() -> None:
    """Why the crossed test is the headline."""
    generator = np.random.default_rng(9)
    rates = []
    for seeds in (5, 25):
        gaps = [np.subtract(*right(generator, seeds, (0.3, 0, 0.3)), dtype=float).mean(axis=1) for _ in range(400)]
        rates.append(np.mean([crossed.seeds_only(gap).p < 0.05 for gap in gaps]))
    assert 0.05 < rates[0] < rates[1] and rates[1] > 0.15


@pytest.mark.parametrize("seeds", [5, 40])
def test_a_one_point_effect_is_found_as_often_as_theory_says(seeds: int) -> None:
    """500 studies, a point of effect, sd 2 points for each arm: the paired t test's power is the noncentral t's."""
    studies = 5_000 if DEEP else 500
    generator = np.random.default_rng(seeds)
    differences = generator.normal(0.81, 0.02, (studies, seeds)) - generator.normal(0.80, 0.02, (studies, seeds))
    found = np.mean([crossed.seeds_only(row).p < 0.05 for row in differences])
    bar, shift = reference.t.ppf(0.975, seeds - 1), 0.01 / (0.02 * math.sqrt(2 / seeds))
    theory = reference.nct.sf(bar, seeds - 1, shift) + reference.nct.cdf(-bar, seeds - 1, shift)
    assert found == pytest.approx(theory, abs=0.015 if DEEP else 0.04)


def test_sign_flip_keeps_its_level_and_holm_that_of_the_family() -> None:
    generator = np.random.default_rng(3)
    repeats = 2_000 if DEEP else 300
    wrong = 0
    for _ in range(repeats):
        family = [pairs.sign_flip(generator.standard_t(3, 8), generator) or 1.0 for _ in range(4)]
        wrong += min(pairs.holm(family)) < 0.05
    assert wrong / repeats <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / repeats)
