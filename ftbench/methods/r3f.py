"""R3F: keep the prediction where it is when the embeddings get a little noise.

    L = CE(f(x), y) + lambda * [KL(p || q) + KL(q || p)],   p = softmax f(x),  q = softmax f(x + z)
    z ~ U(-eps, eps) or N(0, eps^2), on the word embeddings, one draw a step

Aghajanyan, Shrivastava, Gupta, Goyal, Zettlemoyer, Gupta: Better Fine-Tuning by Reducing Representational
Collapse. ICLR 2021, arXiv 2008.03156, equations 3 and 4. Defaults: eps = 1e-5 (the paper never searched
it); lambda = 1 (the released default; grid {0.1, 0.5, 1, 5}); uniform noise (released default for
classification).

Cost: two forward passes and a backward pass through both, about twice plain fine-tuning. The paper's own
table counts one backward pass.

Where paper and released code differ (fairseq examples/rxf, commit 3d262bb):
- The paper does not say what carries a gradient; ``variant=paper`` differentiates everything. The code cuts
  the noised pass off from the embedding table: ``variant=released``.
- Regression: the code computes the second pass and ignores it; ``paper`` here adds a squared error, which is
  ours (the paper has no regression task).
- Dropout: the paper is silent; the code leaves it on with independent masks. At eps = 1e-5 the divergence
  is then that of the dropout masks: switch ``dropout=shared`` or ``off`` to see the noise alone.
- The code draws noise on the CPU and adds it in the embeddings' type, where fp16 loses most of it; here it is
  drawn on the device and added in float32 (``noise_dtype=compute`` for theirs).
- The code's divergence has NaN gradients when a probability underflows; ours has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.methods.divergence import squared_error, symmetric_kl
from ftbench.methods.method import Batch, Dropout, Method, Term, View
from ftbench.models.backbone import Out


@dataclass
class R3F(Method):
    """weight: lambda. eps: half-width of the uniform or standard deviation of the normal noise.
    detach: which side of the divergence has no gradient (``embeddings``: the noised pass stops at the
    embedding table; ``auto``: as the variant has it)."""

    weight: float = 1.0
    eps: float = 1e-5
    noise: Literal["uniform", "normal"] = "uniform"
    dropout: Dropout = "independent"
    detach: Literal["auto", "none", "clean", "noised", "embeddings"] = "auto"
    noise_dtype: Literal["fp32", "compute"] = "fp32"
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "r3f"
    family: ClassVar[str] = "noise and adversaries"
    summary: ClassVar[str] = "symmetric KL between the prediction with and without noise on the embeddings"
    cite: ClassVar[str] = "Aghajanyan et al. 2021, arXiv 2008.03156"
    cost: ClassVar[str] = "2 forward, 2 backward"
    neutral: ClassVar[Mapping[str, Any] | None] = {"weight": 0.0}
    joinable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for field, value in (("weight", self.weight), ("eps", self.eps)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"r3f:{field}={value:g}: expected 0 or more")
        if self.detach == "auto":
            self._detach = "embeddings" if self.variant == "released" else "none"
        else:
            self._detach = self.detach

    def views(self, batch: Batch) -> list[View]:
        return [View(lambda embeddings: self.add_noise(embeddings, batch), self.dropout)]

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        if batch.regression and self.variant == "released":
            return None
        clean, noised = out.logits, views[0].logits
        if self._detach == "clean":
            clean = clean.detach()
        if self._detach == "noised":
            noised = noised.detach()
        distance = squared_error(clean, noised) if batch.regression else symmetric_kl(clean, noised)
        return Term("kl", distance.mean(), self.weight)

    def add_noise(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """embeddings + z, padding and special tokens included, as released. (rows, tokens, width)"""
        if self._detach == "embeddings":
            embeddings = embeddings.detach()
        noise = self.draw(embeddings, batch.generator)
        kind = _compute_type(embeddings) if self.noise_dtype == "compute" else torch.float32
        clean = embeddings.to(kind)
        noised = clean + noise.to(kind)
        if batch.diagnose:
            batch.notes["noise_alive"] = (noised != clean).float().mean()
        return noised

    def draw(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """z, float32, of the embeddings' shape."""
        shape, device = embeddings.shape, embeddings.device
        if self.noise == "normal":
            return torch.randn(shape, generator=generator, device=device) * self.eps
        return (torch.rand(shape, generator=generator, device=device) * 2 - 1) * self.eps


def _compute_type(tensor: Tensor) -> torch.dtype:
    """The autocast type where autocast is on, else the tensor's own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
