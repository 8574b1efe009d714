"""The processes that share each run, as ``torchrun`` or ``accelerate launch`` started them: the same command in each.

The first one is the command as it always is: it plans, claims, writes and prints. The others load the same inputs and
then do as the first says, run after run. No torch here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from ftbench.errors import FtbenchError, Interrupted, StoreError, UsageError
from ftbench.types import RunSpec

#: kinds of runs that are shared; all others the first process does alone, while the others wait
SHARED = ("finetune", "summarize")
#: what ends a study, in every process
ENDS = (Interrupted, StoreError, UsageError)
Work = Callable[..., Any]


def size() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if size() > 1 else 0


class Team:
    """See the top of the file. group: a ``training.distributed.Group``, or None where there is one process only."""

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self._over = group is None

    def do(self, work: Work, spec: RunSpec, data: Any, source: Any, place: Any, control: Any) -> Any:
        """``work``, together with the others; raises what it raises."""
        if self.group is None or spec.kind not in SHARED:
            return work(spec, data, source, place, control)
        place.group = self.group
        place.device = self.group.device(place.device)
        self.group.first(lambda: (spec, source, place.folder, place.micro_batch))
        try:
            return work(spec, data, source, place, control)
        except ENDS:
            self._over = True
            raise

    def follow(self, do: Callable[[RunSpec, Any, Any, int | None], Any]) -> None:
        """Every run that the first process begins, until it has no more: ``do(spec, source, folder, micro_batch)``.

        Raises what ends a study, and FtbenchError where the first process is gone.
        """
        while (told := self._hear()) is not None:
            try:
                do(*told)
            except ENDS:
                raise
            except Exception:  # it is in the first process, too, which writes it down
                continue

    def close(self) -> None:
        """In the first process: lets the others go."""
        if not self._over:
            self._over = True
            with contextlib.suppress(RuntimeError):  # they are gone
                self.group.first(lambda: None)

    def _hear(self) -> Any:
        try:
            return self.group.first(lambda: None)
        except RuntimeError as error:
            raise FtbenchError(f"process 0 is gone: {error}") from error


@contextlib.contextmanager
def gathered() -> Iterator[Team]:
    """The team of this process; nothing is loaded where it is alone."""
    if size() == 1:
        yield Team()
        return
    from ftbench.training.distributed import joined

    with joined(rank(), size()) as group:
        team = Team(group)
        try:
            yield team
        finally:
            if rank() == 0:
                team.close()
