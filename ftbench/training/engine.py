"""The training loop, drawn once.

    prepare                                      once, on the pretrained weights        (method hook)
    for each optimizer step:
        batch = plan(seed, epoch)[step]          a pure function: nothing to resume
        for each micro-batch:
            seed everything with (seed, step, micro-batch)
            views                                further passes wanted                   (method hook)
            out   = forward(batch)               the clean pass, task loss on it
            outs  = forward(batch, view) each    or all as one batch where passes = joined
            penalty                              a named term                            (method hook)
            backward(task loss + sum of weight * term), scaled to its share of the batch
        after_backward                           every optimizer step                    (method hook)
        clip, AdamW step on a linear schedule
        after_step                               every optimizer step                    (method hook)
        watch                                    log, evaluate, checkpoint, stop
    state_dict / load_state_dict                 at a checkpoint                         (method hook)
    finish                                       once, on the trained weights            (method hook)

Weights are float32, autocast decides what a pass computes in. Losses are means over the whole batch,
however it is cut into micro-batches. Because every micro-batch seeds its own random numbers, a method's
draws cannot shift later dropout masks, runs are paired across methods, and a resumed run is the same run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.methods.method import Batch, Method
from ftbench.models.backbone import Backbone
from ftbench.training.batches import Tokens, plan, share
from ftbench.training.checkpoint import State
from ftbench.training.cost import Meter
from ftbench.training.evaluate import collate_for
from ftbench.training.log import Window
from ftbench.training.optim import lr_at, mix
from ftbench.training.passes import gradient_ratios, run_passes
from ftbench.training.precision import autocast, make_scaler
from ftbench.types import RunSpec

LOG_RECORDS = 100
DIAGNOSES = 5


class Diverged(Exception):
    """The loss is not finite any more."""


@dataclass
class Training:
    """All that one run trains with.

    labels: (n,) training targets, perturbed; index: (n,) row numbers in the task's split.
    ``state`` says how far it is; ``window`` holds what was logged since the last record.
    """

    spec: RunSpec
    backbone: Backbone
    methods: Sequence[Method]
    tokens: Tokens
    labels: Any
    index: Any
    regression: bool
    optimizer: torch.optim.AdamW
    meter: Meter
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        if self.spec.passes == "joined" and not all(method.can_join for method in self.methods):
            raise UsageError(f"passes=joined: {self.spec.method} needs its passes apart")
        self.window = Window(self.state.sums)
        self.parameters = [p for p in self.backbone.model.parameters() if p.requires_grad]
        self.per_epoch = math.ceil(len(self.labels) / self.spec.batch_size)
        self.scaler = make_scaler(self.backbone.device, self.spec.precision)
        if self.state.scaler:
            self.scaler.load_state_dict(self.state.scaler)
        self._epoch = -1
        self._plan: list[Any] = []

    def batch_at(self, step: int) -> Any:
        """Row positions (rows,) of the batch of an optimizer step."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            spec = self.spec
            self._plan = plan(self.tokens.lengths, spec.batch_size, spec.seed, epoch, spec.batching)
            self._epoch = epoch
        return self._plan[position]


