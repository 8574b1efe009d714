"""Attending to runs that an engine carries out: hands them over, hears what became of them, tries again, records."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ftbench.errors import Interrupted
from ftbench.runs.claim import holder
from ftbench.runs.engines import Engine, State
from ftbench.runs.progress import StudyProgress
from ftbench.runs.store import Store
from ftbench.runs.work import record_failure
from ftbench.types import Cost, Record, RunSpec

POLL_SECONDS = 0.5
#: between two looks at a run that another process has
TAKEN_SECONDS = 1.0
LOG_LINES = 30
#: a run whose process died without a word is tried again so many times, whatever --retries says: the kernel or an
#: administrator may have killed it, and that says nothing about the run
LOST_AGAIN = 1
#: ``facts["failure"]`` of a run whose process died, and of one that took too long
LOST, TIME_LIMIT = "lost", "time limit"


@dataclass
class Attendant:
    """One stage's runs at an engine. ``again``: those that are done although they have a result."""

    engine: Engine
    plan: Path
    store: Store
    progress: StudyProgress
    retries: int
    should_stop: Callable[[], bool]
    again: set[str] = field(default_factory=set)
    _lost: Counter[str] = field(default_factory=Counter)

    def results(self, specs: Mapping[str, RunSpec]) -> Iterator[tuple[Record, bool]]:
        """The record of each run as it is finished, and whether another process did it.

        Raises Interrupted, and what ``Engine.states`` raises.
        """
        left = dict(specs)
        taken: dict[str, float] = {}
        seen_taken: set[str] = set()
        self._hand_over(list(left))
        while left:
            if self.should_stop():
                self.engine.cancel()
                raise Interrupted("stopped; what ran has saved checkpoints, run the same command to continue")
            states = {one: state for one, state in self.engine.states(POLL_SECONDS).items() if one in left}
            self.progress.working({one: (left[one], s) for one, s in states.items() if s.name == "running"})
            for one, state in states.items():
                if state.name == "taken":
                    taken[one] = time.monotonic() + TAKEN_SECONDS
                    seen_taken.add(one)
                    self.progress.waiting(holder(self.store.folder(left[one])) or "another process")
                elif state.name == "ended" and not self._tried_again(left[one], state):
                    record = self._record(left[one], state)
                    if record:
                        del left[one]
                        yield record, one in seen_taken
                    else:
                        taken[one] = time.monotonic() + TAKEN_SECONDS
            if due := [one for one, at in taken.items() if time.monotonic() >= at]:
                for one in due:
                    del taken[one]
                self._hand_over(due)

    def _hand_over(self, ids: list[str]) -> None:
        for again in (False, True):
            if chosen := [one for one in ids if (one in self.again) == again]:
                self.engine.start(self.plan, chosen, again=again)

    def _tried_again(self, spec: RunSpec, state: State) -> bool:
        """Whether a run whose process died was handed over once more."""
        if not state.reason:
            return False
        self._lost[spec.id] += 1
        if self._lost[spec.id] > max(self.retries, 0 if state.timed_out else LOST_AGAIN):
            return False
        self.engine.start(self.plan, [spec.id], again=spec.id in self.again)
        return True

    def _record(self, spec: RunSpec, state: State) -> Record | None:
        """What became of a run that has ended; None where a living process has it all the same."""
        if not state.reason:
            record = self.store.find(spec)
            if record is not None:
                return self._as_it_ended(record)
            state = State(name="ended", reason="its worker left no result", log=state.log)
        claim = self.store.claim(spec)  # of a dead process
        if claim is None:
            return None
        try:
            details = f"{state.reason}\n\nThe end of its log:\n{tail(state.log)}\n"
            kind = TIME_LIMIT if state.timed_out else LOST
            return record_failure(self.store, spec, state.reason, details, Cost(), {}, failure=kind)
        finally:
            claim.release()

    def _as_it_ended(self, record: Record) -> Record:
        """A run that was done again and failed has a good result in its folder still, and why it failed beside it."""
        why = record.folder / "error.txt"
        if record.result.spec.id not in self.again or record.result.status == "failed" or not why.exists():
            return record
        reason = next((line for line in reversed(tail(why).splitlines()) if line.strip()), "it failed")
        return Record(
            record.folder, replace(record.result, status="failed", metrics={}, facts={}, error=reason), Cost()
        )


def tail(path: Path | None) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-LOG_LINES:]) if path else ""
    except OSError:
        return ""
