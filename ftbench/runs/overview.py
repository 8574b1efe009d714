"""What a study consists of before it runs, and how far it is: the runs of all its stages with their states."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftbench.errors import UsageError
from ftbench.runs.stages import Stage
from ftbench.runs.store import Store
from ftbench.types import Cost, Record, Result, RunSpec

#: states of a run, in the order of a table
STATES = ("done", "diverged", "failed", "to do")


@dataclass
class Overview:
    """The runs that are known, by id; ``open_ended``: later stages that follow from results which are not there."""

    runs: dict[str, RunSpec] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    open_ended: int = 0

    def state(self, spec: RunSpec) -> str:
        """One of ``STATES``."""
        record = self.records.get(spec.id)
        return {"ok": "done"}.get(record.result.status, record.result.status) if record else "to do"

    @property
    def to_do(self) -> list[RunSpec]:
        """Runs that would be done; those that failed are not, unless asked for."""
        return [spec for spec in self.runs.values() if spec.id not in self.records]

    def counts(self) -> Counter[str]:
        """Runs by state."""
        return Counter(self.state(spec) for spec in self.runs.values())


def merge(plans: Sequence[Sequence[Stage]]) -> list[Stage]:
    """The stages of several plans side by side: the first ones as one, the second ones as one, and so on."""

    def together(number: int) -> Stage:
        def stage(records: Sequence[Record]) -> list[RunSpec]:
            specs = [spec for plan in plans if number < len(plan) for spec in plan[number](records)]
            return list({spec.id: spec for spec in specs}.values())

        return stage

    return [together(number) for number in range(max(map(len, plans), default=0))]


def look_ahead(stages: Iterable[Stage], store: Store) -> Overview:
    """Every run that can be known now. Runs that are not done are taken to end well, so that those which start from
    them are seen; what needs their scores or costs stays open."""
    found = Overview()
    seen: list[Record] = []
    for stage in stages:
        with _Complaints() as complaints:
            try:
                specs = stage(seen)
            except UsageError:
                raise
            except Exception:  # a choice among results that are not there can fail in any way
                specs = []
                complaints.number += 1
        found.open_ended += complaints.number
        for spec in specs:
            found.runs[spec.id] = spec
            record = store.find(spec)
            if record:
                found.records[spec.id] = record
            seen.append(record or Record(Path(), Result(spec=spec, status="ok"), Cost()))
    return found


class _Complaints(logging.Handler):
    """Warnings of ftbench about runs that are only imagined: counted, not shown."""

    number = 0

    def emit(self, record: logging.LogRecord) -> None:
        """One more."""
        self.number += 1

    def __enter__(self) -> _Complaints:
        logger = logging.getLogger("ftbench")
        self._passed_on, logger.propagate = logger.propagate, False
        logger.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logger = logging.getLogger("ftbench")
        logger.propagate = self._passed_on
        logger.removeHandler(self)


def grouped(overview: Overview, most: int = 40) -> Iterator[tuple[dict[str, str], Counter[str]]]:
    """Runs by kind, task and method with their states; by kind and task alone where that would be more than ``most``
    rows."""
    for names in (("kind", "task", "method"), ("kind", "task"), ("kind",)):
        groups: dict[tuple[str, ...], Counter[str]] = {}
        for spec in overview.runs.values():
            key = tuple(str(getattr(spec, name)) for name in names)
            groups.setdefault(key, Counter())[overview.state(spec)] += 1
        if len(groups) <= most or names == ("kind",):
            yield from ((dict(zip(names, key, strict=True)), counts) for key, counts in groups.items())
            return
