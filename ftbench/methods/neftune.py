"""NEFTune: uniform noise on the word embeddings, in training only, the smaller the longer the text.

    L = CE(f(x + z), y),   z ~ U(-m, m),   m = alpha / sqrt(n * d),   n tokens of a row, d the embeddings' width

Jain et al.: NEFTune: Noisy Embeddings Improve Instruction Finetuning. ICLR 2024, arXiv 2310.05914. Default alpha = 5,
the smallest of {5, 10, 15}, from the literature on instruction tuning of decoders: for classifiers search it. The norm
of a row's noise is about alpha / sqrt(3) at any length.

Cost: one forward and one backward pass.

Noise is added behind the lookup of the input's words, before positions and norms; a decoder's own lookup gets none. In
stacks every training pass has noise of its own, after what the pass itself does to the embeddings; passes without
dropout have none.

Where paper and released code differ (huggingface/transformers 5.23, integrations/neftune.py: ``variant=released``):
- The paper's n is the length of the row; the code's that of the padded batch, so the noise of a row depends on the
  rows beside it, and on how a batch is cut. It noises padding too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ftbench.methods.method import Start
from ftbench.methods.noise import HookedNoise
from ftbench.models.words import by_rows


@dataclass
class NEFTune(HookedNoise):
    """alpha: scale of the noise."""

    alpha: float = 5.0
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "neftune"
    family: ClassVar[str] = "noise and adversaries"
    summary: ClassVar[str] = "uniform noise on the word embeddings, scaled by the text's length"
    cite: ClassVar[str] = "Jain et al. 2024, arXiv 2310.05914"
    neutral: ClassVar[Mapping[str, Any] | None] = {"alpha": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_nonnegative("alpha")
        self._given: Mapping[str, Tensor] | None = None

    def prepare(self, start: Start) -> None:
        if self.alpha:
            self._handles = [
                start.backbone.model.register_forward_pre_hook(self._arm, with_kwargs=True),
                start.backbone.embeddings.register_forward_hook(self._perturb),
            ]

    def noised(self, embeddings: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """embeddings + z, (rows, tokens, width); mask (rows, tokens), 0 on padding."""
        unit = torch.rand(embeddings.shape, generator=generator, device=embeddings.device) * 2 - 1
        tokens, width = embeddings.shape[1:]
        if self.variant == "released":
            return embeddings + unit * (self.alpha / (tokens * width) ** 0.5)
        real = mask.unsqueeze(-1)
        return embeddings + unit * real * self.alpha / (real.sum(dim=1, keepdim=True) * width).sqrt()

    def _arm(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._given = kwargs if model.training else None

    def _perturb(self, module: nn.Module, args: Any, embeddings: Tensor) -> Tensor:
        given, self._given = self._given, None  # a table that the decoder shares is looked up again
        generator = self._generator
        if given is None or generator is None:
            return embeddings
        mask = given["attention_mask"]
        return by_rows(lambda seen: self.noised(seen, mask, generator), embeddings, args[0], given["input_ids"])
