"""Every score beside the headline: other metrics, and splits such as MNLI's mismatched rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from ftbench.reporting.cells import Cell, by_rows, setting_columns, to_cells, unique, varying
from ftbench.types import Column, Record, Table
from ftbench.types.run import PART


def scores_table(records: Sequence[Record], *, selection: str = "last") -> Table | None:
    """Means over finished runs, a column for each metric and split; None where the headline is all there is."""
    arms, references = to_cells(unique(records), selection)
    found = sorted({name for cell in (*arms, *references) for name in _names(cell)}, key=_order)
    if all(len(_names(cell)) < 2 for cell in (*arms, *references)):
        return None
    settings = varying([*references, *arms])
    ordered = [
        cell
        for beside, groups in by_rows(arms, references)
        for cell in (*beside, *(cell for group in groups for cell in group.arms))
    ]
    rows = [{**{key: cell.setting(key) for key in settings}, **_row(cell)} for cell in ordered]
    columns = (
        *setting_columns(settings),
        Column("method", "method", numeric=False),
        Column("n", "n"),
        *(Column(_key(split, metric), _label(split, metric)) for split, metric in found),
    )
    return Table(f"All scores, mean over runs, {selection} weights", columns, tuple(rows))


def _names(cell: Cell) -> list[tuple[str, str]]:
    """(split, metric) of every score that the cell's runs have; the rows that chose the best epoch are no score."""
    names: dict[tuple[str, str], None] = {}
    for record in cell.ok:
        for split, scores in record.result.metrics.get(cell.selection, {}).items():
            if split != "selection" and not split.endswith(PART):
                names |= dict.fromkeys((split, metric) for metric in scores)
    return list(names)


def _row(cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {"method": cell.method, "n": len(cell.scores)}
    for split, metric in _names(cell):
        values = [record.result.score(metric, cell.selection, split) for record in cell.ok]
        kept = [value for value in values if value is not None and math.isfinite(value)]
        row[_key(split, metric)] = statistics.fmean(kept) if kept else None
    return {**row, "style": "reference"} if cell.reference else row


def _order(name: tuple[str, str]) -> tuple[bool, str, str]:
    """By name, validation first: what was just computed and what was read from disk give one table."""
    split, metric = name
    return split != "validation", split, metric


def _key(split: str, metric: str) -> str:
    return metric if split == "validation" else f"{split}_{metric}"


def _label(split: str, metric: str) -> str:
    return metric if split == "validation" else f"{metric} ({split})"
