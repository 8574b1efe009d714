"""R4F: R3F with a head that cannot stretch distances: its matrices are divided by their largest singular value.

    L = CE(g f(x), y) + lambda * [KL(p || q) + KL(q || p)],   p = softmax g f(x),  q = softmax g f(x + z)
    W_SN = W / sigma(W)  for the matrices W of the head g,   sigma(W) = u^T W v

Aghajanyan, Shrivastava, Gupta, Goyal, Zettlemoyer, Gupta: Better Fine-Tuning by Reducing Representational
Collapse. ICLR 2021, arXiv 2008.03156, equations 3 to 5; the normalisation is Miyato et al. 2018 (arXiv
1802.05957). Defaults as R3F's. ``weight=0`` is the control: the normalised head alone.

Cost: R3F's, and one power iteration with each head matrix a pass.

The head g is what stands between the encoder's last states and the logits: for BERT the pooler and the
classifier (the pooler is pretrained), for RoBERTa and BART ``dense`` and ``out_proj``, for decoders ``score``.

Where paper and released code differ, beside what R3F's card says (fairseq examples/rxf, commit 3d262bb):
- The paper scales all weight matrices of g; the code only the last one (``out_proj``), so that its g is not
  1-Lipschitz: ``variant=released``, or ``heads`` by hand.
- The code uses torch's old hook: one power iteration a training pass from a random start. Here it is torch's
  parametrisation, whose first 16 iterations come before training. Both go on by one iteration a pass, so the
  clean and the noised pass have slightly different weights.
- Both divide always, also where sigma < 1, so the norm is 1 rather than at most 1: logits are bounded.

The saved model holds W / sigma in the plain model's names.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from ftbench.methods.features import head_linears
from ftbench.methods.method import Start
from ftbench.methods.noise import NoisedPass
from ftbench.models.backbone import Backbone


@dataclass
class R4F(NoisedPass):
    """heads: which matrices of the head are normalised (``auto``: as the variant has it); else as R3F."""

    heads: Literal["auto", "all", "last"] = "auto"

    name: ClassVar[str] = "r4f"
    family: ClassVar[str] = "noise and adversaries"
    summary: ClassVar[str] = "R3F with a spectrally normalised head"
    cite: ClassVar[str] = "Aghajanyan et al. 2021, arXiv 2008.03156"
    cost: ClassVar[str] = "2 forward, 2 backward"
    in_order: ClassVar[bool] = True
    no_neutral: ClassVar[str] = "the head is normalised at every setting; weight=0 is that alone"
    no_writing: ClassVar[str] = "it normalises a classifier's head; the paper has R3F alone there (section 3.3)"

    def prepare(self, start: Start) -> None:
        """Raises FtbenchError for a head without a linear layer."""
        linears = head_linears(start.backbone)
        last = self.heads == "last" or (self.heads == "auto" and self.variant == "released")
        for linear in linears[-1:] if last else linears:
            normalise(linear)

    def finish(self, backbone: Backbone) -> None:
        for module in backbone.model.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def normalise(linear: nn.Linear) -> None:
    """Divides the weight (out, in) by its largest singular value, in float32 also under autocast."""
    parametrizations.spectral_norm(linear, "weight")
    norm: Any = next(iter(linear.parametrizations["weight"]))  # type: ignore[index]
    norm.forward = MethodType(_in_float32, norm)  # a method: a copy of the network has one of its own


def _in_float32(norm: Any, weight: Tensor) -> Tensor:
    with torch.autocast(weight.device.type, enabled=False):
        divided: Tensor = type(norm).forward(norm, weight)
    return divided
