"""Freeze: the embeddings and the lowest blocks stay as they were pretrained.

    L = CE(f(x), y),   trained: the blocks above the lowest ``layers``, and the head

Lee, Tang, Lin: What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning. arXiv 1911.03090: training the upper
fourth keeps 90 % of the quality (its abstract). Defaults: 2 blocks and the embeddings, ours and mild: a third of a
model of 6. With all blocks frozen only the head is trained, and a pooler.

Cost: a forward pass, and the backward pass of the trained part only. Dropout stays on in frozen blocks.

There is no released code to differ from. That the paper freezes the embeddings in every setting is not verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ftbench.methods.method import Method, Start


@dataclass
class Freeze(Method):
    """layers: how many of the lowest blocks are frozen. embeddings: frozen too, with all that runs before the first."""

    layers: int = 2
    embeddings: bool = True

    name: ClassVar[str] = "freeze"
    family: ClassVar[str] = "weights"
    summary: ClassVar[str] = "embeddings and the lowest blocks are not trained"
    cite: ClassVar[str] = "Lee, Tang and Lin 2019, arXiv 1911.03090"
    cost: ClassVar[str] = "1 forward, 1 backward through the trained part"
    neutral: ClassVar[Mapping[str, Any] | None] = {"layers": 0, "embeddings": False}

    def __post_init__(self) -> None:
        self.require("layers", self.layers >= 0, "0 or more")

    def prepare(self, start: Start) -> None:
        """Raises UsageError for more blocks than the model has."""
        if not self.layers and not self.embeddings:
            return
        network = start.backbone
        count = len(network.blocks)
        self.require("layers", self.layers <= count, f"at most {count}, the model's number of blocks")
        depths = network.depths()
        for name, parameter in network.model.named_parameters():
            depth = depths[name]
            if (self.embeddings and depth > count) or count - self.layers < depth <= count:
                parameter.requires_grad_(False)
