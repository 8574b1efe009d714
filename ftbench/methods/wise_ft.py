"""WiSE-FT: the result lies on the line between the pretrained and the fine-tuned weights.

    theta_alpha = (1 - alpha) * theta_pretrained + alpha * theta_fine-tuned

in the encoder; the head stays the fine-tuned one. ``alpha`` is the run's result (selection ``last``); alpha = 0.1,
0.2, ..., 0.9 are scored beside it from the same run (selections ``alpha=0.1`` ...), the fine-tuned weights as ``raw``.

Wortsman, Ilharco, Kim, Li, Kornblith, Roelofs, Gontijo-Lopes, Hajishirzi, Farhadi, Namkoong, Schmidt: Robust
fine-tuning of zero-shot models. CVPR 2022, arXiv 2109.01903. Default: alpha = 0.5, the released default; the grid is
its grid without the ends. Choose an alpha on rows like those of training only.

Cost: plain fine-tuning's, a copy of the encoder and an evaluation for every alpha.

Where paper and released code differ (mlfoundations/wise-ft, commit 58b7a4b): there the head is mixed too, because
CLIP has a zero-shot head. A pretrained encoder has none; interpolating the encoder alone with the trained head is
the authors' advice (issue 8), best with a head that was trained first: ``lp-ft+wise-ft``. Here the head is what the
run counts as head: BERT's pooler stays fine-tuned. The Fisher-weighted form of the code is left out. With ``lora`` the
weights are its two matrices, so that their product is not on a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ftbench.errors import FtbenchError
from ftbench.methods.method import Method, Start
from ftbench.models.backbone import Backbone

ALPHAS = tuple(number / 10 for number in range(1, 10))


@dataclass
class WiseFT(Method):
    """alpha: 0 is the pretrained encoder, 1 the fine-tuned one."""

    alpha: float = 0.5

    name: ClassVar[str] = "wise-ft"
    family: ClassVar[str] = "trajectory"
    summary: ClassVar[str] = "weights between the pretrained and the fine-tuned ones"
    cite: ClassVar[str] = "Wortsman et al. 2022, arXiv 2109.01903"
    neutral: ClassVar[Mapping[str, Any] | None] = {"alpha": 1.0}
    revision: ClassVar[int] = 2  # 1 left out what mixout mixes, and scored the alphas before other methods ended
    moves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require("alpha", 0 <= self.alpha <= 1, "0 to 1")

    def prepare(self, start: Start) -> None:
        depths = start.backbone.depths()
        named = start.backbone.model.named_parameters()
        self._pretrained = {p: p.detach().cpu().clone() for name, p in named if depths[name] > 0}

    def candidates(self, backbone: Backbone) -> Mapping[str, Mapping[str, Tensor]]:
        return Line(backbone, self._pretrained)

    def finish(self, backbone: Backbone) -> None:
        backbone.model.load_state_dict(between(self._pretrained, backbone, self.alpha), strict=False)


@dataclass(frozen=True)
class Line(Mapping[str, Mapping[str, Tensor]]):
    """``alpha=0.1`` ... ``alpha=0.9`` -> weights, mixed when they are asked for: one copy at a time."""

    backbone: Backbone
    pretrained: dict[nn.Parameter, Tensor]

    def __getitem__(self, key: str) -> dict[str, Tensor]:
        return between(self.pretrained, self.backbone, float(key.removeprefix("alpha=")))

    def __iter__(self) -> Iterator[str]:
        return (f"alpha={alpha:g}" for alpha in ALPHAS)

    def __len__(self) -> int:
        return len(ALPHAS)


@torch.no_grad()
def between(pretrained: Mapping[nn.Parameter, Tensor], backbone: Backbone, alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) * pretrained + alpha * the network's present weights, by the names that they have now.

    Raises FtbenchError where some are not in the network any more: the rest alone is not on the line.
    """
    present = {name: p for name, p in backbone.model.named_parameters() if p in pretrained}
    if len(present) != len(pretrained):
        raise FtbenchError("wise-ft: another method put new weights in the place of those that it began with")
    return {name: (1 - alpha) * pretrained[p].to(p.device) + alpha * p for name, p in present.items()}
