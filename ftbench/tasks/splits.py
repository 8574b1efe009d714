"""Which rows go where: seeded, stratified choices of row positions. Knows neither files nor tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Fewer train rows than this are a mistake rather than a task.
FEWEST_ROWS = 10
#: A table without a validation split gives up this share of its rows, and never more than this many.
CARVED_SHARE, CARVED_MOST = 0.2, 1000
#: Fixed: which rows validate is part of the task, not of a run.
CARVED_SEED = 20060625


def stratified(strata: Array, size: int, generator: np.random.Generator, *, leave: int = 0) -> Array:
    """The first ``size`` positions of a seeded order in which every prefix has the strata's shares.

    strata: (n,) integers; size: 0 to n. Returns (size,) positions. A longer choice by an equally
    seeded generator starts with the shorter one. First comes one row of each stratum (the largest
    first), then each seat goes by the quota method of Balinski and Young (1975), so that a stratum's
    count is its share rounded down or up as soon as every stratum is owed a row. ``leave`` keeps that
    many rows of each stratum out of the choice, as far as ``size`` permits.
    """
    strata = np.asarray(strata)
    _, strata, counts = np.unique(strata, return_inverse=True, return_counts=True)
    shuffled = generator.permutation(len(strata))
    queues = [shuffled[strata[shuffled] == stratum] for stratum in range(len(counts))]
    caps = np.maximum(counts - leave, 0)
    if caps.sum() < size:
        caps = counts
    taken = np.zeros_like(counts)
    chosen = np.empty(size, dtype=np.int64)
    for seat in range(size):
        stratum = _next_stratum(counts, caps, taken, seat)
        chosen[seat] = queues[stratum][taken[stratum]]
        taken[stratum] += 1
    return chosen


def _next_stratum(counts: Array, caps: Array, taken: Array, seat: int) -> int:
    """Who gets seat number ``seat`` (from 0), given what each stratum (strata,) has taken so far."""
    open_ = taken < caps
    missing = open_ & (taken == 0)
    if missing.any():
        return int(np.argmax(np.where(missing, counts, -1)))
    # whole numbers, so that "not above its share" is exact: taken < counts / total * seats
    below = open_ & (taken * counts.sum() < counts * (seat + 1))
    eligible = below if below.any() else open_
    return int(np.argmax(np.where(eligible, counts / (taken + 1), -1.0)))


def random_or_stratified(
    labels: Array, size: int, generator: np.random.Generator, *, classes: bool, leave: int = 0
) -> Array:
    """``stratified`` for class ids, the head of a plain permutation for the targets of a regression."""
    return stratified(labels, size, generator, leave=leave) if classes else generator.permutation(len(labels))[:size]


def carve(labels: Array, *, classes: bool) -> tuple[Array, Array]:
    """Positions of train and of validation, each in the order of the table, for one without a validation split.

    labels: (n,) class ids or targets, n at least 2. Validation gets a fifth, at most 1,000 rows, and
    one row of each class that has two; a class with a single row stays in train.
    """
    size = max(1, round(CARVED_SHARE * len(labels)))
    if classes:
        counts = np.unique(labels, return_counts=True)[1]
        size = max(size, int((counts > 1).sum()))
        size = min(size, max(1, int((counts - 1).sum())))
    generator = np.random.Generator(np.random.PCG64(CARVED_SEED))
    size = min(size, CARVED_MOST, len(labels) - 1)
    validation = np.sort(random_or_stratified(labels, size, generator, classes=classes, leave=1))
    return np.setdiff1d(np.arange(len(labels)), validation), validation
