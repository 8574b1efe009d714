"""The default recipe, and what is decided from the number of training rows.

The recipe decides more than any method, so the defaults train to convergence: three epochs, but never
fewer than ``FLOOR`` updates (Zhang et al. 2021, arXiv 2006.05987; Mosbach et al. 2021, arXiv 2006.04884).
Chosen on slices of train over several tasks: docs/recipe.md has the table and its command.
"""

from __future__ import annotations

import math
from typing import Any

from ftbench.errors import UsageError

EPOCHS = 3.0
FLOOR = 150
BATCH_SIZE = 16
#: (hidden width below this, learning rate): narrow models want larger steps
LEARNING_RATES = ((512, 1e-4), (1024, 5e-5), (math.inf, 2e-5))
#: of summaries: smoothing and beams are BART's, lengths are those of a headline or a few sentences
WRITING = {
    "max_length": 512, "max_target_length": 64, "max_new_tokens": 64, "label_smoothing": 0.1, "num_beams": 4,
    "evaluations": 4, "evaluation_rows": 100,
}  # fmt: skip
#: of a decoder that begins as an encoder: docs/log.md, 2026-11-29
WARM = {"lr": 3e-4}
#: below this many rows batches are drawn at random: sorting a small set by length ties batches to labels
BUCKET_FROM = 2000


def steps_for(rows: int, batch_size: int, *, epochs: float | None = None, steps: int | None = None) -> int:
    """Optimizer steps for ``rows`` training rows: as told, or by the default recipe.

    Raises UsageError when both are given or a number is not above 0.
    """
    if batch_size < 1:
        raise UsageError(f"batch-size is {batch_size}: expected at least 1")
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


def lr_for(width: int) -> float:
    """Peak learning rate for a model of that hidden width (0: unknown, taken for a base-sized one).

    Below 512 chosen by the study in docs/recipe.md; above, from the grids of BERT (arXiv 1810.04805, 2e-5 to 5e-5)
    and RoBERTa-large (arXiv 1907.11692, 1e-5 to 3e-5), not measured here.
    """
    return next(lr for limit, lr in LEARNING_RATES if (width or 768) < limit)


def writing_for(width: int, decoder: str) -> dict[str, Any]:
    """Fields of RunSpec for summaries, where neither the user nor the task says them. decoder: see ``Checkpoint``.

    The learning rate of pretrained encoder-decoders is BART's for summarization (fairseq, examples/bart); where the
    decoder begins as an encoder it and the batch are ours, the best of six settings tried once on ``news-headline``.
    """
    return {**WRITING, **(WARM if decoder == "bert2bert" else {"lr": lr_for(width) if width < 512 else 3e-5})}


def batching_for(rows: int) -> str:
    """``bucket`` for large training sets, ``random`` for small ones."""
    return "bucket" if rows >= BUCKET_FROM else "random"
