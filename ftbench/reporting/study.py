"""A set of runs and the tables that can be made of it: ``REPORTS`` maps a table's name to what makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ftbench.reporting.cells import unique
from ftbench.reporting.contrasts import differences_table, further_table
from ftbench.reporting.costs import budget_table, cost_table
from ftbench.reporting.differences import Difference, compare
from ftbench.reporting.overall import across_table
from ftbench.reporting.predictions import Kept
from ftbench.reporting.scores import scores_table
from ftbench.reporting.sensitivity import sensitivity_table
from ftbench.reporting.stability import stability_table
from ftbench.reporting.summaries import summary_table
from ftbench.reporting.tables import runs_table
from ftbench.reporting.variance import variance_table
from ftbench.types import Record, Table


@dataclass
class Study:
    """Runs to report on. ``seed`` starts every resampling anew, so a table does not depend on which others are made."""

    records: Sequence[Record]
    selection: str = "last"
    family: str = "task"
    seed: int = 0
    kept: Kept = field(default_factory=Kept)

    def __post_init__(self) -> None:
        self.records = unique(self.records)

    @cached_property
    def differences(self) -> list[Difference]:
        """Every method against std."""
        return compare(self.records, self.kept, selection=self.selection, family=self.family)

    def generator(self) -> np.random.Generator:
        """Always the same start."""
        return np.random.default_rng(self.seed)

    def table(self, name: str) -> Table | None:
        """One of ``REPORTS``; None where these runs give none."""
        return REPORTS[name](self)


REPORTS: dict[str, Callable[[Study], Table | None]] = {
    "runs": lambda s: runs_table(s.records, selection=s.selection),
    "scores": lambda s: scores_table(s.records, selection=s.selection),
    "sensitivity": lambda s: sensitivity_table(s.records, selection=s.selection),
    "spread": lambda s: variance_table(s.records, selection=s.selection),
    "differences": lambda s: differences_table(s.differences),
    "across": lambda s: across_table(s.records, s.differences, s.generator(), selection=s.selection),
    "arms": lambda s: summary_table(s.records, s.generator(), s.kept, selection=s.selection),
    "tests": lambda s: further_table(s.differences, s.generator()),
    "cost": lambda s: cost_table(s.records, selection=s.selection),
    "budget": lambda s: budget_table(s.records, selection=s.selection),
    "stability": lambda s: stability_table(s.records, selection=s.selection),
}
#: printed when none is asked for: what a study prints at its end, then what it shows
DEFAULT = ("runs", "scores", "sensitivity", "spread", "differences", "across")
