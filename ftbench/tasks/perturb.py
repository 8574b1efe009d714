"""Rows made scarcer, less balanced or noisier: subsets, flipped labels, a selection split, a limit. Pure and seeded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ftbench.errors import UsageError
from ftbench.tasks.splits import random_or_stratified
from ftbench.types.task import Data, Rows

#: One stream of draws for each purpose: asking for noise must not change which rows are chosen.
_SIZE, _FLIP, _TO, _SELECT, _LIMIT, _IMBALANCE, _FOLDS = range(7)


def perturb(
    data: Data,
    *,
    imbalance: float | None = None,
    train_size: int | None = None,
    label_noise: float = 0.0,
    data_seed: int = 0,
    select_on: float = 0.0,
    limit: int | None = None,
    folds: int = 0,
) -> Data:
    """``data`` with fewer or noisier rows; unchanged, whatever the seed, where nothing is asked.

    In this order:

    folds        train is cut into so many stratified parts, and one takes the place of validation: number ``data_seed %
                 folds`` of the cut drawn with ``data_seed // folds``. So that many data seeds hold every row out once
    imbalance    the largest part of train in which the rarest class has this fraction of the rows of the most
                 frequent one, those between falling geometrically (Cui et al. 2019, arXiv 1901.05555)
    train_size   the first rows of a stratified order of train: fewer are always among more
    label_noise  this fraction of the train labels becomes another class, each with equal chance. Draws
                 belong to a row's ``index``: a row flipped at 0.1 is flipped alike at 0.2, and a
                 row draws the same in every subset
    select_on    this fraction of train, noise included, becomes the split ``selection``
    limit        at most this many rows of each split, the first of a stratified order

    Raises UsageError: more rows asked for than there are, noise or imbalance for a regression, a ``select_on`` that
    leaves no row on one side, more folds than rows.
    """
    splits = dict(data.splits)
    classes = data.task.kind == "classification"
    train = splits["train"]
    if folds:
        train, splits["validation"] = _fold(train, folds, data_seed, classes)
    if imbalance is not None:
        train = _imbalanced(data, train, imbalance, data_seed)
    if train_size is not None:
        if train_size > len(train):
            left = f" at imbalance {imbalance:g}" if imbalance is not None else ""
            raise UsageError(
                f"train-size is {train_size:,}: task '{data.task.name}' has {len(train):,} train rows{left}"
            )
        train = train.take(random_or_stratified(train.labels, train_size, _draws(data_seed, _SIZE), classes=classes))
    if label_noise:
        train = _flip(data, train, label_noise, data_seed)
    if select_on:
        size = round(select_on * len(train))
        if not 1 <= size < len(train):
            raise UsageError(
                f"select-on is {select_on:g}: of {len(train):,} train rows that leaves {len(train) - size:,} to train "
                f"on and {size:,} to select on, expected at least 1 each"
            )
        draws = _draws(data_seed, _SELECT)
        chosen = random_or_stratified(train.labels, size, draws, classes=classes, leave=1)
        splits["selection"] = train.take(chosen)
        train = train.take(np.setdiff1d(np.arange(len(train)), chosen))
    splits["train"] = train
    if limit is not None:
        splits = {name: _limited(name, rows, limit, data_seed, classes) for name, rows in splits.items()}
    return replace(data, splits=splits)


def _fold(train: Rows, folds: int, data_seed: int, classes: bool) -> tuple[Rows, Rows]:
    """What is trained on and what is held out, each in train's order; a class keeps a row to train on."""
    n = len(train)
    if folds > n:
        raise UsageError(f"folds is {folds}: expected at most the {n:,} train rows")
    order = random_or_stratified(train.labels, n, _draws(data_seed // folds, _FOLDS), classes=classes)
    held = np.array_split(order, folds)[data_seed % folds]
    if classes:
        names, counts = np.unique(train.labels, return_counts=True)
        gone = np.unique(train.labels[held], return_counts=True)
        whole = [c for c, k in zip(*gone, strict=True) if k == counts[names == c][0]]
        first = [np.flatnonzero(train.labels[held] == c)[0] for c in whole]
        held = np.delete(held, first)
    held = np.sort(held)
    return train.take(np.setdiff1d(np.arange(n), held)), train.take(held)


def _draws(data_seed: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([data_seed, purpose]))


def _imbalanced(data: Data, train: Rows, ratio: float, data_seed: int) -> Rows:
    """``train`` with each class cut to its place in the geometric fall, at least one row. Raises UsageError."""
    if data.task.kind != "classification":
        raise UsageError(f"imbalance is between classes: task '{data.task.name}' is a {data.task.kind} and has none")
    classes, counts = np.unique(train.labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    weights = ratio ** (np.arange(len(classes)) / max(1, len(classes) - 1))
    most = (counts[order] / weights).min()
    shuffled = _draws(data_seed, _IMBALANCE).permutation(len(train))
    kept = [
        shuffled[train.labels[shuffled] == classes[k]][: max(1, int(most * weight + 1e-9))]
        for k, weight in zip(order, weights, strict=True)
    ]
    return train.take(np.sort(np.concatenate(kept)))


def _flip(data: Data, train: Rows, noise: float, data_seed: int) -> Rows:
    """``train`` with exactly round(noise x rows) labels moved to another class. Raises UsageError for a regression."""
    if data.task.kind != "classification":
        raise UsageError(f"label-noise flips classes: task '{data.task.name}' is a {data.task.kind} and has none")
    if not len(train):
        return train
    # one draw for each row number up to the last; how many are drawn does not change the first ones
    drawn = int(train.index.max()) + 1
    order: np.ndarray[Any, Any] = _draws(data_seed, _FLIP).random(drawn)[train.index]
    steps = _draws(data_seed, _TO).random(drawn)[train.index] * (len(data.labels) - 1)
    flipped = np.argsort(order, kind="stable")[: round(noise * len(train))]
    labels = train.labels.copy()
    labels[flipped] = (labels[flipped] + 1 + steps[flipped].astype(np.int64)) % len(data.labels)
    return train.with_labels(labels)


def _limited(name: str, rows: Rows, limit: int, data_seed: int, classes: bool) -> Rows:
    """Scored rows are the same for every data seed. Evenly spaced ones would not do: their order may repeat."""
    if len(rows) <= limit:
        return rows
    seed = data_seed if name == "train" else 0
    return rows.take(random_or_stratified(rows.labels, limit, _draws(seed, _LIMIT), classes=classes))
