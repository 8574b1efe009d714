"""The default recipe, and what is decided from the number of training rows.

The recipe decides more than any method, so the defaults train to convergence: three epochs, but never
fewer than ``FLOOR`` updates (Zhang et al. 2021, arXiv 2006.05987; Mosbach et al. 2021, arXiv 2006.04884).
Chosen on slices of train over several tasks: docs/recipe.md has the table and its command.
"""

from __future__ import annotations

import math

from ftbench.errors import UsageError

EPOCHS = 3.0
FLOOR = 200
BATCH_SIZE = 16
LEARNING_RATE = 5e-5
#: below this many rows batches are drawn at random: sorting a small set by length ties batches to labels
BUCKET_FROM = 2000


def steps_for(rows: int, batch_size: int, *, epochs: float | None = None, steps: int | None = None) -> int:
    """Optimizer steps for ``rows`` training rows: as told, or by the default recipe.

    Raises UsageError when both are given or either is not above 0.
    """
    if epochs is not None and steps is not None:
        raise UsageError("give --epochs or --steps, not both")
    if steps is not None:
        if steps < 1:
            raise UsageError(f"steps is {steps}: expected at least 1")
        return steps
    per_epoch = math.ceil(rows / batch_size)
    if epochs is None:
        return max(FLOOR, math.ceil(EPOCHS * per_epoch))
    if not 0 < epochs < math.inf:
        raise UsageError(f"epochs is {epochs:g}: expected above 0")
    return max(1, math.ceil(epochs * per_epoch))


def batching_for(rows: int) -> str:
    """``bucket`` for large training sets, ``random`` for small ones."""
    return "bucket" if rows >= BUCKET_FROM else "random"
