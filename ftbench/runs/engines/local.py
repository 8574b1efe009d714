"""Engine ``local``: worker processes on this machine, one a slot.

A worker lives through many runs, so torch is imported once and rows are read once; each run is handed to the first
slot that is free. A GPU is shared out by CUDA_VISIBLE_DEVICES. A worker that dies takes one run with it; the slot gets
a new one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftbench.errors import StoreError, UsageError, explain
from ftbench.runs.engines import Setup, State

log = logging.getLogger(__name__)
#: after asking a worker to stop, until it is killed: a step and a checkpoint may take this long
GRACE_SECONDS = 60.0
#: until a worker without a run has ended by itself
IDLE_SECONDS = 5.0
#: after SIGTERM for a run over its time limit
LIMIT_GRACE_SECONDS = 10.0


@dataclass
class Process:
    """A worker and what it is busy with.

    since: when that began, monotonic; inf before
    asked: when it was asked to stop; over: because it took too long
    """

    popen: subprocess.Popen[str]
    slot: int
    log: Path
    identity: str = ""
    since: float = math.inf
    step: int = 0
    total: int = 0
    asked: float = 0.0
    over: bool = False

    def hang_up(self) -> None:
        """Tells the worker that no more runs come: one without a run ends, which a signal does not bring about."""
        with contextlib.suppress(OSError):
            if self.popen.stdin:
                self.popen.stdin.close()

    def signal(self, number: int) -> None:
        """To the worker and what it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, number)


@dataclass
class Local:
    """See the top of the file."""

    setup: Setup
    _plan: Path = Path()
    _queue: deque[tuple[str, bool]] = field(default_factory=deque)
    _workers: dict[int, Process] = field(default_factory=dict)
    _heard: queue.Queue[tuple[Process, dict[str, Any] | None]] = field(default_factory=queue.Queue)
    _over: dict[str, State] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)

    def start(self, plan: Path, ids: Sequence[str], *, again: bool = False) -> None:
        """Puts the runs in line."""
        self._plan = plan
        self._queue.extend((identity, again) for identity in ids)
        self._feed()

    def states(self, wait: float) -> Mapping[str, State]:
        """See ``Engine``. Raises the error that a worker ended the study with."""
        deadline = time.monotonic() + wait
        while not self._over:
            try:
                self._hear(*self._heard.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        with contextlib.suppress(queue.Empty):
            while True:
                self._hear(*self._heard.get_nowait())
        self._watch_limits()
        self._feed()
        over, self._over = self._over, {}
        waiting = {identity: State(name="queued") for identity, _ in self._queue}
        running = {
            one.identity: State(name="running", step=one.step, total=one.total, where=f"slot {one.slot}", log=one.log)
            for one in self._workers.values()
            if one.identity
        }
        return {**waiting, **running, **over}

    def cancel(self) -> None:
        """See ``Engine``: workers save and stop, or are killed after a minute, or at the second call."""
        self._queue.clear()
        self._stop(GRACE_SECONDS)

    def close(self) -> None:
        """Ends the workers: idle ones at once, those that are busy as ``cancel`` does."""
        self._queue.clear()
        for worker in self._workers.values():
            worker.hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            for worker in self._workers.values():
                if not worker.identity:
                    worker.popen.wait(IDLE_SECONDS)
        self._stop(GRACE_SECONDS)

    def _feed(self) -> None:
        """Gives each free slot the next run, and a worker where it has none."""
        for slot in range(self.setup.jobs):
            worker = self._workers.get(slot)
            if not self._queue or (worker and (worker.identity or worker.asked)):
                continue
            worker = worker or self._spawn(slot)
            identity, again = self._queue.popleft()
            worker.identity, worker.since, worker.step, worker.total = identity, math.inf, 0, 0
            with contextlib.suppress(OSError):  # it died just now: its end is heard of in a moment
                print(json.dumps({"id": identity, "again": again}), file=worker.popen.stdin, flush=True)

    def _spawn(self, slot: int) -> Process:
        folder = self._plan.with_suffix("")
        written = folder / f"slot-{slot}.log"
        command = [sys.executable, "-m", "ftbench.runs.worker", str(self._plan), "--slot", str(slot)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with written.open("a") as stream:
                popen = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True,
                    env=self._environment(slot), start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise StoreError(f"cannot start a worker that logs to {written}: {explain(error)}") from error
        worker = self._workers[slot] = Process(popen, slot, written)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _environment(self, slot: int) -> dict[str, str]:
        found = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        if self.setup.threads:
            found["OMP_NUM_THREADS"] = str(self.setup.threads)
        if gpus := self.setup.gpus:
            found["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        return found

    def _listen(self, worker: Process) -> None:
        """In a thread of its own: passes messages on, and at last None."""
        for line in worker.popen.stdout or ():
            with contextlib.suppress(ValueError):
                self._heard.put((worker, json.loads(line)))
        self._heard.put((worker, None))

    def _hear(self, worker: Process, message: dict[str, Any] | None) -> None:
        if message is None:
            self._bury(worker)
        elif message["event"] == "started":
            worker.since = time.monotonic()
        elif message["event"] == "step":
            worker.step, worker.total = message["done"], message["total"]
        elif message["event"] == "warning":
            self._warn(message["text"])
        elif message["event"] == "stop":
            kind = UsageError if message["kind"] == "UsageError" else StoreError
            raise kind(message["message"])
        else:
            self._over[message["id"]] = State(name=message["event"], where=f"slot {worker.slot}", log=worker.log)
            worker.identity = ""

    def _warn(self, text: str) -> None:
        """What several workers say is shown once."""
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s", text)

    def _bury(self, worker: Process) -> None:
        """A worker is gone; whatever it was busy with has no result."""
        code = worker.popen.wait()
        if self._workers.get(worker.slot) is worker:
            del self._workers[worker.slot]
        if not worker.identity:
            return
        reason = explain_end(code)
        if worker.over:
            reason = (
                f"stopped after {self.setup.time_limit:g} s, the --time-limit of a run; a longer limit with "
                "--retry-failed goes on from its last checkpoint"
            )
        self._over[worker.identity] = State(name="ended", reason=reason, timed_out=worker.over, log=worker.log)

    def _watch_limits(self) -> None:
        """Runs over their time are asked to save and stop, then killed."""
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.asked and now - worker.asked > LIMIT_GRACE_SECONDS:
                worker.signal(signal.SIGKILL)
            elif not worker.asked and worker.identity and now - worker.since > (self.setup.time_limit or math.inf):
                worker.asked, worker.over = now, True
                worker.signal(signal.SIGTERM)

    def _stop(self, grace: float) -> None:
        workers = list(self._workers.values())
        for worker in workers:
            worker.hang_up()
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        try:
            for worker in workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.popen.wait(max(0.0, deadline - time.monotonic()))
        finally:  # also when the user does not want to wait
            for worker in workers:
                worker.signal(signal.SIGKILL)
                worker.popen.wait()
            self._workers.clear()


def explain_end(code: int) -> str:
    """Why a worker may have ended, from its exit code."""
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL); out of memory is the usual reason"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"
