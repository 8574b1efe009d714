"""SAM and ASAM: step by the gradient at the worst point nearby, for a minimum that is flat.

    w <- AdamW step from w with the gradient at w + e,   g = gradient of the batch at w
    sam:    e = rho * g / ||g||
    asam:   e = rho * T^2 g / ||T g||,   T = |w| + eta for weights and 1 for biases, element by element

Foret, Kleiner, Mobahi, Neyshabur: Sharpness-Aware Minimization for Efficiently Improving Generalization. ICLR 2021,
arXiv 2010.01412; for language models Bahri, Mobahi, Tay, ACL 2022, arXiv 2110.08529 (their rho is not verified).
Kwon, Kim, Park, Choi: ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
Networks. ICML 2021, arXiv 2102.11600. The norm is that of all parameters together. Defaults: sam eps (rho) = 0.05,
the example of davda54/sam; asam eps = 0.5 and eta = 0.01, those of its authors' code.

Cost: two forward and two backward passes and a copy of the weights. Both passes have the same dropout masks and the
same noise of other methods, whose terms count in both. Parameters that other methods add are not perturbed.

Where paper and released code differ:
- asam, ``variant=released`` is the adaptive form of davda54/sam (commit 3c3afdb), which is not the authors' and the
  most used: T = |w| for biases too and without eta, so that a weight of 0 never moves; its example takes rho = 2.
  ``paper`` agrees with the authors' code (SamsungLabs/ASAM, commit dc9b513), which scales what is called "weight".
- davda54/sam leaves a parameter perturbed that has no gradient in the second pass; here all are put back, exactly.
- Clipping and weight decay come after, with the gradient at w + e, as in davda54/sam with torch's optimizers.

fp16 works: e does not depend on the loss scale, and where the gradient at w overflows there is no second pass: the step
is left out as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.methods.method import Method
from ftbench.models.backbone import Backbone

#: guards the division where the gradient is 0, as in davda54/sam
GUARD = 1e-12


@dataclass
class SAM(Method):
    """eps: rho, the length of the perturbation."""

    eps: float = 0.05

    name: ClassVar[str] = "sam"
    family: ClassVar[str] = "trajectory"
    summary: ClassVar[str] = "steps by the gradient at the worst weights nearby"
    cite: ClassVar[str] = "Foret et al. 2021, arXiv 2010.01412"
    cost: ClassVar[str] = "2 forward, 2 backward"
    neutral: ClassVar[Mapping[str, Any] | None] = {"eps": 0.0}
    owns_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require_nonnegative("eps")

    def gradients(self, backbone: Backbone, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        here = compute()
        if self.eps == 0:
            return here
        named = [(name, p) for name, p in backbone.model.named_parameters() if p.grad is not None]
        parameters = [p for _, p in named]
        scales = [self.scale(name, p.detach()) for name, p in named]
        moves = perturbation([p.grad for p in parameters], scales, self.eps)
        if moves is None:
            return here
        kept = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, move in zip(parameters, moves, strict=True):
                p.add_(move)
                p.grad = None
        try:
            there = compute()
        finally:
            with torch.no_grad():
                for p, value in zip(parameters, kept, strict=True):
                    p.copy_(value)
        return here | {"sharpness": there["loss"] - here["loss"]}

    def scale(self, name: str, parameter: Tensor) -> Tensor | float:
        """T of a parameter."""
        return 1.0


@dataclass
class ASAM(SAM):
    """eps: rho, the length of the perturbation in units of T. eta: added to \\|w\\| in ``variant=paper``."""

    eps: float = 0.5
    eta: float = 0.01
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "asam"
    summary: ClassVar[str] = "SAM in a neighbourhood that scales with each weight"
    cite: ClassVar[str] = "Kwon et al. 2021, arXiv 2102.11600"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_nonnegative("eta")

    def scale(self, name: str, parameter: Tensor) -> Tensor | float:
        """T of a parameter."""
        if self.variant == "released":
            return parameter.abs()
        return parameter.abs() + self.eta if "weight" in name else 1.0


def perturbation(
    gradients: Sequence[Tensor | None], scales: Sequence[Tensor | float], eps: float
) -> list[Tensor] | None:
    """eps * T^2 g / ||T g|| for each parameter, the norm being over all of them; None where that is not finite."""
    scaled = [_times(g, scale) for g, scale in zip(gradients, scales, strict=True) if g is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in scaled]))
    if not norm.isfinite():
        return None
    return [_times(g, scale) * (eps / (norm + GUARD)) for g, scale in zip(scaled, scales, strict=True)]


def _times(gradient: Tensor, scale: Tensor | float) -> Tensor:
    """The gradient itself where there is nothing to scale: a copy of all weights' size less."""
    return gradient if isinstance(scale, float) and scale == 1.0 else gradient * scale
