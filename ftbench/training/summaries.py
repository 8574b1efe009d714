"""What a network learns to write: summaries as tokens, and the loss of writing them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.methods.divergence import in_chunks
from ftbench.models.backbone import Backbone
from ftbench.training.batches import Tokens, tokenize
from ftbench.types import Rows, RunSpec


def document_tokens(rows: Rows, backbone: Backbone, spec: RunSpec, key: str, cache: Path | None = None) -> Tokens:
    """Tokens of the documents, ``spec.source_prefix`` before each. No token types: a document is one text."""
    (documents,) = rows.texts
    texts = tuple(spec.source_prefix + document for document in documents) if spec.source_prefix else documents
    only = Rows((texts,), rows.labels, rows.index)
    return replace(tokenize(only, backbone.tokenizer, spec.max_length, key=key, cache=cache), types=None)


def target_tokens(rows: Rows, backbone: Backbone, spec: RunSpec, key: str, cache: Path | None = None) -> Tokens:
    """Tokens that are to be written, the end among them: of each row's first summary, cut to
    ``spec.max_target_length`` (``truncated`` counts these)."""
    own = backbone.model.generation_config
    only = Rows((tuple(summaries[0] for summaries in rows.summaries),), rows.labels, rows.index)
    tokens = tokenize(only, backbone.tokenizer, spec.max_target_length, key=key, cache=cache)
    pieces = [
        _framed(tokens.ids[start:end], own.decoder_start_token_id, own.eos_token_id, spec.max_target_length)
        for start, end in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
    ]
    lengths = np.fromiter(map(len, pieces), dtype=np.int32, count=len(pieces))
    return Tokens(np.concatenate(pieces), None, lengths, tokens.truncated)


def _framed(ids: Any, begin: int, end: int | list[int] | None, most: int) -> Any:
    """Without the token that the decoder starts with anyway, and with an end."""
    ends = end if isinstance(end, list) else [end]
    if len(ids) and ids[0] == begin and begin not in ends:
        ids = ids[1:]
    if end is not None and (not len(ids) or ids[-1] not in ends):
        ids = np.append(ids[: most - 1], np.asarray(ends[:1], dtype=ids.dtype))
    return ids


def require_room(spec: RunSpec, config: Any, name: str) -> None:
    """Raises UsageError for summaries that are longer than the decoder has positions."""
    own = getattr(config, "decoder", config)
    positions = getattr(own, "max_position_embeddings", None)
    for field in ("max_target_length", "max_new_tokens"):
        asked = getattr(spec, field)
        if positions and asked >= positions:
            shown = field.replace("_", "-")
            raise UsageError(
                f"{shown} is {asked}: the decoder of model '{name}' has {positions} positions, expected fewer"
            )


def smoothed_loss(logits: Tensor, labels: Tensor, smoothing: float, over: str) -> Tensor:
    """Mean cross-entropy () of logits (tokens, words) with a share of the target given to other words; float32.

    all:    (1 - s) (-log p_y) + s / V sum_v (-log p_v): as transformers, and R-Drop's fairseq criterion (9dcc830)
    others: (1 - s) (-log p_y) + s / (V - 1) sum_{v != y} (-log p_v): fairseq today (3d262bb), so R3F's criterion
    """

    def loss(some: Tensor, right: Tensor) -> Tensor:
        if not smoothing:
            return F.cross_entropy(some.float(), right, reduction="none")
        logs = F.log_softmax(some.float(), dim=-1)
        target = -logs.gather(-1, right.unsqueeze(-1)).squeeze(-1)
        words = some.shape[-1]
        share = smoothing / (words if over == "all" else words - 1)
        rest = -logs.sum(dim=-1) - (0 if over == "all" else target)
        return (1 - smoothing) * target + share * rest

    return in_chunks(loss, logits, labels).mean()
