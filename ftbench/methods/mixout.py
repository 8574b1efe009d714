"""Mixout: dropout that falls back to the pretrained weights and not to zero.

    L = CE(f(x; w~), y),   w~ = [m * w + (1 - m) * w0 - p * w0] / (1 - p) = w0 + m / (1 - p) * (w - w0),   m ~ B(1 - p)

Lee, Cho, Kang: Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models. ICLR 2020,
arXiv 1909.11299. w: the matrix of a linear layer of the base model; biases, embeddings and norms are not mixed. One m
for each input of a layer (``unit=neuron``, mixout) or for each weight (``unit=weight``, the paper's mixconnect), new in
every pass. Default: p = 0.9, the example of the authors' repository; that of Zhang et al. 2021 has 0.1.

``dropout=off`` (default) replaces the dropout of the base model, as all released code does; ``on`` keeps it. Rates that
a family does not keep in a Dropout module (T5's attention) stay.

Cost: no further pass; a copy of the matrices, and a mixed one for each that a backward pass needs.
``dropout=shared`` of other methods does not share m: it is drawn from the method's random numbers, not from dropout's.

Where paper and released code differ (bloodwass/mixout, commit 18f377d; asappresearch/revisit-bert-finetuning, commit
0aa4f4e):
- The code's gradient lacks the factor 1 / (1 - p). Adam hides that for what is mixed; clipping and all that is not
  mixed feel it: ``variant=released``; ``paper`` has the true gradient.
- The released examples mix the head too, with its random start, and switch its dropout off: ``variant=released``. The
  paper treats the output layer apart; how is not verified.
- At p = 1 the code trains nothing; here p is below 1. Layers that are no ``nn.Linear`` (GPT-2's) are not mixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ftbench.errors import FtbenchError
from ftbench.methods.method import Batch, Method, Start
from ftbench.models.backbone import Backbone


@dataclass
class Mixout(Method):
    """p: how probable the pretrained value is. unit: what shares a draw. dropout: whether ordinary dropout stays."""

    p: float = 0.9
    unit: Literal["neuron", "weight"] = "neuron"
    dropout: Literal["off", "on"] = "off"
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "mixout"
    family: ClassVar[str] = "weights"
    summary: ClassVar[str] = "in every pass a random part of the matrices is the pretrained one"
    cite: ClassVar[str] = "Lee, Cho and Kang 2020, arXiv 1909.11299"
    neutral: ClassVar[Mapping[str, Any] | None] = {"p": 0.0, "dropout": "on"}

    def __post_init__(self) -> None:
        self.require("p", 0 <= self.p < 1, "0 or more, below 1")
        self._generator: torch.Generator | None = None
        self._mixed: list[nn.Module] = []
        self._dropouts: list[tuple[nn.Dropout, float]] = []

    def prepare(self, start: Start) -> None:
        """Raises FtbenchError for a base model without linear layers."""
        start.backbone.depths()  # looked up now, while parameters have their own names
        model = start.backbone.model
        where = "" if self.variant == "released" else start.backbone.base
        inside = [module for name, module in model.named_modules() if name.startswith(where)]
        linears = [module for module in inside if isinstance(module, nn.Linear)]
        if not any(isinstance(module, nn.Linear) for module in model.base_model.modules()):
            raise FtbenchError(f"mixout: a {model.config.model_type} model has no linear layers to mix")
        if self.dropout == "off":
            self._dropouts = [(module, module.p) for module in inside if isinstance(module, nn.Dropout)]
            for module, _ in self._dropouts:
                module.p = 0.0
        for linear in linears if self.p else []:
            parametrize.register_parametrization(linear, "weight", _Mixed(linear.weight.detach().clone(), self))
            self._mixed.append(linear)

    def begin(self, batch: Batch) -> None:
        self._generator = batch.generator

    def mix(self, weight: Tensor, start: Tensor) -> Tensor:
        """w~ in training, w else; (outputs, inputs)."""
        if self._generator is None:
            return weight
        kept = self.draw(weight, self._generator)
        if self.variant == "released":
            weight = _Scaled.apply(weight, 1 - self.p)
        return start + (weight - start) * (kept / (1 - self.p))

    def draw(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        """m: 1 where the trained weight stays, else 0; (outputs, inputs), or (1, inputs) for whole neurons."""
        shape = (1, *weight.shape[1:]) if self.unit == "neuron" else weight.shape
        return torch.empty(shape, device=weight.device, dtype=weight.dtype).bernoulli_(1 - self.p, generator=generator)

    def finish(self, backbone: Backbone) -> None:
        self._generator = None
        for module in self._mixed:
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        for dropout, p in self._dropouts:
            dropout.p = p


class _Mixed(nn.Module):
    """The parametrization of one weight; ``start``: its pretrained value, kept out of checkpoints."""

    start: Tensor

    def __init__(self, start: Tensor, method: Mixout) -> None:
        super().__init__()
        self.register_buffer("start", start, persistent=False)
        self.method = method

    def forward(self, weight: Tensor) -> Tensor:
        return self.method.mix(weight, self.start) if self.training else weight


class _Scaled(torch.autograd.Function):
    """The tensor itself, with ``factor`` times its gradient."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * context.factor, None
