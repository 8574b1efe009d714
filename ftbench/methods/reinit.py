"""ReInit: the topmost blocks start from random weights, for they are the most bound to the pretraining task.

    L = CE(f(x), y),   at the start: W ~ N(0, s^2), biases 0, norms (1, 0) in the topmost ``layers`` and in the pooler
    s: the initializer range of the model's configuration (0.02 where it has none)

Zhang, Wu, Katiyar, Weinberger, Artzi: Revisiting Few-sample BERT Fine-tuning. ICLR 2021, arXiv 2006.05987.
Default: layers = 2, ours; the paper searched 1 to 6 of 24 (not verified in its text), the released example has 5.

Cost: none. Not with a method that leaves these blocks as they are (``lora``, ``bitfit``, ``adapter``, ``--layers``).
Put it first in a stack: other methods then see the weights that training starts from. Methods that pull
to the pretrained weights (``l2sp``, ``recadam``) keep these as their target where they come before it.

Where paper and released code differ (asappresearch/revisit-bert-finetuning, commit 0aa4f4e): nothing known. The code
knows BERT and ELECTRA, and insists on the pooler with any block. Here every family is drawn by the one rule above, also
those whose own has other deviations (GPT-2, T5); a norm behind the last block is kept, as are the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ftbench.methods.method import Method, Start
from ftbench.models.backbone import Backbone


@dataclass
class ReInit(Method):
    """layers: how many of the topmost blocks. pooler: whether a pooler is drawn too, where there is one."""

    layers: int = 2
    pooler: bool = True

    name: ClassVar[str] = "reinit"
    family: ClassVar[str] = "weights"
    summary: ClassVar[str] = "the topmost blocks and the pooler start from random weights"
    cite: ClassVar[str] = "Zhang et al. 2021, arXiv 2006.05987"
    neutral: ClassVar[Mapping[str, Any] | None] = {"layers": 0, "pooler": False}

    def __post_init__(self) -> None:
        self.require("layers", self.layers >= 0, "0 or more")

    @torch.no_grad()
    def prepare(self, start: Start) -> None:
        """Draws on the CPU, so that the weights are the same on every device; the pooler first, then upwards.

        Raises UsageError for more blocks than the model has, and for weights that would stay random.
        """
        backbone = start.backbone
        config = backbone.model.config.get_text_config()
        deviation = getattr(config, "initializer_range", None) or getattr(config, "init_std", None) or 0.02
        for name, parameter in self._chosen(backbone):
            self.require("layers", parameter.requires_grad, f"blocks that are trained, which {name} is not")
            if parameter.ndim >= 2:
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, deviation))
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)

    def _chosen(self, backbone: Backbone) -> Iterator[tuple[str, Tensor]]:
        if self.pooler:
            depths, base = backbone.depths(), f"{backbone.model.base_model_prefix}."
            named = backbone.model.named_parameters()
            yield from ((name, p) for name, p in named if name.startswith(base) and depths[name] == 0)
        if not self.layers:
            return
        count = len(backbone.blocks)
        self.require("layers", self.layers <= count, f"at most {count}, the model's number of blocks")
        for block in backbone.blocks[count - self.layers :]:
            yield from block.named_parameters()
