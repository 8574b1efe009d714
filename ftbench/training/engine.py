"""The training loop, drawn once.

    prepare                                      once, on the pretrained weights        (method hook)
    groups                                       once, how each parameter is trained    (method hook)
    for each optimizer step:
        batch = plan(seed, epoch)[step]          a pure function: nothing to resume
        gradients                                wraps what follows, for one method     (method hook)
        for each micro-batch:
            seed everything with (seed, step, micro-batch)
            begin                                before the clean pass                  (method hook)
            out   = forward(batch)               the clean pass, task loss on it
            views                                further passes wanted                  (method hook)
            outs  = forward(batch, view) each    or all as one batch where passes = joined
            penalty                              a named term                           (method hook)
            backward(task loss + sum of weight * term), scaled to its share of the batch
            (a method that owns the backward pass does all of this itself: backward)    (method hook)
        after_backward                           every optimizer step                   (method hook)
        clip, AdamW step on a linear schedule
        after_step                               every optimizer step                   (method hook)
        watch                                    log, evaluate, checkpoint, stop
    evaluated                                    after each evaluation; may stop        (method hook)
    candidates                                   once, other weights to score           (method hook)
    finish                                       once, on the trained weights           (method hook)
    state_dict / load_state_dict                 at a checkpoint                        (method hook)

Weights are float32, autocast decides what a pass computes in. Losses are means over the whole batch,
however it is cut into micro-batches. Because every micro-batch seeds its own random numbers, a method's
draws cannot shift later dropout masks, runs are paired across methods, and a resumed run is the same run.

Several processes take the micro-batches of a step in turns, see ``distributed.py``; all else happens in each of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.methods.method import Batch, Method, Step, Term
from ftbench.models.backbone import Backbone
from ftbench.training.batches import Tokens, plan, share
from ftbench.training.checkpoint import State
from ftbench.training.cost import Meter
from ftbench.training.distributed import ALONE, Gradients, Group
from ftbench.training.flops import Flops
from ftbench.training.log import Window
from ftbench.training.optim import lr_at, mix, trained
from ftbench.training.passes import Passes, batch_of, gradient_ratios, run_passes
from ftbench.training.precision import autocast, make_scaler
from ftbench.training.prefix import Prefix
from ftbench.training.summaries import smoothed_loss
from ftbench.types import RunSpec

LOG_RECORDS = 100
DIAGNOSES = 5
#: a micro-batch's share of each term's mean, and the methods' notes; all ()
Logged = tuple[dict[str, Tensor], dict[str, Tensor]]


class Diverged(Exception):
    """The loss is not finite any more."""


@dataclass
class Training:
    """All that one run trains with.

    labels: (n,) training targets, perturbed; index: (n,) row numbers in the task's split.
    ``state`` says how far it is; ``window`` holds what was logged since the last record. ``prefix``: see there.
    targets: tokens of the summaries to be written, which then take the labels' place.
    ``group``: the processes that share the work.
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
    prefix: Prefix | None = None
    group: Group = ALONE
    targets: Tokens | None = None

    def __post_init__(self) -> None:
        self.backbone.keep_padding = self.backbone.writes and any(method.wants_padding for method in self.methods)
        if self.spec.passes == "joined" and not all(method.can_join for method in self.methods):
            raise UsageError(f"passes=joined: {self.spec.method} needs its passes apart")
        self.window = Window(self.state.sums)
        self.parameters = trained(self.optimizer, self.backbone.model)
        self.per_epoch = math.ceil(len(self.labels) / self.spec.batch_size)
        self.flops = Flops(self.meter)
        self.scaler = make_scaler(self.backbone.device, self.spec.precision)
        if self.state.scaler:
            self.scaler.load_state_dict(self.state.scaler)
        self.states = any(method.wants_states for method in self.methods)
        self.sum = Gradients(self.group, self.parameters)
        self.gradients = next((m.gradients for m in self.methods if m.owns_gradients), None)
        self.owner = next((m for m in self.methods if m.owns_backward), None)
        self._epoch = -1
        self._plan: list[Any] = []

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or a method stopped the run."""
        return self.state.step >= self.spec.steps or self.state.stopped

    def size(self, part: Any) -> int:
        """What the task loss is a mean over: the rows at ``part`` (rows,), or their target tokens."""
        return len(part) if self.targets is None else int(self.targets.lengths[part].sum())

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
    _prove_prefix(run)
    while not run.finished:
        run.window.add(optimizer_step(run, run.state.step))
        run.state.step += 1
        if run.state.step % every == 0 or run.state.step == run.spec.steps:
            record = _record(run)
            if not math.isfinite(record["loss"]):
                raise Diverged(not_finite(run, f"the loss is {record['loss']}"))
        watch(run)
    run.meter.stop()


def not_finite(run: Training, what: str) -> str:
    """What is said of a run that diverged; fp16 ends at 65,504, which T5's feed-forward layers exceed."""
    hint = "; numbers above 65,504 are too large for fp16, try --precision bf16" if run.spec.precision == "fp16" else ""
    return f"{what} at step {run.state.step} of {run.spec.steps}{hint}"


