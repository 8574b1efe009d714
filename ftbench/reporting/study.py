"""A set of runs to report on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ftbench.reporting.cells import unique
from ftbench.reporting.differences import Difference, compare
from ftbench.reporting.predictions import Kept
from ftbench.types import Record, Search


@dataclass
class Study:
    """Runs to report on: ``records`` are the fine-tuning and reference runs, each once, and all that is ever averaged;
    ``apart`` are trials of ``searches`` and runs of other kinds. ``seed`` starts every resampling anew, so a table does
    not depend on which others are made.
    """

    records: Sequence[Record]
    selection: str = "last"
    family: str = "task"
    seed: int = 0
    kept: Kept = field(default_factory=Kept)
    searches: Sequence[Search] = ()
    apart: Sequence[Record] = field(init=False)

    def __post_init__(self) -> None:
        runs = unique(self.records, self.searches)
        self.records, self.apart, self.searches = runs, runs.apart, runs.searches

    @cached_property
    def differences(self) -> list[Difference]:
        """Every method against std."""
        return compare(self.records, self.kept, selection=self.selection, family=self.family)

    def generator(self) -> np.random.Generator:
        """Always the same start."""
        return np.random.default_rng(self.seed)
