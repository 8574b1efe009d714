"""What ``ftbench choose`` found: the standings of a race, the choice, and what its page needs beside the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A candidate at the end of the race. units: draws that it ran; mean: of their scores, None without one. gain, low,
    high: how much better than the default it is, larger is better, with a 95 % interval; None for the default itself.
    seconds: what a run took. out: why it was dropped, empty for those that went on to the end."""

    name: str
    units: int
    mean: float | None
    seconds: float | None
    out: str = ""
    gain: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Mean score of a candidate trained on ``rows`` rows, over ``units`` draws; what the same draws gained from half of
    them to these, with a 95 % interval."""

    name: str
    rows: int
    units: int
    mean: float
    gain: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """rows: pool, trained on in a draw, scored in a draw, test. why: clear, rows, units or budget. scored: how often
    the test part has been scored by now. serving: see ``training.serving``. majority: test score of always the
    commonest label."""

    task: str
    model: str
    metric: str
    lower_is_better: bool
    labels: Sequence[str]
    rows: Mapping[str, int]
    folds: int
    margin: float
    default: str
    base: str
    choice: str
    why: str
    standings: Sequence[Standing]
    curve: Sequence[CurvePoint]
    run: str
    folder: str
    spent: float
    budget: float
    notes: Sequence[str]
    command: str
    scored: int = 1
    majority: float | None = None
    serving: Mapping[str, float] = field(default_factory=dict)

    def standing(self, name: str) -> Standing:
        """The candidate's. Raises StopIteration where it is not in the race."""
        return next(one for one in self.standings if one.name == name)

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)