def _prove_prefix(run: Training) -> None:
    """Once, on the first micro-batch: whether the prefix cache may be used, see ``Prefix.proven``."""
    if run.prefix and not run.finished:
        first = share(run.batch_at(run.state.step), run.state.micro_batch or run.spec.micro_batch)[0]
        batch = make_batch(run, run.state.step, 0, first)
        for method in run.methods:
            method.begin(batch)
        run.prefix = run.prefix.proven(batch)


def optimizer_step(run: Training, step: int) -> dict[str, Tensor]:
    """One optimizer step. Returns scalars to log: task loss, each term, notes, the gradient's norm."""
    spec = run.spec
    rate = lr_at(step, spec.steps, spec.lr, spec.warmup)
    generator = torch.Generator(run.backbone.device).manual_seed(mix(spec.seed, step, "step"))
    moment = Step(step, spec.steps, rate, generator)

    def compute() -> dict[str, Tensor]:
        run.optimizer.zero_grad(set_to_none=True)
        return accumulate(run, step)

    logged = run.gradients(run.backbone, compute) if run.gradients else compute()
    run.scaler.unscale_(run.optimizer)
    for method in run.methods:
        method.after_backward(run.backbone, moment)
    logged["grad_norm"] = torch.nn.utils.clip_grad_norm_(run.parameters, spec.clip or math.inf)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    for method in run.methods:
        method.after_step(run.backbone, moment)
    run.meter.cost.steps += 1
    return logged


def accumulate(run: Training, step: int) -> dict[str, Tensor]:
    """Adds the gradient of the whole batch of a step to ``.grad``, in micro-batches; returns what to log: sums of the
    terms, and means of the notes over the micro-batches that have them, by their shares."""
    positions, group = run.batch_at(step), run.group
    parts = share(positions, run.state.micro_batch or run.spec.micro_batch)
    logged: dict[str, Tensor] = {}
    noted, shares = dict[str, Tensor](), dict[str, float]()
    run.sum.start()
    for first in range(0, len(parts), group.size):
        turn = functools.partial(_turn, run, step, first + group.rank, parts, positions)
        for part, (values, notes) in zip(parts[first:], filter(None, group.each(turn)), strict=False):
            for name, value in values.items():
                logged[name] = logged[name] + value if name in logged else value
            for name, value in notes.items():
                shares[name] = shares.get(name, 0) + run.size(part)
                mean = noted.get(name, value)
                noted[name] = mean + (value - mean) * (run.size(part) / shares[name])
        run.sum.add()
    run.sum.finish()
    return logged | noted


def _turn(run: Training, step: int, micro: int, parts: Sequence[Any], positions: Any) -> Logged | None:
    """This process's micro-batch of a round, where one is left. What is logged is on the CPU where others read it."""
    if micro >= len(parts):
        return None
    part = parts[micro]
    logged = micro_step(run, step, micro, part, run.size(part) / run.size(positions), len(part) / len(positions))
    if run.group.size == 1:
        return logged
    values, notes = ({name: value.detach().cpu() for name, value in some.items()} for some in logged)
    return values, notes


