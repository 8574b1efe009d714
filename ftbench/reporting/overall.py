"""Methods over several tasks at once: one block for each setting in which tasks were run alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ftbench.reporting import across
from ftbench.reporting.cells import ROW_AXES, VERSIONS, Cell, Group, by_rows, setting_columns, to_cells, unique
from ftbench.reporting.differences import Difference, is_compared
from ftbench.types import Column, Record, Table

FEWEST_TASKS = 2
#: fewer tasks rank methods by luck
FEWEST_RANKED = 5
RULE = (
    "Across tasks: IQM is the mean of the middle half of all scores, in which a task counts once, however many runs it "
    "has; its interval resamples runs within each task, so it speaks of these tasks only. P(better): chance that a run "
    "beats one of std, averaged over tasks. Won, undecided and lost count tasks by the verdict against std, after Holm."
)
_COLUMNS = (
    Column("method", "method", numeric=False), Column("tasks", "tasks"), Column("iqm", "IQM"), Column("iqm_low", "low"),
    Column("iqm_high", "high"), Column("rank", "rank"), Column("improvement_mean", "P(better)"), Column("won", "won"),
    Column("undecided", "undec."), Column("lost", "lost"),
)  # fmt: skip


@dataclass
class Block:
    """Tasks run in one setting, and the methods that all of them have.

    methods: by name, with the revision where one name has several
    stds:    task to what its methods are compared with: std, or the method alone that their stacks begin with
    cells:   (task, method) to cell
    """

    settings: dict[str, Any]
    tasks: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    stds: dict[str, Cell] = field(default_factory=dict)
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def lower(self) -> bool:
        """Whether lower is better on some task: scales with and without an upper end do not add up."""
        return any(cell.lower_is_better for cell in self.cells.values())

    def is_std(self, method: str) -> bool:
        """Whether it is what the others are compared with."""
        return all(self.cells[task, method] is self.stds[task] for task in self.tasks)

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
    arms: list[tuple[str, Cell]] = []
    for task, groups in tasks.items():
        learned = [group for group in groups if is_compared(group)]
        if len(learned) > 1:
            block.notes.append(f"{task} is left out: several recipes or versions; choose one with --where.")
        elif not learned:
            block.notes.append(f"{task} is left out: {groups[0].verdict}.")
        else:
            std = learned[0].std
            assert std is not None
            block.tasks.append(task)
            block.stds[task] = std
            arms += [(task, cell) for cell in learned[0].arms if cell.scores]
    _fill(block, arms)
    return block


def _fill(block: Block, arms: Sequence[tuple[str, Cell]]) -> None:
    """The methods with one arm on every task; the others are named."""
    cells = [cell for _, cell in arms]
    found: dict[tuple[str, str], list[Cell]] = {}
    for task, cell in arms:
        found.setdefault((task, _label(cell, cells)), []).append(cell)
    block.cells = {key: alike[0] for key, alike in found.items() if len(alike) == 1}
    every = list(dict.fromkeys(method for _, method in found))
    block.methods = [m for m in every if all((task, m) in block.cells for task in block.tasks)]
    several = list(dict.fromkeys(method for (_, method), alike in found.items() if len(alike) > 1))
    if several:
        block.notes.append(f"Run with several recipes on a task, and left out: {', '.join(several)}; use --where.")
    if partial := [m for m in every if m not in (*block.methods, *several)]:
        block.notes.append(f"Not run, or not finished, on every task, and left out: {', '.join(partial)}.")


def _label(cell: Cell, cells: Sequence[Cell]) -> str:
    """The method, with its revision where ``cells`` have several of it."""
    key = "method_revision"
    several = len({other.setting(key) for other in cells if other.method == cell.method}) > 1
    return f"{cell.method} ({VERSIONS[key]} {cell.setting(key)})" if several else cell.method


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
        notes += [*block.notes, *_std_notes(block), *_single_notes(block), *_rank_notes(block)]
    if any(cell.method != method for block in found for (_, method), cell in block.cells.items()):
        keys.append("method_revision")
    return Table("Across tasks", setting_columns(keys) + _COLUMNS, tuple(rows), tuple(dict.fromkeys(notes)))


def _rows(block: Block, differences: Sequence[Difference], seed: int) -> list[dict[str, Any]]:
    ranks = across.ranks(block.means()).mean(axis=0)
    verdicts = {(id(d.cell.records[0]), d.cell.method): d.verdict for d in differences}
    out = []
    for method, rank in zip(block.methods, ranks, strict=True):
        cells, columns = [block.cells[task, method] for task in block.tasks], block.scores(method)
        row: dict[str, Any] = dict.fromkeys(column.key for column in _COLUMNS)
        row |= {"method": cells[0].method, "method_revision": cells[0].setting("method_revision")}
        row |= {"tasks": len(block.tasks), "rank": float(rank)}
        if not block.lower:
            row["iqm"] = float(across.iqm_of(columns))
            if not _single(block, method):
                ends = across.stratified_interval(columns, across.iqm_of, np.random.default_rng(seed))
                row |= dict(zip(("iqm_low", "iqm_high"), ends, strict=True))
        if not block.is_std(method):
            stds = [_oriented(block.stds[task]) for task in block.tasks]
            row["improvement_mean"] = across.mean_improvement(columns, stds)
            of = [verdicts.get((id(cell.records[0]), cell.method), "undecided") for cell in cells]
            row |= {"won": of.count("better"), "lost": of.count("worse")}
            row["undecided"] = len(of) - row["won"] - row["lost"]
        out.append(row)
    return out


def _std_notes(block: Block) -> list[str]:
    """What stands in std's place, where something else does."""
    others = sorted({std.method for std in block.stds.values()} - {"std"})
    stacks = [method for method in block.methods if not block.is_std(method)]
    return [f"{', '.join(stacks)}: compared with {', '.join(others)}, not with std."] if others else []


def _single(block: Block, method: str) -> list[str]:
    """The tasks on which the method has one run, whose spread nobody knows."""
    return [task for task in block.tasks if len(block.cells[task, method].scores) < 2]


def _single_notes(block: Block) -> list[str]:
    """Which methods have an IQM without an interval, and why."""
    found: dict[tuple[str, ...], list[str]] = {}
    for method in block.methods if not block.lower else ():
        if tasks := _single(block, method):
            found.setdefault(tuple(tasks), []).append(method)
    whole = len(block.methods)
    named = [
        f"{'every method' if len(those) == whole else ', '.join(those)} on {', '.join(tasks)}"
        for tasks, those in found.items()
    ]
    text = f"IQM has no interval where a task has one run, which says nothing of others: {'; '.join(named)}."
    return [text] if named else []


def _rank_notes(block: Block) -> list[str]:
    named = f"{len(block.tasks)} tasks ({', '.join(block.tasks)})"
    if len(block.tasks) < FEWEST_RANKED:
        return [f"{named}: ranks of fewer than {FEWEST_RANKED} tasks say little, so no test of them is made."]
    found = across.friedman(block.means())
    return [
        f"{named}: Friedman chi^2 {found.statistic:.2f}, p {found.p:.3f}; mean ranks that differ by more than "
        f"{found.critical_difference:.2f} differ at 5 % (Nemenyi). A rank forgets by how much."
    ]
