"""The linear probe: how much of a task can be read off each layer of a frozen network by a linear model.

For each seed: a subsample of train, its features standardised by their own mean and deviation, then multinomial
logistic regression with an L2 penalty (ridge in a regression). The strength of the penalty is the one that scores
best on a fifth of the subsample, and is then fitted to all of it. The rows that are scored choose nothing. For its
probes the R3F paper (Aghajanyan et al. 2020) gives neither optimiser nor strength, and its code leaves them out.

Selectivity (Hewitt and Liang 2019, arXiv 1909.03368) is what the probe scores above a control: the same probe at the
same strength with the labels shuffled, in train and among the rows that are scored. Their control gives each word type
one random label, which a probe can learn by heart and carry over to new text. No two of our texts share a label in
that way, so the control stays at chance, and selectivity is what the probe knows beyond the labels' frequencies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftbench.analysis.linear import fit_ridge, outputs, singular_basis, standardiser
from ftbench.analysis.logistic import fit_logistic
from ftbench.errors import UsageError
from ftbench.metrics import LOWER_IS_BETTER, METRICS
from ftbench.types import Features

#: C of logistic regression and 1 / alpha of ridge: features have unit variance, so useful values are small
STRENGTHS = tuple(float(f"{10 ** (exponent / 2):.3g}") for exponent in range(-12, 3))
#: where there are too few rows to choose on
FALLBACK = 1e-2
#: share of the rows that the strength is chosen on
SLICE = 0.2
#: features (1 GiB) of the layers that are solved together on a GPU; a CPU takes them one by one, for its cache
TOGETHER = 2**28

Array = np.ndarray[Any, np.dtype[Any]]
#: weights and biases, or basis and squares
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Probe:
    """Scores of a probe on each layer, lowest first: (layers, seeds) each.

    scores:    by ``metric``, of the rows given to be scored
    controls:  the same with shuffled labels
    strengths: the C of logistic regression or 1 / alpha of ridge that was chosen
    guesses:   what the probe says of the rows to be scored, (layers, seeds, rows)
    """

    metric: str
    scores: Array
    controls: Array
    strengths: Array
    guesses: Array

    @property
    def selectivity(self) -> Array:
        """How much better than the control, in units of the metric; higher is better also where the metric's lower is.
        (layers, seeds)"""
        return (self.scores - self.controls) * _sign(self.metric)


def probe(
    train: Features,
    scored: Features,
    metric: str,
    *,
    regression: bool = False,
    seeds: Sequence[int] = (0,),
    size: int | None = None,
    device: torch.device | str = "cpu",
) -> Probe:
    """Fits a probe to every layer of ``train`` and scores it on ``scored``, once for each seed.

    metric: name in METRICS. size: train rows in a subsample (all where None), drawn by seed with the classes in
    proportion. A seed also decides the rows that choose the strength, and shuffles the control's labels.

    Raises UsageError: features that are not finite (naming layer and row), one class in train, fewer rows than classes,
    and two sets of features of different layers or width.
    """
    if train.hidden.shape[::2] != scored.hidden.shape[::2]:
        of_train, of_scored = (f"{f.layers} layers of width {f.hidden.shape[2]}" for f in (train, scored))
        raise UsageError(
            f"the probe's train features have {of_train}, those to score {of_scored}: expected the same network's"
        )
    results = [_Seed(train, scored, metric, regression, seed, size).run(torch.device(device)) for seed in seeds]
    return Probe(metric, *(np.stack(parts, axis=1) for parts in zip(*results, strict=True)))


class _Seed:
    """One subsample: its rows, slice and labels. Labels are numbered by the classes in train; targets are
    (2, rows) in float64 or int64, the true ones and the control's."""

    def __init__(
        self, train: Features, scored: Features, metric: str, regression: bool, seed: int, size: int | None
    ) -> None:
        self.train, self.scored, self.metric, self.regression = train, scored, metric, regression
        self.rows, self.held = draw(train.labels, size, seed, regression=regression)
        labels = train.labels[self.rows]
        self.classes = np.unique(labels)
        if not regression:
            _require_classes(labels, np.union1d(train.labels, scored.labels))
        generator = _generator(seed, 1)
        self.labels = np.stack([labels, generator.permutation(labels)])
        self.answers = np.stack([scored.labels, generator.permutation(scored.labels)])
        known = self.labels.astype(np.float64) if regression else np.searchsorted(self.classes, self.labels)
        self.targets = torch.from_numpy(known)

    def run(self, device: torch.device) -> tuple[Array, ...]:
        """Scores, controls and strengths, (layers,) each, and guesses (layers, rows)."""
        found: list[tuple[Array, ...]] = []
        for layers in _groups(self.train, len(self.rows) + len(self.answers[0]), device):
            x = _load(self.train, layers, self.rows, device, "train")
            new = _load(self.scored, layers, None, device, "scored")
            mean, deviation = standardiser(x)
            kind = torch.float64 if self.regression else torch.float32
            found.append(self._fit(*((part.to(kind) - mean.to(kind)) / deviation.to(kind) for part in (x, new))))
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))

    def _fit(self, x: Tensor, new: Tensor) -> tuple[Array, ...]:
        targets = self.targets.to(x.device)
        basis = None if self.regression else singular_basis(x)
        best = self._choose(x, targets[:1], basis)
        models = self._solve(x, targets, best[:, None].expand(-1, 2), basis, tolerance=1e-8)
        guesses = self._decide(outputs(new, *models))
        scores, controls = (
            np.array([METRICS[self.metric](guess, answers) for guess in guesses[:, i]])
            for i, answers in enumerate(self.answers)
        )
        return scores, controls, best.cpu().numpy(), guesses[:, 0]

    def _choose(self, x: Tensor, targets: Tensor, basis: Pair | None) -> Tensor:
        """The strength of each layer that scores best on the slice, the smallest of equals. (layers,)"""
        if not self.held.any():
            return torch.full((len(x),), FALLBACK, dtype=torch.float64, device=x.device)
        grid = torch.tensor(STRENGTHS, dtype=torch.float64, device=x.device)
        held = torch.from_numpy(self.held).to(x.device)
        models = self._solve(x[:, ~held], targets[:, ~held], grid.expand(len(x), -1), basis, tolerance=1e-6)
        guesses, answers = self._decide(outputs(x[:, held], *models)), self.labels[0][self.held]
        scores = [[METRICS[self.metric](guess, answers) for guess in layer] for layer in guesses]
        return grid[torch.from_numpy(np.argmax(np.array(scores) * _sign(self.metric), axis=1)).to(x.device)]

    def _solve(self, x: Tensor, targets: Tensor, strengths: Tensor, basis: Pair | None, *, tolerance: float) -> Pair:
        if basis is None:
            return fit_ridge(x, targets, strengths)
        return fit_logistic(x, targets, strengths, basis, tolerance=tolerance)

    def _decide(self, found: Tensor) -> Array:
        """Outputs (layers, problems, outputs, rows) as classes or values, (layers, problems, rows)."""
        decided = found[:, :, 0] if self.regression else found.argmax(2)
        return decided.cpu().numpy() if self.regression else self.classes[decided.cpu().numpy()]


