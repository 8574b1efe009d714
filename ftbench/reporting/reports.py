"""The tables that can be made of a study: ``REPORTS`` maps a table's name to what makes it."""

from __future__ import annotations

from collections.abc import Callable

from ftbench.reporting.claims import claims, finding_table
from ftbench.reporting.contrasts import differences_table, further_table
from ftbench.reporting.costs import budget_table, cost_table
from ftbench.reporting.differences import unpaired
from ftbench.reporting.judging import judge
from ftbench.reporting.overall import across_table
from ftbench.reporting.papers import paper_table
from ftbench.reporting.scores import scores_table
from ftbench.reporting.sensitivity import sensitivity_table
from ftbench.reporting.stability import stability_table
from ftbench.reporting.study import Study
from ftbench.reporting.summaries import summary_table
from ftbench.reporting.tables import runs_table
from ftbench.reporting.variance import variance_table
from ftbench.types import Table

REPORTS: dict[str, Callable[[Study], Table | None]] = {
    "runs": lambda s: runs_table(s.records, selection=s.selection) if s.records or not s.apart else None,
    "scores": lambda s: scores_table(s.records, selection=s.selection),
    "sensitivity": lambda s: sensitivity_table(s.records, selection=s.selection),
    "spread": lambda s: variance_table(s.records, selection=s.selection),
    "differences": lambda s: differences_table(s.differences, unpaired(s.records, s.selection)),
    "across": lambda s: across_table(s.records, s.differences, s.generator(), selection=s.selection),
    "arms": lambda s: summary_table(s.records, s.generator(), s.kept, selection=s.selection),
    "tests": lambda s: further_table(s.differences, s.generator()),
    "cost": lambda s: cost_table(s.records, selection=s.selection),
    "budget": lambda s: budget_table(s.records, selection=s.selection),
    "stability": lambda s: stability_table(s.records, selection=s.selection),
}
#: printed when none is asked for: what a study prints at its end, then what it shows
DEFAULT = ("runs", "scores", "sensitivity", "spread", "differences", "across")


def make(study: Study, name: str) -> Table | None:
    """One of ``REPORTS``, ``paper:NAME`` or ``claim:NUMBER``; None where these runs give none.

    Raises UsageError for an unknown paper or claim.
    """
    kind, _, which = name.partition(":")
    if kind == "paper":
        return paper_table(study.records, which, selection=study.selection)
    if kind == "claim":
        return finding_table(judge(study, which))
    return REPORTS[name](study)


def claim_names(asked: list[str]) -> list[str]:
    """``["3", "all"]`` to ``["claim:3", "claim:1", ...]``."""
    every = [str(claim.number) for claim in claims()]
    numbers = [number for name in asked for number in (every if name == "all" else [name])]
    return [f"claim:{number}" for number in dict.fromkeys(numbers)]
