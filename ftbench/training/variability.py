"""A network that is not trained, measured layer by layer on a task's training rows: nu, its floor, its companions."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from typing import Any

import numpy as np
import torch

from ftbench.analysis.grouping import bin_targets
from ftbench.analysis.layer_choice import choose
from ftbench.analysis.probing import draw, probe
from ftbench.analysis.transferability import companions, correlations
from ftbench.analysis.variability import Variability, variability
from ftbench.errors import UsageError
from ftbench.models import backbone as models
from ftbench.models.locate import Checkpoint
from ftbench.models.pooling import special_ids
from ftbench.training.batches import Tokens, tokenize
from ftbench.training.cost import Meter
from ftbench.training.features import extract
from ftbench.training.flops import Flops
from ftbench.training.run import Outcome, Place, apply_perturbations
from ftbench.training.watch import Control
from ftbench.types import Cost, Data, Features, Result, Rows, RunSpec

Array = np.ndarray[Any, np.dtype[Any]]
#: the pass before this one, by what it was made of: other labels of the same rows take no second pass
_LAST: dict[str, tuple[Array, int, Cost]] = {}


def measure(spec: RunSpec, data: Data, source: Checkpoint, place: Place, control: Control) -> Outcome:
    """``metrics["layer 1"]["train"]`` and so on, and in the facts the choice of a layer, or why there is none.

    The cost's process and wall seconds are those of the pass, ``evaluate_seconds`` those of all measures. Numbers that
    are infinite (nu of layers whose class means are the same) are null in the store.

    Raises UsageError for a row without an ordinary token, where it takes one, and for what ``variability`` refuses.
    """
    rows = apply_perturbations(spec, data).splits["train"]
    hidden, truncated, cost = _features(spec, rows, source, place)
    numbers = data.task.kind == "regression"
    labels = bin_targets(rows.labels, spec.bins) if numbers and spec.bins else rows.labels
    features = Features(hidden, labels, spec.pooling)
    meter = Meter(cost, place.device)
    with meter.pause():
        table = companions(features, rows.labels if numbers else None)
        facts: dict[str, Any] = {"verdict": "none", "reason": "LogME has no floor here: no layer is recommended"}
        if np.issubdtype(labels.dtype, np.integer):
            found = variability(
                features,
                weighting=spec.weighting,
                dtype=spec.dtype,
                permutations=spec.permutations,
                resamples=spec.resamples,
                seed=spec.seed,
            )
            chosen, facts = _choice(found, data.labels)
            table = chosen | table
        scores = _probe(spec, data, features, rows.labels, place) if spec.probe else None
        if scores is not None:
            table["probe"] = scores
            measures = {name: values for name, values in table.items() if name in COMPARED}
            facts |= {"probe": data.task.metrics[0], "spearman": correlations(measures, scores)}
    meter.record_peak()
    metrics = {
        f"layer {number + 1}": {"train": {name: float(values[number]) for name, values in table.items()}}
        for number in range(features.layers)
    }
    about = {
        "headline": "nu" if "nu" in table else "logme",
        "lower_is_better": "nu" in table,
        "kind": data.task.kind,
        "labels": list(data.labels),
        "rows": {"train": len(rows)},
        "whole": len(rows) == len(data.splits["train"]),
        "truncated": {"train": truncated},
        "layers": features.layers,
        "width": int(hidden.shape[2]),
    }
    return Outcome(Result(spec=spec, status="ok", metrics=metrics, facts=about | facts), cost)


def _choice(found: Variability, names: tuple[str, ...]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Per layer what belongs to nu, and the facts of the choice. Layers count from 1."""
    choice, classes = choose(found), found.classes
    table = {
        "nu": found.nu,
        "floor": found.floor,
        "floor_sd": found.permuted.std(1, ddof=1),
        "ratio": found.ratio,
        "signal": choice.signal.astype(float),
        "chosen_share": choice.shares,
        "participation": found.participation,
        "rank": found.rank.astype(float),
        "condition": found.condition,
    }

    def name(label: int) -> str:
        return names[label] if names else f"bin {label + 1}"

    facts = {
        "verdict": choice.verdict,
        "reason": choice.reason,
        "layer": choice.layer,
        "best": choice.best,
        "best_ratio": choice.best_ratio,
        "low": choice.low,
        "high": choice.high,
        "p_value": choice.p_value,
        "classes": {name(int(v)): int(n) for v, n in zip(classes.values, classes.counts, strict=True)},
        "dropped": [name(label) for label in classes.dropped],
    }
    return table, facts


