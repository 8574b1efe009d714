"""How the configuration of an arm was chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ftbench.types.run import RunSpec


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried: its run's id, what was set in words, its score on the slice of train (None
    where the run did not finish)."""

    id: str
    configuration: str
    score: float | None


@dataclass(frozen=True, kw_only=True)
class Search:
    """Trials of one arm and the choice among them; kept beside the runs.

    study:    stands for rows, recipe, slice and budget: arms that share it were chosen alike, and are compared
    arm:      the arm as it was asked for
    axes:     what was varied, with its values
    reported: the runs that have the chosen configuration, seeds apart
    share:    of the training rows, those that scores are taken on; ``rows``: how many
    chosen:   number of the chosen trial
    """

    study: str
    arm: str
    axes: Mapping[str, Sequence[Any]]
    reported: RunSpec
    share: float
    rows: int
    metric: str
    trials: tuple[Trial, ...]
    chosen: int

    @property
    def id(self) -> str:
        """12 hex digits that stand for what was asked, not for what was found."""
        asked = [self.study, self.arm, {key: list(values) for key, values in self.axes.items()}]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """All fields, for ``search-*.json``."""
        return {**asdict(self), "reported": self.reported.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Search:
        """Reads what ``to_json`` gave. Raises ValueError, KeyError or TypeError for anything else."""
        trials = tuple(Trial(**trial) for trial in data["trials"])
        found = cls(**{**data, "reported": RunSpec.from_json(data["reported"]), "trials": trials})
        if not 0 <= found.chosen < len(trials):
            raise ValueError(f"trial {found.chosen} of {len(trials)} is chosen")
        return found
