"""A worker: does runs of a plan file, in a process of its own that lives through many.

    python -m ftbench.runs.worker PLAN ID [ID ...]    these runs, then ends: for any scheduler (--again: finished, too)
    python -m ftbench.runs.worker PLAN --slot NAME    runs as they come, see ``engines.local``

In a slot each line on stdin is ``{"id": ..., "again": false}``; lines on stdout are messages as in ``Slot``. Whatever
else is printed goes to stderr. The worker ends when stdin does, and stops after the present step when its parent is
gone, on SIGTERM, and on ``ftbench cancel``. Exit codes are those of ftbench: 1 where a run failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ftbench.errors import FtbenchError, Interrupted, StoreError, UsageError
from ftbench.lookup import import_object
from ftbench.models.locate import Checkpoint, is_unchanged
from ftbench.runs.manifest import Manifest
from ftbench.runs.progress import Silent
from ftbench.runs.rows import load_rows
from ftbench.runs.signals import stop_on_signals
from ftbench.runs.store import Store
from ftbench.runs.work import WORK, Bench, Options
from ftbench.tasks.portable import task_from_json
from ftbench.tasks.sources import load
from ftbench.types import Data, Record, RunSpec
from ftbench.types.run import TUNED

STEP_SECONDS = 0.5


class Inputs(Mapping[str, Data]):
    """Rows by fingerprint, loaded when first asked for; the last few are kept."""

    KEPT = 4

    def __init__(self, tasks: Mapping[str, Any], kept: Path) -> None:
        self.tasks, self.kept = tasks, kept
        self._loaded: dict[str, Data] = {}

    def __getitem__(self, key: str) -> Data:
        if key not in self._loaded:
            data = load_rows(self.kept, key) or load(task_from_json(self.tasks[key]))
            if data.fingerprint != key:
                raise UsageError(f"the rows of task '{data.task.name}' are others than when the study was planned")
            while len(self._loaded) >= self.KEPT:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[key] = data
        return self._loaded[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


class Worker:
    """Does runs of one plan file."""

    def __init__(self, path: Path, progress: Any, should_stop: Callable[[], bool]) -> None:
        self.path, self.progress, self.should_stop = path, progress, should_stop
        self._checked: set[str] = set()
        self._inputs: dict[Path | None, Inputs] = {}
        self._read()

    def _read(self) -> None:
        self._read_at = self.path.stat().st_mtime_ns
        self.plan = Manifest.read(self.path)
        self.specs = {spec.id: spec for spec in self.plan.runs}
        self.store = Store(self.plan.root)
        options = Options.from_json(self.plan.options, self.should_stop)
        if options.cache not in self._inputs:
            self._inputs[options.cache] = Inputs(self.plan.tasks, self.plan.rows_folder(options.cache))
        inputs = self._inputs[options.cache]
        inputs.tasks = self.plan.tasks
        self.bench = Bench(self.store, inputs, self.plan.models, self.progress, options, self._folder)

    def _folder(self, identity: str) -> Path:
        outside = self.plan.parents.get(identity)
        return outside or self.store.folder(self.specs[identity])

    def do(self, identity: str, *, again: bool = False) -> Record | None:
        """Does one run, or finds it done; None while another process has it. Raises what ``Bench.do`` raises."""
        if self.path.stat().st_mtime_ns != self._read_at:
            self._read()  # a later stage was planned since
        spec = self.specs.get(identity)
        if spec is None:
            raise UsageError(f"{self.path.name} has no run '{identity}'")
        if self.should_stop():
            raise Interrupted("stopped before the next run")
        claim = self.store.claim(spec)
        if claim is None:
            return None
        try:
            found = None if again else self.store.find(spec)
            if found is None:
                self._check(self.plan.models[spec.weights])
            return found or self.bench.do(spec)
        finally:
            claim.release()

    def _check(self, model: Checkpoint) -> None:
        """Once: the weights are still those that the study was planned with."""
        if model.fingerprint not in self._checked and not is_unchanged(model):
            raise UsageError(f"the checkpoint '{model.name}' has other files than when the study was planned")
        self._checked.add(model.fingerprint)


class Slot:
    """Says what the worker does in JSON lines: ``started``, ``step``, ``warning``, ``ended``, ``taken`` or ``stop``."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.identity = out, ""
        self._said = 0.0

    def say(self, event: str, **fields: Any) -> None:
        """One message; none where nobody listens any more: that is no failure of the run, and ends it soon anyway."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"event": event, "id": self.identity, **fields}), file=self.out, flush=True)

    def step(self, done: int, total: int, loss: float | None) -> None:
        """A message now and then."""
        if time.monotonic() - self._said >= STEP_SECONDS or done == total:
            self._said = time.monotonic()
            self.say("step", done=done, total=total)

    def evaluated(self, done: int, metric: str, value: float) -> None:
        """Nothing: scores are in the result."""


class Warnings(logging.Handler):
    """Warnings are said to the command, which shows them; they and what is worse go into the log."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(logging.WARNING)
        self.slot = slot

    def emit(self, record: logging.LogRecord) -> None:
        """Errors are the results of failed runs, which the command reports."""
        text = self.format(record)
        print(f"{record.levelname} {text}", file=sys.stderr, flush=True)
        if record.levelno == logging.WARNING:
            self.slot.say("warning", text=text)


