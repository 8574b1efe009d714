"""What R3F and R4F share: a second pass with a little noise on the word embeddings, and its divergence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.methods.divergence import squared_error, symmetric_kl
from ftbench.methods.method import Batch, Dropout, Method, Term, View
from ftbench.models.backbone import Out


@dataclass
class NoisedPass(Method):
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

    joinable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for field, value in (("weight", self.weight), ("eps", self.eps)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{self.name}:{field}={value:g}: expected 0 or more")
        if self.detach == "auto":
            self._detach = "embeddings" if self.variant == "released" else "none"
        else:
            self._detach = self.detach

    def views(self, batch: Batch, out: Out | None) -> list[View]:
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
