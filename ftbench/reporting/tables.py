"""Records to one table: a row for each reference and each arm, compared with std where std learned."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from ftbench.reporting import stats
from ftbench.reporting.cells import (
    NO_REFERENCE,
    NO_SEED,
    Cell,
    Group,
    by_rows,
    setting_columns,
    to_cells,
    unique,
    varying,
)
from ftbench.reporting.notes import notes_for
from ftbench.reporting.searches import search_notes
from ftbench.types import Column, Record, Search, Table

_MEASURES = (
    Column("method", "method", numeric=False), Column("metric", "metric", numeric=False), Column("n", "n"),
    Column("failed", "fail"), Column("degenerate", "deg."), Column("mean", "mean"), Column("sd", "sd"),
    Column("median", "med."), Column("max", "max"), Column("vs_std", "vs std"), Column("vs_std_low", "low"),
    Column("vs_std_high", "high"), Column("vs_std_n", "pairs"), Column("verdict", "verdict", numeric=False),
    Column("cost", "cost"), Column("forward", "fwd"), Column("memory_ratio", "mem"),
    Column("memory", "memory"), Column("seconds", "time"),
)  # fmt: skip


def runs_table(records: Sequence[Record], searches: Sequence[Search] = (), *, selection: str = "last") -> Table:
    """One table of ``finetune`` and ``reference`` records: scores of the weights called ``selection``.

    What was chosen in ``searches`` is compared with the std that was searched alike; their trials are left out.

    A row may hold ``"style": "reference"``, or ``"style": "best"`` for the best mean of a group whose std learned.
    """
    runs = unique(records, searches)
    title = f"Validation scores, {selection} weights"
    if not runs:
        return Table(title, (Column("task", "task", numeric=False), *_MEASURES), (), ("No runs to show.",))
    arms, references = to_cells(runs, selection)
    settings = varying([*references, *arms])
    rows: list[dict[str, Any]] = []
    all_groups: list[Group] = []
    for beside, groups in by_rows(arms, references):
        rows += [_reference_row(cell, settings) for cell in beside]
        rows += [_arm_row(cell, group, settings) for group in groups for cell in group.arms]
        all_groups += groups
    notes = notes_for(runs, [*references, *arms], all_groups, rows, selection)
    notes += search_notes(runs.searches, [record for record in runs.apart if record.result.spec.is_trial])
    return Table(title, setting_columns(settings) + _MEASURES, tuple(rows), tuple(notes))


def _reference_row(cell: Cell, settings: list[str]) -> dict[str, Any]:
    row = {key: cell.setting(key) for key in settings} | {column.key: None for column in _MEASURES}
    measured = {"method": cell.method, "metric": cell.metric or None, "n": len(cell.scores), "mean": cell.mean}
    return {**row, **measured, "verdict": "", "style": "reference"}


def _arm_row(cell: Cell, group: Group, settings: list[str]) -> dict[str, Any]:
    row = {key: cell.setting(key) for key in settings} | {column.key: None for column in _MEASURES}
    row |= {
        "method": cell.method,
        "metric": cell.metric or None,
        "n": len(cell.scores),
        "failed": len(cell.records) - len(cell.ok),
        "degenerate": sum(stats.is_degenerate(record.result) for record in cell.ok),
        "verdict": group.verdict,
    }
    if cell.scores:
        row |= stats.summary(list(cell.scores.values()))._asdict()
    compared = group.std is not None and cell is not group.std and group.verdict in ("", NO_REFERENCE)
    pairs = stats.paired_difference(cell.scores, group.std.scores) if compared and group.std else None
    if pairs:
        row |= {"vs_std": pairs.mean, "vs_std_low": pairs.low, "vs_std_high": pairs.high, "vs_std_n": pairs.n}
    elif compared and group.is_unpaired(cell):
        row["verdict"] = NO_SEED
    row |= _cost(cell, group.std)
    return {**row, "style": "best"} if cell is group.best else row


def _cost(cell: Cell, std: Cell | None) -> dict[str, Any]:
    """Means over finished runs: seconds, bytes, forward passes a step, and seconds as a ratio to std's mean."""
    costs = [record.cost for record in cell.ok]
    seconds = _mean_measured(cost.training_seconds for cost in costs)
    base = _mean_measured(record.cost.training_seconds for record in std.ok) if std else None
    memory = _mean_measured(cost.peak_memory for cost in costs)
    base_memory = _mean_measured(record.cost.peak_memory for record in std.ok) if std else None
    steps = sum(cost.steps for cost in costs)
    return {
        "seconds": seconds,
        "cost": seconds / base if seconds and base else None,
        "forward": sum(cost.forward_passes for cost in costs) / steps if steps else None,
        "memory_ratio": memory / base_memory if memory and base_memory else None,
        "memory": memory,
    }


def _mean_measured(values: Iterable[float]) -> float | None:
    """Mean without the zeros, which stand for "not measured"."""
    measured = [value for value in values if value > 0]
    return statistics.fmean(measured) if measured else None
