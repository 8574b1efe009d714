"""A claim to match or exceed all others on most tasks, judged by how many tasks that is shown for.

A task is matched where, for one of the better methods, no other is ahead by more than the margin; it is lost where each
of them is behind another by more. Both are one-sided t tests: of one method all comparisons have to hold, so the
largest p counts (intersection-union), of several methods any, so the smallest p times their number (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ftbench.reporting import across
from ftbench.reporting.cells import Cell
from ftbench.reporting.claim_arms import ambiguous, by_name, groups_of, row_of
from ftbench.reporting.claims import CONTRADICTED, MARGIN, SUPPORTED, UNDECIDED, Claim, Finding
from ftbench.reporting.differences import Difference, contrast
from ftbench.reporting.pairs import smallest_p
from ftbench.reporting.study import Study

#: of either end of the number of tasks: 2.5 % at each make a 95 % interval
LEVEL = 0.025


@dataclass(frozen=True)
class _Task:
    """The best of the better ones against the best other, and p of "matched" and of "lost"."""

    shown: Difference
    matched: float
    lost: float

    @property
    def says(self) -> str:
        return SUPPORTED if self.matched < LEVEL else CONTRADICTED if self.lost < LEVEL else UNDECIDED


def wins(claim: Claim, study: Study) -> Finding:
    """Counts tasks that are matched for certain, and those that are not lost for certain; compares average ranks."""
    names = (*claim.better, *claim.than)
    tasks: dict[str, Mapping[str, Cell]] = {}
    for group in groups_of(claim, study):
        found = by_name(claim, group)
        seeds = set.intersection(*({*found[name].scores} if name in found else set() for name in names))
        if len(seeds) >= claim.seeds:
            tasks.setdefault(group.arms[0].spec.task, found)
    cells = tuple(found[claim.better[0]] for found in tasks.values())
    lacking = ambiguous(claim, study)
    if len(tasks) < claim.of_tasks:
        why = f"{len(tasks)} of {claim.of_tasks} tasks have {claim.seeds} seeds of {', '.join(names)}"
        return Finding(claim, UNDECIDED, "; ".join((why, *lacking)), (), cells)
    judged = [_task(claim, found, study) for found in tasks.values()]
    low, high = at_least([t.matched for t in judged]), len(tasks) - at_least([t.lost for t in judged])
    scores = np.array([[_score(found[name]) for name in names] for found in tasks.values()])
    ours = len(claim.better)
    best = int((scores[:, :ours].max(axis=1) >= scores[:, ours:].max(axis=1) - 1e-12).sum())
    ranking = across.friedman(scores)
    behind = min(ranking.mean_ranks[:ours]) - min(ranking.mean_ranks[ours:])
    verdict = UNDECIDED
    if high < claim.wins or behind > ranking.critical_difference:
        verdict = CONTRADICTED
    elif low >= claim.wins and behind <= 0:
        verdict = SUPPORTED
    placed = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(names, ranking.mean_ranks, strict=True))
    why = (
        f"best on {best} of {len(tasks)} tasks, ties counted; within {100 * MARGIN:g} points of all others, or better, "
        f"on {low} to {high} (95 % interval); mean ranks {placed}, critical difference "
        f"{ranking.critical_difference:.2f}"
    )
    rows = tuple(row_of(t.shown, t.says) for t in judged)
    return Finding(claim, verdict, "; ".join((why, *lacking)), rows, cells)


def at_least(p: Sequence[float]) -> int:
    """How many of the tests (n,) of independent tasks are rejected with ``LEVEL`` over all: a lower end of how many
    nulls are false. The largest k with (n - k + 1) p_(k) below it (Hochberg 1988)."""
    return max((k for k, value in enumerate(sorted(p), 1) if (len(p) - k + 1) * value < LEVEL), default=0)


def _task(claim: Claim, found: Mapping[str, Cell], study: Study) -> _Task:
    compared = {}
    for pair in product(claim.better, claim.than):
        ours, theirs = (found[name] for name in pair)
        compared[pair] = contrast(ours, theirs, [key for key in ours.scores if key in theirs.scores], study.kept)
    p = [[_tests(compared[name, other]) for other in claim.than] for name in claim.better]
    matched = len(p) * min(max(close for close, _ in line) for line in p)
    lost = max(len(line) * min(behind for _, behind in line) for line in p)
    first, second = (max(names, key=lambda n: _score(found[n])) for names in (claim.better, claim.than))
    return _Task(compared[first, second], min(1.0, matched), min(1.0, lost))


def _score(cell: Cell) -> float:
    """The mean, higher is better."""
    return _side(cell) * (cell.mean or 0.0)


def _side(cell: Cell) -> float:
    return -1.0 if cell.lower_is_better else 1.0


def _tests(d: Difference) -> tuple[float, float]:
    """One-sided p of "not ``MARGIN`` behind the other", and of "further behind": of t, or without spread of the sign
    flip."""
    from scipy.special import stdtr

    if d.headline is None:
        return 1.0, 1.0
    above = _side(d.cell) * d.headline.mean + MARGIN
    if d.headline.se == 0:
        p = smallest_p(len(d.a)) / 2
        return (p, 1.0) if above > 0 else (1.0, p)
    t = above / d.headline.se
    return float(stdtr(d.headline.df, -t)), float(stdtr(d.headline.df, t))
