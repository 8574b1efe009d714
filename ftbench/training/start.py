"""What methods see before training: the pretrained network and the training rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ftbench.methods.method import Batch, Start
from ftbench.models.backbone import Backbone
from ftbench.training.batches import Tokens, share
from ftbench.training.evaluate import EVAL_BATCH, collate_for
from ftbench.training.optim import mix
from ftbench.types import Rows, RunSpec


def start_of(
    spec: RunSpec, backbone: Backbone, tokens: Tokens, rows: Rows, cache: Path | None, *, regression: bool
) -> Start:
    """``Start`` for one run. Its batches hold the rows in the order of train; their passes have no dropout."""
    device = backbone.device
    labels = torch.as_tensor(rows.labels, dtype=torch.float32 if regression else torch.int64)

    def batches() -> Iterator[Batch]:
        for number, part in enumerate(share(np.arange(len(rows)), EVAL_BATCH)):
            batch = Batch(
                inputs=collate_for(backbone, tokens, part),
                labels=labels[part].to(device),
                ids=torch.as_tensor(rows.index[part]).to(device),
                generator=torch.Generator(device).manual_seed(mix(spec.seed, number, "start")),
                regression=regression,
                positions=torch.as_tensor(part),
            )
            yield batch

    digest = hashlib.sha256(repr((spec.weights, spec.max_length, tokens.ids.shape)).encode())
    digest.update(np.ascontiguousarray(tokens.ids).tobytes())
    return Start(backbone, spec.steps, len(rows), batches, cache, digest.hexdigest()[:24])
