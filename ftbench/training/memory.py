"""When memory ends: what a failed pass holds, and passes of evaluations that need no more than one row takes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ftbench.errors import OneRowTooMuch, is_out_of_memory

Positions = np.ndarray[Any, np.dtype[Any]]


def release() -> None:
    """Gives back what a pass that failed still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_halves(compute: Callable[[Positions], Any], positions: Positions) -> list[Any]:
    """``compute`` of a batch of rows, given by their positions; of its halves where there is no memory for it, down to
    single rows. Returns what it gave for each part, in order.

    Raises OneRowTooMuch.
    """
    try:
        return [compute(positions)]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error)
    if len(positions) == 1:
        raise OneRowTooMuch(f"out of memory at a single row, in an evaluation: {reason}")
    release()
    middle = len(positions) // 2
    return [*in_halves(compute, positions[:middle]), *in_halves(compute, positions[middle:])]
