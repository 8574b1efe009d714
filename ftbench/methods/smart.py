"""SMART: keep the prediction where it is at the worst point near the embeddings, and near that of past weights.

    L = CE(f(x), y) + lambda * max_{|d|_inf <= eps} l(f(x + d), f(x)) + mu * l(f(x), f~(x))
    l(P, Q) = KL(P || Q) + KL(Q || P), in regression (P - Q)^2;  means over rows
    d <- Proj_eps(d + eta * g / |g|_inf),   g = grad_d l(f(x + d), f(x)),   d ~ N(0, sigma^2) at first, on the words
    theta~ <- (1 - beta) * theta + beta * theta~  after every step:  f~ is f with the weights theta~

Jiang, He, Chen, Liu, Gao, Zhao: SMART: Robust and Efficient Fine-Tuning for Pre-trained Natural Language Models
through Principled Regularized Optimization. ACL 2020, arXiv 1911.03437. Defaults: eps = sigma = 1e-5, eta = 1e-3, one
ascent step, lambda from {1, 3, 5}; beta 0.99 in the first tenth of the steps, then 0.999. These, mu = 1, and that g is
divided by its largest entry (here: of the row), are the paper's as recalled, not verified. mu = 0 here: the released
code and most users have the first term only.

Cost: three forward and backward passes, one more of each for a further step; ``proximal`` one more forward pass and a
copy of the weights.

Where paper and released code differ (namisan/mt-dnn, commit 3228e7c: ``variant=released``):
- No ball: d <- (d + eta * g) / (max |d + eta * g| of the token + 1e-6), so every token ends at a maximum near 1, five
  orders above the paper's eps, and g is not divided by anything before: with the defaults d keeps the direction of the
  noise there, for eta * g is far smaller than d. Raise ``step_size`` by orders for an adversary.
- The ascent follows ``stable_kl``, which is no divergence (first order, can be negative): ``inner=stable``; ``paper``
  follows l. ``inner=kl`` is KL(clean || perturbed), of smart-pytorch (e96d863) and ALUM (arXiv 2004.08994), whose
  rules are else those of ``released``; their gradient is that of a batch mean, ours of each row.
- Of the symmetric KL only p - q arrives at either side: each term's target is detached. ``paper`` detaches nothing.
- Regression: theirs compares all pairs of rows, by a shape error; we compare each row with itself in both variants.
- smart-pytorch sums the final divergence over the batch; we take the mean.
- Nothing proximal is in the code. Unsaid by the paper: dropout. The code leaves it on with masks of its own for each
  pass (``dropout=shared`` shows the perturbation alone); the pass with past weights has none, our choice.
- mt-dnn perturbs behind the embeddings' norm and applies it again; here the word embeddings are perturbed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.methods.adversary import Perturbation, crossed_kl, kl, stable_kl
from ftbench.methods.divergence import squared_error, symmetric_kl
from ftbench.methods.method import Batch, Dropout, Method, Start, Step, Term, View
from ftbench.models.backbone import Backbone, Out
from ftbench.models.modes import holding

#: the guard of mt-dnn's division, there called epsilon
GUARD = 1e-6
#: below it there is no direction: float32's smallest normal number
TINY = 2.0**-126
#: what an ascent follows: (clean logits, perturbed logits) to (rows,)
INNER = {"symmetric": symmetric_kl, "kl": kl, "stable": lambda clean, perturbed: stable_kl(perturbed, clean)}


@dataclass
class Smart(Method):
    """weight: lambda. eps: radius (``paper``). sigma: deviation of the first noise. step_size: eta. steps: of ascent.
    proximal: mu; beta, beta_late: momentum of the past weights in the first tenth of the steps, and after."""

    weight: float = 1.0
    eps: float = 1e-5
    sigma: float = 1e-5
    step_size: float = 1e-3
    steps: int = 1
    inner: Literal["auto", "symmetric", "kl", "stable"] = "auto"
    dropout: Dropout = "independent"
    proximal: float = 0.0
    beta: float = 0.99
    beta_late: float = 0.999
    variant: Literal["paper", "released"] = "paper"

    name: ClassVar[str] = "smart"
    family: ClassVar[str] = "noise and adversaries"
    summary: ClassVar[str] = "symmetric KL to the prediction at the worst point near the embeddings"
    cite: ClassVar[str] = "Jiang et al. 2020, arXiv 1911.03437"
    cost: ClassVar[str] = "3 forward, 3 backward"
    revision: ClassVar[int] = 2  # 1 did not divide the gradient in ``paper``
    neutral: ClassVar[Mapping[str, Any] | None] = {"weight": 0.0}

    def __post_init__(self) -> None:
        self.require_nonnegative("weight", "eps", "sigma", "step_size", "steps", "proximal")
        for field in ("beta", "beta_late"):
            self.require(field, 0 <= getattr(self, field) <= 1, "0 to 1")
        own = "symmetric" if self.variant == "paper" else "stable"
        self._inner = INNER[own if self.inner == "auto" else self.inner]
        self._past: dict[str, Tensor] = {}

    def prepare(self, start: Start) -> None:
        self._backbone = start.backbone

    def begin(self, batch: Batch) -> None:
        self._remember()

    def after_backward(self, backbone: Backbone, step: Step) -> None:
        self._remember()  # a process that shares a run may have no rows in its first step

    def _remember(self) -> None:
        """Takes the first weights, after all methods have prepared theirs."""
        if self.proximal and not self._past:
            self._past = {n: p.detach().clone() for n, p in self._backbone.model.named_parameters()}

    def views(self, batch: Batch, out: Out | None) -> list[View]:
        if out is None or not self.weight:
            return []
        held = Perturbation(lambda embeddings: self.draw(embeddings, batch))
        clean = out.logits.detach()
        distance = squared_error if batch.regression else self._inner
        for _ in range(self.steps):
            delta, gradient = held.gradient(batch, self.dropout, lambda o: distance(clean, o.logits).sum())
            held.delta = self.bounded(delta + self.step_size * self.direction(gradient))
        return [View(held.add, self.dropout)]

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        apart = squared_error if batch.regression else crossed_kl if self.variant == "released" else symmetric_kl
        smooth = apart(out.logits, views[0].logits).mean() if views else None
        if not self.proximal:
            return None if smooth is None else Term("smoothness", smooth, self.weight)
        with torch.no_grad(), holding(self._backbone.model, self._past):
            past = batch.run(View(dropout="off")).logits
        near = (squared_error if batch.regression else symmetric_kl)(out.logits, past).mean()
        batch.notes["proximal"] = near.detach()
        value = self.proximal * near
        if smooth is not None:
            batch.notes["smoothness"] = smooth.detach()
            value = value + self.weight * smooth
        return Term("smart", value, 1.0)

    def draw(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """The first perturbation, float32, padding included; not projected, as in the paper's algorithm."""
        return torch.randn(embeddings.shape, generator=batch.generator, device=embeddings.device) * self.sigma

    def direction(self, gradient: Tensor) -> Tensor:
        """What is followed, from (rows, tokens, width). ``paper``: of length 1 in each row. ``released``: as it is."""
        if self.variant == "released":
            return gradient
        return gradient / gradient.abs().amax(dim=(1, 2), keepdim=True).clamp_min(TINY)

    def bounded(self, delta: Tensor) -> Tensor:
        """``paper``: the nearest point of the ball. ``released``: divided by each token's maximum."""
        if self.variant == "paper":
            return delta.clamp(-self.eps, self.eps)
        return delta / (delta.abs().amax(dim=-1, keepdim=True) + GUARD)

    def after_step(self, backbone: Backbone, step: Step) -> None:
        beta = self.beta if step.number < 0.1 * step.steps else self.beta_late
        for name, weight in backbone.model.named_parameters() if self._past else ():
            self._past[name].lerp_(weight.detach(), 1 - beta)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._past)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._past = {name: tensor.to(self._backbone.device) for name, tensor in state.items()}
