"""One probe run: what is left in an encoder, measured on the rows of a task. Nothing is trained but linear probes.

    encoder   in evaluation mode, without its head: one pass over train and validation gives the features of all blocks
    probe     a linear model of each layer, ``repeats`` times on four fifths of the train rows, see ``analysis.probing``
    control   the same on shuffled labels
    collapse  metrics of each layer on the validation rows, some against the pretrained encoder's features of them
    language  the perplexity of validation rows, where the checkpoint has a language-model head: see ``forgetting``

R3F's release has no probing code, and its paper does not say which features it probes, how the probe is fitted or over
how many seeds: all of this is ours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftbench.analysis import probing
from ftbench.analysis.collapse import COLLAPSE, collapse
from ftbench.metrics import LOWER_IS_BETTER
from ftbench.models import backbone as models
from ftbench.models.locate import Checkpoint
from ftbench.training.batches import Tokens
from ftbench.training.cost import Meter
from ftbench.training.features import extract
from ftbench.training.forgetting import perplexity
from ftbench.training.run import Outcome, Place, apply_perturbations, tokenize_splits
from ftbench.training.watch import Control
from ftbench.types import Cost, Data, Features, Result, RunSpec

#: most validation rows that collapse is measured on, and most whose features are kept to compare seeds with
MEASURED, KEPT = 5_000, 1_000
#: share of the train rows that each repeat is fitted on
SUBSAMPLE = 0.8


def probe(spec: RunSpec, data: Data, source: Checkpoint, place: Place, control: Control) -> Outcome:
    """``metrics["layer 3"]`` is the third block's, with the splits ``validation``, ``control`` and ``collapse``;
    ``last`` is the top one's.

    Raises UsageError for one class, fewer train rows than classes, and features that are not finite; StoreError where
    the disk has no room for the features.
    """
    data, pretrained = apply_perturbations(spec, data), source.origin or source
    meter = Meter(Cost(device=str(place.device), threads=torch.get_num_threads()), place.device)
    meter.start()
    place.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.folder, prefix=".features-") as scratch:
        network = _network(spec, data, source, place, random=spec.encoder == "random")
        found = _features(spec, data, source, place, network, Path(scratch))
        train, validation = found["train"], found["validation"]
        fitted = probing.probe(
            train,
            validation,
            data.task.metrics[0],
            regression=data.task.kind == "regression",
            seeds=range(spec.repeats),
            size=_subsample(train, validation, regression=data.task.kind == "regression"),
            device=place.device,
        )
        reference = None
        if spec.encoder:
            first = _network(spec, data, pretrained, place, random=False)
            own = replace(data, splits={"validation": data.splits["validation"]})
            reference = _features(spec, own, pretrained, place, first, Path(scratch) / "first")["validation"]
        measured = measure(validation, reference)
        kept = np.asarray(validation.hidden[-1][:KEPT], dtype=np.float32)
        words = _tokens(spec, data, source, place, network)["validation"]
        left = perplexity(pretrained, network, words.take(np.arange(min(KEPT, len(words.lengths)))))
    meter.stop()
    meter.record_peak()
    metrics = _metrics(fitted, measured)
    if left is not None:
        metrics["last"] = {**metrics["last"], "language": {"perplexity": left}}
    result = Result(spec=spec, status="ok", metrics=metrics, facts=_facts(data, fitted, too_few(validation)))
    return Outcome(result, meter.cost, predictions=_predictions(data, fitted, kept))


def measure(features: Features, reference: Features | None) -> dict[int, dict[str, float]]:
    """layer -> collapse metric -> value, on at most ``MEASURED`` rows, drawn with seed 0.

    A metric that needs more rows, width or classes than there are is left out. An encoder with other layers or another
    number of them than the reference is not compared with it.
    """
    some = np.sort(np.random.default_rng(0).permutation(len(features.labels))[:MEASURED])
    own = _take(features, some)
    against = _take(reference, some) if reference and reference.layers == features.layers else None
    given = {"": True, "labels": _has_classes(own), "reference": against is not None}
    few = too_few(own)
    names = [name for name, card in COLLAPSE.items() if given[card.needs] and name not in few]
    measured: dict[int, dict[str, float]] = {layer: {} for layer in range(1, own.layers + 1)}
    for row in collapse(own, against, names):
        measured[row["layer"]][row["metric"]] = row["value"]
    return measured


def _network(spec: RunSpec, data: Data, source: Checkpoint, place: Place, *, random: bool) -> models.Backbone:
    tokenizer = models.load_tokenizer(source)
    regression = data.task.kind == "regression"
    network = models.load(source, tokenizer, data.labels, regression=regression, seed=spec.seed)
    if random:
        network.randomise(spec.seed)
    network.model.to(place.device)
    return network


def _tokens(spec: RunSpec, data: Data, source: Checkpoint, place: Place, network: models.Backbone) -> dict[str, Tokens]:
    """Of train and validation, as far as there are."""
    scored = replace(data, splits=_only(data.splits.items(), ("train", "validation")))
    return tokenize_splits(spec, scored, source, network.tokenizer, place)


def _features(
    spec: RunSpec, data: Data, source: Checkpoint, place: Place, network: models.Backbone, folder: Path
) -> dict[str, Features]:
    tokens = _tokens(spec, data, source, place, network)
    return {
        name: extract(network, words, data.splits[name].labels, (spec.pooling,), folder=folder / name)[spec.pooling]
        for name, words in tokens.items()
    }


def _only(items: Iterable[tuple[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in items if name in names}


def _take(features: Features, rows: np.ndarray[Any, Any]) -> Features:
    return Features(features.take(slice(None), rows), features.labels[rows], features.pooling)


def _metrics(fitted: probing.Probe, measured: dict[int, dict[str, float]]) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for layer, (scores, controls) in enumerate(zip(fitted.scores, fitted.controls, strict=True), start=1):
        metrics[f"layer {layer}"] = {
            "validation": {fitted.metric: float(scores.mean())},
            "control": {fitted.metric: float(controls.mean())},
            "collapse": measured[layer],
        }
    return {"last": metrics[f"layer {len(fitted.scores)}"], **metrics}


def too_few(features: Features) -> list[str]:
    """The collapse metrics that need more rows than there are, a larger width, or two rows of one class."""
    n, width = min(len(features.labels), MEASURED), features.hidden.shape[2]
    alone = _has_classes(features) and len(np.unique(features.labels)) == len(features.labels)
    return [
        name
        for name, card in COLLAPSE.items()
        if card.examples > n or card.width > width or (alone and name == "alignment")
    ]


def _has_classes(features: Features) -> bool:
    return features.labels.dtype.kind in "iub" and len(np.unique(features.labels)) > 1


def _subsample(train: Features, validation: Features, *, regression: bool) -> int:
    """Train rows of a repeat: ``SUBSAMPLE`` of all, and no fewer than there are classes."""
    size = round(SUBSAMPLE * len(train.labels))
    return size if regression else max(size, len(np.union1d(train.labels, validation.labels)))


def _facts(data: Data, fitted: probing.Probe, left_out: list[str]) -> dict[str, Any]:
    return {
        "headline": fitted.metric,
        "lower_is_better": fitted.metric in LOWER_IS_BETTER,
        "kind": data.task.kind,
        "labels": list(data.labels),
        "rows": {name: len(rows) for name, rows in data.splits.items()},
        "layers": len(fitted.scores),
        "scores": fitted.scores.tolist(),
        "controls": fitted.controls.tolist(),
        "strengths": fitted.strengths.tolist(),
        **({"left_out": left_out} if left_out else {}),
    }


def _predictions(data: Data, fitted: probing.Probe, kept: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The top layer's, of the first repeat; features of the first rows."""
    rows = data.splits["validation"]
    features = np.full(len(rows), None, dtype=object)
    for number, vector in enumerate(kept):
        features[number] = vector
    guesses = fitted.guesses[-1, 0]
    return {"example": rows.index, "label": rows.labels, "prediction": guesses, "features": features}
