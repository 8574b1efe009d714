"""What a score costs: seconds, FLOPs, memory, parameters, tries."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from ftbench.reporting import budget
from ftbench.reporting.cells import RECIPE_AXES, Cell, by_rows, setting_columns, to_cells, unique, varying
from ftbench.reporting.sensitivity import POINT
from ftbench.types import Column, Record, Table

RULE = (
    "Training seconds (CPU time of all threads, or wall time on a GPU), FLOPs of the training passes, peak memory and "
    "trained parameters, means over finished runs. front: which of the four nobody on these rows beats without scoring "
    "less (s seconds, f FLOPs, m memory, p parameters; only where all were measured). to best: seconds until a run "
    "first scored within 1 point of its own best, by its share of steps."
)
SEVERAL = (
    "Runs come from several devices or thread counts: seconds and memory do not compare, so they have no front. FLOPs "
    "and parameters do."
)
BUDGET = (
    "Expected best score of k finished runs drawn without replacement from a method's runs at all its settings and "
    "seeds (unbiased; a search that picks the best of k gets this on the data it picks by). A run that failed or has "
    "no score (fail) is none of the k, but is paid for: time is the seconds of all runs, over the finished ones. in "
    "budget: the best of as many as fit into the seconds named, which is what the method with the fewest seconds of "
    "runs took in all."
)
NO_BUDGET = (
    "Runs come from several devices or thread counts: seconds do not compare, so there is no budget of them. The best "
    "of k runs does."
)
TRIES = (1, 2, 5, 10, 20, 50)
_COST = (
    Column("method", "method", numeric=False), Column("metric", "metric", numeric=False), Column("n", "n"),
    Column("mean", "mean"), Column("seconds", "time"), Column("to_best", "to best"), Column("flops", "FLOPs"),
    Column("memory", "memory"), Column("parameters", "params"), Column("forward", "fwd"),
    Column("front", "front", numeric=False),
)  # fmt: skip


def cost_table(records: Sequence[Record], *, selection: str = "last") -> Table | None:
    """A row for each arm with a score; None without one."""
    arms, references = to_cells(unique(records), selection)
    settings = varying(arms) if arms else []
    rows, several = [], False
    for _, groups in by_rows(arms, references):
        cells = [cell for group in groups for cell in group.arms if cell.scores]
        measured = [_measured(cell) for cell in cells]
        comparable = in_one_place(cells)
        several |= not comparable
        _mark_fronts(cells, measured, comparable=comparable)
        rows += [{key: c.setting(key) for key in settings} | m for c, m in zip(cells, measured, strict=True)]
    if not rows:
        return None
    return Table("Cost", setting_columns(settings) + _COST, tuple(rows), (RULE, *((SEVERAL,) if several else ())))


def in_one_place(cells: Sequence[Cell]) -> bool:
    """Whether all runs had one device and as many threads: only then do seconds and memory compare."""
    return len({(r.cost.device, r.cost.threads) for cell in cells for r in cell.ok}) < 2


def _measured(cell: Cell) -> dict[str, Any]:
    costs = [record.cost for record in cell.ok]
    steps = sum(cost.steps for cost in costs)
    return {
        "method": cell.method, "metric": cell.metric, "n": len(cell.scores), "mean": cell.mean,
        "seconds": mean_of([cost.training_seconds for cost in costs]),
        "to_best": mean_of([seconds for record in cell.ok if (seconds := seconds_to_best(record, cell.metric))]),
        "flops": mean_of([float(cost.flops) for cost in costs]),
        "memory": mean_of([float(cost.peak_memory) for cost in costs]),
        "parameters": mean_of([float(cost.trained_parameters) for cost in costs]),
        "forward": sum(cost.forward_passes for cost in costs) / steps if steps else None,
        "front": "",
    }  # fmt: skip


def mean_of(values: Sequence[float]) -> float | None:
    """Mean without the zeros, which stand for "not measured"."""
    measured = [value for value in values if value > 0]
    return statistics.fmean(measured) if measured else None


def _mark_fronts(cells: Sequence[Cell], rows: Sequence[dict[str, Any]], *, comparable: bool) -> None:
    names = {"seconds": "s", "flops": "f", "memory": "m", "parameters": "p"}
    for key, letter in ((key, names[key]) for key in names if comparable or key in ("flops", "parameters")):
        if any(row[key] is None for row in rows):
            continue  # who was not measured might beat the others
        scores = [-row["mean"] if cell.lower_is_better else row["mean"] for cell, row in zip(cells, rows, strict=True)]
        for row, first in zip(rows, budget.pareto([row[key] for row in rows], scores), strict=True):
            row["front"] += letter if first else ""


def seconds_to_best(record: Record, metric: str) -> float | None:
    """Training seconds until the run first scored within 1 point of its own best; None without a kept history."""
    scored = evaluations(record, metric)
    if not scored or not record.cost.steps or not record.cost.training_seconds:
        return None
    lower = record.result.facts.get("lower_is_better")
    best = (min if lower else max)(score for _, score in scored)
    step = next(step for step, score in scored if abs(score - best) <= POINT + 1e-12)
    return record.cost.training_seconds * step / record.cost.steps


def evaluations(record: Record, metric: str) -> list[tuple[int, float]]:
    """(step, validation score) over a run, from ``history.jsonl``; empty where it was not kept or cannot be read."""
    try:
        lines = (record.folder / "history.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines if '"evaluation"' in line]
        scored = [(int(e["step"]), e["evaluation"].get("validation", {}).get(metric)) for e in found]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [(step, float(score)) for step, score in scored if score is not None and np.isfinite(score)]


class Family:
    """All runs of one method on one set of rows, at whatever settings: what a search could have drawn from.

    cells: those with scores first; failed: runs without a score; seconds: of all runs, over the finished ones
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = sorted(cells, key=lambda cell: not cell.scores)
        self.lower = self.cells[0].lower_is_better
        self.scores = [score for cell in cells for score in cell.scores.values()]
        runs = [(record, _key(record) in cell.scores) for cell in cells for record in cell.records]
        self.failed = sum(not scored for _, scored in runs)
        wasted = sum(record.cost.training_seconds for record, scored in runs if not scored)
        one = mean_of([record.cost.training_seconds for record, scored in runs if scored])
        self.seconds = one + wasted / len(self.scores) if one else None

    def expected_best(self, most: int | None = None) -> list[float]:
        """Of 1, 2, ... runs, in the metric's own direction."""
        side = -1.0 if self.lower else 1.0
        return [side * float(value) for value in budget.expected_best([side * s for s in self.scores], most)]


