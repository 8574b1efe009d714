"""RecAdam: from staying at the pretrained weights to the task, by a share that rises during training.

    L = s(t) * CE(f(x), y) + (1 - s(t)) * weight/2 * ||w - w0||^2,   s(t) = 1 / (1 + exp(-k * (t - t0))),  t = 1, 2, ...
    decoupled from Adam:  w <- w + s(t) * (Adam's step) - lr * (1 - s(t)) * weight * (w - w0)
    shape=linear: s(t) = min(1, t / t0);  shape=constant: s(t) = 1, plain fine-tuning.   The head is trained plainly.

Chen, Hou, Cui, Che, Liu, Yu: Recall and Learn: Fine-tuning Deep Pretrained Language Models with Less Forgetting. EMNLP
2020, arXiv 2004.12651. Defaults: weight = 5000, sigmoid, as the authors; k = 0.5, their script's default (they
searched 0.05 to 1). They searched t0 = 100 to 1000 in runs of thousands of steps; a short run would then train the
head alone. So here t0 below 1 is a share of the run's steps, and t0 = 0.1 (ours).

Cost: no further pass; a copy of the weights, and a second one during a step while s < 1.
The pull is stable while lr * weight < 2, and does not swing while it is below 1.

Where paper and released code differ (Sanyuan-Chen/RecAdam, commit 505ba3c); the paper's algorithm is not verified:
- ``paper`` pulls from the weights before the step, never further than to w0, and weight decay is a part of Adam's step.
  ``released`` pulls from the weights that Adam's step gave, without that limit, and has weight decay last and in full.
- Adam's moments see the full gradient in both: s scales the step, and scaling the loss would be cancelled by Adam.
- The code's ``anneal_w``, a limit of s below 1, is not here. Its Adam adds eps to the uncorrected root, torch's to the
  corrected one.
- The head is what lies outside the base model; the code goes by the parameter's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.methods.method import Group, Method, Start, Step
from ftbench.models.backbone import Backbone


@dataclass
class _Pulled:
    """A parameter's group, its pretrained value, its value before the step, and the weight decay taken from AdamW."""

    group: Group
    start: Tensor
    before: Tensor | None = None
    decay: float = 0.0


@dataclass
class RecAdam(Method):
    """weight: of the pull. k, t0: slope and middle of the rise, in steps (t0 below 1: in shares of the run)."""

    weight: float = 5000.0
    k: float = 0.5
    t0: float = 0.1
    shape: Literal["sigmoid", "linear", "constant"] = "sigmoid"
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "recadam"
    family: ClassVar[str] = "weights"
    summary: ClassVar[str] = "Adam's steps fade in while a pull to the pretrained weights fades out"
    cite: ClassVar[str] = "Chen et al. 2020, arXiv 2004.12651"
    neutral: ClassVar[Mapping[str, Any] | None] = {"shape": "constant"}

    def __post_init__(self) -> None:
        self.require_nonnegative("weight", "k", "t0")
        self._starts: dict[Tensor, Tensor] = {}
        self._pulled: list[_Pulled] = []

    def prepare(self, start: Start) -> None:
        model = start.backbone.model
        base = start.backbone.base
        if self.shape != "constant":
            inside = (p for name, p in model.named_parameters() if name.startswith(base) and p.requires_grad)
            self._starts = {parameter: parameter.detach().clone() for parameter in inside}

    def groups(self, groups: list[Group]) -> list[Group]:
        """Kept for their learning rates; ``released`` decays the weights itself."""
        starts = self._starts
        self._pulled = [_Pulled(group, starts[group.parameter]) for group in groups if group.parameter in starts]
        if self.variant == "released":
            for pulled in self._pulled:
                pulled.decay, pulled.group.decay = pulled.group.decay, 0.0
        return groups

    def share(self, step: Step) -> float:
        """s(t) of an optimizer step."""
        t, t0 = step.number + 1, self.t0 if self.t0 >= 1 else self.t0 * step.steps
        if self.shape == "sigmoid":
            return 0.5 + 0.5 * math.tanh(self.k * (t - t0) / 2)
        return min(1.0, t / t0) if self.shape == "linear" and t0 else 1.0

    def after_backward(self, backbone: Backbone, step: Step) -> None:
        if self.share(step) < 1:
            for pulled in self._pulled:
                pulled.before = pulled.group.parameter.detach().clone()

    @torch.no_grad()
    def after_step(self, backbone: Backbone, step: Step) -> None:
        share = self.share(step)
        for pulled in self._pulled:
            parameter, rate = pulled.group.parameter, step.lr * pulled.group.lr
            before, pulled.before = pulled.before, None
            pull = rate * (1 - share) * self.weight
            if before is not None and self.variant == "paper":
                parameter.sub_(before).mul_(share).add_(before).sub_(min(1.0, pull) * (before - pulled.start))
            elif before is not None:
                parameter.sub_(before).mul_(share).add_(before)
                parameter.sub_(pull * (parameter - pulled.start))
            parameter.mul_(1 - rate * pulled.decay)
