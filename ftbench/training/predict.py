"""Predictions of a trained classifier for new texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ftbench.models.backbone import load_tokenizer
from ftbench.models.locate import Checkpoint
from ftbench.models.trained import load_trained
from ftbench.training.batches import tokenize
from ftbench.training.evaluate import decide, predict, probabilities
from ftbench.training.precision import choose_device
from ftbench.types import Rows

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Predicted:
    """labels: class names by id, empty in a regression. values: (n,) class ids or numbers.
    probabilities: (n, classes), None in a regression. truncated: rows that lost tokens."""

    labels: tuple[str, ...]
    values: Array
    probabilities: Array | None
    truncated: int


def predict_texts(
    source: Checkpoint, texts: tuple[tuple[str, ...], ...], *, max_length: int, precision: str, device: str
) -> Predicted:
    """Predicts each row of ``texts``, one tuple of n strings for each input column.

    Raises UsageError for a checkpoint that is no trained classifier, and for a row without tokens.
    """
    tokenizer = load_tokenizer(source)
    network, labels = load_trained(source, tokenizer)
    network.model.to(choose_device(device))
    n = len(texts[0])
    rows = Rows(texts, np.zeros(n, dtype=np.int64), np.arange(n, dtype=np.int64))
    tokens = tokenize(rows, tokenizer, max_length, key=source.fingerprint)
    logits = predict(network, tokens, precision)
    values = decide(logits, regression=not labels)
    return Predicted(labels, values, probabilities(logits) if labels else None, tokens.truncated)
