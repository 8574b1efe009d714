"""RunSpec to Result, top to bottom."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftbench import methods as catalogue
from ftbench.methods.early_stop import EarlyStop
from ftbench.metrics import LOWER_IS_BETTER
from ftbench.models import backbone as models
from ftbench.models.locate import Checkpoint
from ftbench.models.modes import holding
from ftbench.tasks.perturb import perturb
from ftbench.training import checkpoint
from ftbench.training.batches import Tokens, tokenize
from ftbench.training.cost import Meter, together
from ftbench.training.distributed import ALONE, Group, require_equal
from ftbench.training.engine import Diverged, Training, evaluation_steps, train
from ftbench.training.evaluate import decide, probabilities, score
from ftbench.training.flops import Flops
from ftbench.training.memorised import memorised
from ftbench.training.optim import make_optimizer, mix, parameter_groups, trained
from ftbench.training.prefix import prefix_of
from ftbench.training.start import network_of, original_of, start_of
from ftbench.training.watch import Control, Split, Watch
from ftbench.types import Cost, Data, Result, Rows, RunSpec


@dataclass
class Place:
    """Where a run works: its folder in the store, the device, and the cache of tokenised rows and whatever runs share.
    prefix: auto, on or off; whether what frozen layers give is part of that, see ``training.prefix``.
    micro_batch: rows in memory at once, where those that the spec asks for were too many; a checkpoint says it, too.
    group: the processes that do the run together, see ``training.distributed``.
    """

    folder: Path
    device: torch.device
    cache: Path | None = None
    prefix: str = "auto"
    micro_batch: int | None = None
    group: Group = ALONE


@dataclass
class Outcome:
    """A finished run before it is stored. predictions: columns of ``predictions.parquet``, each (n,) or (n, k)."""

    result: Result
    cost: Cost
    history: list[dict[str, Any]] = field(default_factory=list)
    predictions: dict[str, Any] = field(default_factory=dict)
    backbone: models.Backbone | None = None


def finetune(spec: RunSpec, data: Data, source: Checkpoint, place: Place, control: Control) -> Outcome:
    """Fine-tunes once, continuing from the checkpoint in ``place.folder`` where there is one.

    Raises Interrupted when asked to stop, UsageError for a model that cannot be loaded; a loss that is
    not finite gives a Result with status ``diverged``.
    """
    clean, data = data.splits["train"], apply_perturbations(spec, data)
    meter = Meter(Cost(device=str(place.device), threads=torch.get_num_threads()), place.device)
    meter.reset_peak()
    tokenizer = models.load_tokenizer(source)
    tokens = tokenize_splits(spec, data, source, tokenizer, place)
    training = place.group.together(lambda: _prepare(spec, data, source, tokenizer, tokens["train"], place, meter))
    require_equal(place.group, training.state.step, training.parameters)
    splits = {name: Split(tokens[name], rows) for name, rows in data.splits.items() if name != "train"}
    watch = Watch(place.folder, splits, data.task.metrics, control, training)
    try:
        train(training, watch)
    except Diverged as error:
        meter.stop()
        result = Result(spec=spec, status="diverged", facts=_facts(training, data, tokens), error=str(error))
        return Outcome(result, cost_of(training), training.state.history)
    meter.record_peak()
    scores = finish(training, watch)
    noise = place.group.first(lambda: memorised(training, clean))
    return _outcome(training, watch, data, tokens, scores, noise)


def finish(run: Training, watch: Watch) -> dict[str, dict[str, dict[str, float]]]:
    """Leaves a plain model. Returns the scores of weights other than ``best``, by selection: ``last``, ``raw`` (where
    a method's result is not the weights of the last step) and the methods' candidates."""
    scores = {"last": next(r["evaluation"] for r in reversed(run.state.history) if "evaluation" in r)}
    model, predicted = run.backbone.model, watch.predicted
    model.eval()
    moved = any(method.moves for method in run.methods)
    for method in sorted(run.methods, key=lambda method: not method.moves):  # others fold what these have loaded
        for name, weights in method.candidates(run.backbone).items():
            with holding(model, weights):
                scores[name] = watch.score(run, name)
        method.finish(run.backbone)
    if moved:
        scores |= {"raw": scores["last"], "last": watch.score(run)}
    else:
        watch.predicted = predicted  # the predictions that are stored are those of the last weights
    return scores


def apply_perturbations(spec: RunSpec, data: Data) -> Data:
    """The rows that the spec asks for: fewer, mislabelled, with a slice to select on."""
    return perturb(
        data,
        imbalance=spec.imbalance,
        train_size=spec.train_size,
        label_noise=spec.label_noise,
        data_seed=spec.data_seed,
        select_on=spec.select_on,
        limit=spec.limit,
        folds=spec.folds,
    )


def tokenize_splits(spec: RunSpec, data: Data, source: Checkpoint, tokenizer: Any, place: Place) -> dict[str, Tokens]:
    """Every split's rows, tokenised or from the cache."""
    return {
        name: tokenize(rows, tokenizer, spec.max_length, key=source.fingerprint, cache=place.cache)
        for name, rows in data.splits.items()
    }


def _prepare(
    spec: RunSpec, data: Data, source: Checkpoint, tokenizer: Any, tokens: Tokens, place: Place, meter: Meter
) -> Training:
    """The model with its seeded head, methods prepared, optimizer made, checkpoint loaded."""
    network = network_of(spec, data, source, tokenizer)
    network.model.to(place.device)
    return ready(spec, data, source, network, tokens, place, meter)


def ready(
    spec: RunSpec,
    data: Data,
    source: Checkpoint,
    network: models.Backbone,
    tokens: Tokens,
    place: Place,
    meter: Meter,
    targets: Tokens | None = None,
) -> Training:
    """``network`` with its methods prepared, optimizer made, checkpoint loaded. targets: see ``Training``."""
    regression = data.task.kind == "regression"
    methods = catalogue.make(spec.methods)
    if spec.checkpoint == "best" and not any(method.moves for method in methods):
        methods.append(EarlyStop(patience=spec.steps + 1))  # stops nothing: there are no more evaluations than steps
    train_rows = data.splits["train"]

    def original() -> models.Backbone:
        first = original_of(spec, data, source, network.tokenizer)
        first.model.to(place.device)
        return first

    start = start_of(
        spec, network, tokens, train_rows, place.cache, original=original, regression=regression, targets=targets
    )
    meter.start()
    with Flops(meter).counted():
        prefix = prefix_of(spec, start, tokens, methods, place.prefix)
        for number, method in enumerate(methods):
            torch.manual_seed(mix(spec.seed, number, "prepare"))
            method.prepare(start)
        prefix = prefix and prefix.filled(start)
    meter.stop()
    optimizer = make_optimizer(parameter_groups(network, methods, spec.weight_decay), spec.lr)
    state = checkpoint.load(place.folder, network.model, optimizer, methods)
    state = state or checkpoint.State(micro_batch=place.micro_batch)
    place.micro_batch = state.micro_batch
    if state.step and place.group.rank == 0:  # what was counted is of all processes: it goes on in one of them
        here = {"device": meter.cost.device, "threads": meter.cost.threads}
        meter.cost.__dict__.update(state.cost, **here, interruptions=state.cost["interruptions"] + 1)
    meter.cost.trained_parameters = sum(p.numel() for p in trained(optimizer, network.model))
    labels, index = train_rows.labels, train_rows.index
    training = Training(
        spec, network, methods, tokens, labels, index, regression, optimizer, meter, state, prefix, place.group, targets
    )
    for method in methods[: len(spec.methods)]:
        if isinstance(method, EarlyStop):
            method.warn_if_idle(len(evaluation_steps(spec.steps, training.per_epoch, spec.evaluations)))
    return training


def _outcome(
    training: Training,
    watch: Watch,
    data: Data,
    tokens: dict[str, Tokens],
    scores: dict[str, dict[str, dict[str, float]]],
    noise: dict[str, int],
) -> Outcome:
    state, logits, rows = training.state, watch.predicted, data.splits["validation"]
    if logits is None:
        raise RuntimeError("the last step was not evaluated")
    decided = decide(logits, regression=training.regression)
    facts = _facts(training, data, tokens) | {
        "distinct_predictions": len(np.unique(decided)),
        "best_step": state.best["step"],
        "selected_on": watch.chosen_on,
        "terms": term_means(state.history),
        **noise,
    }
    metrics = {**scores, "best": state.best["scores"]}
    predictions = {"example": rows.index, "label": rows.labels, "prediction": decided}
    if not training.regression:
        predictions["probabilities"] = probabilities(logits).astype(np.float32)
    result = Result(spec=training.spec, status="ok", metrics=metrics, facts=facts)
    return Outcome(result, cost_of(training), state.history, predictions, training.backbone)


def cost_of(run: Training) -> Cost:
    """What the run took, in all its processes."""
    return together(run.group.each(lambda: run.meter.cost))


def _facts(training: Training, data: Data, tokens: dict[str, Tokens]) -> dict[str, Any]:
    headline = data.task.metrics[0]
    train_rows, validation = data.splits["train"], data.splits["validation"]
    constant = constant_predictions(train_rows, validation, regression=training.regression)
    return {
        "headline": headline,
        "lower_is_better": headline in LOWER_IS_BETTER,
        "kind": data.task.kind,
        "labels": list(data.labels),
        "rows": {name: len(rows) for name, rows in data.splits.items()},
        "truncated": {name: split.truncated for name, split in tokens.items()},
        "steps_per_epoch": training.per_epoch,
        "majority_score": score(constant, validation.labels, [headline])[headline],
        **training.state.facts(),
    }


def term_means(history: list[dict[str, Any]]) -> dict[str, float]:
    """What the methods logged (terms, gradient ratios, notes), as means over the run's records."""
    own = {"step", "epoch", "lr", "loss", "grad_norm", "evaluation"}
    names = sorted({name for record in history for name in record} - own)
    logged = {name: [r[name] for r in history if name in r and np.isfinite(r[name])] for name in names}
    return {name: float(np.mean(values)) for name, values in logged.items() if values}


def constant_predictions(train_rows: Rows, rows: Rows, *, regression: bool) -> np.ndarray[Any, Any]:
    """What knows nothing of the text: the most frequent training class (the first of equals), or the mean. (n,)"""
    if regression:
        return np.full(len(rows), train_rows.labels.mean())
    values, counts = np.unique(train_rows.labels, return_counts=True)
    return np.full(len(rows), values[counts.argmax()])


def cost_of_failure(device: torch.device) -> Cost:
    """The cost card of a run that ended before it could count."""
    return dataclasses.replace(Cost(), device=str(device), threads=torch.get_num_threads())
