"""A network and tokenised texts to features: the outputs of all blocks, one vector a text, from one pass.

Blocks are pooled while the pass runs, so no more than one block's outputs are held. Rows are run by length inside
windows of ``WINDOW`` rows. Features are float32, also where the pass computes in bf16: a layer's statistics move by up
to 14 % when its features are rounded to bf16.

A block's output is taken as it is: the last one of a decoder before its final norm, as all others. An encoder-decoder
model gives its encoder's blocks, then its decoder's, which reads each token one place later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftbench.errors import FtbenchError, UsageError
from ftbench.models.anatomy import watching
from ftbench.models.backbone import Backbone
from ftbench.models.feature_files import Store, open_stores
from ftbench.models.modes import evaluating
from ftbench.models.pooling import Pooling, at_token, mean, reads_last, special_ids
from ftbench.types import Features

BATCH = 64
WINDOW = 16 * BATCH

Array = np.ndarray[Any, np.dtype[Any]]
#: row numbers (rows,) -> input_ids, attention_mask ... (rows, tokens), padded on either side
Collate = Callable[[Array], dict[str, Tensor]]
#: is given row numbers (rows,) and, for each pooling, the rows' features (layers, rows, width) on the model's device
Each = Callable[[Array, dict[Pooling, Tensor]], None]


def extract(
    backbone: Backbone,
    lengths: Array,
    collate: Collate,
    labels: Array,
    poolings: Sequence[Pooling],
    folder: Path | None = None,
) -> dict[Pooling, Features]:
    """The features of all rows in their order, for each pooling, from one pass; see ``stream``.

    lengths: (n,) tokens of each row; labels: (n,)
    folder:  where large features go, see ``open_stores``, which raises StoreError; None keeps them in memory
    """
    stores: dict[Pooling, Store] = {}

    def keep(positions: Array, pooled: dict[Pooling, Tensor]) -> None:
        if not stores:
            layers, _, width = next(iter(pooled.values())).shape
            stores.update(open_stores(poolings, (layers, len(lengths), width), WINDOW, folder))
        for pooling, vectors in pooled.items():
            stores[pooling].add(positions, vectors.cpu().numpy())

    try:
        stream(backbone, lengths, collate, poolings, keep)
        return {pooling: Features(store.whole(), labels, pooling) for pooling, store in stores.items()}
    finally:
        for store in stores.values():
            store.close()


def stream(backbone: Backbone, lengths: Array, collate: Collate, poolings: Sequence[Pooling], each: Each) -> None:
    """Gives ``each`` batch's features of all blocks, float32, and keeps nothing: for what can be summed up on the way.

    In evaluation mode, without gradients; the model's mode is put back after. Every row comes once, all rows of a
    window of ``WINDOW`` before any of the next.

    Raises UsageError for a state that is not finite (naming layer and row), and for ``ordinary`` where a row has no
    such token.
    """
    reader: _Reader | None = None
    with evaluating(backbone.model), torch.no_grad():
        for positions in batches(lengths):
            inputs = collate(positions)
            if reader is None:
                reader = _Reader(backbone, poolings, inputs)
            pooled = reader.read(inputs, positions)
            for vectors in pooled.values():
                _require_finite(vectors, positions)
            each(positions, pooled)


def batches(lengths: Array) -> Iterator[Array]:
    """Row numbers of each batch, the longest rows of a window first."""
    for start in range(0, len(lengths), WINDOW):
        window = start + np.argsort(-lengths[start : start + WINDOW], kind="stable")
        yield from (window[i : i + BATCH] for i in range(0, len(window), BATCH))


class _Reader:
    """Passes of one network, pooled block by block. ``inputs``: any rows, to see what the head reads."""

    def __init__(self, backbone: Backbone, poolings: Sequence[Pooling], inputs: dict[str, Tensor]) -> None:
        self.backbone, self.poolings = backbone, poolings
        model = backbone.model
        inside = set(model.get_decoder().modules()) if model.config.is_encoder_decoder else set()
        self.decoder = [block for block in backbone.blocks if block in inside]
        self.encoder = [block for block in backbone.blocks if block not in inside]
        self.special = torch.tensor(special_ids(backbone.tokenizer), device=backbone.device)
        self.last: dict[Pooling, bool] = {"last": True}
        if "cls" in poolings:
            self.last["cls"] = reads_last(backbone, inputs)

    def read(self, inputs: dict[str, Tensor], positions: Array) -> dict[Pooling, Tensor]:
        """For each pooling (layers, rows, width). ``positions``: the rows' numbers, for messages."""
        mask = inputs["attention_mask"].bool()
        ordinary = mask
        if "ordinary" in self.poolings:
            ordinary = mask & ~torch.isin(inputs["input_ids"], self.special)
            bare = ~ordinary.any(1)
            if bare.any():
                row = positions[int(bare.int().argmax())]
                raise UsageError(
                    f"row {row} has no ordinary token: its text is empty. Expected at least one in every row, "
                    "or another pooling than 'ordinary'"
                )
        found: dict[Pooling, list[Tensor]] = {pooling: [] for pooling in self.poolings}

        def pool(state: Tensor, ordinary: Tensor) -> None:
            state = self._cut(state, mask.shape[1])
            for pooling in self.poolings:
                if pooling in ("mean", "ordinary"):
                    found[pooling].append(mean(state, mask if pooling == "mean" else ordinary))
                else:
                    found[pooling].append(at_token(state, mask, last=self.last[pooling]).float())

        later = torch.nn.functional.pad(ordinary[:, :-1], (1, 0))
        with watching(self.encoder, lambda s: pool(s, ordinary)), watching(self.decoder, lambda s: pool(s, later)):
            self.backbone.forward(inputs)
        return {pooling: torch.stack(vectors) for pooling, vectors in found.items()}

    def _cut(self, state: Tensor, tokens: int) -> Tensor:
        """``state`` without the padding that some families (Longformer, BigBird) add on the right inside.

        Raises FtbenchError where it is not known which states are those of the tokens.
        """
        found = state.shape[1]
        if found < tokens or (found > tokens and self.backbone.tokenizer.padding_side != "right"):
            raise FtbenchError(
                f"a block of a {self.backbone.model.config.model_type} model gives {found} states for {tokens} tokens, "
                "and which of them belong to which token is not known: its layers cannot be measured"
            )
        return state[:, :tokens]


def _require_finite(vectors: Tensor, positions: Array) -> None:
    if not vectors.isfinite().all():
        layer, row = (int(i) for i in (~vectors.isfinite().all(-1)).nonzero()[0])
        raise UsageError(
            f"layer {layer + 1} gives NaN or infinity for row {positions[row]}: such states cannot be measured. "
            "Has the model diverged, or does it need --precision fp32?"
        )
