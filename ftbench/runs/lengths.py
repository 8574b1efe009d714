"""Lengths of a data set in a model's tokens, against the limit that training would cut at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ftbench.models.locate import Checkpoint
from ftbench.types import Data


def summary_lengths(data: Data, source: Checkpoint, max_length: int) -> dict[str, Mapping[str, int]]:
    """``token_lengths`` of the summaries that are trained on: the first of each row."""
    splits = {
        name: replace(rows, texts=(tuple(texts[0] for texts in rows.summaries),)) for name, rows in data.splits.items()
    }
    return token_lengths(replace(data, splits=splits), source, max_length)


def token_lengths(data: Data, source: Checkpoint, max_length: int) -> dict[str, Mapping[str, int]]:
    """For each split: median, p95 and max of the uncut lengths, the limit, and how many rows it cuts."""
    from ftbench.training.lengths import uncut_lengths

    out: dict[str, Mapping[str, int]] = {}
    for name, (lengths, limit) in uncut_lengths(data, source, max_length).items():
        ordered = sorted(lengths)
        out[name] = {
            "median": ordered[len(ordered) // 2],
            "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
            "max": ordered[-1],
            "limit": limit,
            "cut": sum(length > limit for length in ordered),
        }
    return out
