"""Where the runs of a study are carried out when that is not the present process: the table of engines.

    start(plan, ids)   hand over runs; returns at once, and may be called again
    states(wait)       what became of them; waits up to so many seconds for something to change
    cancel()           ask what runs to save a checkpoint and stop, and take back what has not begun
    close()            free what the engine holds; runs go on if they can without it

An engine moves processes, never numbers: what a run gave is read from its folder, and every worker is the same
program, ``python -m ftbench.runs.worker``. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from ftbench.lookup import find, import_object

#: name -> class, made with a Setup; ``here``, the process of the command, is what ``Grid`` does without an engine
ENGINES = {
    "local": "ftbench.runs.engines.local:Local",
    "slurm": "ftbench.runs.engines.slurm:Slurm",
}
HERE = "here"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How many runs at a time, and where; none of it changes a number.

    engine:       ``here`` or a key of ENGINES
    jobs:         runs at a time
    threads:      CPU threads of each
    gpus:         GPUs to share out, as CUDA_VISIBLE_DEVICES names them; empty: none, or what the engine gives
    jobs_per_gpu: runs at a time on one GPU
    time_limit:   seconds that one run may take
    extra:        what only one engine knows, such as a partition
    """

    engine: str = HERE
    jobs: int = 1
    threads: int | None = None
    gpus: tuple[str, ...] = ()
    jobs_per_gpu: int = 1
    time_limit: float | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class State:
    """What became of a run that was handed over.

    ended:  it is over, and its result is in its folder, unless ``reason`` says why there is none
    taken:  another process has claimed it
    where:  for people: ``slot 2``, ``job 17_3``
    log:    the file that holds what the worker printed
    """

    name: Literal["queued", "running", "ended", "taken"]
    step: int = 0
    total: int = 0
    where: str = ""
    reason: str = ""
    timed_out: bool = False
    log: Path | None = None


class Engine(Protocol):
    """See the top of the file."""

    def start(self, plan: Path, ids: Sequence[str], *, again: bool = False) -> None:
        """Hands over runs of the plan file, in this order. again: also those that have a result."""

    def states(self, wait: float) -> Mapping[str, State]:
        """Every run that was handed over and has not ended; one that has, or was taken, exactly once.

        Raises StoreError or UsageError where a worker met one that ends the study (a full disk, say).
        """

    def cancel(self) -> None:
        """Runs save a checkpoint and stop; returns when they have, or were killed after a while."""

    def close(self) -> None:
        """Frees processes and files."""


def make(setup: Setup) -> Engine:
    """The engine of a setup. Raises UsageError for an unknown name, and what the engine's class raises."""
    engine: Engine = import_object(find(ENGINES, setup.engine, "engine"), "engine")(setup)
    return engine
