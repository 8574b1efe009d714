"""BitFit: only the biases and the head are trained.

    L = CE(f(x), y),   trained: every bias of the base model (layer norms' and the pooler's too), and all of the head

Ben Zaken, Ravfogel, Goldberg: BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-
models. ACL 2022, arXiv 2106.10199. Default: lr = 10, ours. So few parameters want a larger learning rate: the released
default is 1e-3, and the recipe here has 2e-5 to 1e-4 by the model's width.

Cost: a forward pass, and a backward pass without the gradients of the matrices.

Where paper and released code differ (benzakenelad/BitFit, commit 1d66f59): nothing known; the trained parameters are
the code's. The paper's smaller choice (the biases of queries and of the first MLP matrix) is not here, and its grid of
learning rates is not verified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ftbench.errors import FtbenchError
from ftbench.methods.method import Group, Method, Start


@dataclass
class BitFit(Method):
    """lr: the learning rate as a multiple of the run's, for all that is trained."""

    lr: float = 10.0

    name: ClassVar[str] = "bitfit"
    family: ClassVar[str] = "weights"
    summary: ClassVar[str] = "only biases and the head are trained"
    cite: ClassVar[str] = "Ben Zaken et al. 2022, arXiv 2106.10199"
    cost: ClassVar[str] = "1 forward, 1 backward without the matrices' gradients"
    no_neutral: ClassVar[str] = "the matrices of the base model are frozen at every setting"
    tunes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require("lr", 0 < self.lr < float("inf"), "more than 0")

    def prepare(self, start: Start) -> None:
        """Raises FtbenchError for a base model without biases."""
        model = start.backbone.model
        base = start.backbone.base
        inside = {name: p for name, p in model.named_parameters() if name.startswith(base)}
        biases = {name for name, p in inside.items() if name.endswith("bias") and p.ndim == 1}
        if not biases:
            raise FtbenchError(f"bitfit: a {model.config.model_type} model has no biases to train")
        for name, parameter in inside.items():
            if name not in biases:
                parameter.requires_grad_(False)

    def groups(self, groups: list[Group]) -> list[Group]:
        for group in groups:
            group.lr *= self.lr
        return groups