def serve(path: Path, out: TextIO, should_stop: Callable[[], bool]) -> None:
    """Does the runs that stdin names until it ends. Raises Interrupted."""
    slot = Slot(out)
    logging.getLogger("ftbench").addHandler(Warnings(slot))
    try:
        worker = Worker(path, slot, should_stop)
        import_object(WORK["finetune"], "run")  # now: loading torch is no part of a run's time
        for line in sys.stdin:
            order = json.loads(line)
            slot.identity = order["id"]
            slot.say("started")
            record = worker.do(order["id"], again=order["again"])
            slot.say("taken" if record is None else "ended")
            if record and record.result.status == "failed" and record.cost.device.startswith("cuda"):
                return  # an error may have left the GPU's context unusable: a new process takes over
    except (StoreError, UsageError) as error:
        slot.say("stop", kind=type(error).__name__, message=str(error))


def do_all(path: Path, ids: list[str], should_stop: Callable[[], bool], *, again: bool = False) -> int:
    """Does these runs; again: also those that have a result. Returns how many failed."""
    worker = Worker(path, Silent(), should_stop)
    failed = 0
    for identity in ids:
        record = worker.do(identity, again=again)
        name = label(worker.specs[identity])
        failed += bool(record and record.result.status == "failed")
        print(f"{name}: {record.result.status if record else 'another process has it'}", file=sys.stderr, flush=True)
    return failed


def label(spec: RunSpec) -> str:
    """``mrpc r3f seed 0 (1a2b3c4d5e6f)``, or the kind of a run that tunes nothing."""
    what = spec.method if spec.kind in TUNED else spec.kind
    return f"{spec.task} {what} seed {spec.seed} ({spec.id})"


def main() -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ftbench.runs.worker", description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--slot")
    asked = parser.parse_args()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries and plug-ins print is no message
    parent = os.getppid()
    cancelled = Manifest.cancel_file(asked.plan)
    with stop_on_signals(lambda text: print(text, file=sys.stderr, flush=True)) as signalled:

        def should_stop() -> bool:
            return signalled() or (bool(asked.slot) and os.getppid() != parent) or cancelled.exists()

        try:
            if asked.slot:
                serve(asked.plan, out, should_stop)
                return 0
            return int(do_all(asked.plan, asked.ids, should_stop, again=asked.again) > 0)
        except Interrupted as error:
            print(f"interrupted: {error}", file=sys.stderr)
            return error.exit_code
        except FtbenchError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
