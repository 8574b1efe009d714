"""Pictures as data: what is drawn, not how. ``svg`` draws them for the page, ``figures`` for papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: charts of one kind are drawn for at most so many sets of rows
MOST = 24
#: lines in one chart; more could not be told apart
MOST_LINES = 8


@dataclass(frozen=True)
class Mark:
    """Something drawn. ``tone`` picks colour, shape and dashes; what shares a tone belongs together.

    kind:  points at (x, y); a line through them; bars from ``low`` to ``high`` at y (thin ones for what is beside
           the point); a rule, upright at each x; a band, upright from ``low`` to ``high``
    names: what the pointer shows of each point
    """

    kind: Literal["points", "line", "bars", "thin bars", "rule", "band"]
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    label: str = ""
    tone: int = 0
    faint: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """One picture. With ``categories`` y is their place, the first one on top; ``log`` is of x.

    hundredths: the axis, x or y, whose numbers are shown a hundred times as large (ROUGE)
    """

    name: str
    title: str
    x: str
    y: str
    marks: tuple[Mark, ...]
    categories: tuple[str, ...] = ()
    log: bool = False
    note: str = ""
    hundredths: Literal["", "x", "y"] = ""


def legend(marks: Sequence[Mark]) -> list[Mark]:
    """The marks whose labels a legend has: of those with one label and tone the first."""
    first: dict[tuple[str, int], Mark] = {}
    for mark in marks:
        first.setdefault((mark.label, mark.tone), mark)
    return [mark for mark in first.values() if mark.label]