def train(run: Training, watch: Callable[[Training], None]) -> None:
    """Trains from ``run.state.step`` to the last step; ``watch`` is called after each.

    Raises Diverged when the loss stops being finite (looked at whenever a record is written).
    """
    every = max(1, run.spec.steps // LOG_RECORDS)
    run.backbone.model.train()
    run.meter.start()
    while run.state.step < run.spec.steps:
        run.window.add(optimizer_step(run, run.state.step))
        run.state.step += 1
        if run.state.step % every == 0 or run.state.step == run.spec.steps:
            record = _record(run)
            if not math.isfinite(record["loss"]):
                raise Diverged(f"the loss is {record['loss']} at step {run.state.step} of {run.spec.steps}")
        watch(run)
    run.meter.stop()


def optimizer_step(run: Training, step: int) -> dict[str, Tensor]:
    """One optimizer step. Returns scalars to log: task loss, each term, notes, the gradient's norm."""
    spec = run.spec
    positions = run.batch_at(step)
    logged: dict[str, Tensor] = {}
    for micro, part in enumerate(share(positions, spec.micro_batch)):
        values, notes = micro_step(run, step, micro, part, len(part) / len(positions))
        logged |= {name: logged[name] + value if name in logged else value for name, value in values.items()} | notes
    run.scaler.unscale_(run.optimizer)
    for method in run.methods:
        method.after_backward(run.backbone, step)
    logged["grad_norm"] = torch.nn.utils.clip_grad_norm_(run.parameters, spec.clip or math.inf)
    for group in run.optimizer.param_groups:
        group["lr"] = lr_at(step, spec.steps, spec.lr, spec.warmup)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    for method in run.methods:
        method.after_step(run.backbone, step)
    run.meter.cost.steps += 1
    return logged


def micro_step(
    run: Training, step: int, micro: int, part: Any, fraction: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Forward, terms and backward of one micro-batch, ``fraction`` being its share of the batch's rows.

    Returns its share of each term's mean, and the methods' notes.
    """
    spec, methods = run.spec, run.methods
    batch = _make_batch(run, step, micro, part)
    with autocast(run.backbone.device, spec.precision):
        seed = mix(spec.seed, step, micro, "dropout")
        out, views = run_passes(run.backbone, methods, batch, seed, joined=spec.passes == "joined")
        loss = task_loss(out.logits, batch.labels, regression=run.regression)
        penalties = [method.penalty(batch, out, own) for method, own in zip(methods, views, strict=True)]
    terms = [term for term in penalties if term is not None]
    if batch.diagnose and terms:
        with run.meter.pause():
            batch.notes |= gradient_ratios(loss, terms, run.parameters)
    objective = sum((term.weight * term.value for term in terms), loss)
    run.scaler.scale(objective * fraction).backward()
    passed = 1 + sum(map(len, views))
    run.meter.cost.forward_passes += passed
    run.meter.cost.backward_passes += passed
    run.meter.cost.tokens += int(run.tokens.lengths[part].sum())
    values = {"loss": loss, **{term.name: term.value for term in terms}}
    return {name: value.detach() * fraction for name, value in values.items()}, batch.notes


def task_loss(logits: Tensor, labels: Tensor, *, regression: bool) -> Tensor:
    """Mean cross-entropy, or mean squared error; in float32. logits (rows, outputs), labels (rows,)."""
    if regression:
        return F.mse_loss(logits.float().squeeze(-1), labels)
    return F.cross_entropy(logits.float(), labels)


def evaluation_steps(steps: int, per_epoch: int, evaluations: int) -> list[int]:
    """After which steps to evaluate: the end of every epoch and the last step.

    With more epochs than ``evaluations``, every second, third, ... epoch: at most that many.
    """
    epochs = math.ceil(steps / per_epoch)
    every = math.ceil(epochs / evaluations)
    return sorted({min(steps, epoch * per_epoch) for epoch in range(every, epochs + 1, every)} | {steps})


def _make_batch(run: Training, step: int, micro: int, part: Any) -> Batch:
    device = run.backbone.device
    kind = torch.float32 if run.regression else torch.int64
    return Batch(
        inputs=collate_for(run.backbone, run.tokens, part),
        labels=torch.as_tensor(run.labels[part], dtype=kind).to(device, non_blocking=True),
        ids=torch.as_tensor(run.index[part]).to(device, non_blocking=True),
        generator=torch.Generator(device).manual_seed(mix(run.spec.seed, step, micro, "method")),
        regression=run.regression,
        diagnose=micro == 0 and step in _diagnosed(run.spec.steps),
    )


def _diagnosed(steps: int) -> set[int]:
    """A few steps spread over the run, the first and the last among them."""
    return {round(i * (steps - 1) / (DIAGNOSES - 1)) for i in range(DIAGNOSES)}


def _record(run: Training) -> dict[str, float]:
    """Means since the last record, into the history."""
    spec, step = run.spec, run.state.step
    rate = lr_at(step - 1, spec.steps, spec.lr, spec.warmup)
    record = {"step": step, "epoch": round(step / run.per_epoch, 4), "lr": rate, **run.window.flush()}
    run.state.history.append(record)
    return record