def draw(labels: Array, size: int | None, seed: int, *, regression: bool) -> tuple[Array, Array]:
    """A subsample: the numbers of its rows, sorted, and which of these (bool) the strength is chosen on.

    size: with each class in proportion and none left out; all rows where None or more than there are
    The strength is chosen on a fifth of each class, rounded down.
    """
    generator = _generator(seed, 0)
    place, count = _places(labels, generator, regression=regression)
    rows = np.sort(np.argsort(place / count, kind="stable")[:size])
    place, count = _places(labels[rows], generator, regression=regression)
    return rows, place < np.floor(count * SLICE)


def _generator(seed: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, purpose, 0x9806]))


def _places(labels: Array, generator: np.random.Generator, *, regression: bool) -> tuple[Array, Array]:
    """Each row's place among its class in a random order, from 0, and the size of the class."""
    order = generator.permutation(len(labels))
    kinds = np.zeros(len(labels), dtype=int) if regression else np.unique(labels, return_inverse=True)[1]
    place = np.empty(len(labels), dtype=int)
    for kind in range(kinds.max() + 1):
        members = order[kinds[order] == kind]
        place[members] = np.arange(len(members))
    return place, np.bincount(kinds)[kinds]


def _require_classes(labels: Array, classes: Array) -> None:
    if len(labels) < len(classes):
        raise UsageError(f"a probe for {len(classes)} classes has {len(labels)} train rows: expected at least as many")
    if len(np.unique(labels)) < 2:
        raise UsageError(f"all {len(labels)} train rows of the probe are of class {labels[0]}: expected two or more")


def _groups(features: Features, rows: int, device: torch.device) -> Iterator[slice]:
    """Layers that are solved together."""
    each = 1 if device.type == "cpu" else max(1, TOGETHER // (rows * features.hidden.shape[2]))
    return (slice(start, start + each) for start in range(0, features.layers, each))


def _load(features: Features, layers: slice, rows: Array | None, device: torch.device, name: str) -> Tensor:
    """(layers, rows, width) float32 of ``rows``, all where None. Raises UsageError for one that is not finite."""
    hidden = features.hidden[layers]
    x = torch.from_numpy(np.array(hidden if rows is None else hidden[:, rows])).to(device)
    finite = x.isfinite().all(-1)
    if not finite.all():
        layer, row = (int(i) for i in (~finite).nonzero()[0])
        raise UsageError(
            f"layer {layers.start + layer + 1} is NaN or infinite for {name} row "
            f"{row if rows is None else rows[row]}: a probe cannot be fitted to such features"
        )
    return x


def _sign(metric: str) -> int:
    return -1 if metric in LOWER_IS_BETTER else 1
