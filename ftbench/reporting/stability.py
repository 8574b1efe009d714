"""How much seeds change: scores, single predictions, and what the probabilities are worth."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from ftbench.reporting import agreement, stats
from ftbench.reporting.cells import Cell, by_rows, setting_columns, to_cells, unique, varying
from ftbench.reporting.predictions import read_columns
from ftbench.types import Column, Record, Table

RULE = (
    "Stability over seeds: sd of the score; disagree, the share of test examples on which two runs differ, on "
    "average over pairs; kappa (Fleiss), agreement beyond chance; JSD, divergence of their probabilities in bits; ece "
    "and brier, calibration of single runs (lower is better). Two methods of one sd can differ much in the rest."
)
#: pairs of runs grow with the square: the first so many runs of an arm are compared
MOST = 25
_COLUMNS = (
    Column("method", "method", numeric=False), Column("metric", "metric", numeric=False), Column("n", "n"),
    Column("failed", "fail"), Column("degenerate", "deg."), Column("sd", "sd"), Column("disagreement", "disagree"),
    Column("kappa", "kappa"), Column("jsd", "JSD"), Column("ece", "ece"), Column("brier", "brier"),
)  # fmt: skip


def stability_table(records: Sequence[Record], *, selection: str = "last") -> Table | None:
    """A row for each arm with two runs or more; None without one."""
    arms, references = to_cells(unique(records), selection)
    ordered = [cell for _, groups in by_rows(arms, references) for group in groups for cell in group.arms]
    cells = [cell for cell in ordered if len(cell.records) > 1]
    if not cells:
        return None
    settings = varying(arms)
    rows = tuple({key: cell.setting(key) for key in settings} | _row(cell) for cell in cells)
    notes = [RULE, stats.DEGENERATE_RULE]
    if any(row["n"] > 1 and row["disagreement"] is None for row in rows):
        notes.append("Without kept predictions of the last weights (or in regression) only scores can be compared.")
    return Table(f"Stability over seeds, {selection} weights", setting_columns(settings) + _COLUMNS, rows, tuple(notes))


def _row(cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(column.key for column in _COLUMNS)
    scores = list(cell.scores.values())
    row |= {
        "method": cell.method, "metric": cell.metric or None, "n": len(scores),
        "failed": len(cell.records) - len(cell.ok),
        "degenerate": sum(stats.is_degenerate(record.result) for record in cell.ok),
        "sd": statistics.stdev(scores) if len(scores) > 1 else None,
    }  # fmt: skip
    for name in ("ece", "brier"):
        found = [score for record in cell.ok if (score := record.result.score(name, cell.selection)) is not None]
        row[name] = statistics.fmean(found) if found else None
    return row | (_agreement(cell) if cell.selection == "last" else {})


def _agreement(cell: Cell) -> dict[str, Any]:
    """Empty for a regression, and where runs were scored on other examples."""
    runs = [r for r in cell.ok if r.result.facts.get("kind") != "regression"][:MOST]
    read = [read_columns(record, ("example", "prediction", "probabilities")) for record in runs]
    kept = [columns for columns in read if columns is not None]
    if len(kept) < 2 or len(kept) < len(read) or any(not _alike(kept[0], columns) for columns in kept[1:]):
        return {}
    predictions = np.stack([columns["prediction"] for columns in kept])
    return {
        "disagreement": agreement.disagreement(predictions),
        "kappa": agreement.fleiss_kappa(predictions),
        "jsd": agreement.mean_jsd(np.stack([columns["probabilities"] for columns in kept])),
    }


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    same = np.array_equal(one["example"], other["example"])
    return same and one["probabilities"].shape == other["probabilities"].shape
