"""Whether a curve over layers stays the same: for smaller, less balanced or noisier sets, and for other measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftbench.analysis.grouping import Array


def spearman(a: Array, b: Array) -> float:
    """Rank correlation of two curves (layers,), equal values sharing their mean rank; infinite values rank last.

    Layers without a value (NaN) in one of them are left out. NaN where fewer than three are left, and where a curve is
    constant. With six layers chance gives 0.886 or more, of either sign, in 1 of 30 cases, with twelve 0.587 in 1 of
    20.
    """
    from scipy.stats import rankdata

    both = ~(np.isnan(a) | np.isnan(b))
    ranks, others = rankdata(a[both]), rankdata(b[both])
    if len(ranks) < 3 or np.ptp(ranks) == 0 or np.ptp(others) == 0:
        return float("nan")
    return float(np.corrcoef(ranks, others)[0, 1])


@dataclass(frozen=True)
class Agreement:
    """A curve against the one of the full set: rank correlation, and layers from the full set's best layer to its own
    (above 0: upwards)."""

    spearman: float
    drift: int


def agreement(curve: Array, full: Array) -> Agreement:
    """nu of a subset against nu of the full set, (layers,) each; the lowest of equals counts as best."""
    return Agreement(spearman(curve, full), int(np.argmin(curve)) - int(np.argmin(full)))
