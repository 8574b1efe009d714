"""What methods see before training: the pretrained network and the training rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ftbench.methods.method import Batch, Start
from ftbench.models import backbone as models
from ftbench.models.backbone import Backbone
from ftbench.models.locate import Checkpoint
from ftbench.models.seq2seq import load_seq2seq
from ftbench.models.trainable import restrict
from ftbench.training.batches import Tokens, share
from ftbench.training.evaluate import EVAL_BATCH
from ftbench.training.optim import mix
from ftbench.training.passes import batch_of
from ftbench.training.summaries import require_room
from ftbench.types import Data, Rows, RunSpec
from ftbench.types.layers import Layers


def network_of(spec: RunSpec, data: Data, source: Checkpoint, tokenizer: Any) -> Backbone:
    """What one run starts from: pretrained weights under its head; without the blocks above that, and with those
    frozen that the spec leaves out. Raises UsageError for a model that cannot be loaded so."""
    if spec.kind == "summarize":
        writer = load_seq2seq(source, tokenizer, seed=spec.seed)
        require_room(spec, writer.model.config, source.name)
        return writer
    layers = Layers.parse(spec.layers) if spec.layers else None
    network = models.load(
        source,
        tokenizer,
        data.labels,
        regression=data.task.kind == "regression",
        seed=spec.seed,
        layers=layers.head if layers else None,
        head=spec.head,
    )
    if layers:
        restrict(network, layers, frozen_dropout=spec.frozen_dropout)
    return network


def original_of(spec: RunSpec, data: Data, source: Checkpoint, tokenizer: Any) -> Backbone:
    """The network as it was pretrained, whatever runs before made of it; cut where that of the run is."""
    if spec.kind == "summarize":
        return load_seq2seq(source.origin or source, tokenizer, seed=spec.seed)
    regression = data.task.kind == "regression"
    head = Layers.parse(spec.layers).head if spec.layers else None
    return models.load(
        source.origin or source, tokenizer, data.labels, regression=regression, seed=spec.seed, layers=head
    )


def start_of(
    spec: RunSpec,
    backbone: Backbone,
    tokens: Tokens,
    rows: Rows,
    cache: Path | None,
    *,
    original: Callable[[], Backbone],
    regression: bool,
    targets: Tokens | None = None,
) -> Start:
    """``Start`` for one run. Its batches hold the rows in the order of train; their passes have no dropout."""

    def batches(every: int = 1, size: int = EVAL_BATCH) -> Iterator[Batch]:
        for number, part in enumerate(share(np.arange(0, len(rows), every), size)):
            seed = mix(spec.seed, number, "start")
            yield batch_of(
                backbone, tokens, rows.labels, rows.index, part, seed, regression=regression, targets=targets
            )

    def key() -> str:
        digest = hashlib.sha256(repr((spec.weights, spec.max_length, tokens.ids.shape)).encode())
        digest.update(np.ascontiguousarray(tokens.ids).tobytes())
        if targets is not None:
            digest.update(np.ascontiguousarray(targets.ids).tobytes())
        return digest.hexdigest()[:24]

    return Start(backbone, spec.steps, len(rows), batches, cache, key, original)
