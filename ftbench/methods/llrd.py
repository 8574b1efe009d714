"""LLRD: the lower a layer, the smaller its learning rate.

    L = CE(f(x), y),   lr of a parameter = lr * decay^depth
    depth: 0 in the head and the pooler, 1 in the topmost block, ..., blocks + 1 in the embeddings

Howard, Ruder: Universal Language Model Fine-tuning for Text Classification. ACL 2018, arXiv 1801.06146 (discriminative
fine-tuning). In this form: Zhang, Wu, Katiyar, Weinberger, Artzi: Revisiting Few-sample BERT Fine-tuning. ICLR 2021,
arXiv 2006.05987. Default: decay = 0.95, the example of the released code.

Cost: none. A decay below 1 slows all of the base model down; give it a learning rate of its own.

Where paper and released code differ (asappresearch/revisit-bert-finetuning, commit 0aa4f4e):
- With a decay other than 1 the code drops the weight decay of head and pooler: ``variant=released``. (The optimizer of
  the same code then drops it everywhere, see ``l2sp``; that is not part of this method.)
- The topmost block already has one factor. That the paper counts so is not verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ftbench.methods.method import Group, Method


@dataclass
class LLRD(Method):
    """decay: a layer's learning rate as a multiple of that of the layer above."""

    decay: float = 0.95
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "llrd"
    family: ClassVar[str] = "weights"
    summary: ClassVar[str] = "a learning rate that falls from layer to layer"
    cite: ClassVar[str] = "Howard and Ruder 2018, arXiv 1801.06146; Zhang et al. 2021, arXiv 2006.05987"
    neutral: ClassVar[Mapping[str, Any] | None] = {"decay": 1.0}

    def __post_init__(self) -> None:
        self.require("decay", 0 < self.decay <= 1, "more than 0, at most 1")

    def groups(self, groups: list[Group]) -> list[Group]:
        for group in groups:
            group.lr *= self.decay**group.depth
            if self.variant == "released" and self.decay != 1 and group.depth == 0:
                group.decay = 0.0
        return groups
