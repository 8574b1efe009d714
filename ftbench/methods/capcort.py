"""CAPCORT / REPINA: the pretrained representation can be read off the fine-tuned one.

    L = CE(f(x), y) + lambda * R
    R = mean over rows and dimensions of (phi(z_fin) - z_pre)^2
    capcort-i: phi = identity        capcort-mlp: phi(z) = z + V act(U z + a) + b, trained beside the network

z is a block's output (``layer``) at the token that the head reads, at the mean of the tokens, or at each of them
(``token``); z_pre is constant. phi maps fine-tuned to pretrained: the reverse would be satisfied by a constant z_fin.

Razdaibiedina, Madan, Karnin, Khetan, Kapoor: Improving language models fine-tuning with representation consistency
targets. 2022, arXiv 2205.11603 v1 (CAPCORT); with Khashabi: Representation Projection Invariance Mitigates
Representation Collapse. Findings of EMNLP 2023 (REPINA). Read: abstracts, opening and quotations, which give the
direction of phi. Not verified, because the full text and the code (arazd/REPINA) were not available: the norm,
token, layer, shape and learning rate of phi, and every lambda. All defaults are ours: the mean of squares, the top
block, ``cls``, weight 1, two layers of the encoder's width with tanh, V = b = 0 at the start (R is then that of the
identity), 10 times the run's learning rate, no decay.

``calibrated=r`` is ours too: lambda = r * H(y) / var(z_pre), the loss of the best constant prediction (the entropy of
the training labels; their variance in regression) over the R of the best constant representation, both measured
before training. At r = 1 a collapsed representation costs as much as knowing nothing of the labels; r does not
depend on the scale of z, the seed or the learning rate.

Cost: one pass over the training rows before training, once for many runs (``cache=on``); a forward pass without
gradient and a copy of the weights more with ``cache=off``. With dropout R is not 0 at the pretrained weights. The
gradient of phi counts in the norm that is clipped.
Where paper and released code differ: not known. treplina (konta3738/cka-repina-aya23, commit 0205756), which is
not the authors', adds the identity form with weight 0.05 at every second step, for all tokens of one layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ftbench.errors import FtbenchError
from ftbench.methods.frozen import AgainstPretrained
from ftbench.methods.method import Batch, Group, Start, Term
from ftbench.models.backbone import Out

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


@dataclass
class CapcortI(AgainstPretrained):
    """calibrated: r, which decides lambda in place of ``weight``; 0 is off. Others: see ``AgainstPretrained``."""

    calibrated: float = 0.0

    name: ClassVar[str] = "capcort-i"
    family: ClassVar[str] = "representations"
    summary: ClassVar[str] = "squared distance to the pretrained representation"
    cite: ClassVar[str] = "Razdaibiedina et al. 2022, arXiv 2205.11603"
    cost: ClassVar[str] = "1 forward, 1 backward; cache=off: 1 forward without gradient more"
    neutral: ClassVar[Mapping[str, Any] | None] = {"weight": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_nonnegative("calibrated")
        self.require("calibrated", not self.calibrated or self.weight == 1.0, "no weight beside it")

    def prepare(self, start: Start) -> None:
        super().prepare(start)
        self.strength = self.calibrated * self._unit(start) if self.calibrated else self.weight

    def _unit(self, start: Start) -> float:
        """lambda at r = 1. Raises FtbenchError where it does not exist."""
        batches = list(start.batches())
        uninformed = constant_loss(torch.cat([b.labels.cpu() for b in batches]), regression=batches[0].regression)
        variance = self.targets.variance()
        if not (uninformed > 0 and variance > 0):
            raise FtbenchError(f"{self.name}: all labels or all representations are equal; give a weight")
        return uninformed / variance

    def project(self, z: Tensor) -> Tensor:
        """phi. (..., width) to the same shape."""
        return z

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        mask = batch.inputs["attention_mask"]
        with torch.autocast(mask.device.type, enabled=False):
            z = self.targets.read(out.states, mask)
            errors = (self.project(z) - self.targets(batch)).square().mean(-1)
            value = (errors * self.targets.read.shares(mask)).sum(1).mean()
        if self.calibrated and batch.diagnose:
            batch.notes["lambda"] = torch.tensor(self.strength)
        return Term("drift", value, self.strength, by_row=True)


@dataclass
class CapcortMLP(CapcortI):
    """width: hidden units of phi, 0 for as many as its input has. lr: of phi, as a multiple of the run's."""

    width: int = 0
    activation: Literal["tanh", "relu", "gelu"] = "tanh"
    lr: float = 10.0

    name: ClassVar[str] = "capcort-mlp"
    summary: ClassVar[str] = "squared distance of a trained projection to the pretrained representation"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("width", self.width >= 0, "0 or more")
        self.require("lr", 0 < self.lr < float("inf"), "more than 0")

    def prepare(self, start: Start) -> None:
        super().prepare(start)
        inner = self.targets.read.width
        width, last = self.width or inner, nn.Linear(self.width or inner, inner)
        nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
        self.phi = nn.Sequential(nn.Linear(inner, width), ACTIVATIONS[self.activation](), last)
        self.phi.to(start.backbone.device)

    def groups(self, groups: list[Group]) -> list[Group]:
        if self.strength == 0:  # phi would have no gradient
            return groups
        own = [(f"{self.name}.phi.{name}", parameter) for name, parameter in self.phi.named_parameters()]
        return [*groups, *(Group(name, parameter, 0.0, 0, self.lr) for name, parameter in own)]

    def project(self, z: Tensor) -> Tensor:
        """phi. (..., width) to the same shape."""
        moved: Tensor = z + self.phi(z)
        return moved

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.phi.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.phi.load_state_dict(dict(state))


def constant_loss(labels: Tensor, *, regression: bool) -> float:
    """The task loss of the best prediction that is the same for all rows: entropy, or variance."""
    if regression:
        return labels.double().var(correction=0).item()
    shares = labels.bincount().double() / len(labels)
    return -torch.special.xlogy(shares, shares).sum().item()
