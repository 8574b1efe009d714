"""Noise: a second pass with a little of it and its divergence (R3F, R4F), or hooks that add it to every pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.errors import FtbenchError
from ftbench.methods.divergence import squared_error, symmetric_kl
from ftbench.methods.method import Batch, Dropout, Method, Term, View
from ftbench.models.backbone import Backbone, Out


@dataclass
class NoisedPass(Method):
    """weight: lambda. eps: half-width of the uniform or standard deviation of the normal noise.
    detach: which side of the divergence has no gradient (``embeddings``: the noised pass stops at the
    embedding table; ``auto``: as the variant has it). where: whose words get noise where there is a decoder."""

    weight: float = 1.0
    eps: float = 1e-5
    noise: Literal["uniform", "normal"] = "uniform"
    dropout: Dropout = "independent"
    detach: Literal["auto", "none", "clean", "noised", "embeddings"] = "auto"
    noise_dtype: Literal["fp32", "compute"] = "fp32"
    variant: Literal["paper", "released"] = "paper"
    where: Literal["encoder", "decoder", "both"] = "encoder"

    joinable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require_nonnegative("weight", "eps")
        if self.detach == "auto":
            self._detach = "embeddings" if self.variant == "released" else "none"
        else:
            self._detach = self.detach

    @property
    def wants_padding(self) -> bool:
        return self.variant == "released"

    def unfit(self, *, writes: bool) -> str:
        if not writes and self.where != "encoder":
            return f"{self.name}:where={self.where}: there is no decoder, expected encoder"
        return super().unfit(writes=writes)

    def couples(self, *, writes: bool) -> bool:
        return writes and self.variant == "released"  # the padding counts: as much as the longest summary makes

    def views(self, batch: Batch, out: Out | None) -> list[View]:
        def noised(embeddings: Tensor) -> Tensor:
            return self.add_noise(embeddings, batch)

        encoder, decoder = self.where != "decoder", self.where != "encoder"
        return [View(noised if encoder else None, self.dropout, noised if decoder else None)]

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        if batch.regression and self.variant == "released":
            return None
        clean, noised = out.logits, views[0].logits
        if self._detach == "clean":
            clean = clean.detach()
        if self._detach == "noised":
            noised = noised.detach()
        distance = squared_error(clean, noised) if batch.regression else symmetric_kl(clean, noised)
        if batch.writes and self.variant == "released":
            padding = self._apart(out.padding, views[0].padding)
            return Term("kl", (distance.sum() + padding.sum()) / len(batch.ids), self.weight)
        return Term("kl", distance.mean(), self.weight)

    def _apart(self, clean: Tensor | None, noised: Tensor | None) -> Tensor:
        """The divergence at the padding of the targets, (padding,)."""
        if clean is None or noised is None:
            raise FtbenchError(f"{self.name}: the padding's logits were not kept")
        clean = clean.detach() if self._detach == "clean" else clean
        return symmetric_kl(clean, noised.detach() if self._detach == "noised" else noised)

    def add_noise(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """embeddings + z, padding and special tokens included, as released. (rows, tokens, width)"""
        if self._detach == "embeddings" and (self.detach != "auto" or not batch.writes):
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


@dataclass
class HookedNoise(Method):
    """Hooks that add noise to every training pass, drawn from the micro-batch's own random numbers."""

    def __post_init__(self) -> None:
        self._handles: list[Any] = []
        self._generator: torch.Generator | None = None

    def begin(self, batch: Batch) -> None:
        self._generator = batch.generator

    def finish(self, backbone: Backbone) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
