"""Features of tokenised rows: ``models.features`` with ftbench's tokens, padding and precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ftbench.models import features
from ftbench.models.backbone import Backbone
from ftbench.models.pooling import Pooling
from ftbench.training.batches import Tokens
from ftbench.training.evaluate import collate_for
from ftbench.training.precision import autocast
from ftbench.types import Features


def extract(
    backbone: Backbone,
    tokens: Tokens,
    labels: np.ndarray[Any, Any],
    poolings: Sequence[Pooling] = ("mean",),
    *,
    precision: str = "fp32",
    folder: Path | None = None,
) -> dict[Pooling, Features]:
    """``models.features.extract`` of ``tokens``, in the rows' order. labels: (n,)."""
    with autocast(backbone.device, precision):
        collate = partial(collate_for, backbone, tokens)
        return features.extract(backbone, tokens.lengths, collate, labels, poolings, folder)


def stream(
    backbone: Backbone,
    tokens: Tokens,
    poolings: Sequence[Pooling],
    each: features.Each,
    *,
    precision: str = "fp32",
) -> None:
    """``models.features.stream`` of ``tokens``: ``each`` is given every batch and nothing is kept."""
    with autocast(backbone.device, precision):
        features.stream(backbone, tokens.lengths, partial(collate_for, backbone, tokens), poolings, each)
