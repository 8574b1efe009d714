"""HyPe: a little noise on the hidden states that enter every block, in training only.

    L = CE(f~(x), y),   f~: h <- h + z before every block,   z ~ U(-eps, eps) or N(0, eps^2), a draw for each block

Yuan, Yuan, Tan, Huang, Huang: HyPe: Better Pre-trained Language Model Fine-tuning with Hidden Representation
Perturbation. ACL 2023, arXiv 2212.08853. Defaults: eps = 1e-5, uniform noise (the code's).

Cost: one forward and one backward pass; a draw for each block.

The first block's input, the embeddings' output, gets noise, the last block's output does not. The noise stays in the
residual stream. Padding gets it too. In stacks every training pass has noise of its own; passes without dropout have
none. States that other methods read (``Out.states``) are those before the noise.

Where paper and released code differ (Yuanhy1997/HyPe, commit 196efd5):
- The code's uniform noise is U[0, eps): a shift of eps / 2 on average. ``variant=released``. That the paper means a
  symmetric one was not verified.
- The code's training has dropout 0; here dropout is the model's.
- Not here: noise between attention and feed-forward (``add_intermediate``), ranges of layers.
- The code runs in float32. Noise is added in float32 here; under bf16 the block's own products lose it, the residual
  stream keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ftbench.methods.method import Start
from ftbench.methods.noise import HookedNoise


@dataclass
class HyPe(HookedNoise):
    """eps: half-width of the uniform (width in ``released``) or deviation of the normal noise."""

    eps: float = 1e-5
    noise: Literal["uniform", "normal"] = "uniform"
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "hype"
    family: ClassVar[str] = "noise and adversaries"
    summary: ClassVar[str] = "noise on the hidden states that enter every block"
    cite: ClassVar[str] = "Yuan et al. 2023, arXiv 2212.08853"
    neutral: ClassVar[Mapping[str, Any] | None] = {"eps": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_nonnegative("eps")

    def prepare(self, start: Start) -> None:
        """Raises FtbenchError for a model whose blocks are not found."""
        if self.eps:
            self._handles = [
                block.register_forward_pre_hook(self._perturb, with_kwargs=True) for block in start.backbone.blocks
            ]

    def draw(self, hidden: Tensor, generator: torch.Generator) -> Tensor:
        """z, float32, of the shape of ``hidden`` (rows, tokens, width)."""
        shape, device = hidden.shape, hidden.device
        if self.noise == "normal":
            return torch.randn(shape, generator=generator, device=device) * self.eps
        unit = torch.rand(shape, generator=generator, device=device)
        return (unit if self.variant == "released" else unit * 2 - 1) * self.eps

    def _perturb(self, block: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if not block.training or self._generator is None:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        noised = hidden.float() + self.draw(hidden, self._generator)
        return ((noised, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": noised})
