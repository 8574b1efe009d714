"""Which candidate is best for these rows, and when to stop asking: paired successive elimination.

Pure functions on scores; knows neither training nor stores, so that it can be simulated with a known truth
(``tests/runs/test_race_simulated.py``). A *unit* is a draw of the rows with a seed of its own: all candidates that run
a unit meet the same training rows, the same scored rows and the same random numbers. Candidates start with few units;
after each round those that an interval rules out are dropped, and the rest get the next unit. Successive elimination is
of Even-Dar, Mannor, Mansour 2006 ("Action elimination and stopping conditions", JMLR 7); racing with paired tests of
Maron and Moore 1994 ("Hoeffding races"). What is ours: the interval (``reporting.crossed``: units and scored rows vary
together), and a default that must be beaten rather than the best mean.

    base     linear where std is not better than it by a margin or more, else std
    choice   the furthest ahead of std, on shared draws, among those that are reliably better than std and than base
             and neither failed nor were dropped; else base
    out      a candidate that is better than the choice by less than the margin at most, or reliably worse than the
    leader over     nothing is left to compare, the scored rows are the limit, or the budget is spent

Scores are larger-is-better throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ftbench.errors import UsageError
from ftbench.reporting.crossed import Estimate, crossed, examples_only

Array = np.ndarray[Any, np.dtype[np.float64]]
Job = tuple[str, int]
FAILED = "failed"
NO_TIME = "no time left"
UNTRIED = f"{NO_TIME} to try it"


@dataclass(frozen=True)
class Rules:
    """margin: a difference that is not worth a change. level: of intervals. first: units before anything is dropped.
    most: units of a candidate. limit: the share of a difference's variance that more units cannot take away, from
    which on, and from ``settled`` units on, the rows are what limits it. opening: the share of the time that the first
    units of all may take. Raises UsageError for a margin that no difference can be held against."""

    margin: float = 0.01
    level: float = 0.95
    first: int = 3
    most: int = 24
    limit: float = 0.85
    settled: int = 8
    opening: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.inf:
            raise UsageError(f"margin is {self.margin:g}: expected 0 or more, and a finite number")


@dataclass(frozen=True)
class Scored:
    """A candidate on a unit: its score, the score on each of B resamples of the rows (B,), what the run took."""

    score: float
    resampled: Array
    seconds: float


class Gap(NamedTuple):
    """How much better one candidate is than another. ``fixed``: the share of the variance that is of the rows."""

    units: int
    estimate: Estimate
    fixed: float


@dataclass
class Race:
    """candidates: names in order of preference, the first is the baseline. floor: the one that costs nothing to speak
    of and runs along (``""`` for none). rows: how many rows are scored in all units together. ratios: what a run of a
    candidate is thought to cost before it was measured, in runs of the baseline."""

    candidates: Sequence[str]
    rules: Rules = Rules()
    floor: str = ""
    rows: int = 1
    ratios: Mapping[str, float] = field(default_factory=dict)
    scores: dict[str, dict[int, Scored]] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    why_over: str = ""
    _gaps: dict[tuple[str, str, float], Gap] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        return self.candidates[0]

    @property
    def challengers(self) -> list[str]:
        """Everyone but the baseline and the floor, out or not."""
        return [name for name in self.candidates[1:] if name != self.floor]

    @property
    def undecided(self) -> list[str]:
        """Challengers that are neither out nor the choice."""
        choice = self.choice
        return [name for name in self.challengers if name not in self.out and name != choice]

    @property
    def alive(self) -> list[str]:
        """Those that go on; the baseline and the floor always do."""
        return [name for name in self.candidates if name not in self.out]

    def add(self, name: str, unit: int, scored: Scored) -> None:
        """Takes in a run."""
        self.scores.setdefault(name, {})[unit] = scored

    def fail(self, name: str, why: str) -> None:
        """A run without a score: its candidate is out. Raises ValueError for the baseline, without which there is no
        race."""
        if name == self.baseline:
            raise ValueError(why)
        if name == self.floor:
            self.floor = ""
        self.out[name] = why

    def units(self, name: str) -> int:
        """How many a candidate has run."""
        return len(self.scores.get(name, {}))

    def mean(self, name: str) -> float:
        """Of all units; -inf without one."""
        found = [scored.score for scored in self.scores.get(name, {}).values()]
        return float(np.mean(found)) if found else -np.inf

    def seconds(self, name: str) -> float:
        """What a run takes: the mean, or a guess from the baseline's."""
        found = [scored.seconds for scored in self.scores.get(name, {}).values()]
        if found:
            return float(np.mean(found))
        return self.ratios.get(name, 1.0) * self.seconds(self.baseline) if name != self.baseline else 0.0

    def gap(self, a: str, b: str, level: float | None = None) -> Gap | None:
        """``a`` less ``b`` over the units that both have, with an interval of ``level``; None without one."""
        level = self.rules.level if level is None else level
        shared = sorted(self.scores.get(a, {}).keys() & self.scores.get(b, {}).keys())
        if not shared:
            return None
        known = self._gaps.get((a, b, level))
        if known is None or known.units != len(shared):
            known = self._gaps[a, b, level] = self._gap(a, b, shared, level)
        return known

    def _gap(self, a: str, b: str, shared: Sequence[int], level: float) -> Gap:
        pairs = [(self.scores[a][unit], self.scores[b][unit]) for unit in shared]
        units = np.array([x.score - y.score for x, y in pairs])
        examples = np.stack([x.resampled - y.resampled for x, y in pairs])
        if len(shared) == 1:
            return Gap(1, examples_only(float(units[0]), examples[0], self.rows, level), 0.0)
        estimate = crossed(units, examples, self.rows, level)
        of_rows = float(np.atleast_2d(np.cov(examples)).mean())
        return Gap(len(shared), estimate, of_rows / estimate.se**2 if estimate.se > 0 else 1.0)

    @property
    def base(self) -> str:
        """What is used unless something is reliably better: the floor where the baseline is shown to gain less than the
        margin over it, else the baseline."""
        gap = self.gap(self.baseline, self.floor) if self.floor else None
        enough = gap is not None and gap.units >= self.rules.first
        return self.floor if gap and enough and gap.estimate.high < self.rules.margin else self.baseline

    @property
    def choice(self) -> str:
        """See the module. Every challenger that started counts as a test."""
        base = self.base
        there = [name for name in self.challengers if name not in self.out or self.out[name].startswith(NO_TIME)]
        better = [name for name in there if all(self.beats(name, bar) for bar in {base, self.baseline})]
        return max(better, key=self.lead) if better else base

    def lead(self, name: str) -> float:
        """How far ahead of the baseline on the units that both have: no easy draw is a lead. -inf without one."""
        gap = self.gap(name, self.baseline)
        return gap.estimate.mean if gap else -np.inf

    def beats(self, a: str, b: str) -> bool:
        """Whether ``a`` is better than ``b``, from ``Rules.first`` shared units on: one-sided, by an interval that
        Bonferroni corrects for every challenger that started, and that is never narrower than the one that is shown."""
        started = max(1, sum(self.units(name) > 0 for name in self.challengers))
        gap = self.gap(a, b, max(self.rules.level, 1 - 2 * (1 - self.rules.level) / started))
        return gap is not None and gap.units >= self.rules.first and gap.estimate.low > 0

    @property
    def leader(self) -> str:
        """The furthest ahead among those alive that have as many units as anyone needs to be judged."""
        judged = [name for name in self.alive if self.units(name) >= min(self.rules.first, self.units(self.baseline))]
        return max(judged or [self.baseline], key=self.lead)

    def drop(self) -> list[str]:
        """Takes out who is ruled out by now; returns their names."""
        choice, leader, before = self.choice, self.leader, set(self.out)
        for name in self.challengers:
            if name in self.out or name == choice or self.units(name) < self.rules.first:
                continue
            gap, behind = self.gap(name, choice), self.gap(name, leader)
            if gap and gap.estimate.high < self.rules.margin:
                self.out[name] = f"at most {100 * max(gap.estimate.high, 0):.1f} points better than {choice}"
            elif name != leader and behind and behind.estimate.high < 0:
                self.out[name] = f"worse than {leader}"
        return [name for name in self.out if name not in before]

    def next(self, left: float, jobs: int = 1) -> list[Job]:
        """The runs of the next round, none when the race is over (``why_over`` says why).

        left: seconds that may be spent on runs of candidates; jobs: runs that go on at once.
        """
        if self.why_over:
            return []
        if not self.units(self.baseline):
            return [(name, 0) for name in (self.baseline, self.floor) if name]
        self._take_back(left, jobs)
        if not self._over():
            self._shed(left, jobs)
            wave = self._wave(left, jobs)
            if wave:
                return wave
            self.why_over = "budget"
        return []

    def reserve(self) -> float:
        """Seconds of one run of the dearest candidate that may still be chosen."""
        return max(self.seconds(name) for name in self.alive)

    def _over(self) -> bool:
        units = min((self.units(name) for name in self.alive), default=0)
        if units < self.rules.first:
            return False
        rivals = self.undecided
        if not rivals:
            hurried = any(why.startswith(NO_TIME) for why in self.out.values())
            self.why_over = "budget" if hurried else "clear"
        elif units >= self.rules.most:
            self.why_over = "units"
        else:
            choice = self.choice
            gaps = [self.gap(name, choice) for name in rivals]
            if units >= self.rules.settled and all(gap and gap.fixed >= self.rules.limit for gap in gaps):
                self.why_over = "rows"
        return bool(self.why_over)

    def _take_back(self, left: float, jobs: int) -> None:
        """Once everyone alive has the first units: the next of those that the opening had no time for, as far as
        ``Rules.opening`` of the time goes, or all of it where nobody is undecided.

        A dearer one than any alive needs more time for a last run than was set aside."""
        if min(self.units(name) for name in self.alive) < self.rules.first:
            return
        time = left * jobs * (self.rules.opening if self.undecided else 1.0)
        for name in [name for name in self.challengers if self.out.get(name) == UNTRIED]:
            runs = self.rules.first + 2 * (self.seconds(name) > self.reserve())
            if runs * self.seconds(name) <= time:
                time -= runs * self.seconds(name)
                del self.out[name]

    def _shed(self, left: float, jobs: int) -> None:
        """Leaves out, last ones first, challengers that the time cannot bring to the first units: at the opening
        ``Rules.opening`` of it; afterwards all of it."""
        share = self.rules.opening if self.units(self.baseline) < 2 else 1.0
        while True:
            short = {name: max(0, self.rules.first - self.units(name)) for name in self.alive}
            rivals = [name for name in self.challengers if short.get(name)]
            if not rivals or sum(n * self.seconds(name) for name, n in short.items()) <= share * left * jobs:
                return
            last = min(rivals, key=lambda name: (self.units(name), -self.candidates.index(name)))
            self.out[last] = f"{NO_TIME} to judge it" if self.units(last) else UNTRIED

    def _wave(self, left: float, jobs: int) -> list[Job]:
        """One unit more for those that have the fewest; where there is no time for all, for the best of them."""
        for units in sorted({self.units(name) for name in self.alive}):
            behind = [name for name in self.alive if self.units(name) == units]
            steady = [name for name in behind if name in (self.baseline, self.floor)]
            rivals = sorted((name for name in behind if name not in steady), key=self.mean, reverse=True)
            chosen, spent = list(steady), sum(self.seconds(name) for name in steady)
            for name in rivals:
                if spent + self.seconds(name) <= left * jobs:
                    chosen.append(name)
                    spent += self.seconds(name)
            if chosen and spent <= left * jobs and (len(chosen) > len(steady) or not rivals):
                return [(name, units) for name in chosen]
        return []
