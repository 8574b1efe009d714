"""What a study shows on stderr: bars on a terminal, a line a run in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from ftbench.runs.engines import State
from ftbench.types import Record, RunSpec


class Lines:
    """One line for each finished run; nothing at all when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.total = self.done = 0
        self._waits_for = ""

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def message(self, text: str) -> None:
        """Said even when quiet: it is about what the user did."""
        print(text, file=sys.stderr, flush=True)

    def planned(self, total: int) -> None:
        self.total = total

    def started(self, spec: RunSpec) -> None: ...

    def finished(self, record: Record, *, skipped: bool) -> None:
        self.done += 1
        if not self.quiet:
            print(f"[{self.done}/{self.total}] {outcome(record, skipped=skipped)}", file=sys.stderr, flush=True)

    def waiting(self, who: str) -> None:
        if who != self._waits_for and not self.quiet:
            print(f"waiting for {who}", file=sys.stderr, flush=True)
        self._waits_for = who

    def working(self, runs: Mapping[str, tuple[RunSpec, State]]) -> None: ...

    def step(self, done: int, total: int, loss: float | None) -> None: ...

    def evaluated(self, done: int, metric: str, value: float) -> None: ...

    def wrote(self, done: int, total: int) -> None: ...


class Display(Lines):
    """Two bars: the runs of the study, and the steps of the present run with loss, speed and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[about]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.runs = self.progress.add_task("runs", total=None, about="")
        self.steps: Any = None
        self.busy: dict[str, Any] = {}
        self._score = ""
        self._began = (0.0, 0)

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def message(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False)

    def planned(self, total: int) -> None:
        super().planned(total)
        self.progress.update(self.runs, total=total)

    def started(self, spec: RunSpec) -> None:
        self._score, self._began = "", (time.monotonic(), -1)
        if self.steps is not None:
            self.progress.remove_task(self.steps)
        name = f"{spec.task} {what(spec)}"
        self.steps = self.progress.add_task(name.replace("[", "\\["), total=None, about="loading")

    def finished(self, record: Record, *, skipped: bool) -> None:
        self.done += 1
        self.progress.update(self.runs, completed=self.done)
        if not skipped:
            self.message(outcome(record, skipped=False))

    def waiting(self, who: str) -> None:
        self.progress.update(self.runs, about=f"waiting for {who}")

    def working(self, runs: Mapping[str, tuple[RunSpec, State]]) -> None:
        """A bar for each run that an engine is busy with."""
        for identity in self.busy.keys() - runs.keys():
            self.progress.remove_task(self.busy.pop(identity))
        for identity, (spec, state) in runs.items():
            if identity not in self.busy:
                name = f"{spec.task} {what(spec)}".replace("[", "\\[")
                self.busy[identity] = self.progress.add_task(name, total=None, about="loading")
            if state.total:
                bar = self.busy[identity]
                self.progress.update(bar, completed=state.step, total=state.total, about=state.where)

    def step(self, done: int, total: int, loss: float | None) -> None:
        if self._began[1] < 0:
            self._began = (time.monotonic(), done - 1)
        speed = (done - self._began[1]) / max(time.monotonic() - self._began[0], 1e-3)
        shown = "" if loss is None else f"loss {loss:.3f} "
        self.progress.update(self.steps, completed=done, total=total, about=f"{shown}{self._score}{speed:.1f} steps/s")

    def evaluated(self, done: int, metric: str, value: float) -> None:
        self._score = f"{metric} {value:.3f} "

    def wrote(self, done: int, total: int) -> None:
        self.progress.update(self.steps, about=f"{self._score}summary {done:,} of {total:,}")


def what(spec: RunSpec) -> str:
    """A run in a few words: ``r3f seed 0``, ``references``, ``r3f seed 0 after sst2, probed``."""
    if spec.kind == "reference":
        return "references"
    if spec.kind == "variability":
        return "layers"
    layers = f" {spec.layers}" if spec.layers else ""
    if spec.is_trial:
        return f"{spec.method}{layers} lr {spec.lr:g}, trial"
    if spec.kind == "probe" and not spec.parents:
        return f"{spec.encoder or 'pretrained'} encoder, probed"
    before = f" after {spec.encoder}" if spec.encoder else ""
    return f"{spec.method}{layers} seed {spec.seed}{before}{', probed' if spec.kind == 'probe' else ''}"


def outcome(record: Record, *, skipped: bool) -> str:
    """``news-topic r3f seed 0: accuracy 0.823 (21 s)``."""
    result, spec = record.result, record.result.spec
    if result.status != "ok":
        return f"{spec.task} {what(spec)}: {result.status}: {result.error}"
    headline = result.facts["headline"]
    if spec.kind == "variability":
        scores = f"{result.facts['rows']['train']:,} rows: {result.facts['reason']}"
    elif spec.kind == "reference":
        scores = ", ".join(f"{name} {result.score(headline, name):.3f}" for name in result.metrics)
    else:
        scores = f"{headline} {result.score(headline):.3f}"
        if spec.is_trial:  # the validation score is not for looking at
            chosen_by = result.score(headline, split="selection")
            scores = f"{headline} {chosen_by:.3f} on the slice"
    return f"{spec.task} {what(spec)}: {scores} ({'done before' if skipped else f'{record.cost.wall_seconds:.0f} s'})"