def _key(record: Record) -> tuple[int, int]:
    return record.result.spec.data_seed, record.result.spec.seed


def families(records: Sequence[Record], selection: str = "last") -> list[list[Family]]:
    """For each set of rows its methods with two runs or more."""
    arms, references = to_cells(unique(records), selection)
    out = []
    for _, groups in by_rows(arms, references):
        found: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in (cell for group in groups for cell in group.arms):
            found.setdefault((cell.method, cell.setting("method_revision"), cell.spec.engine_revision), []).append(cell)
        out.append([Family(cells) for cells in found.values() if sum(len(cell.scores) for cell in cells) > 1])
    return [here for here in out if here]


def budget_table(records: Sequence[Record], *, selection: str = "last") -> Table | None:
    """A row for each method on each set of rows; None where nobody has two runs."""
    found = families(records, selection)
    if not found:
        return None
    most = max(len(family.scores) for here in found for family in here)
    tries = [k for k in TRIES if k <= most]
    settings = [key for key in varying([f.cells[0] for here in found for f in here]) if key not in RECIPE_AXES]
    columns = (
        *setting_columns(settings), Column("method", "method", numeric=False),
        Column("metric", "metric", numeric=False), Column("runs", "runs"), Column("failed", "fail"),
        Column("settings", "settings"), Column("seconds", "time"),
        *(Column(f"best_{k}", f"best of {k}") for k in tries), Column("budget", "budget"),
        Column("in_budget", "in budget"),
    )  # fmt: skip
    rows = [row for here in found for row in _budget_rows(here, settings, tries)]
    notes = (BUDGET,) if all(seconds_compare(here) for here in found) else (BUDGET, NO_BUDGET)
    return Table("Expected best score", columns, tuple(rows), notes)


def seconds_compare(here: Sequence[Family]) -> bool:
    """Whether the methods' runs, the failed ones too, were all timed in one place."""
    every = [record for family in here for cell in family.cells for record in cell.records]
    costs = [record.cost for record in every if record.result.status == "ok" or record.cost.training_seconds]
    return len({(cost.device, cost.threads) for cost in costs}) < 2


def _budget_rows(here: Sequence[Family], settings: Sequence[str], tries: Sequence[int]) -> list[dict[str, Any]]:
    totals = [family.seconds * len(family.scores) for family in here if family.seconds]
    seconds = min(totals) if totals and seconds_compare(here) else None
    rows = []
    for family in here:
        best = family.expected_best(max(len(family.scores) if seconds else 0, *tries))
        fits = min(len(best), int(seconds / family.seconds + 1e-9)) if seconds and family.seconds else 0
        first = family.cells[0]
        rows.append(
            {key: first.setting(key) for key in settings}
            | {"method": first.method, "metric": first.metric, "runs": len(family.scores), "failed": family.failed}
            | {"settings": len(family.cells), "seconds": family.seconds, "budget": seconds}
            | {f"best_{k}": best[k - 1] for k in tries if k <= len(best)}
            | {"in_budget": best[fits - 1] if fits else None}
        )
    return rows
