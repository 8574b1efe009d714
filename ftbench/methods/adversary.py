"""What the adversarial methods share: a perturbation of the word embeddings with a gradient of its own, and
one-sided divergences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ftbench.methods.divergence import in_chunks
from ftbench.methods.method import Batch, Dropout, View
from ftbench.models.backbone import Out


def kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(p||q) for p = softmax(a), q = softmax(b); a, b (rows, classes), result (rows,). Both keep their gradient."""
    return in_chunks(_kl, a, b)


def _kl(a: Tensor, b: Tensor) -> Tensor:
    log_p, log_q = F.log_softmax(a.float(), dim=-1), F.log_softmax(b.float(), dim=-1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)


def crossed_kl(a: Tensor, b: Tensor) -> Tensor:
    """The value of KL(p||q) + KL(q||p), each term differentiated in its second argument only; (rows,).

    The gradient is p - q for ``a`` and q - p for ``b``: not that of the symmetric divergence.
    """
    return kl(a.detach(), b) + kl(b.detach(), a)


def stable_kl(a: Tensor, b: Tensor) -> Tensor:
    """2 sum p * (odds p - odds q), odds x = -log(1 / (x + e) - 1 + e), e = 1e-6; (rows,). The odds have no gradient.

    mt-dnn's inner loss. First order in the difference, and negative at times: no divergence.
    """
    return in_chunks(_stable_kl, a, b)


def _stable_kl(a: Tensor, b: Tensor) -> Tensor:
    p, q = F.softmax(a.float(), dim=-1), F.softmax(b.float(), dim=-1)
    odds_p, odds_q = (-(1 / (x.detach() + 1e-6) - 1 + 1e-6).log() for x in (p, q))
    return 2 * (p * (odds_p - odds_q)).sum(dim=-1)


def row_norm(x: Tensor) -> Tensor:
    """L2 norm of each row over tokens and width; (rows, tokens, width) to (rows, 1, 1), float32."""
    return torch.linalg.vector_norm(x.float(), dim=(1, 2), keepdim=True)


@dataclass
class Perturbation:
    """delta (rows, tokens, width), float32: ``draw`` makes it from the embeddings of the first pass that it enters."""

    draw: Callable[[Tensor], Tensor]
    delta: Tensor | None = None

    def add(self, embeddings: Tensor) -> Tensor:
        """embeddings + delta."""
        if self.delta is None:
            self.delta = self.draw(embeddings)
        return embeddings + self.delta

    def gradient(self, batch: Batch, dropout: Dropout, loss: Callable[[Out], Tensor]) -> tuple[Tensor, Tensor]:
        """One pass with delta. Returns delta and the gradient of ``loss`` with respect to it; no other is computed."""

        def transform(embeddings: Tensor) -> Tensor:
            old = self.draw(embeddings) if self.delta is None else self.delta
            self.delta = old.detach().requires_grad_()
            return embeddings.detach() + self.delta

        out = batch.run(View(transform, dropout))
        if self.delta is None:
            raise RuntimeError("the pass met no embeddings")
        with torch.autocast(out.logits.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(loss(out), self.delta)
        self.delta = self.delta.detach()
        return self.delta, gradient