def micro_step(run: Training, step: int, micro: int, part: Any, fraction: float, rows: float | None = None) -> Logged:
    """Forward, terms and backward of one micro-batch, ``fraction`` being its share of the batch (see
    ``Training.size``), ``rows`` that of its rows, where it is another one.

    Returns its share of each term's mean, and the methods' notes.
    """
    spec, cost = run.spec, run.meter.cost
    batch = make_batch(run, step, micro, part)
    seed = mix(spec.seed, step, micro, "dropout")
    passes = Passes(run.backbone, batch, seed, states=run.states, prefix=run.prefix)
    batch.run, batch.elsewhere = passes.view, passes.elsewhere
    for method in run.methods:
        method.begin(passes.of(method))
    with run.flops.estimated(run.prefix is not None, batch.inputs), autocast(run.backbone.device, spec.precision):
        if run.owner:
            values = _owned(run, run.owner, passes, fraction)
        else:
            values = _objective(run, passes, fraction, fraction if rows is None else rows)
    cost.forward_passes += passes.count
    cost.backward_passes += passes.graded
    cost.tokens += int(run.tokens.lengths[part].sum()) + (run.size(part) if run.targets else 0)
    logged = {name: value.detach() * fraction for name, value in values.items()}
    return logged, passes.notes(run.methods, values)


def _objective(run: Training, passes: Passes, fraction: float, rows: float) -> dict[str, Tensor]:
    """Task loss and terms, and one backward pass through all of them. Returns them by name.

    Where the loss is a mean over target tokens, terms that are means over rows have the share of the rows.
    """
    batch = passes.batch
    out, views = run_passes(passes, run.methods, joined=run.spec.passes == "joined")
    loss = batch.task_loss(out)
    penalties = [method.penalty(passes.of(method), out, own) for method, own in zip(run.methods, views, strict=True)]
    with torch.autocast(run.backbone.device.type, enabled=False):
        terms = _by_name(run.methods, [_shared(term, rows / fraction) for term in penalties])
        if batch.diagnose and terms:
            with run.meter.pause():
                batch.notes |= gradient_ratios(loss, terms, run.parameters)
        objective = sum((term.weight * term.value for term in terms.values()), loss)
        run.scaler.scale(objective * fraction).backward()
    return {"loss": loss, **{name: term.value for name, term in terms.items()}}


def _shared(term: Term | None, ratio: float) -> Term | None:
    """The term that makes the batch's mean when it is weighted as the task loss is."""
    return replace(term, value=term.value * ratio) if term and term.by_row and ratio != 1 else term


def _owned(run: Training, owner: Method, passes: Passes, fraction: float) -> dict[str, Tensor]:
    """The loss of ``owner``, which runs its own passes and backward passes."""

    def scaled(loss: Tensor) -> None:
        with torch.autocast(run.backbone.device.type, enabled=False):
            run.scaler.scale(loss * fraction).backward()

    with run.backbone.keeping_embeddings(decoder=False):  # its graph ends with the first backward pass
        return {"loss": owner.backward(passes.of(owner), scaled)}


def _by_name(methods: Sequence[Method], penalties: Sequence[Term | None]) -> dict[str, Term]:
    """Terms by their name; by ``method.name`` where two methods chose the same."""
    found = [(method.name, term) for method, term in zip(methods, penalties, strict=True) if term is not None]
    names = [term.name for _, term in found]
    return {term.name if names.count(term.name) == 1 else f"{method}.{term.name}": term for method, term in found}


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


def make_batch(run: Training, step: int, micro: int, part: Any) -> Batch:
    """The rows at the positions ``part`` (rows,) as a micro-batch of a step, with its own random numbers."""
    seed = mix(run.spec.seed, step, micro, "method")
    batch = batch_of(
        run.backbone, run.tokens, run.labels, run.index, part, seed, regression=run.regression, targets=run.targets
    )
    batch.diagnose = micro == 0 and step in _diagnosed(run.spec.steps)
    batch.task_loss = lambda out: _task_loss(run, out.logits, batch.labels)
    return batch


def _task_loss(run: Training, logits: Tensor, labels: Tensor) -> Tensor:
    if run.targets is not None:
        return smoothed_loss(logits, labels, run.spec.label_smoothing, run.spec.smoothed_over)
    return task_loss(logits, labels, regression=run.regression)


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
