"""Adapters: two small bottleneck networks in every block are trained, with its norms; the rest stays as it is.

    y = x + U relu(D x)   behind attention and behind the feed-forward part, before dropout, residual and norm
    D, U: N(0, 0.02^2), biases 0;   trained: the adapters, the norms of their blocks, and the head

Houlsby, Giurgiu, Jastrzebski, Morrone, de Laroussilhe, Gesmundo, Attariyan, Gelly: Parameter-Efficient Transfer
Learning for NLP. ICML 2019, arXiv 1902.00751. In this form: Xie, Qiu, Pasad, Du, Qu, Mei: Hidden State Variability of
Pretrained Language Models Can Guide Computation Reduction for Transfer Learning. Findings of EMNLP 2022,
arXiv 2210.10041. Defaults: width 256, the released script's for RoBERTa-large; dropout is the model's own rate on
hidden states. lr = 10, ours: the script's 3e-4 over a recipe of 2e-5 to 5e-5.

Cost: four thin matrix products a block; a backward pass without the gradients of the frozen matrices.

peft 0.21 has no bottleneck adapters, so the module is our own (``ftbench/models/adapters.py``). U is not 0 at the
start, so the first pass is not the pretrained network's, and methods that stay near that stay near the network with the
adapters as drawn. An adapter has no matrix to be merged into: the saved model holds it beside the plain weights.
ftbench loads all of it; plain transformers loads the rest, warns of unexpected weights, and predicts otherwise. Blocks
that are frozen get no adapter, and a decoder's attention to the encoder none either.

Where paper and released code differ (shuox20/variability-efficient-tuning, commit 2f93e53): the paper's text on
adapters was not verified, this is the code, which knows RoBERTa. In its feed-forward part dropout comes before the
adapter; so here in BERT, RoBERTa, XLM-R, ELECTRA, DeBERTa, DistilBERT, MPNet and GPT-2, elsewhere it comes after. The
code's adapters behind attention drop as attention does. Norms are those inside the blocks and, in families that have
one, that behind the last block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ftbench.methods.method import Group, Method, Start
from ftbench.models.adapters import insert, places_in
from ftbench.models.trainable import freeze_base, trained_blocks


@dataclass
class Adapter(Method):
    """width: of the bottleneck. dropout: inside it, the model's own rate unless given. lr: the learning rate as a
    multiple of the run's, for all that is trained."""

    width: int = 256
    dropout: float | None = None
    lr: float = 10.0

    name: ClassVar[str] = "adapter"
    family: ClassVar[str] = "parameter-efficient"
    summary: ClassVar[str] = "two small networks in every block, and its norms, are trained"
    cite: ClassVar[str] = "Houlsby et al. 2019, arXiv 1902.00751; Xie et al. 2022, arXiv 2210.10041"
    cost: ClassVar[str] = "1 forward, 1 backward without the frozen matrices' gradients"
    no_neutral: ClassVar[str] = "the pretrained matrices are frozen at every setting"
    tunes: ClassVar[bool] = True
    adds: ClassVar[str] = "the adapters, which no matrix can take up"

    def __post_init__(self) -> None:
        self.require("width", self.width >= 1, "1 or more")
        self.require("dropout", self.dropout is None or 0 <= self.dropout < 1, "0 or more, below 1")
        self.require("lr", 0 < self.lr < float("inf"), "more than 0")

    def prepare(self, start: Start) -> None:
        """Raises UsageError for a family whose places are not known, and for a model that has adapters already."""
        network = start.backbone
        model, depths = network.model, network.depths()
        places = places_in(model, trained_blocks(network))
        norms = [
            parameter
            for place, module in model.named_modules()
            if "norm" in type(module).__name__.lower()
            for name, parameter in module.named_parameters(prefix=place, recurse=False)
            if 0 < depths[name] <= len(network.blocks) and parameter.requires_grad
        ]
        freeze_base(network)
        for parameter in norms:
            parameter.requires_grad_(True)
        insert(model, places, self.width, self.dropout)

    def groups(self, groups: list[Group]) -> list[Group]:
        for group in groups:
            group.lr *= self.lr
        return groups
