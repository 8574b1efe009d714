"""Batch spectral shrinkage: push the weakest directions of a batch's features to zero.

    L = CE(f(x), y) + lambda * sum_{i <= k} sigma_{-i}(F)^2

F (rows, width) holds the features of a micro-batch's rows, not centred; sigma_{-1} <= sigma_{-2} <= ... are its
smallest singular values, min(rows, width) in all.

Chen, Wang, Fu, Long, Wang: Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for Safe
Transfer Learning. NeurIPS 2019. Defaults: weight 1e-3, k = 1, as in the released scripts.

Cost: a singular value decomposition of F a micro-batch. The term is a sum that grows with the rows and is another
for every cut of a batch. It aims at small singular values, and so against measures of collapse that want them large.

Where paper and released code differ (thuml/Batch-Spectral-Shrinkage, commit d8c255d): nothing known; the text script
reads BERT's pooled output before dropout. ``features=pooled`` is that for every family: what the last layer of the
head reads, before the dropout in front of it. ``cls`` is the top block's output at the token that the head reads.
The code differentiates the whole decomposition, which in older torch has NaN gradients where singular values are
equal; ours needs the values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.methods.features import HeadInput, at_token, reader_of
from ftbench.methods.method import Batch, Method, Start, Term
from ftbench.models.backbone import Backbone, Out


@dataclass
class BSS(Method):
    """weight: lambda. k: how many singular values. features: ``pooled`` or ``cls``, see above."""

    weight: float = 1e-3
    k: int = 1
    features: Literal["pooled", "cls"] = "pooled"

    name: ClassVar[str] = "bss"
    family: ClassVar[str] = "representations"
    summary: ClassVar[str] = "shrinks the smallest singular values of the batch's features"
    cite: ClassVar[str] = "Chen et al. 2019, NeurIPS"
    neutral: ClassVar[Mapping[str, Any] | None] = {"weight": 0.0}
    no_writing: ClassVar[str] = "it shrinks what a classifier's head reads, one vector a text"
    wants_states: ClassVar[bool] = True
    batch_coupled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require_nonnegative("weight")
        self.require("k", self.k >= 1, "1 or more")

    def prepare(self, start: Start) -> None:
        self._read = reader_of(start.backbone, next(start.batches()).inputs, "top", "cls")
        self._head = HeadInput(start.backbone, training=True) if self.features == "pooled" else None

    def begin(self, batch: Batch) -> None:
        if self._head is not None:
            self._head.taken.clear()

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        mask = batch.inputs["attention_mask"]
        with torch.autocast(mask.device.type, enabled=False):
            if self._head is None:
                features = self._read(out.states, mask)[:, 0]
            else:
                features = self._head.taken[0][: len(mask)]  # the clean pass is the first, and first in a joined one
                self._head.taken.clear()
            if features.ndim == 3:
                features = at_token(features, mask, last=self._read.last)
            return Term("bss", smallest_squares(features.float(), self.k), self.weight)

    def finish(self, backbone: Backbone) -> None:
        if self._head is not None:
            self._head.remove()


def smallest_squares(features: Tensor, k: int) -> Tensor:
    """Sum of the ``k`` smallest squared singular values () of (rows, width)."""
    return torch.linalg.svdvals(features)[-k:].square().sum()
