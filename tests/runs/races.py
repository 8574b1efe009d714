"""Made-up races whose truth is known: tables of right and wrong rows instead of training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import norm

from ftbench.reporting.intervals import wilson
from ftbench.runs.race import Race, Rules, Scored

Array = np.ndarray[Any, np.dtype[Any]]
FOLDS = 4
RESAMPLES = 100


@dataclass(frozen=True)
class World:
    """A population of rows and candidates. gains: how much better than std each is in truth (share of rows).

    A row is right where skill + its ease + the candidate's liking of it + what draw, seed and both do to it > 0.
    ease, taste, unit, noise: their standard deviations, in units in which the sum's is about 2.
    """

    gains: dict[str, float]
    std: float = 0.8
    linear: float | None = -0.02
    pool: int = 400
    test: int = 100
    ease: float = 1.5
    taste: float = 0.5
    unit: float = 0.1
    noise: float = 0.6
    cost: float = 25.0
    ratios: dict[str, float] = field(default_factory=dict)

    def truth(self, name: str) -> float:
        """The chance that a candidate is right on a new row, over all seeds."""
        return self.std + (self.linear or 0.0 if name == "linear" else self.gains.get(name, 0.0))

    @property
    def spread(self) -> float:
        return math.sqrt(self.ease**2 + self.taste**2 + self.unit**2 + self.noise**2)


@dataclass(frozen=True)
class Outcome:
    choice: str
    loss: float  # truth of std less truth of the choice
    regret: float  # truth of the best candidate less truth of the choice
    covered: bool  # whether the test score's interval holds the truth of the model that was chosen
    spent: float  # share of the budget
    why: str
    runs: int


def run(world: World, seed: int, budget: float = 1200.0, jobs: int = 1) -> Outcome:
    """One race, the final retraining and its test score."""
    rng = np.random.default_rng(seed)
    names = ["std", *(["linear"] if world.linear is not None else []), *world.gains]
    skill = {name: float(norm.ppf(world.truth(name))) * world.spread for name in names}
    ease = rng.normal(0, world.ease, world.pool)
    taste = {name: rng.normal(0, world.taste, world.pool) for name in names}
    race = Race(names, Rules(), "linear" if world.linear is not None else "", rows=world.pool)
    drawn = rng.multinomial(world.pool, np.full(world.pool, 1 / world.pool), RESAMPLES).astype(float)
    spent, runs = 0.0, 0
    while jobs_now := race.next(budget - spent - 1.5 * (race.reserve() if race.scores else 0.0), jobs):
        took = 0.0
        for name, unit in jobs_now:
            seconds = _seconds(world, name, rng)
            rows = _fold(world.pool, unit, seed)
            shared = np.random.default_rng([seed, unit]).normal(0, 1, len(rows) + 1)  # what the draw does to everyone
            quiet = name == "linear"
            own = rng.normal(0, 1, len(rows) + 1)
            noise = world.noise * (math.sqrt(0.5) * shared[1:] + math.sqrt(0.5) * own[1:] * (not quiet))
            right = skill[name] + ease[rows] + taste[name][rows] + noise + world.unit * (shared[0] + own[0]) / 1.4 > 0
            weights = drawn[:, rows]
            race.add(name, unit, Scored(right.mean(), weights @ right / weights.sum(1), seconds))
            took, runs = took + seconds, runs + 1
        spent += took / jobs
        race.drop()
    choice = race.choice
    spent += 1.35 * _seconds(world, choice, rng)
    off = world.unit * rng.normal()
    true = float(norm.cdf((skill[choice] + off) / math.sqrt(world.ease**2 + world.taste**2 + world.noise**2)))
    k = int(rng.binomial(world.test, true))
    low, high = wilson(k, world.test)[:2]
    best = max(world.truth(name) for name in names)
    return Outcome(
        choice, world.truth("std") - world.truth(choice), best - world.truth(choice), low <= true <= high,
        spent / budget, race.why_over, runs,
    )  # fmt: skip


def _seconds(world: World, name: str, rng: np.random.Generator) -> float:
    ratio = 0.1 if name == "linear" else world.ratios.get(name, 1.0)
    return float(world.cost * ratio * rng.lognormal(0, 0.1))


def _fold(pool: int, unit: int, seed: int) -> Array:
    """Positions of the rows that a unit scores."""
    order = np.random.default_rng([seed, 7, unit // FOLDS]).permutation(pool)
    return np.sort(np.array_split(order, FOLDS)[unit % FOLDS])


#: what is promised is promised in each of these
WORLDS = {
    "nothing differs": World({f"m{i}": 0.0 for i in range(8)}),
    "one is better by 4 points": World({"m0": 0.04, **{f"m{i}": 0.0 for i in range(1, 8)}}),
    "one is better by 8 points": World({"m0": 0.08, **{f"m{i}": 0.0 for i in range(1, 8)}}, linear=-0.1),
    "all are worse by 2 points": World({f"m{i}": -0.02 for i in range(8)}),
    "all are worse by 6 points": World({f"m{i}": -0.06 for i in range(8)}, linear=-0.06),
    "linear is as good": World({f"m{i}": -0.01 for i in range(6)}, linear=0.0),
    "linear is worse by 2 points": World({f"m{i}": -0.02 for i in range(6)}, linear=-0.02, taste=0.2, noise=0.3),
    "seeds differ much": World({f"m{i}": (i - 4) / 100 for i in range(8)}, unit=0.5),
    "few rows": World({f"m{i}": (i - 4) / 100 for i in range(8)}, pool=80, test=20),
    "many rows": World({f"m{i}": (i - 4) / 200 for i in range(8)}, pool=2000, test=500, taste=0.3),
    "dear candidates": World({f"m{i}": (i - 3) / 100 for i in range(6)}, ratios={f"m{i}": 1 + i / 2 for i in range(6)}),
}
