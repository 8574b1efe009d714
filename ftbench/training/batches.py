"""Rows to batches: tokenised once, planned as a pure function of (seed, epoch), padded when used."""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.types import Rows

CHUNK = 4096
#: a bucket window holds at most this many batches: sorting a whole small set ties batches to labels
WINDOW = 8

Ints = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Tokens:
    """Tokenised rows, flat.

    ids:       (total tokens,) int32, row after row
    types:     (total tokens,) int8 token types, or None
    lengths:   (n,) int32 tokens of each row
    truncated: how many rows were cut to the limit
    """

    ids: Ints
    types: Ints | None
    lengths: Ints
    truncated: int

    @cached_property
    def offsets(self) -> Ints:
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def take(self, positions: Ints) -> Tokens:
        """The rows at ``positions`` (k,), in that order."""
        where = [slice(self.offsets[i], self.offsets[i + 1]) for i in positions]
        types = self.types
        return Tokens(
            np.concatenate([self.ids[at] for at in where]),
            None if types is None else np.concatenate([types[at] for at in where]),
            self.lengths[positions],
            self.truncated,
        )


def tokenize(rows: Rows, tokenizer: Any, max_length: int, *, key: str, cache: Path | None = None) -> Tokens:
    """Tokenises once; ``key`` (the tokenizer's fingerprint) and the rows name the file in the disk cache.

    A cache that cannot be read or written is passed over.
    """
    path = cache / f"tokens-{_cache_key(rows, key, max_length)}.safetensors" if cache else None
    found = _load_tokens(path) if path else None
    if found is not None:
        return found
    tokens = _tokenize(rows, tokenizer, max_length)
    if path:
        _save_tokens(path, tokens)
    return tokens


def plan(lengths: Ints, batch_size: int, seed: int, epoch: int, batching: str) -> list[Ints]:
    """Row positions of every batch of an epoch; each row once, the last batch may be smaller.

    ``bucket`` sorts by length inside windows of at most 8 batches, then shuffles the batches.
    """
    generator = np.random.Generator(np.random.PCG64([seed, epoch, 0xB47C]))
    order = generator.permutation(len(lengths))
    if batching == "bucket":
        window = batch_size * WINDOW
        pieces = [order[i : i + window] for i in range(0, len(order), window)]
        order = np.concatenate([piece[np.argsort(-lengths[piece], kind="stable")] for piece in pieces])
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        return [batches[i] for i in generator.permutation(len(batches))]
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def collate(
    tokens: Tokens, positions: Ints, pad: int, device: torch.device, *, left: bool = False
) -> dict[str, Tensor]:
    """Pads the rows at ``positions`` to the longest: input_ids, attention_mask and token types, (rows, tokens)."""
    lengths = tokens.lengths[positions]
    width = int(lengths.max())
    ids = np.full((len(positions), width), pad, dtype=np.int64)
    mask = np.zeros((len(positions), width), dtype=np.int64)
    types = np.zeros((len(positions), width), dtype=np.int64) if tokens.types is not None else None
    offsets = tokens.offsets[positions]
    for row, (start, length) in enumerate(zip(offsets, lengths, strict=True)):
        where = slice(width - length, width) if left else slice(0, length)
        ids[row, where] = tokens.ids[start : start + length]
        mask[row, where] = 1
        if types is not None and tokens.types is not None:
            types[row, where] = tokens.types[start : start + length]
    arrays = {"input_ids": ids, "attention_mask": mask, **({} if types is None else {"token_type_ids": types})}
    return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}


def _tokenize(rows: Rows, tokenizer: Any, max_length: int) -> Tokens:
    limit = min(max_length, _model_limit(tokenizer))
    starts = range(0, len(rows), CHUNK)
    chunks = [_tokenize_chunk([list(column[i : i + CHUNK]) for column in rows.texts], tokenizer, limit) for i in starts]
    types = [chunk.types for chunk in chunks if chunk.types is not None]
    whole = Tokens(
        np.concatenate([chunk.ids for chunk in chunks]),
        np.concatenate(types) if types else None,
        np.concatenate([chunk.lengths for chunk in chunks]),
        sum(chunk.truncated for chunk in chunks),
    )
    if whole.lengths.min() == 0:
        raise UsageError(f"row {int(whole.lengths.argmin())} has no tokens: its text is empty")
    return whole


def _tokenize_chunk(columns: list[list[str]], tokenizer: Any, limit: int) -> Tokens:
    """Flat arrays of some rows. The lists, ten times as large, are gone before the next rows come: memory is used
    again instead of asked for, which is a tenth of the time."""
    encoded = tokenizer(*columns, truncation=True, max_length=limit, return_attention_mask=False)
    ids = encoded["input_ids"]
    return Tokens(
        _flat(ids, np.int32),
        _flat(encoded["token_type_ids"], np.int8) if "token_type_ids" in encoded else None,
        np.fromiter(map(len, ids), dtype=np.int32, count=len(ids)),
        _count_truncated(encoded),
    )


def _flat(rows: list[list[int]], kind: Any) -> Ints:
    """Row after row in one array."""
    return np.fromiter(itertools.chain.from_iterable(rows), dtype=kind, count=sum(map(len, rows)))


def _count_truncated(encoded: Any) -> int:
    """Rows that lost tokens; fast tokenizers keep what overflowed, others do not tell (0)."""
    return sum(bool(row.overflowing) for row in encoded.encodings or ())


def _model_limit(tokenizer: Any) -> int:
    """The tokenizer's own limit; a very large number stands for none."""
    return int(min(tokenizer.model_max_length, 10**6))


def _cache_key(rows: Rows, key: str, max_length: int) -> str:
    import tokenizers
    import transformers

    digest = hashlib.sha256(repr((key, max_length, tokenizers.__version__, transformers.__version__)).encode())
    for column in rows.texts:
        digest.update(str(len(column)).encode())
        for text in column:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()[:32]


def _load_tokens(path: Path) -> Tokens | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        return Tokens(arrays["ids"], arrays.get("types"), arrays["lengths"], int(arrays["truncated"][0]))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _save_tokens(path: Path, tokens: Tokens) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {"ids": tokens.ids, "lengths": tokens.lengths, "truncated": np.asarray([tokens.truncated])}
    if tokens.types is not None:
        arrays["types"] = tokens.types
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tokens-")
        os.close(handle)
        save_file(arrays, temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError):  # safetensors has its own error for a full disk
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def share(rows: Sequence[int] | Ints, micro_batch: int | None) -> list[Ints]:
    """A batch's positions cut into micro-batches."""
    positions = np.asarray(rows)
    size = micro_batch or len(positions)
    return [positions[i : i + size] for i in range(0, len(positions), size)]
