"""Engine ``slurm``: every run is a task of a SLURM job array, handed over by submitit.

A task does what any worker does, ``python -m ftbench.runs.worker PLAN ID``. Before its time limit, and when it is
preempted, SLURM sends SIGUSR2: the run saves a checkpoint, the task goes back into the queue and continues from there.
What became of a run is read from its folder; squeue says only which tasks are still there, so no accounting is needed.
Tasks live on without the command that handed them over; the same command finds them again by ``jobs.json``.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from ftbench.errors import Interrupted, StoreError, UsageError, explain
from ftbench.runs.engines import Setup, State
from ftbench.runs.files import to_json, write_atomic
from ftbench.runs.manifest import Manifest
from ftbench.runs.store import Store

#: between two looks at the queue; SLURM's controller serves everybody
POLL_SECONDS = 3.0
#: how often a question that has to be answered is asked
ASKED = 5
#: a task's time limit unless --time-limit says another, and how often a run may come to it before it has failed
LIMIT_SECONDS, REQUEUES = 4 * 3600, 10
#: SLURM says that the end is near so many seconds before it, and has no limits below a minute
WARNING_SECONDS, LEAST_SECONDS = 90, 60
#: most tasks of one array: SLURM's own default is 1,001
LARGEST_ARRAY = 1000
#: after asking all tasks to stop, until they are cancelled
GRACE_SECONDS = 90.0
#: a task whose run is another's, or that was told to stop and is not taken away, looks again after so long
AGAIN_SECONDS = 10.0
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED", "SPECIAL_EXIT")


class Slurm:
    """See the top of the file. ``setup.extra`` holds options of sbatch (``partition``, ``account``, ``gpus-per-node``),
    and ``requeues``.

    Raises UsageError where submitit or SLURM's commands are missing.
    """

    def __init__(self, setup: Setup) -> None:
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise UsageError('--engine slurm needs submitit: pip install "ftbench[slurm]"') from error
        if missing := [name for name in ("sbatch", "srun", "squeue", "scancel") if not shutil.which(name)]:
            raise UsageError(
                f"--engine slurm: no {', '.join(missing)} here. Run this command where SLURM jobs are submitted from"
            )
        self.setup = setup
        self._jobs = Jobs()
        self._left: dict[str, bool] = {}
        self._before: dict[str, Answer] = {}

    def start(self, plan: Path, ids: Sequence[str], *, again: bool = False) -> None:
        """Hands over those that no task is waiting for or busy with.

        Raises UsageError for what sbatch refuses, and where squeue does not say which tasks there are: these are in no
        need of others beside them.
        """
        if self._jobs.plan != plan:
            self._jobs = Jobs.of(plan)
        there = self._jobs.look_surely() if self._jobs.ids else {}
        new = [one for one in ids if again or self._jobs.ids.get(one) not in there]
        self._left |= dict.fromkeys((one for one in ids if one not in new), again)
        for first in range(0, len(new), LARGEST_ARRAY):
            chunk = new[first : first + LARGEST_ARRAY]
            self._before |= {one: self._jobs.answer_of(one) for one in chunk if again}
            self._submit(plan, chunk, again=again)
            self._left |= dict.fromkeys(chunk, again)
            self._jobs.write()  # at once: the next ones may be refused
        if new:  # what was seen of the queue before knows nothing of them
            self._jobs.look(fresh=True)

    def _submit(self, plan: Path, ids: Sequence[str], *, again: bool) -> None:
        import submitit
        from submitit.core.utils import FailedJobError

        extra = dict(self.setup.extra)
        requeues = int(extra.pop("requeues", REQUEUES))
        limit = max(LEAST_SECONDS, self.setup.time_limit or LIMIT_SECONDS)
        tasks = [Task(str(plan.absolute()), one, again, self.setup.threads) for one in ids]
        try:
            executor = submitit.SlurmExecutor(folder=logs_of(plan), max_num_timeout=requeues)
            executor.update_parameters(
                job_name="ftbench",
                time=math.ceil(limit / 60),
                signal_delay_s=min(WARNING_SECONDS, int(limit / 2)),
                cpus_per_task=self.setup.threads or 1,
                array_parallelism=self.setup.jobs,
                additional_parameters={name.replace("-", "_"): value or True for name, value in extra.items()},
            )
            with executor.batch():
                jobs = [executor.submit(task) for task in tasks]
        except FailedJobError as error:
            there = len(set(self._jobs.ids.values()) & self._jobs.look(fresh=True).keys())
            more = f". {there} others are in the queue; the same command finds them and goes on" if there else ""
            raise UsageError(f"sbatch refused the jobs: {_last_line(str(error))}{more}") from error
        except OSError as error:
            raise StoreError(f"cannot write what SLURM needs in {logs_of(plan)}: {explain(error)}") from error
        self._jobs.add({one: job.job_id for one, job in zip(ids, jobs, strict=True)})

    def states(self, wait: float) -> Mapping[str, State]:
        """See ``Engine``."""
        deadline = time.monotonic() + wait
        while True:
            there = self._jobs.look()
            found = {one: self._state(one, there.get(self._jobs.ids[one])) for one in self._left}
            over = [one for one, state in found.items() if state.name == "ended"]
            if over or time.monotonic() >= deadline:
                for one in over:
                    del self._left[one]
                return found
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def _state(self, one: str, said: str | None) -> State:
        job, log = self._jobs.ids[one], self._jobs.log(one)
        about: dict[str, Any] = {"where": f"job {job}", "log": log}
        if said in WAITING:
            return State(name="queued", **about)
        if said and self._left[one]:  # its folder has an old result
            return State(name="running", **about)
        found = self._jobs.answer_of(one)
        if found != self._before[one] if self._left[one] else found.result:
            return State(name="ended", **about)
        if said:
            return State(name="running", **about)
        if not self._jobs.answered:  # SLURM has said nothing since it was handed over
            return State(name="queued", **about)
        text = log.read_text(errors="replace") if log.is_file() else ""
        timed_out = "timed-out too many times" in text
        reason = f"SLURM job {job} ended without a result: it was cancelled or killed, or its node failed"
        if timed_out:
            reason = "it came to its time limit too often; --retry-failed goes on from its last checkpoint"
        return State(name="ended", reason=reason, timed_out=timed_out, **about)

    def cancel(self) -> None:
        """See ``Engine``: those that wait are taken back; what runs saves and stops, or is killed after a while."""
        stop(self._jobs, self._left)

    def close(self) -> None:
        """Nothing is held: tasks go on without this process."""


class Answer(NamedTuple):
    """When a run's result was written, and why it failed, in nanoseconds; 0 where that is not there. A run that is done
    again and fails keeps the good result that it has."""

    result: int
    error: int


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0


@dataclass
class Jobs:
    """Which task of SLURM's has which run of a plan. ids: of runs -> of tasks, ``17_3``."""

    plan: Path = Path()
    ids: dict[str, str] = field(default_factory=dict)
    #: whether SLURM has answered since a task was last added
    answered: bool = False
    _folders: dict[str, Path] = field(default_factory=dict)
    _there: dict[str, str] = field(default_factory=dict)
    _looked: float = -math.inf
    _silent: str = ""

    @classmethod
    def of(cls, plan: Path) -> Jobs:
        """As they were written down; none where nothing was."""
        ids: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, TypeError):
            ids = {str(one): str(job) for one, job in json.loads(_file(plan).read_text()).items()}
        return cls(plan, ids)

    def add(self, ids: Mapping[str, str]) -> None:
        """Tasks that were just handed over."""
        self.ids |= ids
        self.answered = False

    def write(self) -> None:
        """Writes down which task has which run. Raises StoreError."""
        _file(self.plan).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(_file(self.plan), to_json(self.ids, indent=None))

    def log(self, one: str) -> Path:
        """What the task that has a run printed; appended to when it was requeued."""
        return logs_of(self.plan) / f"{self.ids[one]}_0_log.err"

    def look(self, *, fresh: bool = False) -> dict[str, str]:
        """Tasks of this user that SLURM still has, with their state; asked for every few seconds at most.

        While SLURM does not answer, what it said before.
        """
        if fresh or time.monotonic() - self._looked >= POLL_SECONDS:
            asked = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i %T"]
            said = subprocess.run(asked, capture_output=True, text=True, check=False)
            self._silent = _last_line(said.stderr) or f"exit code {said.returncode}" if said.returncode else ""
            if not self._silent:
                lines = [line.split() for line in said.stdout.splitlines()]
                self._there = {line[0]: line[1] for line in lines if len(line) == 2}
                self.answered = True
            self._looked = time.monotonic()
        return self._there

    def look_surely(self) -> dict[str, str]:
        """As SLURM says it now, asked several times. Raises UsageError where it does not answer."""
        for _ in range(ASKED):
            found = self.look(fresh=True)
            if not self._silent:
                return found
            time.sleep(POLL_SECONDS)
        raise UsageError(f"squeue does not answer ({self._silent}): tasks of this study may be in the queue. Try later")

    def answer_of(self, one: str) -> Answer:
        """What the run's folder says of how it ended."""
        if one not in self._folders:
            plan = Manifest.read(self.plan)
            store = Store(plan.root)
            self._folders = {spec.id: store.folder(spec) for spec in plan.runs}
        return Answer(*(_written(self._folders[one] / name) for name in ("result.json", "error.txt")))


