"""The base of every method: what it may do, and when.

A method adds named terms to the task loss, and may change weights or gradients at fixed points.
``engine.py`` draws the loop in which these hooks are called. The hooks here do nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.errors import FtbenchError, UsageError
from ftbench.models.backbone import Backbone, Out, Transform

Dropout = Literal["independent", "shared", "off"]


@dataclass(frozen=True)
class View:
    """A further pass over the micro-batch that a method wants.

    transform: what happens to the word embeddings, (rows, tokens, width) to the same shape; an encoder's, where there
               is a decoder
    dropout:   masks of its own, those of the clean pass, or none
    decoder:   what happens to the embeddings of the target tokens that a decoder reads
    """

    transform: Transform | None = None
    dropout: Dropout = "independent"
    decoder: Transform | None = None


def _no_pass(view: View) -> Out:
    raise FtbenchError("this batch is not being trained on: no pass can be run over it")


def _no_original() -> Backbone:
    raise FtbenchError("the pretrained network is not at hand")


def _no_loss(out: Out) -> Tensor:
    raise FtbenchError("this batch is not being trained on: it has no task loss")


@dataclass
class Batch:
    """A micro-batch on its device.

    inputs:    input_ids, attention_mask (rows, tokens) and token_type_ids where the model has them; those of
               ``Seq2Seq`` where summaries are written
    labels:    (rows,) int64, or float32 in regression; (target tokens,) where summaries are written
    ids:       (rows,) row numbers in the task's split
    positions: (rows,) positions among the rows trained on, from 0
    generator: the only source of randomness that a method may use; seeded by (seed, step, micro-batch)
    diagnose:  true at a few steps: time for measurements that cost something
    notes:     scalars that a method wants logged, by name: the mean over the step's micro-batches that have them
    run:       one further pass over the rows, now; it is counted as a pass
    elsewhere: counts a pass over the rows that another network makes, without gradient
    task_loss: the task's loss () of a pass, a mean over the rows, or over the target tokens
    writes:    the rows of ``labels`` and ``Out.logits`` are target tokens
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    ids: Tensor
    generator: torch.Generator
    regression: bool = False
    diagnose: bool = False
    notes: dict[str, Tensor] = field(default_factory=dict)
    positions: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    run: Callable[[View], Out] = _no_pass
    elsewhere: Callable[[], None] = lambda: None
    task_loss: Callable[[Out], Tensor] = _no_loss
    writes: bool = False


@dataclass(frozen=True)
class Term:
    """A named part of the objective: ``weight * value``, value () being a mean over the rows of ``Out.logits``.

    by_row: it is a mean over the micro-batch's rows, also where those of the logits are target tokens
    """

    name: str
    value: Tensor
    weight: float
    by_row: bool = False


@dataclass(frozen=True)
class Start:
    """What a method may look at before training.

    backbone: the network with its pretrained weights and a fresh head
    steps:    optimizer steps that are planned
    rows:     how many rows are trained on
    batches:  one pass over all rows in a fixed order, 64 at a time; made anew at every call. ``batches(every, size)``:
              over each ``every``-th row, ``size`` at a time
    cache:    folder for what can be computed once for many runs, or None
    key:      what stands for weights, rows and token limit, for names in ``cache``
    original: loads the pretrained network: other weights than ``backbone``'s where a method before has changed them,
              or a run before has tuned them
    """

    backbone: Backbone
    steps: int
    rows: int
    batches: Callable[..., Iterator[Batch]]
    cache: Path | None = None
    key: Callable[[], str] = str
    original: Callable[[], Backbone] = _no_original


@dataclass
class Group:
    """How one parameter is trained.

    lr:    its learning rate as a multiple of the run's
    decay: decoupled weight decay
    depth: 0 in the head, 1 in the topmost block, more below; see ``Backbone.depths``
    """

    name: str
    parameter: Tensor
    decay: float
    depth: int
    lr: float = 1.0


@dataclass(frozen=True)
class Step:
    """An optimizer step: its number from 0, how many are planned, the learning rate, and a source of randomness
    on the model's device that is seeded by (seed, step)."""

    number: int
    steps: int
    lr: float
    generator: torch.Generator


