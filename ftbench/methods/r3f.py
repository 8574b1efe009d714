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
  is then that of the dropout masks: ``dropout=shared`` shows the noise alone; ``off``, in the noised pass only, shows
  what the clean pass's masks do.
- The code draws noise on the CPU and adds it in the embeddings' type, where fp16 loses most of it; here it is
  drawn on the device and added in float32 (``noise_dtype=compute`` for theirs).
- The code's divergence has NaN gradients when a probability underflows; ours has not.

Where summaries are written (the code's label_smoothed_cross_entropy_r3f): p and q are predictions of each target token.
``paper`` takes the mean over real tokens, ours, for the paper says nothing of it. ``released``: the sum over all target
positions, padding included, divided by the number of sentences, and nothing detached: about T times stronger for one
lambda. Noise is at the encoder's words in both, as in the code; ``where`` puts it at the decoder's or at both. The
code's noise is normal there by default (``noise=normal``). Label smoothing is in CE only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ftbench.methods.noise import NoisedPass


@dataclass
class R3F(NoisedPass):
    """The fields of ``NoisedPass``."""

    name: ClassVar[str] = "r3f"
    family: ClassVar[str] = "noise and adversaries"
    summary: ClassVar[str] = "symmetric KL between the prediction with and without noise on the embeddings"
    cite: ClassVar[str] = "Aghajanyan et al. 2021, arXiv 2008.03156"
    cost: ClassVar[str] = "2 forward, 2 backward"
    neutral: ClassVar[Mapping[str, Any] | None] = {"weight": 0.0}
