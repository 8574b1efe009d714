"""What a study tells of itself while it runs, as protocols; ``cli.progress`` shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ftbench.runs.engines import State
from ftbench.types import Record, RunSpec


class Progress(Protocol):
    """Told what one run does. Counts are optimizer steps, those of ``wrote`` summaries."""

    def step(self, done: int, total: int, loss: float | None) -> None: ...

    def evaluated(self, done: int, metric: str, value: float) -> None: ...

    def wrote(self, done: int, total: int) -> None: ...


class StudyProgress(Progress, Protocol):
    """Told what the study does. ``working`` has the runs that an engine is busy with, by id."""

    def planned(self, total: int) -> None: ...

    def started(self, spec: RunSpec) -> None: ...

    def finished(self, record: Record, *, skipped: bool) -> None: ...

    def waiting(self, who: str) -> None: ...

    def working(self, runs: Mapping[str, tuple[RunSpec, State]]) -> None: ...


class Silent:
    """A run's progress that nobody watches."""

    def step(self, done: int, total: int, loss: float | None) -> None: ...

    def evaluated(self, done: int, metric: str, value: float) -> None: ...

    def wrote(self, done: int, total: int) -> None: ...


class Unshown(Silent):
    """A study that nobody watches."""

    def planned(self, total: int) -> None:
        """Nothing."""

    def started(self, spec: RunSpec) -> None:
        """Nothing."""

    def finished(self, record: Record, *, skipped: bool) -> None:
        """Nothing."""

    def waiting(self, who: str) -> None:
        """Nothing."""

    def working(self, runs: Mapping[str, tuple[RunSpec, State]]) -> None:
        """Nothing."""
