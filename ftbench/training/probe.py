"""One probe run: what is left in an encoder, measured on the rows of a task. Nothing is trained but linear probes.

    encoder -> one pass over train and validation -> features of every block
    probe     a linear model a layer on standardised features, see ``analysis.probing``
    control   the same on shuffled labels: what a probe of that size learns by heart
    collapse  metrics of every layer on the validation rows, against the pretrained encoder's features of them

The encoder is in evaluation mode, its head is not used. R3F's release has no probing code, and its paper does not say
which features it probes, how the probe is fitted or over how many seeds: all of this is ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ftbench.analysis.collapse import collapse
from ftbench.analysis.probing import probe_layers
from ftbench.metrics import LOWER_IS_BETTER
from ftbench.models import backbone as models
from ftbench.models.locate import Checkpoint
from ftbench.training.cost import Meter
from ftbench.training.features import extract
from ftbench.training.optim import mix
from ftbench.training.run import Outcome, Place, apply_perturbations, tokenize_splits
from ftbench.training.watch import Control
from ftbench.types import Cost, Data, Features, Result, RunSpec

#: most validation rows that collapse is measured on, and most whose features are kept for comparing seeds
MEASURED, KEPT = 5_000, 1_000


def probe(spec: RunSpec, data: Data, source: Checkpoint, place: Place, control: Control) -> Outcome:
    """``metrics["layer 3"]``: of the third block, with the splits ``validation``, ``control`` and ``collapse``.
    ``last`` is the top one.

    Raises UsageError for one class, fewer examples than a metric needs, and features that are not finite.
    """
    data = apply_perturbations(spec, data)
    meter = Meter(Cost(device=str(place.device), threads=torch.get_num_threads()), place.device)
    meter.start()
    features = _features(spec, data, source, place)
    regression = data.task.kind == "regression"
    train, validation = features["train"], features["validation"]
    found = probe_layers(train, validation, data.task.metrics, repeats=spec.repeats, regression=regression)
    measured = _collapse(spec, data, source, place, validation)
    meter.stop()
    meter.record_peak()
    metrics = {
        f"layer {one.layer}": {"validation": one.scores, "control": one.control, "collapse": measured[one.layer]}
        for one in found
    }
    headline = data.task.metrics[0]
    facts = {
        "headline": headline,
        "lower_is_better": headline in LOWER_IS_BETTER,
        "kind": data.task.kind,
        "labels": list(data.labels),
        "rows": {name: len(rows) for name, rows in data.splits.items()},
        "layers": validation.layers,
        "strength": [one.strength for one in found],
        "repeats": [one.repeats for one in found],
    }
    result = Result(
        spec=spec, status="ok", metrics={"last": metrics[f"layer {validation.layers}"], **metrics}, facts=facts
    )
    rows = data.splits["validation"]
    kept = np.full(len(rows), None, dtype=object)
    kept[:KEPT] = list(np.asarray(validation.hidden[-1][:KEPT], dtype=np.float32))
    predictions = {"example": rows.index, "label": rows.labels, "prediction": found[-1].predictions, "features": kept}
    return Outcome(result, meter.cost, predictions=predictions)


def _features(
    spec: RunSpec, data: Data, source: Checkpoint, place: Place, *, random: bool | None = None
) -> dict[str, Features]:
    """Features of every split."""
    tokenizer = models.load_tokenizer(source)
    regression = data.task.kind == "regression"
    network = models.load(source, tokenizer, data.labels, regression=regression, seed=spec.seed)
    if spec.encoder == "random" if random is None else random:
        network.randomise(mix(spec.seed, "random encoder"))
    network.model.to(place.device)
    tokens = tokenize_splits(spec, data, source, tokenizer, place)
    return {
        name: extract(network, tokens[name], rows.labels, (spec.pooling,), folder=place.folder)[spec.pooling]
        for name, rows in data.splits.items()
        if name in ("train", "validation")
    }


def _collapse(
    spec: RunSpec, data: Data, source: Checkpoint, place: Place, validation: Features
) -> dict[int, dict[str, float]]:
    """layer -> metric -> value, on at most ``MEASURED`` rows drawn with seed 0."""
    reference = None
    if spec.encoder:
        rows = {"validation": data.splits["validation"]}
        reference = _features(spec, replace(data, splits=rows), source.origin or source, place, random=False)[
            "validation"
        ]
    some = np.sort(np.random.default_rng(0).permutation(len(validation.labels))[:MEASURED])
    measured: dict[int, dict[str, float]] = {}
    for row in collapse(_take(validation, some), _take(reference, some) if reference else None):
        measured.setdefault(row["layer"], {})[row["metric"]] = row["value"]
    return measured


def _take(features: Features, rows: np.ndarray[Any, Any]) -> Features:
    return Features(features.hidden[:, rows], features.labels[rows], features.pooling)
