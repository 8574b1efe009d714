"""Methods over several tasks at once: one block for each setting in which tasks were run alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ftbench.reporting import across
from ftbench.reporting.cells import ROW_AXES, Cell, Group, by_rows, setting_columns, to_cells, unique
from ftbench.reporting.differences import Difference, is_compared
from ftbench.types import Column, Record, Table

FEWEST_TASKS = 2
#: fewer tasks rank methods by luck
FEWEST_RANKED = 5
RULE = (
    "Across tasks: IQM is the mean of the middle half of all scores, its interval resamples runs within each task, so "
    "it speaks of these tasks only. P(better): chance that a run beats one of std, averaged over tasks. Won, undecided "
    "and lost count tasks by the verdict against std, after Holm."
)
_COLUMNS = (
    Column("method", "method", numeric=False), Column("tasks", "tasks"), Column("iqm", "IQM"), Column("iqm_low", "low"),
    Column("iqm_high", "high"), Column("rank", "rank"), Column("improvement_mean", "P(better)"), Column("won", "won"),
    Column("undecided", "undec."), Column("lost", "lost"),
)  # fmt: skip


@dataclass
class Block:
    """Tasks run in one setting, and the methods that all of them have. cells: (task, method) to cell."""

    settings: dict[str, Any]
    tasks: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def scores(self, method: str) -> list[Any]:
        """Of each task: (runs,), negated where lower is better."""
        return [_oriented(self.cells[task, method]) for task in self.tasks]

    def means(self) -> Any:
        """(tasks, methods), higher is better."""
        return np.array([[_oriented(self.cells[t, m]).mean() for m in self.methods] for t in self.tasks])


def _oriented(cell: Cell) -> Any:
    return np.array(list(cell.scores.values())) * (-1.0 if cell.lower_is_better else 1.0)


def blocks(records: Sequence[Record], selection: str = "last") -> list[Block]:
    """Tasks that can stand in one table: std learned, one version, one recipe. What is left out is named."""
    arms, references = to_cells(unique(records), selection)
    found: dict[tuple[Any, ...], dict[str, list[Group]]] = {}
    for _, groups in by_rows(arms, references):
        for group in groups:
            cell = group.std or group.arms[0]
            setting = (*(cell.setting(key) for key in (*ROW_AXES, "weights")), group.std.method if group.std else "")
            found.setdefault(setting, {}).setdefault(cell.spec.task, []).append(group)
    keys = (*ROW_AXES, "weights")
    out = [_block(dict(zip(keys, values[:-1], strict=True)), tasks) for values, tasks in found.items()]
    return [block for block in out if len(block.tasks) >= FEWEST_TASKS and len(block.methods) > 1]


def _block(settings: dict[str, Any], tasks: dict[str, list[Group]]) -> Block:
    block = Block(settings)
    for task, groups in tasks.items():
        learned = [group for group in groups if is_compared(group)]
        if len(learned) > 1:
            block.notes.append(f"{task} is left out: several recipes or versions; choose one with --where.")
        elif not learned:
            block.notes.append(f"{task} is left out: {groups[0].verdict}.")
        else:
            block.tasks.append(task)
            block.cells |= {(task, cell.method): cell for cell in learned[0].arms if cell.scores}
    every = list(dict.fromkeys(method for _, method in block.cells))
    block.methods = [m for m in every if all((task, m) in block.cells for task in block.tasks)]
    if partial := [m for m in every if m not in block.methods]:
        block.notes.append(f"Not run, or not finished, on every task, and left out: {', '.join(partial)}.")
    return block


def across_table(
    records: Sequence[Record], differences: Sequence[Difference], generator: np.random.Generator,
    *, selection: str = "last",
) -> Table | None:  # fmt: skip
    """A row for each method in each block; None without two tasks that compare."""
    found = blocks(records, selection)
    if not found:
        return None
    keys = [key for key in ROW_AXES if len({block.settings[key] for block in found}) > 1]
    seed = int(generator.integers(2**62))
    rows, notes = [], [RULE]
    for block in found:
        about = {key: block.settings[key] for key in keys}
        rows += [{**about, **row} for row in _rows(block, differences, seed)]
        notes += [*block.notes, *_rank_notes(block)]
    return Table("Across tasks", setting_columns(keys) + _COLUMNS, tuple(rows), tuple(dict.fromkeys(notes)))


def _rows(block: Block, differences: Sequence[Difference], seed: int) -> list[dict[str, Any]]:
    ranks = across.ranks(block.means()).mean(axis=0)
    lower = any(block.cells[task, "std"].lower_is_better for task in block.tasks if (task, "std") in block.cells)
    verdicts = {(id(d.cell.records[0]), d.cell.method): d.verdict for d in differences}
    out = []
    for method, rank in zip(block.methods, ranks, strict=True):
        columns = block.scores(method)
        row: dict[str, Any] = dict.fromkeys(column.key for column in _COLUMNS)
        row |= {"method": method, "tasks": len(block.tasks), "rank": float(rank)}
        if not lower:  # scales with and without an upper end do not add up
            interval = across.stratified_interval(columns, across.iqm_of, np.random.default_rng(seed))
            row |= {"iqm": float(across.iqm_of(columns)), "iqm_low": interval[0], "iqm_high": interval[1]}
        if method != "std" and "std" in block.methods:
            row["improvement_mean"] = across.mean_improvement(columns, block.scores("std"))
            of = [verdicts.get((id(block.cells[t, method].records[0]), method), "undecided") for t in block.tasks]
            row |= {"won": of.count("better"), "lost": of.count("worse")}
            row["undecided"] = len(of) - row["won"] - row["lost"]
        out.append(row)
    return out


def _rank_notes(block: Block) -> list[str]:
    named = f"{len(block.tasks)} tasks ({', '.join(block.tasks)})"
    if len(block.tasks) < FEWEST_RANKED:
        return [f"{named}: ranks of fewer than {FEWEST_RANKED} tasks say little, so no test of them is made."]
    found = across.friedman(block.means())
    return [
        f"{named}: Friedman chi^2 {found.statistic:.2f}, p {found.p:.3f}; mean ranks that differ by more than "
        f"{found.critical_difference:.2f} differ at 5 % (Nemenyi). A rank forgets by how much."
    ]
