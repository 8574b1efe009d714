"""What a run takes: CPU time, wall time, passes, peak memory. Nothing here can change a number."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import torch

from ftbench.types import Cost

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class Meter:
    """Adds to a Cost. Training time runs between ``start`` and ``stop``; ``pause`` takes a stretch out of it."""

    def __init__(self, cost: Cost, device: torch.device) -> None:
        self.cost = cost
        self.device = device
        self._process = self._wall = 0.0
        self._running = False
        self._counter: Callable[[], int] = int
        self._left_out = 0

    def start(self) -> None:
        self._running = True
        self._wall, self._process = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Banks the time since ``start``."""
        if self._running:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.cost.process_seconds += time.process_time() - self._process
            self.cost.wall_seconds += time.perf_counter() - self._wall
            self._running = False

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time inside is not training; it is counted as evaluation."""
        was_running = self._running
        self.stop()
        began, counted = time.perf_counter(), self._counter()
        try:
            yield
        finally:
            self._left_out += self._counter() - counted
            self.cost.evaluate_seconds += time.perf_counter() - began
            if was_running:
                self.start()

    @contextlib.contextmanager
    def leaving_out(self, counter: Callable[[], int]) -> Iterator[Callable[[], int]]:
        """Inside: how much of what ``counter`` counts was counted while the meter paused."""
        self._counter, self._left_out = counter, 0
        try:
            yield lambda: self._left_out
        finally:
            self._counter = int

    def reset_peak(self) -> None:
        """Gives memory back to the system and starts the peak anew, so that runs in one process compare."""
        _set_aside()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL("libc.so.6").malloc_trim(0)
            with contextlib.suppress(OSError):
                _CLEAR.write_text("5")

    def record_peak(self) -> None:
        """Largest memory since ``reset_peak``: CUDA's allocator, else the process's resident set, in bytes."""
        if self.device.type == "cuda":
            peak, of = torch.cuda.max_memory_allocated(self.device), "tensors on the GPU"
        else:
            peak, of = _peak_resident(), "process"
        self.cost.peak_memory = max(self.cost.peak_memory, peak)
        self.cost.memory_of = of


@functools.cache
def _set_aside() -> None:
    """Once: what is there before the first run (modules, above all) stays, and no collection looks at it again: that is
    half a million objects, and a third of a second for every run."""
    gc.collect()
    gc.freeze()


def together(costs: Sequence[Cost]) -> Cost:
    """What processes that share a run took, the first of them first: CPU time, passes and tokens of all, the memory of
    the largest, the clock of the first."""
    sums = ("process_seconds", "forward_passes", "backward_passes", "tokens", "flops")
    added = {name: sum(getattr(cost, name) for cost in costs) for name in sums}
    peak = max(cost.peak_memory for cost in costs)
    return dataclasses.replace(costs[0], **added, peak_memory=peak, processes=len(costs))


def _peak_resident() -> int:
    """VmHWM where the kernel has it (reset by ``reset_peak``), else the present resident set."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)
