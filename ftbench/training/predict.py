"""Predictions of a trained classifier for new texts, and summaries of what was trained to write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftbench.models.backbone import load_tokenizer
from ftbench.models.locate import Checkpoint
from ftbench.models.seq2seq import load_seq2seq
from ftbench.models.trained import load_trained
from ftbench.training.batches import tokenize
from ftbench.training.evaluate import decide, predict, probabilities
from ftbench.training.precision import choose_device
from ftbench.training.summaries import document_tokens
from ftbench.training.writing import write_summaries
from ftbench.types import Rows, RunSpec

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Predicted:
    """labels: class names by id, empty in a regression. values: (n,) class ids or numbers, or summaries.
    probabilities: (n, classes), None where there are no labels. truncated: rows that lost tokens."""

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
    tokens = tokenize(_rows(texts), tokenizer, max_length, key=source.fingerprint)
    logits = predict(network, tokens, precision)
    values = decide(logits, regression=not labels)
    return Predicted(labels, values, probabilities(logits) if labels else None, tokens.truncated)


def summarize_texts(
    source: Checkpoint,
    texts: tuple[tuple[str, ...], ...],
    spec: RunSpec,
    *,
    device: str,
    attend: Callable[[int, int], None],
) -> Predicted:
    """A summary of each document of ``texts``, one tuple of n strings, cut and written as ``spec`` says.

    attend: told after every batch how many are written of how many. Raises UsageError for a checkpoint that cannot
    write, and for a document without tokens.
    """
    tokenizer = load_tokenizer(source)
    network = load_seq2seq(source, tokenizer, seed=spec.seed)
    network.model.to(choose_device(device))
    documents = document_tokens(_rows(texts), network, spec, source.fingerprint)
    written = write_summaries(network, documents, spec, attend=attend)
    return Predicted((), np.array(written, dtype=object), None, documents.truncated)


def _rows(texts: tuple[tuple[str, ...], ...]) -> Rows:
    n = len(texts[0])
    return Rows(texts, np.zeros(n, dtype=np.int64), np.arange(n, dtype=np.int64))
