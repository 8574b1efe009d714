"""From the flags of a command to a Setup, checked. No torch here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from ftbench.errors import UsageError
from ftbench.lookup import find
from ftbench.runs.engines import ENGINES, HERE, Setup

LOCAL, SLURM = "local", "slurm"
#: what SLURM may do at a time unless it is told
MOST_JOBS = 1000


def setup(
    *,
    jobs: str,
    engine: str | None,
    jobs_per_gpu: int,
    time_limit: float | None,
    device: str,
    threads: int | None,
    extra: Mapping[str, str],
) -> Setup:
    """How many runs at a time, and where. Several jobs get one thread each, unless told.

    SLURM has as many at a time as it gives, unless ``jobs`` is more than 1: how many it shares out is its business.

    Raises UsageError: an unknown engine, jobs that are no number, several jobs on one named GPU, more jobs than GPUs.
    """
    if engine is not None:
        find({HERE: HERE, **ENGINES}, engine, "engine")
    gpus = visible_gpus() if device in ("auto", "cuda") else ()
    number = _jobs(jobs, gpus, jobs_per_gpu, threads)
    if engine == SLURM:
        number = number if jobs not in ("1", "auto") else MOST_JOBS
        return Setup(engine=SLURM, jobs=number, threads=threads or 1, time_limit=time_limit, extra=extra)
    if extra:
        raise UsageError(f"--engine-option is for --engine {SLURM}")
    engine = engine or (LOCAL if number > 1 or time_limit else HERE)
    if engine == HERE and number > 1:
        raise UsageError(f"--engine {HERE} does one run at a time: leave out --jobs, or take --engine {LOCAL}")
    if engine == HERE and time_limit:
        raise UsageError(f"--time-limit needs workers that can be stopped: take --engine {LOCAL}")
    if engine == LOCAL and number > 1 and ":" in device:
        raise UsageError(f"--device {device} is one GPU: say which ones --jobs may use with CUDA_VISIBLE_DEVICES")
    if engine == LOCAL and gpus and number > len(gpus) * jobs_per_gpu:
        raise UsageError(
            f"--jobs {number}: {len(gpus)} GPU{'s' * (len(gpus) > 1)} at {jobs_per_gpu} a GPU. More to a GPU: "
            f"--jobs-per-gpu {-(-number // len(gpus))}"
        )
    return Setup(
        engine=engine,
        jobs=number,
        threads=threads or (1 if number > 1 else None),
        gpus=gpus,
        jobs_per_gpu=jobs_per_gpu,
        time_limit=time_limit,
    )


def _jobs(text: str, gpus: tuple[str, ...], jobs_per_gpu: int, threads: int | None) -> int:
    if text == "auto":
        return len(gpus) * jobs_per_gpu or max(1, _cores() // (threads or 1))
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--jobs '{text}': expected a whole number above 0, or auto")
    return int(text)


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES names, else the GPUs that ``nvidia-smi`` lists; none where there is no such thing."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip() and name.strip() != "-1")
    if not shutil.which("nvidia-smi"):
        return ()
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(listed.stdout.split()) if listed.returncode == 0 else ()
