"""Many arms in one picture: who gets a name, and who stands so far off that the rest could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ftbench.reporting.cells import Cell
from ftbench.reporting.marks import MOST_LINES, Mark

T = TypeVar("T")
#: fewer than this many are all drawn
_FEWEST = 5
#: how many spreads from the median are still drawn
_REACH = 6


def far(means: Sequence[float], widths: Sequence[float] = ()) -> list[bool]:
    """Which of (n,) means would squeeze the others: more than six spreads from the median.

    The spread is the distance of the quartiles, or the median of ``widths`` (n,), the bars around the means, where that
    is more. None of fewer than five, nor where there is no spread.
    """
    values = np.asarray(means, dtype=np.float64)
    if len(values) < _FEWEST:
        return [False] * len(values)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    spread = max(high - low, float(np.median(widths)) if len(widths) else 0.0)
    return [bool(spread > 0 and abs(value - middle) > _REACH * spread) for value in values]


def apart(items: Sequence[T], means: Sequence[float], widths: Sequence[float] = ()) -> tuple[list[T], list[T]]:
    """The items (n,) that are drawn, and those that are ``far``."""
    away = far(means, widths)
    return (
        [item for item, left_out in zip(items, away, strict=True) if not left_out],
        [item for item, left_out in zip(items, away, strict=True) if left_out],
    )


def outside(said: Sequence[str]) -> list[Mark]:
    """The entries of the legend that name what is not drawn."""
    return [Mark("points", label=f"outside: {each}", faint=True) for each in said]


def best_first(cells: Sequence[Cell]) -> list[int]:
    """Places of cells with scores, the best mean first."""
    return sorted(range(len(cells)), key=lambda i: (cells[i].mean or 0.0) * (1 if cells[i].lower_is_better else -1))


def named(cells: Sequence[Cell], first: Sequence[int] = ()) -> list[int]:
    """Places of as many cells as colours tell apart: plain fine-tuning, then those of ``first``, then the best."""
    plain = [i for i, cell in enumerate(cells) if cell.plain]
    return list(dict.fromkeys([*plain, *first, *best_first(cells)]))[:MOST_LINES]
