"""NoisyTune: noise on the pretrained weights, once, before fine-tuning.

    W <- W + U(-lambda / 2, lambda / 2) * std(W)  for every parameter W;  then L = CE(f(x), y)

Wu, Wu, Qi, Huang, Xie: NoisyTune: A Little Noise Can Help You Finetune Pretrained Language Models Better. ACL 2022,
arXiv 2202.12024. ``intensity`` is lambda; its default 0.15 is the paper's. std is over the entries of W, unbiased.

Cost: none.

In a stack it acts where it stands: methods before it have seen the pretrained weights (targets to stay near should),
methods after it see the perturbed ones.

Where paper and released code differ:
- The authors' repository was not available; the paper prints two lines that go over all named parameters of the
  pretrained model, matrices, vectors and scalars (read second-hand). ``paper`` is that: the fresh head stays as drawn.
- ``variant=released`` is the copy in Yuanhy1997/HyPe (commit 196efd5): the head gets noise too.
- A tensor of one entry has no deviation and stays, in both; a constant one (new norms, biases) has deviation 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.methods.method import Method, Start


@dataclass
class NoisyTune(Method):
    """intensity: lambda, width of the noise in deviations of a weight."""

    intensity: float = 0.15
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "noisytune"
    family: ClassVar[str] = "noise and adversaries"
    summary: ClassVar[str] = "noise on the pretrained weights, once, in proportion to their deviation"
    cite: ClassVar[str] = "Wu et al. 2022, arXiv 2202.12024"
    neutral: ClassVar[Mapping[str, Any] | None] = {"intensity": 0.0}

    def __post_init__(self) -> None:
        self.require_nonnegative("intensity")

    def prepare(self, start: Start) -> None:
        model = start.backbone.model
        if self.intensity:
            for parameter in (model if self.variant == "released" else model.base_model).parameters():
                self.perturb(parameter)

    @torch.no_grad()
    def perturb(self, weight: Tensor) -> None:
        """Adds the noise of one tensor, in place."""
        if weight.numel() > 1:
            weight += (self.draw(weight) - 0.5) * self.intensity * weight.std()

    def draw(self, weight: Tensor) -> Tensor:
        """U[0, 1) of the weight's shape, from torch's own generator."""
        return torch.rand(weight.shape, device=weight.device)
