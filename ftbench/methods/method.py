"""The base of every method: what it may do, and when.

A method adds named terms to the task loss, and may change weights or gradients at fixed points.
``engine.py`` draws the loop in which these hooks are called. The hooks here do nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.models.backbone import Backbone, Out, Transform

Dropout = Literal["independent", "shared", "off"]


@dataclass
class Batch:
    """A micro-batch on its device.

    inputs:    input_ids, attention_mask (rows, tokens) and token_type_ids where the model has them
    labels:    (rows,) int64, or float32 in regression
    ids:       (rows,) row numbers in the task's split
    generator: the only source of randomness that a method may use; seeded by (seed, step, micro-batch)
    diagnose:  true at a few steps: time for measurements that cost something
    notes:     scalars that a method wants logged, by name
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    ids: Tensor
    generator: torch.Generator
    regression: bool = False
    diagnose: bool = False
    notes: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """A further pass over the micro-batch that a penalty wants.

    transform: what happens to the word embeddings, (rows, tokens, width) to the same shape
    dropout:   masks of its own, those of the clean pass, or none
    """

    transform: Transform | None = None
    dropout: Dropout = "independent"


@dataclass(frozen=True)
class Term:
    """A named part of the objective: ``weight * value``, value () being a mean over the micro-batch's rows."""

    name: str
    value: Tensor
    weight: float


@dataclass
class Method:
    """Fields are hyper-parameters: ``weight`` is always lambda, ``eps`` always a radius.

    Class attributes, one card for each method:
    revision: raised whenever a number can move.
    cost:     passes per step in words, forward and backward.
    neutral:  fields at which the method is plain fine-tuning bit for bit, or None (``no_neutral`` says why).
    joinable: its views do not need the clean pass first, so both may run as one batch.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    summary: ClassVar[str]
    cite: ClassVar[str] = ""
    cost: ClassVar[str] = "1 forward, 1 backward"
    revision: ClassVar[int] = 1
    neutral: ClassVar[Mapping[str, Any] | None] = None
    no_neutral: ClassVar[str] = ""
    joinable: ClassVar[bool] = False

    def set_fields(self) -> dict[str, Any]:
        """The fields that differ from their default."""
        return {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if getattr(self, item.name) != item.default
        }

    @property
    def has_views(self) -> bool:
        """Whether the method asks for further passes."""
        return type(self).views is not Method.views

    @property
    def can_join(self) -> bool:
        """Whether its passes may run as one batch with the clean one, each drawing masks of its own."""
        return not self.has_views or (self.joinable and getattr(self, "dropout", "independent") == "independent")

    def prepare(self, backbone: Backbone) -> None:
        """Once, on the pretrained weights, before the optimizer exists."""

    def views(self, batch: Batch) -> list[View]:
        """Every micro-batch: the further passes that ``penalty`` wants."""
        return []

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        """Every micro-batch: a term to add to the task loss, from the clean pass and its own views."""
        return None

    def after_backward(self, backbone: Backbone, step: int) -> None:
        """Every optimizer step, gradients complete, before clipping."""

    def after_step(self, backbone: Backbone, step: int) -> None:
        """Every optimizer step, weights updated."""

    def finish(self, backbone: Backbone) -> None:
        """Once, after the last evaluation: leave a plain model, whose predictions are the same."""

    def state_dict(self) -> dict[str, Tensor]:
        """State to keep in a checkpoint, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what ``state_dict`` gave."""
