"""Reference rows: what the task gives away without fine-tuning, from one forward pass.

majority  the most frequent training class (``mean`` in regression)
cosine    pairs only: logistic regression (ridge) on the cosine of the two texts' mean-pooled embeddings
linear    logistic regression (ridge) on standardised mean-pooled features of the frozen encoder; the
          strength is chosen on a fifth of train, then refitted on all of it

A comparison of methods means little where fine-tuning does not beat these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ftbench.metrics import LOWER_IS_BETTER
from ftbench.models import backbone as models
from ftbench.models.linear import on_frozen
from ftbench.models.locate import Checkpoint
from ftbench.models.pooling import mean
from ftbench.training.batches import Tokens, tokenize
from ftbench.training.cost import Meter
from ftbench.training.evaluate import over_rows, score, score_split
from ftbench.training.floors import floors
from ftbench.training.run import Outcome, Place, apply_perturbations, constant_predictions
from ftbench.training.watch import Control
from ftbench.types import Cost, Data, Result, Rows, RunSpec

#: inverse strengths of L2; the features have unit variance, so useful values are small
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
SLICE = 0.2
Array = np.ndarray[Any, np.dtype[Any]]


def reference(spec: RunSpec, data: Data, source: Checkpoint, place: Place, control: Control) -> Outcome:
    """Scores the references on every scored split of ``spec``: ``metrics[reference][split]``.

    Those of summarization are ``training.floors``.
    """
    if data.task.kind == "summarization":
        return floors(spec, data, place)
    data = apply_perturbations(spec, data)
    regression = data.task.kind == "regression"
    tokenizer = models.load_tokenizer(source)
    network = models.load(source, tokenizer, data.labels, regression=regression, seed=spec.seed)
    network.model.to(place.device)
    meter = Meter(Cost(device=str(place.device), threads=torch.get_num_threads()), place.device)
    meter.start()
    train_rows = data.splits["train"]
    scored = {name: rows for name, rows in data.splits.items() if name not in ("train", "selection")}

    def encode(rows: Rows) -> Array:
        tokens = tokenize(rows, tokenizer, spec.max_length, key=source.fingerprint, cache=place.cache)
        return pooled(network, tokens)

    def cosine(rows: Rows) -> Array:
        return _cosine(encode(_column(rows, 0)), encode(_column(rows, 1)))

    def guess(features: Callable[[Rows], Array]) -> tuple[Any, dict[str, Array]]:
        model = linear_model(
            features(train_rows), train_rows.labels, regression=regression, metric=data.task.metrics[0]
        )
        return model, {name: np.asarray(model.predict(features(rows))) for name, rows in scored.items()}

    guesses = {"mean" if regression else "majority": {
        name: constant_predictions(train_rows, rows, regression=regression) for name, rows in scored.items()
    }}  # fmt: skip
    if len(data.task.inputs) == 2:
        _, guesses["cosine"] = guess(cosine)
    model, guesses["linear"] = guess(encode)
    meter.stop()
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for reference, found in guesses.items():
        metrics[reference] = {}
        for name, rows in scored.items():
            metrics[reference] |= score_split(name, rows, found[name], data.task.metrics)
    facts = {
        "headline": data.task.metrics[0],
        "lower_is_better": data.task.metrics[0] in LOWER_IS_BETTER,
        "rows": {name: len(rows) for name, rows in data.splits.items()},
    }
    rows = data.splits["validation"]
    predictions = {
        "example": rows.index,
        "label": rows.labels,
        **{n: found["validation"] for n, found in guesses.items()},
    }
    result = Result(spec=spec, status="ok", metrics=metrics, facts=facts)
    kept = on_frozen(network, *coefficients(model, len(data.labels) or 1))
    return Outcome(result, meter.cost, predictions=predictions, backbone=kept)


def pooled(network: models.Backbone, tokens: Tokens) -> Array:
    """Mean over real tokens of the encoder's last hidden states, float32, (n, width)."""

    return over_rows(network, tokens, lambda inputs: mean(network.hidden(inputs), inputs["attention_mask"]))


def fit_linear(train_x: Array, train_y: Array, x: Array, *, regression: bool, metric: str) -> Array:
    """Predictions (m,) for features x (m, width) of a linear model fitted on train_x (n, width), train_y (n,)."""
    return np.asarray(linear_model(train_x, train_y, regression=regression, metric=metric).predict(x))


def linear_model(train_x: Array, train_y: Array, *, regression: bool, metric: str) -> Any:
    """The fitted scikit-learn pipeline: standardised features, then the linear model; see the module. Where one class
    was drawn it always says that one."""
    if not regression and len(np.unique(train_y)) < 2:
        from sklearn.dummy import DummyClassifier

        return DummyClassifier(strategy="most_frequent").fit(train_x, train_y)
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fit(strength: float, rows: Array) -> Any:
        model = make_pipeline(StandardScaler(), _linear_model(strength, regression=regression))
        return model.fit(train_x[rows], train_y[rows])

    everything = np.arange(len(train_y))
    fitted_on, chosen_on = _slice(train_y, regression=regression)
    if len(chosen_on) == 0 or (not regression and len(np.unique(train_y[fitted_on])) < 2):
        best = 1e-2
    else:
        sign = -1 if metric in LOWER_IS_BETTER else 1
        scores = [
            sign * score(fit(c, fitted_on).predict(train_x[chosen_on]), train_y[chosen_on], [metric])[metric]
            for c in STRENGTHS
        ]
        best = STRENGTHS[int(np.argmax(scores))]
    return fit(best, everything)


def coefficients(model: Any, outputs: int) -> tuple[Array, Array]:
    """Weight (outputs, width) and bias (outputs,) of ``linear_model`` for features as they are: their softmax, or the
    one number of a regression, is what the pipeline predicts. A class that it has not seen gets a bias of -1e4."""
    if not hasattr(model, "named_steps"):
        weight, bias, seen = np.zeros((1, model.n_features_in_)), np.zeros(1), model.classes_
    else:
        scaler, last = (step for _, step in model.steps)
        weight = np.atleast_2d(last.coef_) / scaler.scale_
        bias = np.atleast_1d(last.intercept_) - weight @ scaler.mean_
        seen = getattr(last, "classes_", np.arange(1))
        if len(seen) == 2:  # one logit for the second class
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    rows = seen.astype(np.int64)
    whole, ends = np.zeros((outputs, weight.shape[1])), np.full(outputs, -1e4)
    whole[rows], ends[rows] = weight, bias
    return whole, ends


def _linear_model(strength: float, *, regression: bool) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return Ridge(alpha=1 / strength) if regression else LogisticRegression(C=strength, max_iter=2000)


def _slice(labels: Array, *, regression: bool) -> tuple[Array, Array]:
    """Positions to fit on and to choose on: a fixed fifth of every class."""
    generator = np.random.Generator(np.random.PCG64(20))
    groups = [np.arange(len(labels))] if regression else [np.flatnonzero(labels == c) for c in np.unique(labels)]
    chosen = [generator.permutation(group)[: int(len(group) * SLICE)] for group in groups]
    held = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), held), held


def _cosine(a: Array, b: Array) -> Array:
    """Cosine of each row of a and b, (n, 1)."""
    product = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return np.asarray(product[:, None])


def _column(rows: Rows, number: int) -> Rows:
    return replace(rows, texts=(rows.texts[number],))
