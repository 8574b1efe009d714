"""SIGINT and SIGTERM: stop after the present step; a second SIGINT stops at once. Runs without steps are finished."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def stop_on_signals(notify: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether the user asked to stop; old handlers are put back on leaving."""
    requested = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        if requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        requested = True
        name, at_once = signal.Signals(number).name, " (again: stop at once)" if number == signal.SIGINT else ""
        notify(f"{name}: saving a checkpoint after this step; a reference or a probe is finished first{at_once}")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: requested
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