@dataclass
class Method:
    """Fields are hyper-parameters: ``weight`` is always lambda, ``eps`` always a radius.

    Class attributes, one card for each method:
    revision: raised whenever a number can move.
    cost:     passes per step in words, forward and backward.
    neutral:  fields at which the method is plain fine-tuning bit for bit, or None (``no_neutral`` says why).
    joinable: its views do not need the clean pass first, so both may run as one batch.
    wants_states:   ``Out.states`` is filled for its passes.
    owns_backward:  it computes the task loss and its gradient itself, in ``backward``.
    owns_gradients: it wraps the gradient of the whole step, in ``gradients``.
    moves:          ``finish`` gives other weights than the last step; those of the last step are scored as ``raw``.
    batch_coupled:  its term depends on which rows share a micro-batch; see ``couples``.
    in_order:       a pass changes what later passes of the step compute, so that no two processes can share a run.
    tunes:          it chooses which parameters are trained: the first of its stack, and the only one.
    adds:           what stays in the network beyond a plain model's weights, in words; nothing for most.
    no_writing:     why it has nothing to do where summaries are written; empty for most.
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
    wants_states: ClassVar[bool] = False
    owns_backward: ClassVar[bool] = False
    owns_gradients: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    batch_coupled: ClassVar[bool] = False
    in_order: ClassVar[bool] = False
    tunes: ClassVar[bool] = False
    adds: ClassVar[str] = ""
    no_writing: ClassVar[str] = ""

    def set_fields(self) -> dict[str, Any]:
        """The fields that differ from their default."""
        return {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if getattr(self, item.name) != item.default
        }

    def require(self, field: str, good: bool, expected: str) -> None:
        """Raises UsageError, naming the field with its value and what was expected, unless ``good``."""
        if not good:
            value = getattr(self, field)
            shown = f"{value:g}" if isinstance(value, float) else value
            raise UsageError(f"{self.name}:{field}={shown}: expected {expected}")

    def require_nonnegative(self, *fields: str) -> None:
        """Raises UsageError for a field that is negative, infinite or not a number."""
        for name in fields:
            self.require(name, 0 <= getattr(self, name) < float("inf"), "0 or more")

    @property
    def has_views(self) -> bool:
        """Whether the method asks for further passes."""
        return type(self).views is not Method.views

    @property
    def has_term(self) -> bool:
        """Whether the method adds to the objective."""
        return type(self).penalty is not Method.penalty

    @property
    def replaces(self) -> bool:
        """Whether ``finish`` puts other weights in the place of all, whatever other methods have made of them."""
        return False

    @property
    def can_join(self) -> bool:
        """Whether its passes may run as one batch with the clean one, each drawing masks of its own."""
        if self.owns_backward:
            return False
        return not self.has_views or (self.joinable and getattr(self, "dropout", "independent") == "independent")

    @property
    def wants_padding(self) -> bool:
        """Where summaries are written: whether ``Out.padding`` is filled for its passes."""
        return False

    def unfit(self, *, writes: bool) -> str:
        """Why it cannot be used where summaries are written, or where a text is classified; empty where it can."""
        return f"{self.name} does not apply to summarization: {self.no_writing}" if writes and self.no_writing else ""

    def couples(self, *, writes: bool) -> bool:
        """Whether its term depends on which rows share a micro-batch, where summaries are written or a text is
        classified: where memory is short, such a micro-batch is not halved, for that would be another objective."""
        return self.batch_coupled

    @property
    def fewest_rows(self) -> int:
        """Rows that a micro-batch must have: with fewer there is no term."""
        return 1

    def prepare(self, start: Start) -> None:
        """Once, on the pretrained weights, before the optimizer exists; torch's own random numbers are seeded.

        May change weights, freeze parameters, and install hooks that act in training only.
        """

    def groups(self, groups: list[Group]) -> list[Group]:
        """Once: how each parameter is trained, and parameters of the method's own."""
        return groups

    def begin(self, batch: Batch) -> None:
        """Every micro-batch, before the clean pass."""

    def views(self, batch: Batch, out: Out | None) -> list[View]:
        """Every micro-batch: the further passes that ``penalty`` wants; ``out`` is None where passes are joined."""
        return []

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        """Every micro-batch: a term to add to the task loss, from the clean pass and its own views."""
        return None

    def backward(self, batch: Batch, scaled: Callable[[Tensor], None]) -> Tensor:
        """Every micro-batch of a method that ``owns_backward``: its passes (``batch.run``), and ``scaled(loss)`` for
        each loss whose gradient is wanted. Returns the loss to log. Here: plain fine-tuning's one pass."""
        loss = batch.task_loss(batch.run(View(dropout="shared")))
        scaled(loss)
        return loss.detach()

    def gradients(self, backbone: Backbone, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Every optimizer step of a method that ``owns_gradients``: ``compute()`` adds the gradient of the whole batch
        at the present weights to ``.grad``, always with the same dropout masks, and returns what to log."""
        return compute()

    def after_backward(self, backbone: Backbone, step: Step) -> None:
        """Every optimizer step, gradients complete, before clipping."""

    def after_step(self, backbone: Backbone, step: Step) -> None:
        """Every optimizer step, weights updated."""

    def evaluated(self, backbone: Backbone, step: int, score: float) -> bool:
        """After each evaluation; ``score``: the headline on the rows to select on, larger is better. True stops."""
        return False

    def candidates(self, backbone: Backbone) -> Mapping[str, Mapping[str, Tensor]]:
        """Once, just before ``finish``: other weights to score beside those that it begins with, by name."""
        return {}

    def finish(self, backbone: Backbone) -> None:
        """Once, after the last step: leave a plain model. Unless it ``moves``, its predictions are the same."""

    def state_dict(self) -> dict[str, Tensor]:
        """State to keep in a checkpoint, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what ``state_dict`` gave."""
