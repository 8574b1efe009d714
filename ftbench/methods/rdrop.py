"""R-Drop: two passes with dropout masks of their own, and their predictions kept together.

    L = CE(f1(x), y) + CE(f2(x), y) + alpha * K,   K = [KL(p1 || p2) + KL(p2 || p1)] / 2,  a mean over rows

Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang, Liu: R-Drop: Regularized Dropout for Neural Networks. NeurIPS 2021,
arXiv 2106.14448. ``weight`` is alpha. Its default 1 is ours; the paper's grid for GLUE, {0.1, 0.5, 1}, was not
verified, and neither was its regression loss, the squared difference of the two outputs (as the code has it).

Cost: two forward and two backward passes.

Where paper and released code differ (dropreg/R-Drop, commit 9dcc830): there are four objectives.

    variant                CE(f1)   CE(f2)   K        their alpha
    paper, fairseq         1        1        mean     given
    readme                 1/2      1/2      sum      given
    bert                   1        1        sum      0.5 (regression 1)
    roberta                1/2      0        sum      0.7 (regression 0.8)

- With ``sum`` the divergence grows with the batch: alpha means another strength at every batch size. It is summed
  over a micro-batch here, as a pass of theirs has it, so gradient accumulation weakens it; where memory is short a
  micro-batch is not halved. Squared differences are means in all four.
- ``roberta``: the second pass is not supervised, because of a branch that is never reached.
- fairseq's regression fails; ``paper`` has a mean squared difference there. The readme has no regression: the same.
- Where summaries are written ``paper`` is the code's sequence criterion: means over real target tokens. What the others
  sum over rows they sum over tokens.
- Nothing is detached anywhere. With dropout 0 nothing is left but the task loss, counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ftbench.methods.divergence import squared_error, symmetric_kl
from ftbench.methods.method import Batch, Method, Term, View
from ftbench.models.backbone import Out

#: variant -> weight of the first and of the second task loss, and whether the divergence is summed over rows
FORMS = {
    "paper": (1.0, 1.0, False),
    "readme": (0.5, 0.5, True),
    "bert": (1.0, 1.0, True),
    "roberta": (0.5, 0.0, True),
}


@dataclass
class RDrop(Method):
    """weight: alpha, on the mean of the two divergences."""

    weight: float = 1.0
    variant: Literal["paper", "readme", "bert", "roberta"] = "paper"

    name: ClassVar[str] = "rdrop"
    family: ClassVar[str] = "noise and adversaries"
    summary: ClassVar[str] = "two passes that differ in dropout only, both supervised, and their symmetric KL"
    cite: ClassVar[str] = "Liang et al. 2021, arXiv 2106.14448"
    cost: ClassVar[str] = "2 forward, 2 backward"
    no_neutral: ClassVar[str] = "the second pass is supervised too; weight=0 is training on two draws of dropout"
    joinable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require_nonnegative("weight")

    def couples(self, *, writes: bool) -> bool:
        return FORMS[self.variant][2]

    def views(self, batch: Batch, out: Out | None) -> list[View]:
        return [View()]

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        first, second, summed = FORMS[self.variant]
        (again,) = views
        if batch.regression:
            divergence = squared_error(out.logits, again.logits).mean()
        else:
            rows = symmetric_kl(out.logits, again.logits) / 2
            divergence = rows.sum() if summed else rows.mean()
        batch.notes["kl"] = divergence.detach()
        value = self.weight * divergence
        if first != 1:  # the clean pass's loss is in the objective with weight 1 already
            value = value + (first - 1) * batch.task_loss(out)
        if second:
            value = value + second * batch.task_loss(again)
        return Term("second_pass", value, 1.0)
