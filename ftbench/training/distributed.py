"""One run on several processes, started by ``torchrun`` or ``accelerate launch``; no wrapper around model or loader.

Micro-batch number ``a * size + rank`` of a step is the ``a``-th of process ``rank``, so random numbers are those of one
process that does all micro-batches. Every process holds all weights and takes every optimizer step; gradients are added
up in one flat buffer:

    CPU: in the order of the micro-batches, process after process, so that the sum is that of one process to the last
         bit, for any number of processes and micro-batches
    GPU: by one all-reduce at the end of the step, whose order is the library's own

What is not a gradient (scores, checkpoints, whether to stop) comes from the first process, or is told to all of them.
Only the first process writes.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ftbench.errors import FtbenchError, UsageError

T = TypeVar("T")
#: the first process may be busy for as long (a reference row, a large evaluation); one that dies is noticed at once
PATIENCE = datetime.timedelta(days=7)


@dataclass(frozen=True)
class Group:
    """The processes of a run: which one this is, and how many there are."""

    rank: int = 0
    size: int = 1

    def each(self, work: Callable[[], T]) -> list[T]:
        """What ``work`` gives in every process, in the order of the processes. What one raises, all raise."""
        if self.size == 1:
            return [work()]
        answers: list[Any] = [None] * self.size
        dist.all_gather_object(answers, _attempt(work))
        return [_unpack(answer) for answer in answers]

    def first(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in the first process; the others wait for it. What it raises, all raise."""
        if self.size == 1:
            return work()
        answer = [_attempt(work) if self.rank == 0 else None]
        dist.broadcast_object_list(answer, src=0)
        found: T = _unpack(answer[0])
        return found

    def together(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in this process. What it raises in one of them, all raise."""
        kept: list[T] = []
        self.each(lambda: kept.append(work()))
        return kept[0]

    def device(self, device: torch.device) -> torch.device:
        """The GPU of this process, where ``device`` says no more than CUDA. Raises UsageError where it has none."""
        if self.size == 1 or device.type != "cuda":
            return device
        own, there = int(os.environ.get("LOCAL_RANK", self.rank)), torch.cuda.device_count()
        if device.index is not None or own >= there:
            raise UsageError(
                f"process {self.rank} of {self.size} has no GPU of its own: this machine has {there}. Start at most so "
                "many processes (torchrun --nproc-per-node), and leave the number out of --device"
            )
        torch.cuda.set_device(own)
        return torch.device("cuda", own)


#: the usual run: one process
ALONE = Group()


@contextlib.contextmanager
def joined(rank: int, size: int) -> Iterator[Group]:
    """The group that the launcher's environment speaks of, for as long as it is used; ``ALONE`` where it is of one."""
    if size == 1:
        yield ALONE
        return
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    try:
        yield Group(rank, size)
    finally:
        dist.destroy_process_group()


def require_equal(group: Group, step: int, parameters: Sequence[Tensor]) -> None:
    """Raises FtbenchError where processes are at different steps, or hold different weights."""
    sums = torch.stack([parameter.detach().double().sum() for parameter in parameters]) if group.size > 1 else None
    states = group.each(lambda: None if sums is None else (step, str(sums.tolist())))
    if len({at for at, _ in filter(None, states)}) > 1:
        raise FtbenchError(
            "the processes of this run found different checkpoints: the output folder must be one that all of their "
            "machines share"
        )
    if any(state != states[0] for state in states):
        raise FtbenchError(
            f"the processes of this run hold different weights at step {step}: a method computes something else in "
            "each of them. Run it in one process"
        )


class Gradients:
    """The gradients of ``parameters``, added up over the processes of a group."""

    def __init__(self, group: Group, parameters: Sequence[Tensor]) -> None:
        self.group, self.parameters = group, parameters
        self.ordered = group.size > 1 and parameters[0].device.type == "cpu"
        self._pieces: dict[Tensor, list[Tensor]] = {parameter: [] for parameter in parameters}
        self._sum = Flat([])
        for parameter in parameters if self.ordered else ():
            parameter.register_post_accumulate_grad_hook(self._take)

    def start(self) -> None:
        """Before the first micro-batch of a step; ``.grad`` is empty."""
        if self.ordered:
            self._sum = Flat(self.parameters)

    def add(self) -> None:
        """After every round, which is one micro-batch (or none) in each process."""
        for rank in range(self.group.size if self.ordered else 0):
            if rank == self.group.rank:
                for number, pieces in enumerate(self._pieces.values()):
                    for piece in pieces:
                        self._sum.add(number, piece)
                    pieces.clear()
            dist.broadcast(self._sum.whole, src=rank)

    def finish(self) -> None:
        """After the last round: ``.grad`` is the sum, in every process; None where no process has one."""
        if self.group.size == 1:
            return
        if not self.ordered:
            self._sum = Flat(self.parameters)
            for number, parameter in enumerate(self.parameters):
                if parameter.grad is not None:
                    self._sum.add(number, parameter.grad)
            dist.all_reduce(self._sum.whole)
        for parameter, total in zip(self.parameters, self._sum.totals(), strict=True):
            parameter.grad = total
        self._sum = Flat([])

    def _take(self, parameter: Tensor) -> None:
        """After every backward pass: what it gave is kept apart, because one process adds it by itself."""
        if parameter.grad is not None:
            self._pieces[parameter].append(parameter.grad)
            parameter.grad = None


class Flat:
    """Sums for all parameters in one buffer, and behind them for each parameter how many were added."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        kind = functools.reduce(torch.promote_types, (p.dtype for p in parameters), torch.float32)
        device = parameters[0].device if parameters else None
        self.whole = torch.zeros(sum(sizes) + len(sizes), dtype=kind, device=device)
        *parts, self._counts = self.whole.split([*sizes, len(sizes)])
        self._parts = [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]

    def add(self, number: int, gradient: Tensor) -> None:
        """Adds to the sum of the ``number``-th parameter."""
        self._parts[number].add_(gradient)
        self._counts[number] += 1

    def totals(self) -> list[Tensor | None]:
        """A sum for each parameter, None where nothing was added."""
        return [part.clone() if n else None for part, n in zip(self._parts, self._counts.tolist(), strict=True)]


def _attempt(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # a foreign exception may want arguments that pickle does not know
            return None, FtbenchError(f"{type(error).__name__}: {error}")
        return None, error


def _unpack(answer: Any) -> Any:
    value, error = answer
    if error is not None:
        raise error
    return value
