"""Which arms a claim speaks of, and a row of its table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ftbench.reporting.cells import SETTINGS, Cell, Group, by_rows, to_cells
from ftbench.reporting.claims import COLUMNS, Claim, is_named
from ftbench.reporting.differences import Difference, is_compared
from ftbench.reporting.study import Study


def groups_of(claim: Claim, study: Study) -> Iterator[Group]:
    """The claim's rows and recipes on which std learned."""
    arms, references = to_cells(study.records, study.selection)
    for _, groups in by_rows(arms, references):
        for group in groups:
            task = (group.std or group.arms[0]).spec.task
            if is_compared(group) and (not claim.tasks or task in claim.tasks):
                yield group


def by_name(claim: Claim, group: Group) -> dict[str, Cell]:
    """The arms by the names that the claim has for them, but for names that several of them bear: nobody can say which
    one is meant."""
    return {name: alike[0] for name, alike in _alike(claim, group).items() if len(alike) == 1}


def ambiguous(claim: Claim, study: Study) -> list[str]:
    """Which of the claim's methods are left out where several arms bear the name: one text, or none."""
    groups = list(groups_of(claim, study))
    names = [name for name in (*claim.better, *claim.than) if any(len(_alike(claim, g)[name]) > 1 for g in groups)]
    return [f"several versions of {' and of '.join(names)} stand side by side: none is judged there"] if names else []


def _alike(claim: Claim, group: Group) -> dict[str, Sequence[Cell]]:
    names = (*claim.better, *claim.than)
    return {name: [cell for cell in group.arms if is_named(cell.method, (name,))] for name in names}


def row_of(d: Difference, says: str, cost: float | None = None) -> dict[str, Any]:
    """A comparison, and what it says of the claim."""
    row: dict[str, Any] = dict.fromkeys(column.key for column in COLUMNS) | {k: d.cell.setting(k) for k in SETTINGS}
    row |= {"method": d.cell.method, "than": d.std.method, "metric": d.cell.metric, "pairs": len(d.a), "verdict": says}
    row |= {"difference": float(np.mean(d.differences)), "basis": d.basis or None, "p_holm": d.p_holm, "cost": cost}
    return row | ({"low": d.headline.low, "high": d.headline.high} if d.headline else {})
