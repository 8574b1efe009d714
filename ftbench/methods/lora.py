"""LoRA: the matrices stay as they are, and low-rank matrices beside them are trained.

    h = W x + alpha / rank * B A x,   A (rank, inputs), B (outputs, rank) = 0 at the start; trained: A, B and the head

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen: LoRA: Low-Rank Adaptation of Large Language Models. ICLR 2022,
arXiv 2106.09685. Defaults: rank 8, alpha 16, queries and values, no dropout: the released scripts for RoBERTa-base.
lr = 10, ours: their 4e-4 to 5e-4 over the recipe's 5e-5 for that width.

Cost: two thin matrix products beside each adapted one; a backward pass without the gradients of the frozen matrices.

The layers are those of peft. After training B A is added to W, so the saved model is a plain one; its predictions are
those of the last step up to rounding. Which matrices are queries and values is peft's table; ALBERT, DistilBERT,
ModernBERT and MPNet, which peft 0.21 lacks, are added here. A family with one matrix for queries, keys and values has
that one adapted. ``targets=all`` takes every linear layer of the blocks, in any family. Blocks that are frozen get
nothing.

Where paper and released code differ (microsoft/LoRA, examples/NLU): the paper draws A from a normal distribution, the
code from Kaiming's uniform one; peft does as the code. That the paper's alpha for RoBERTa-base is the script's was not
verified.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from ftbench.errors import UsageError
from ftbench.methods.method import Group, Method, Start
from ftbench.models.adapters import family
from ftbench.models.backbone import Backbone
from ftbench.models.trainable import trained_blocks

#: queries and values in families that peft's table lacks
QUERIES_VALUES = {
    "albert": ["attention.query", "attention.value"],
    "distilbert": ["attention.q_lin", "attention.v_lin"],
    "modernbert": ["attn.Wqkv"],
    "mpnet": ["attention.attn.q", "attention.attn.v"],
}


@dataclass
class LoRA(Method):
    """rank: of B A. alpha: its scale is alpha / rank. targets: which matrices (``attention``: queries and values).
    dropout: on what A reads. lr: the learning rate as a multiple of the run's, for all that is trained."""

    rank: int = 8
    alpha: int = 16
    targets: Literal["attention", "all"] = "attention"
    dropout: float = 0.0
    lr: float = 10.0

    name: ClassVar[str] = "lora"
    family: ClassVar[str] = "parameter-efficient"
    summary: ClassVar[str] = "low-rank matrices beside frozen ones are trained"
    cite: ClassVar[str] = "Hu et al. 2022, arXiv 2106.09685"
    cost: ClassVar[str] = "1 forward, 1 backward without the frozen matrices' gradients"
    no_neutral: ClassVar[str] = "the pretrained weights are frozen at every setting"
    tunes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require("rank", self.rank >= 1, "1 or more")
        self.require("alpha", self.alpha >= 1, "1 or more")
        self.require("dropout", 0 <= self.dropout < 1, "0 or more, below 1")
        self.require("lr", 0 < self.lr < float("inf"), "more than 0")

    def prepare(self, start: Start) -> None:
        """Raises UsageError for a family whose queries and values are not known."""
        from peft import LoraConfig, LoraModel

        network = start.backbone
        model, depths = network.model, network.depths()  # looked up now, while parameters have their own names
        head = [p for name, p in model.named_parameters() if depths[name] == 0 and p.requires_grad]
        places = linears(network, "" if self.targets == "all" else names_of_targets(family(model.config)))
        conv = any(not isinstance(model.get_submodule(place), nn.Linear) for place in places)
        self._tuner = LoraModel(
            model,
            LoraConfig(
                r=self.rank,
                lora_alpha=self.alpha,
                lora_dropout=self.dropout,
                target_modules=places,
                fan_in_fan_out=conv,
            ),
            "default",
        )
        for parameter in head:  # peft has frozen everything but its own
            parameter.requires_grad_(True)

    def groups(self, groups: list[Group]) -> list[Group]:
        for group in groups:
            group.lr *= self.lr
        return groups

    def finish(self, backbone: Backbone) -> None:
        self._tuner.merge_and_unload()


def names_of_targets(kind: str) -> str | Sequence[str]:
    """Where queries and values lie in a block of the family ``kind``: endings of names, or an expression for a name.

    Raises UsageError for a family that is not known.
    """
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as known

    found: str | Sequence[str] | None = known.get(kind) or QUERIES_VALUES.get(kind)
    if not found:
        raise UsageError(f"lora: where queries and values lie in a {kind} model is not known; use lora:targets=all")
    return found


def linears(network: Backbone, wanted: str | Sequence[str]) -> list[str]:
    """Names of the linear layers of the trained blocks that ``wanted`` fits; all where it is empty.

    Raises UsageError where there is none.
    """
    from transformers.pytorch_utils import Conv1D

    inside = {module for block in trained_blocks(network) for module in block.modules()}

    def fits(name: str) -> bool:
        if isinstance(wanted, str):
            return not wanted or re.fullmatch(wanted, name) is not None
        return any(name.endswith(f".{ending}") for ending in wanted)

    modules: list[tuple[str, Any]] = list(network.model.named_modules())
    found = [n for n, module in modules if isinstance(module, nn.Linear | Conv1D) and module in inside and fits(n)]
    if not found:
        raise UsageError(f"lora: a {network.model.config.model_type} model has no block to tune with such matrices")
    return found
