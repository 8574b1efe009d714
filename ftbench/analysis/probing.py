"""The linear probe: how much of a task can be read off each layer of a frozen network by a linear model.

For each seed: a subsample of train, its features standardised by their own mean and deviation, then multinomial
logistic regression with an L2 penalty (ridge in a regression). The strength of the penalty is the one whose fits to
four fifths of the subsample score best on the fifth that they have not seen, and is then fitted to all of it. The rows
that are scored choose nothing. For its probes the text of the R3F paper (Aghajanyan et al. 2020) gives neither
optimiser nor strength, and its code leaves them out.

Selectivity (Hewitt and Liang 2019, arXiv 1909.03368) is what the probe scores above a control: the same probe at the
same strength with the labels shuffled, in train and among the rows that are scored. Their control gives each word type
one random label, which a probe can learn by heart and carry over to new text. No two of our texts share a label in
that way, so the control stays at chance, and selectivity is what the probe knows beyond the labels' frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftbench.analysis.linear import fit_ridge, outputs, singular_axes, standardiser
from ftbench.analysis.logistic import fit_logistic
from ftbench.errors import UsageError
from ftbench.metrics import LOWER_IS_BETTER, METRICS
from ftbench.types import Features

#: C of logistic regression and 1 / alpha of ridge: features have unit variance, so useful values are small
STRENGTHS = tuple(float(f"{10 ** (exponent / 2):.3g}") for exponent in range(-12, 3))
#: where there are too few rows to choose on
FALLBACK = 1e-2
#: the strength is chosen on so many parts of the rows in turn as make this number of rows: of few, on all
PARTS, ENOUGH = 5, 1000
#: numbers (1 GiB) of the layers that are solved together on a GPU; a CPU takes them one by one, for its cache
TOGETHER = 2**28

Array = np.ndarray[Any, np.dtype[Any]]


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
    """One subsample: the numbers of its rows, the part that each lies in, and the labels (2, rows), true and shuffled.
    ``known`` are these as class numbers in the order of ``classes``, or float64; ``answers`` those of the scored rows.
    """

    def __init__(
        self, train: Features, scored: Features, metric: str, regression: bool, seed: int, size: int | None
    ) -> None:
        self.train, self.scored, self.metric, self.regression = train, scored, metric, regression
        self.rows, self.parts = draw(train.labels, size, seed, regression=regression)
        labels = train.labels[self.rows]
        self.classes = np.unique(labels)
        if not regression:
            _require_classes(labels, np.union1d(train.labels, scored.labels))
        generator = _generator(seed, 1)
        self.labels = np.stack([labels, generator.permutation(labels)])
        self.answers = np.stack([scored.labels, generator.permutation(scored.labels)])
        known = self.labels.astype(np.float64) if regression else np.searchsorted(self.classes, self.labels)
        self.known = torch.from_numpy(known)

    def run(self, device: torch.device) -> tuple[Array, ...]:
        """Scores, controls and strengths, (layers,) each, and guesses (layers, rows)."""
        found: list[tuple[Array, ...]] = []
        for layers in self._groups(device):
            x = _load(self.train, layers, self.rows, device, "train")
            new = _load(self.scored, layers, None, device, "scored")
            mean, deviation = standardiser(x)
            kind = torch.float64 if self.regression else torch.float32
            x, new = ((part.to(kind) - mean.to(kind)) / deviation.to(kind) for part in (x, new))
            axes = singular_axes(x)
            found.append(self._fit(x @ axes, new @ axes))
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))

    def _groups(self, device: torch.device) -> Iterator[slice]:
        """Layers that are solved together."""
        scores = 5 * len(STRENGTHS) * len(self.classes)  # of a row on the way to the solution
        row = self.train.hidden.shape[2] + (0 if self.regression else scores)
        each = 1 if device.type == "cpu" else max(1, TOGETHER // (row * (len(self.rows) + len(self.answers[0]))))
        return (slice(start, start + each) for start in range(0, self.train.layers, each))

    def _fit(self, x: Tensor, new: Tensor) -> tuple[Array, ...]:
        known = self.known.to(x.device)
        best = self._choose(x, known[:1])
        guesses = self._guess(x, known, best[:, None].expand(-1, 2), new, tolerance=1e-8)
        scores, controls = (self._score(guesses[:, i], answers) for i, answers in enumerate(self.answers))
        return scores, controls, best.cpu().numpy(), guesses[:, 0]

    def _choose(self, x: Tensor, known: Tensor) -> Tensor:
        """For each layer the strength that scores best on rows it was not fitted to, the least of equals. (layers,)"""
        grid = torch.tensor(STRENGTHS, dtype=torch.float64, device=x.device).expand(len(x), -1)
        guesses, answers = [], []
        for part in range(self.parts.max() + 1):
            held = torch.from_numpy(self.parts == part).to(x.device)
            guesses.append(self._guess(x[:, ~held], known[:, ~held], grid, x[:, held], tolerance=1e-5))
            answers.append(self.labels[0][self.parts == part])
        if not guesses:
            return torch.full_like(grid[:, 0], FALLBACK)
        seen = np.concatenate(guesses, axis=2)
        scores = np.stack([self._score(layer, np.concatenate(answers)) for layer in seen])
        return grid[0, torch.from_numpy(np.argmax(scores * _sign(self.metric), axis=1)).to(x.device)]

    def _guess(self, x: Tensor, known: Tensor, strengths: Tensor, new: Tensor, *, tolerance: float) -> Array:
        """What models fitted to x say of ``new`` (layers, rows, width): labels (layers, problems, rows)."""
        if self.regression:
            return outputs(new, *fit_ridge(x, known, strengths))[:, :, 0].cpu().numpy()
        found = outputs(new, *fit_logistic(x, known, strengths, tolerance=tolerance))
        return np.asarray(self.classes[found.argmax(2).cpu().numpy()])

    def _score(self, guesses: Array, answers: Array) -> Array:
        """Of each row of guesses (k, rows): (k,)"""
        return np.array([METRICS[self.metric](guess, answers) for guess in guesses])


def draw(labels: Array, size: int | None, seed: int, *, regression: bool) -> tuple[Array, Array]:
    """A subsample: the numbers of its rows, sorted, and for each the part, from 0, in which it chooses the strength;
    -1 for rows that never do.

    size: with each class in proportion and none left out; all rows where None or more than there are
    A part is a fifth of each class, and there are as many as make 1,000 rows, five at most. A class of one row is in
    none: it has to be fitted.
    """
    generator = _generator(seed, 0)
    place, count = _places(labels, generator, regression=regression)
    rows = np.sort(np.argsort(place / count, kind="stable")[:size])
    place, count = _places(labels[rows], generator, regression=regression)
    wanted = min(PARTS, math.ceil(ENOUGH * PARTS / len(rows)))
    part = place % PARTS
    return rows, np.where((part < wanted) & (count > 1), part, -1)


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


def _load(features: Features, layers: slice, rows: Array | None, device: torch.device, name: str) -> Tensor:
    """(layers, rows, width) float32 of ``rows``, all where None. Raises UsageError for one that is not finite."""
    x = torch.from_numpy(features.take(layers, rows)).to(device)
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
