"""What methods see before training: the pretrained network and the training rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ftbench.methods.method import Batch, Start
from ftbench.models.backbone import Backbone
from ftbench.training.batches import Tokens, share
from ftbench.training.evaluate import EVAL_BATCH
from ftbench.training.optim import mix
from ftbench.training.passes import batch_of
from ftbench.types import Rows, RunSpec


def start_of(
    spec: RunSpec, backbone: Backbone, tokens: Tokens, rows: Rows, cache: Path | None, *, regression: bool
) -> Start:
    """``Start`` for one run. Its batches hold the rows in the order of train; their passes have no dropout."""

    def batches() -> Iterator[Batch]:
        for number, part in enumerate(share(np.arange(len(rows)), EVAL_BATCH)):
            seed = mix(spec.seed, number, "start")
            yield batch_of(backbone, tokens, rows.labels, rows.index, part, seed, regression=regression)

    def key() -> str:
        digest = hashlib.sha256(repr((spec.weights, spec.max_length, tokens.ids.shape)).encode())
        digest.update(np.ascontiguousarray(tokens.ids).tobytes())
        return digest.hexdigest()[:24]

    return Start(backbone, spec.steps, len(rows), batches, cache, key)
