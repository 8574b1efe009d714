"""Scoring: rows sorted by length, one pass, metrics by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ftbench.metrics import CALIBRATION, METRICS
from ftbench.models.backbone import Backbone
from ftbench.models.modes import evaluating
from ftbench.training.batches import Tokens, collate
from ftbench.training.memory import in_halves
from ftbench.training.precision import autocast
from ftbench.types import Rows

EVAL_BATCH = 64
Array = np.ndarray[Any, np.dtype[Any]]


def predict(backbone: Backbone, tokens: Tokens, precision: str = "fp32") -> Array:
    """Logits (n, classes) float32, in the rows' order. Dropout is off; the model's mode is put back after."""

    def logits(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        with autocast(backbone.device, precision):
            return backbone.forward(inputs).logits.float()

    return over_rows(backbone, tokens, logits)


@torch.inference_mode()
def over_rows(backbone: Backbone, tokens: Tokens, compute: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> Array:
    """``compute`` (inputs of a batch to (rows, k) float32) over all rows, batched by length: (n, k) in the rows' order.

    In evaluation mode; the model's mode is put back after. Where memory ends, batches are halved. Raises OneRowTooMuch.
    """
    order = np.argsort(-tokens.lengths, kind="stable")
    pieces: list[torch.Tensor] = []
    with evaluating(backbone.model):
        for start in range(0, len(order), EVAL_BATCH):
            batch = order[start : start + EVAL_BATCH]
            pieces += in_halves(lambda part: compute(collate_for(backbone, tokens, part)), batch)
    computed = torch.cat(pieces).cpu().numpy()
    out = np.empty_like(computed)
    out[order] = computed
    return out


def collate_for(backbone: Backbone, tokens: Tokens, positions: Array) -> dict[str, torch.Tensor]:
    """``collate`` with the tokenizer's pad token and side, on the model's device."""
    tokenizer = backbone.tokenizer
    left = tokenizer.padding_side == "left"
    return collate(tokens, positions, tokenizer.pad_token_id, backbone.device, left=left)


def probabilities(logits: Array) -> Array:
    """Softmax over the last axis in float64; (n, classes)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def decide(logits: Array, *, regression: bool) -> Array:
    """Class ids (n,), or the regression's values (n,)."""
    return np.asarray(logits[:, 0].astype(np.float64) if regression else logits.argmax(axis=-1))


def score(predictions: Array, targets: Array, metrics: Sequence[str], chances: Array | None = None) -> dict[str, float]:
    """Each metric by name, as plain floats; ``chances`` (n, classes) adds the calibration of a classification."""
    scores = {name: float(METRICS[name](predictions, targets)) for name in metrics}
    if chances is not None:
        scores |= {name: float(METRICS[name](chances, targets)) for name in CALIBRATION}
    return scores


def score_split(
    name: str, rows: Rows, predictions: Array, metrics: Sequence[str], chances: Array | None = None
) -> dict[str, dict[str, float]]:
    """``score`` of the split called ``name``, and of each of its groups by the group's name."""
    scores = {name: score(predictions, rows.labels, metrics, chances)}
    groups = np.asarray(rows.groups)
    for group in dict.fromkeys(rows.groups):
        here = groups == group
        of_group = chances[here] if chances is not None else None
        scores[group] = score(predictions[here], rows.labels[here], metrics, of_group)
    return scores