def stop(jobs: Jobs, ids: Iterable[str]) -> None:
    """Takes back the tasks of these runs that wait, and asks those that run to save a checkpoint and stop."""
    own = {jobs.ids[one] for one in ids if one in jobs.ids}

    def left() -> list[str]:
        return [job for job in jobs.look(fresh=True) if job in own]

    if not (waiting := left()):
        return
    _scancel("--state=PENDING", *waiting)
    _scancel("--signal=INT", "--state=RUNNING", *waiting)
    deadline = time.monotonic() + GRACE_SECONDS
    while left() and time.monotonic() < deadline:
        time.sleep(1.0)
    if still := left():
        _scancel(*still)


def cancel_plan(plan: Path) -> None:
    """For ``ftbench cancel``: all tasks of a plan; nothing where it has none, or SLURM is not here."""
    jobs = Jobs.of(plan)
    if jobs.ids and shutil.which("squeue"):
        stop(jobs, list(jobs.ids))


@dataclass
class Task:
    """What a task of the array does; submitit pickles it.

    plan: the plan file. one: the run's id. again: also if it has a result. threads: of the worker
    """

    plan: str
    one: str
    again: bool
    threads: int | None

    def __call__(self) -> None:
        """Runs the worker until the run has a result, or is not to have one."""
        self._asked = False
        signal.signal(signal.SIGINT, self._ask)
        jobs = Jobs(Path(self.plan))
        before = jobs.answer_of(self.one)
        while not self._asked:
            code = self._work()
            if code not in (0, Interrupted.exit_code) or self._is_over(jobs, before):
                return
            time.sleep(AGAIN_SECONDS)  # another process has the run, or SLURM is about to take this one away

    def checkpoint(self) -> Any:
        """For submitit, when the time is up or the task is preempted: the run saves, and this is done again later."""
        from submitit.helpers import DelayedSubmission

        self._end_worker()
        return DelayedSubmission(Task(self.plan, self.one, self.again, self.threads))

    def _work(self) -> int:
        command = [sys.executable, "-m", "ftbench.runs.worker", self.plan, self.one, *["--again"] * self.again]
        threads = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        environment = {**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false"}
        self._worker = subprocess.Popen(command, env=environment, preexec_fn=_ignore_warning)
        self._wait()
        return self._worker.wait()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._worker.terminate()

    def _end_worker(self) -> None:
        self._worker.terminate()
        self._wait()

    def _wait(self) -> None:
        """Until the worker has ended; it stays to be waited for, so that a signal's handler can wait inside of this."""
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._worker.pid, os.WEXITED | os.WNOWAIT)

    def _is_over(self, jobs: Jobs, before: Answer) -> bool:
        if Manifest.cancel_file(jobs.plan).exists():
            return True
        now = jobs.answer_of(self.one)
        return now != before if self.again else bool(now.result)


def logs_of(plan: Path) -> Path:
    """Where submitit keeps what it hands over, and SLURM what tasks print."""
    return plan.with_suffix("") / "slurm"


def _file(plan: Path) -> Path:
    return plan.with_suffix("") / "jobs.json"


def _ignore_warning() -> None:
    """SLURM's warning goes to all processes of a task; the worker is told by SIGTERM."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _scancel(*arguments: str) -> None:
    subprocess.run(["scancel", "--quiet", *arguments], capture_output=True, check=False)


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), text).strip()
