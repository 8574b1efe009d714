"""FreeLB: train on K perturbed copies of a batch, each further along the gradient of the loss before it.

    L = (1 / K) * sum over t < K of CE(f(x + d_t), y)
    d_{t+1} = Proj_eps(d_t + eta * g_t / |g_t|),   g_t = grad_d CE(f(x + d_t), y),   d_0 = U(-1, 1) * m / sqrt(n)
    norms over the tokens and width of a row, n = real tokens * width; x the word embeddings

Zhu, Cheng, Gan, Sun, Goldstein, Liu: FreeLB: Enhanced Adversarial Training for Natural Language Understanding. ICLR
2020, arXiv 1909.11764. ``init`` is m, ``eps`` the radius, ``step_size`` eta, ``steps`` K. Defaults: the released
RoBERTa-large script for MNLI (m = 0.1, eps = 0.3, eta = 0.1, two updates, so three passes). Those for RTE,
MRPC and CoLA have eta 0.025 to 0.06, three updates, m 0.16 to 0.64, eps 0.14 to 0.4.

Cost: K forward and backward passes. The weights' gradient is that of all K passes: no pass is for the ascent alone.

All passes have the dropout masks of plain fine-tuning's pass, as released (``dropout=independent`` to switch that off).
K passes make K - 1 updates; a clean pass there is only with ``init=0``, where it is the first.

Where paper and released code differ (zhuchen03/FreeLB, commit eb23701):
- The paper starts with m = eps; in the code it is a setting of its own. d_0 has a norm of about m / sqrt(3) and is
  not projected.
- ``eps=0`` is no projection, as in the code.
- ``norm=linf``: g is divided by its largest entry in the row (no sign), d is clamped to eps, d_0 = U(-m, m).
- The fairseq version counts updates, the transformers version passes; ``steps`` is passes.

fp16 works: where a scaled gradient overflows, its rows' d stays, and the step is left out as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.methods.adversary import row_norm
from ftbench.methods.method import Batch, Method, View

#: the released code's guard of the division by the gradient's norm
GUARD = 1e-8


@dataclass
class FreeLB(Method):
    """steps: passes, K. step_size: of an update. init: magnitude of the first perturbation. eps: radius, 0 for none."""

    steps: int = 3
    step_size: float = 0.1
    init: float = 0.1
    eps: float = 0.3
    norm: Literal["l2", "linf"] = "l2"
    dropout: Literal["shared", "independent"] = "shared"

    name: ClassVar[str] = "freelb"
    family: ClassVar[str] = "noise and adversaries"
    summary: ClassVar[str] = "the task loss on K ever worse perturbations of the embeddings"
    cite: ClassVar[str] = "Zhu et al. 2020, arXiv 1909.11764"
    cost: ClassVar[str] = "K forward, K backward (3 unless told)"
    neutral: ClassVar[Mapping[str, Any] | None] = {"steps": 1, "init": 0.0}
    owns_backward: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require("steps", self.steps >= 1, "1 or more")
        self.require_nonnegative("step_size", "init", "eps")

    def backward(self, batch: Batch, scaled: Callable[[Tensor], None]) -> Tensor:
        # One lookup for all passes: they add to the gradient of ``leaf``, which goes on to the table once, at the end.
        source = leaf = delta = torch.empty(0)

        def perturb(embeddings: Tensor) -> Tensor:
            nonlocal source, leaf, delta
            if not leaf.numel():
                source, leaf = embeddings, embeddings.detach().requires_grad_()
                delta = self.draw(embeddings, batch)
            delta = delta.detach().requires_grad_()
            return leaf + delta

        losses = []
        for step in range(self.steps):
            loss = batch.task_loss(batch.run(View(perturb, self.dropout)))
            losses.append(loss.detach())
            scaled(loss / self.steps)
            if delta.grad is not None and step < self.steps - 1:
                delta = self.advance(delta.detach(), delta.grad)
        if source.requires_grad:
            torch.autograd.backward(source, leaf.grad)
        if batch.diagnose:
            batch.notes["loss_rise"] = losses[-1] - losses[0]
        return torch.stack(losses).mean()

    def draw(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """The first perturbation, float32, 0 on padding."""
        shape, device = embeddings.shape, embeddings.device
        noise = torch.rand(shape, generator=batch.generator, device=device) * 2 - 1
        mask = batch.inputs["attention_mask"].unsqueeze(-1)
        if self.norm == "linf":
            return noise * mask * self.init
        return noise * mask * self.init / (mask.sum(dim=1, keepdim=True) * shape[-1]).sqrt()

    def advance(self, delta: Tensor, gradient: Tensor) -> Tensor:
        """One projected step up; all (rows, tokens, width). A row whose gradient overflowed stays where it is."""
        finite = gradient.isfinite().all(dim=(1, 2), keepdim=True)
        return torch.where(finite, self._stepped(delta, gradient), delta)

    def _stepped(self, delta: Tensor, gradient: Tensor) -> Tensor:
        if self.norm == "linf":
            largest = gradient.abs().amax(dim=(1, 2), keepdim=True).clamp(min=GUARD)
            delta = delta + self.step_size * gradient / largest
            return delta.clamp(-self.eps, self.eps) if self.eps else delta
        delta = delta + self.step_size * gradient / row_norm(gradient).clamp(min=GUARD)
        return delta * (self.eps / row_norm(delta)).clamp(max=1) if self.eps else delta
