"""L2-SP: keep the weights near the pretrained ones.

    L = CE(f(x), y) + weight/2 * ||w - w0||^2 + head/2 * ||v||^2      w: the base model, w0: pretrained, v: the head
    mode=decoupled: after each step of the optimizer  w <- w - lr * weight * (w - w0),  v <- v - lr * head * v

Li, Grandvalet, Davoine: Explicit Inductive Bias for Transfer Learning with Convolutional Networks. ICML 2018,
arXiv 1802.01483. Decoupled, it is the pretrained weight decay of Zhang, Wu, Katiyar, Weinberger, Artzi: Revisiting
Few-sample BERT Fine-tuning. ICLR 2021, arXiv 2006.05987 (``prior-wd`` stands for ``l2sp:mode=decoupled``).

Defaults: both weights 0.01, those of the released L2-SP code; the example of Zhang et al. has 1e-3. They are weak here:
AdamW divides the pull in the loss by the size of the whole gradient, and T decoupled steps at a mean rate lr undo about
lr * weight * T of the way, which is 1e-4 of it at 5e-5, 0.01 and 200 steps. Search upwards.

Cost: no further pass; a copy of the weights. The pull takes the place of the recipe's weight decay where it acts.
The head is all that lies outside the base model, a kept head too; a pooler is pulled to where it starts.

Where paper and released code differ (loss: holyseven/TransferLearningClassification, commit 1426356; decoupled:
asappresearch/revisit-bert-finetuning, commit 0aa4f4e). ``variant=released`` does as they do:
- Loss: the code pulls matrices only, in the head too; here ``paper`` pulls all parameters. Which the paper means is
  not verified.
- Decoupled: the code pulls the head to its random start with the same weight (its ``exclude_last_group`` never
  acts; ``head`` is not looked at), pulls before the step and not after it, and switches the recipe's weight decay
  off for all. The paper's own text is not verified.
- Later versions of L2-SP are without the 1/2 (LP-FT: twice the weight), or are 0 for ever where the start is not copied
  (thuml/Transfer-Learning-Library, given one model twice). The depth-weighted mode of the first is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ftbench.methods.method import Batch, Group, Method, Start, Step, Term
from ftbench.models.backbone import Backbone, Out


@dataclass
class L2SP(Method):
    """weight: of the pull to the pretrained weights. head: of the plain L2 on the head."""

    weight: float = 0.01
    head: float = 0.01
    mode: Literal["loss", "decoupled"] = "loss"
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "l2sp"
    family: ClassVar[str] = "weights"
    summary: ClassVar[str] = "a squared pull of the weights to the pretrained ones"
    cite: ClassVar[str] = "Li et al. 2018, arXiv 1802.01483; decoupled: Zhang et al. 2021, arXiv 2006.05987"
    neutral: ClassVar[Mapping[str, Any] | None] = {"weight": 0.0, "head": 0.0}

    def __post_init__(self) -> None:
        self.require_nonnegative("weight", "head")
        self._starts: dict[Tensor, Tensor] = {}
        self._heads: list[Tensor] = []
        self._groups: list[Group] = []

    @property
    def has_term(self) -> bool:
        """Decoupled, there is none."""
        return self.mode == "loss"

    @property
    def _as_asapp(self) -> bool:
        return self.mode == "decoupled" and self.variant == "released"

    def prepare(self, start: Start) -> None:
        model = start.backbone.model
        matrices_only = self.mode == "loss" and self.variant == "released"
        base = start.backbone.base
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad or (matrices_only and parameter.ndim < 2):
                continue
            if name.startswith(base) or self._as_asapp:
                if self.weight:
                    self._starts[parameter] = parameter.detach().clone()
            elif self.head:
                self._heads.append(parameter)

    def groups(self, groups: list[Group]) -> list[Group]:
        """Ours stand in for the recipe's weight decay. The groups are kept for their learning rates."""
        ours = {id(parameter) for parameter in [*self._starts, *self._heads]}
        self._groups = [group for group in groups if id(group.parameter) in ours]
        for group in groups if self._as_asapp and self.weight else self._groups:
            group.decay = 0.0
        return groups

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        """1/2 ||w - w0||^2, and the head's norm in the same unit; the head's alone where ``weight`` is 0."""
        if self.mode == "decoupled" or not (self._starts or self._heads):
            return None
        # the difference squared by one kernel, and not kept for the backward pass
        pull = _half([F.mse_loss(parameter, start, reduction="sum") for parameter, start in self._starts.items()])
        norm = _half([parameter.square().sum() for parameter in self._heads])
        if not self.weight:
            return Term("l2sp", norm, self.head)
        return Term("l2sp", pull + self.head / self.weight * norm, self.weight)

    def after_backward(self, backbone: Backbone, step: Step) -> None:
        if self._as_asapp:
            self._pull(step.lr)

    def after_step(self, backbone: Backbone, step: Step) -> None:
        if self.mode == "decoupled" and self.variant == "paper":
            self._pull(step.lr)

    @torch.no_grad()
    def _pull(self, lr: float) -> None:
        for group in self._groups:
            parameter, rate = group.parameter, lr * group.lr
            if parameter in self._starts:
                parameter.lerp_(self._starts[parameter], rate * self.weight)
            else:
                parameter.mul_(1 - rate * self.head)


def _half(squares: list[Tensor]) -> Tensor:
    """1/2 of their sum, (). float32 under autocast too."""
    return torch.stack(squares).sum() / 2 if squares else torch.zeros(())
