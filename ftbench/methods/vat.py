"""Virtual adversarial training: keep the prediction where it is along the direction in which it moves most.

    L = CE(f(x), y) + lambda * mean over rows of KL(p || q),   p = softmax f(x) without gradient,  q = softmax f(x + r)
    r = eps * g / |g|_2,   g = grad_d KL(p || softmax f(x + d)) at d = xi * u,   u ~ N(0, I), |u|_2 = 1
    norms over the tokens and width of a row; x the word embeddings

Miyato, Maeda, Koyama, Ishii: Virtual Adversarial Training: A Regularization Method for Supervised and
Semi-Supervised Learning. TPAMI 2018, arXiv 1704.03976; on word embeddings, Miyato, Dai, Goodfellow: Adversarial
Training Methods for Semi-Supervised Text Classification. ICLR 2017, arXiv 1605.07725. Defaults: lambda = 1, xi = 0.1
and one power iteration are those of the text code. Its eps = 5 is for embeddings of unit variance learned from
scratch; eps = 1 is ours: search it on your model, whose embeddings have another scale.

Cost: three forward and backward passes, one more of each for a further power iteration.

Where paper and released code differ (tensorflow/models research/adversarial_text, commit 6ddfb3f):
- The code perturbs no padding and not the end token either; here no padding.
- It normalises the embeddings to mean 0 and variance 1 over the vocabulary; here they are the model's own.
- Dropout: one power iteration finds the direction only where KL is least at d = 0, that is with the masks of the
  clean pass: ``dropout=shared``. With ``independent`` the direction is mostly that of the masks. What the code's
  passes share was not verified.
- Regression is ours: a squared error in KL's place.
- The published use is with unlabelled texts too; here the training rows only.

Under bf16 a step of xi may be lost in a pass's rounding (not measured): raise ``xi`` there. No recorded numbers of the
released code were compared; the tests have a float64 reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ftbench.methods.adversary import Perturbation, kl, row_norm
from ftbench.methods.divergence import squared_error
from ftbench.methods.method import Batch, Dropout, Method, Term, View
from ftbench.models.backbone import Out


@dataclass
class VAT(Method):
    """weight: lambda. eps: L2 radius of a row. xi: length of the step that the direction is found with. steps: power
    iterations."""

    weight: float = 1.0
    eps: float = 1.0
    xi: float = 0.1
    steps: int = 1
    dropout: Dropout = "shared"

    name: ClassVar[str] = "vat"
    family: ClassVar[str] = "noise and adversaries"
    summary: ClassVar[str] = "KL to the prediction along the direction in which it moves most"
    cite: ClassVar[str] = "Miyato et al. 2018, arXiv 1704.03976"
    cost: ClassVar[str] = "3 forward, 3 backward"
    neutral: ClassVar[Mapping[str, Any] | None] = {"weight": 0.0}

    def __post_init__(self) -> None:
        self.require_nonnegative("weight", "eps")
        self.require("xi", 0 < self.xi < float("inf"), "more than 0")
        self.require("steps", self.steps >= 1, "1 or more")

    def views(self, batch: Batch, out: Out | None) -> list[View]:
        if out is None or not self.weight:
            return []
        held = Perturbation(lambda embeddings: _scaled(self.draw(embeddings, batch), self.xi))
        clean = out.logits.detach()
        distance = squared_error if batch.regression else kl
        for step in range(self.steps):
            _, gradient = held.gradient(batch, self.dropout, lambda o: distance(clean, o.logits).sum())
            held.delta = _scaled(gradient, self.eps if step == self.steps - 1 else self.xi)
        return [View(held.add, self.dropout)]

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        if not views:
            return None
        distance = squared_error if batch.regression else kl
        return Term("kl", distance(out.logits.detach(), views[0].logits).mean(), self.weight)

    def draw(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """The first direction, float32, 0 on padding; of any length."""
        noise = torch.randn(embeddings.shape, generator=batch.generator, device=embeddings.device)
        return noise * batch.inputs["attention_mask"].unsqueeze(-1)


def _scaled(x: Tensor, length: float) -> Tensor:
    """Every row at this L2 norm; a row of zeros stays."""
    return length * x / row_norm(x).clamp(min=torch.finfo(torch.float32).tiny)