def _probe(spec: RunSpec, data: Data, features: Features, labels: Array, place: Place) -> Array | None:
    """Score of a linear probe by layer, by the task's headline metric: the mean over ``SPLITS`` draws of a fifth of
    each class that is scored and chooses nothing, of at most ``PROBED`` rows. None where classes are too small.
    """
    regression = data.task.kind == "regression"
    scores = []
    if not regression and np.unique(labels, return_counts=True)[1].max() < 5:
        return None
    for seed in range(spec.seed * SPLITS, (spec.seed + 1) * SPLITS):
        rows, parts = draw(labels, PROBED, seed, regression=regression)
        held = parts == 0
        train, scored = (
            Features(features.take(slice(None), some), labels[some], features.pooling)
            for some in (rows[~held], rows[held])
        )
        found = probe(train, scored, data.task.metrics[0], regression=regression, seeds=(seed,), device=place.device)
        scores.append(found.scores[:, 0])
    return np.asarray(np.mean(scores, axis=0))


#: most rows that the probe sees, and over how many splits of them its score is a mean
PROBED, SPLITS = 10_000, 5
#: what is compared with the probe
COMPARED = ("nu", "ratio", "vci", "cdnv", "h_score", "logme", "effective_rank", "anisotropy")


def _features(spec: RunSpec, rows: Rows, source: Checkpoint, place: Place) -> tuple[Array, int, Cost]:
    """The states (layers, rows, width), how many rows were cut, and what the pass took."""
    tokenizer = models.load_tokenizer(source)
    tokens = tokenize(rows, tokenizer, spec.max_length, key=source.fingerprint, cache=place.cache)
    key = _key(spec, tokens, str(place.device))
    if key not in _LAST:
        if spec.pooling == "ordinary":
            _require_words(tokens, rows, tokenizer)
        network = models.load(source, tokenizer, ("a", "b"), regression=False, seed=0)
        network.model.to(place.device)
        meter = Meter(Cost(device=str(place.device), threads=torch.get_num_threads()), place.device)
        meter.reset_peak()
        folder = place.folder / "features"
        meter.start()
        with Flops(meter).counted():
            made = extract(
                network, tokens, np.zeros(len(rows)), (spec.pooling,), precision=spec.precision, folder=folder
            )
        meter.stop()
        shutil.rmtree(folder, ignore_errors=True)  # the map stays open
        meter.cost.tokens = int(tokens.lengths.sum())
        _LAST.clear()
        _LAST[key] = (made[spec.pooling].hidden, tokens.truncated, meter.cost)
    hidden, truncated, cost = _LAST[key]
    return hidden, truncated, dataclasses.replace(cost)


def _key(spec: RunSpec, tokens: Tokens, device: str) -> str:
    digest = hashlib.sha256(repr((spec.weights, spec.pooling, spec.precision, device)).encode())
    for array in (tokens.ids, tokens.lengths, tokens.types):
        digest.update(b"-" if array is None else array.tobytes())
    return digest.hexdigest()


def _require_words(tokens: Tokens, rows: Rows, tokenizer: Any) -> None:
    """Raises UsageError naming the first row without an ordinary token."""
    ordinary = ~np.isin(tokens.ids, special_ids(tokenizer))
    bare = np.flatnonzero(np.add.reduceat(ordinary, tokens.offsets[:-1]) == 0)
    if len(bare):
        text = " / ".join(column[bare[0]] for column in rows.texts)
        raise UsageError(
            f"row {rows.index[bare[0]]} of train (from 0) has no ordinary token, its text is '{text[:40]}'; so have "
            f"{len(bare):,} of {len(rows):,} rows. Remove them, or use --pooling mean, which counts special tokens too"
        )
