"""Tokens of every row before anything is cut."""

from __future__ import annotations

from ftbench.models.locate import Checkpoint
from ftbench.models.tokenizer import load_tokenizer
from ftbench.training.batches import tokenize
from ftbench.types import Data

UNCUT = 10**6


def uncut_lengths(data: Data, source: Checkpoint, max_length: int) -> dict[str, tuple[list[int], int]]:
    """For each split the token count of each row, special tokens included, and the limit: the smaller of
    ``max_length`` and the model's own."""
    tokenizer = load_tokenizer(source)
    limit = int(min(max_length, tokenizer.model_max_length))
    tokenizer.model_max_length = UNCUT
    return {
        name: (tokenize(rows, tokenizer, UNCUT, key=source.fingerprint).lengths.tolist(), limit)
        for name, rows in data.splits.items()
    }
