"""Child-Tuning: each step moves a part of the weights only.

    L = CE(f(x), y),   g <- g * M before the step of the optimizer
    mode=F: M ~ B(p) / p, drawn anew at each step
    mode=D: M = 1 for the share p of the weights with the largest F = 1/n sum_i (d log p(y_i | x_i; w) / d w)^2, fixed

Xu, Luo, Zhang, Tan, Chang, Huang, Huang: Raise a Child in Large Language Model: Towards Effective and Generalizable
Fine-tuning. EMNLP 2021, arXiv 2109.05687. Defaults: D and p = 0.3, those of the released script. F is a mean over
rows of squared gradients (regression: of the squared error), taken on the pretrained weights under a fresh head,
without dropout. ``rows`` limits it to that many, spread over train (ours: each row is a pass); 0 takes all. Where
nothing of what it masks is trained (``freeze`` with all blocks before it), it does nothing.

Cost: F draws a mask as large as the model at each step; D has its passes before training, a mask, and a copy of the
weights while it is made.

Where paper and released code differ (alibaba/AliceMind, ChildTuning, commit a6d5afe):
- D: the code squares the gradient of batches of 16, clips each tensor's on its own to norm 1 before, has dropout on,
  and masks the blocks only: embeddings, pooler and head are free. ``variant=released`` does so, with the rows in order
  where the code shuffles. ``paper`` masks all of the base model; which weights the paper masks is not verified.
- F: the code masks every gradient, the head's too: ``variant=released``; ``paper`` leaves the head free.
- The code masks inside the optimizer, after clipping; here it is before, so clipping sees the masked gradient.
- Masked weights are not frozen in the code or here: weight decay moves them, in F momentum too. Adam takes most of
  1/p back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ftbench.methods.method import Batch, Method, Start, Step
from ftbench.models.backbone import Backbone

#: of the released script: rows whose gradient is squared as one, and the norm that each tensor's is clipped to
RELEASED_ROWS, RELEASED_NORM = 16, 1.0


@dataclass
class ChildTuning(Method):
    """p: the share of weights that move. rows: how many the Fisher information is taken from (0: all)."""

    mode: Literal["F", "D"] = "D"
    p: float = 0.3
    rows: int = 1024
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "child-tuning"
    family: ClassVar[str] = "weights"
    summary: ClassVar[str] = "gradients of a random or a Fisher-chosen part of the weights only"
    cite: ClassVar[str] = "Xu et al. 2021, arXiv 2109.05687"
    cost: ClassVar[str] = "1 forward, 1 backward; mode=D: one more of each for every row, once"
    revision: ClassVar[int] = 2  # 1 squared gradients of fewer rows than 16 where ``released`` took some rows only
    neutral: ClassVar[Mapping[str, Any] | None] = {"mode": "F", "p": 1.0}

    def __post_init__(self) -> None:
        self.require("p", 0 < self.p <= 1, "more than 0, at most 1")
        self.require("rows", self.rows >= 0, "0 or more")
        self._masked: list[Tensor] = []
        self._masks: list[Tensor] = []

    def prepare(self, start: Start) -> None:
        model = start.backbone.model
        self._masked = [parameter for parameter in self._chosen(start.backbone) if parameter.requires_grad]
        if self.mode == "F" or not self._masked:
            return
        was_training = model.training
        model.train(self.variant == "released")
        norm = RELEASED_NORM if self.variant == "released" else math.inf
        self._masks = largest(squared_gradients(self._losses(start), self._masked, norm), self.p)
        model.train(was_training)

    def after_backward(self, backbone: Backbone, step: Step) -> None:
        masks = iter(self._masks)
        for parameter in self._masked:
            mask = next(masks, None)
            if parameter.grad is not None:
                parameter.grad.mul_(self.draw(parameter.grad, step.generator) if mask is None else mask)

    def draw(self, gradient: Tensor, generator: torch.Generator) -> Tensor:
        """M of one step, of the gradient's shape."""
        return torch.empty_like(gradient).bernoulli_(self.p, generator=generator).div_(self.p)

    def _chosen(self, backbone: Backbone) -> Iterable[Tensor]:
        model = backbone.model
        if self.variant == "paper":
            base = backbone.base
            return [parameter for name, parameter in model.named_parameters() if name.startswith(base)]
        if self.mode == "F":
            return list(model.parameters())
        return [parameter for block in backbone.blocks for parameter in block.parameters()]

    def _losses(self, start: Start) -> Iterator[Tensor]:
        """Mean losses of what is squared as one: a row, or the released code's batch."""
        size = RELEASED_ROWS if self.variant == "released" else 1
        every = math.ceil(start.rows / self.rows) if self.rows else 1
        for batch in start.batches(every, size):
            yield _loss(start.backbone, batch)


def _loss(backbone: Backbone, batch: Batch) -> Tensor:
    """Mean task loss () of a batch."""
    logits, labels = backbone.forward(batch.inputs).logits.float(), batch.labels
    return F.mse_loss(logits[:, 0], labels) if batch.regression else F.cross_entropy(logits, labels)


def squared_gradients(losses: Iterable[Tensor], parameters: Sequence[Tensor], norm: float) -> list[Tensor]:
    """For each parameter the mean square of its gradient over the losses, each clipped to ``norm`` first."""
    sums, count = [torch.zeros_like(parameter) for parameter in parameters], 0
    for loss in losses:
        count += 1
        for total, gradient in zip(sums, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
            if gradient is not None:
                clip = 1.0 if math.isinf(norm) else (norm / (gradient.norm() + 1e-6)).clamp(max=1.0)
                total.add_((gradient * clip).square())
    return [total / count for total in sums]


def largest(values: Sequence[Tensor], share: float) -> list[Tensor]:
    """Masks, true where an entry is at least the (1 - share) quantile of all entries together."""
    flat = torch.cat([value.flatten() for value in values])
    place = math.ceil(round((len(flat) - 1) * (1 - share), 6))
    limit = flat.kthvalue(place + 1).values
    return [value >= limit for value in values]
