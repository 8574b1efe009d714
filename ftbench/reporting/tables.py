"""Records to one table: a row for each reference and each arm, compared with std where std learned.

records -> cells (runs that are averaged) -> groups (one set of rows, one recipe) -> rows, notes.
Only runs whose spec differs in nothing but the seeds are ever averaged.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ftbench.reporting import stats
from ftbench.types import Column, Record, RunSpec, Table

#: fields of RunSpec that a user sets; a column each where they vary. The first ones decide the rows.
ROW_AXES = {
    "model": "model", "train_size": "train", "label_noise": "noise", "select_on": "select", "limit": "limit",
    "max_length": "length",
}  # fmt: skip
RECIPE_AXES = {
    "lr": "lr", "steps": "steps", "batch_size": "batch", "precision": "precision", "passes": "passes",
    "batching": "batching", "weight_decay": "decay", "warmup": "warmup", "clip": "clip", "evaluations": "evals",
    "micro_batch": "micro",
}  # fmt: skip
#: what tells two versions of one task, checkpoint or code apart; a column each where one name has several
VERSIONS = {
    "data": "data", "weights": "weights", "task_revision": "task rev", "engine_revision": "engine rev",
    "method_revision": "method rev",
}  # fmt: skip
#: columns that name what a row is about, before its method
SETTINGS = ("task", *ROW_AXES, *RECIPE_AXES, *VERSIONS)
REFERENCES = ("majority", "mean", "cosine", "linear")

NOT_LEARNED = "std did not learn this"
NO_BASELINE = "no baseline"
NO_REFERENCE = "no reference rows"

_MEASURES = (
    Column("method", "method", numeric=False), Column("metric", "metric", numeric=False), Column("n", "n"),
    Column("failed", "fail"), Column("degenerate", "deg."), Column("mean", "mean"), Column("sd", "sd"),
    Column("median", "med."), Column("max", "max"), Column("vs_std", "vs std"), Column("vs_std_low", "low"),
    Column("vs_std_high", "high"), Column("vs_std_n", "pairs"), Column("verdict", "verdict", numeric=False),
    Column("cost", "cost"), Column("forward", "fwd"), Column("memory", "memory"), Column("seconds", "time"),
)  # fmt: skip


@dataclass(frozen=True)
class _Cell:
    """Runs that are averaged: an arm, or one reference on one set of rows."""

    spec: RunSpec
    records: tuple[Record, ...]
    selection: str
    reference: str = ""

    @cached_property
    def ok(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.result.status == "ok")

    @cached_property
    def metric(self) -> str:
        return next((name for r in self.records if (name := stats.headline(r.result, self.selection))), "")

    @cached_property
    def scores(self) -> dict[tuple[int, int], float]:
        """(data_seed, seed) to the headline score, finished runs only. References draw nothing: their seed is 0."""
        found = {}
        for record in self.ok:
            score, spec = record.result.score(self.metric, self.selection), record.result.spec
            if score is not None and math.isfinite(score):
                found[(spec.data_seed, 0 if self.reference else spec.seed)] = score
        return found

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.scores.values()) if self.scores else None

    @property
    def lower_is_better(self) -> bool:
        return any(record.result.facts.get("lower_is_better") for record in self.records)

    @property
    def method(self) -> str:
        return self.reference or self.spec.method

    def setting(self, key: str) -> Any:
        if key == "method_revision":
            return "+".join(str(method.revision) for method in self.spec.methods) or None
        if key == "model":  # a label: runs of one arm may name one checkpoint in several ways
            return min(record.result.spec.model for record in self.records)
        return None if self.reference and key in RECIPE_AXES else getattr(self.spec, key)

    def recipe(self, *, steps: bool = True) -> str:
        """What arms that are compared have in common."""
        left_out = {"methods"} if steps else {"methods", "steps"}
        return _canonical({key: value for key, value in self.spec.arm().items() if key not in left_out})


@dataclass(frozen=True)
class _Group:
    """Arms of one recipe on one set of rows, beside the references of those rows."""

    references: tuple[_Cell, ...]
    std: _Cell | None
    arms: tuple[_Cell, ...]

    @cached_property
    def verdict(self) -> str:
        """What the gate says of std here: empty when methods can be compared with it."""
        if self.std is None or self.std.mean is None:
            return NO_BASELINE
        bars = [cell.mean for cell in self.references if cell.metric == self.std.metric and cell.mean is not None]
        if not bars:
            return NO_REFERENCE
        lower = self.std.lower_is_better
        return "" if stats.beats(self.std.mean, min(bars) if lower else max(bars), lower) else NOT_LEARNED

    @cached_property
    def best(self) -> _Cell | None:
        """The arm with the best mean, where there is a contest and std learned."""
        scored = [(cell.mean, cell) for cell in self.arms if cell.mean is not None]
        if self.verdict or len(scored) < 2:
            return None
        choose = min if scored[0][1].lower_is_better else max
        return choose(scored, key=lambda pair: pair[0])[1]


def runs_table(
    records: Sequence[Record], *, selection: str = "last", specs_filter: Callable[[RunSpec], bool] | None = None
) -> Table:
    """One table of ``finetune`` and ``reference`` records: scores of the weights called ``selection``.

    ``specs_filter`` keeps the records whose spec it accepts. A row may hold ``"style": "reference"``, or
    ``"style": "best"`` for the best mean of a group whose std learned.
    """
    unique: dict[str, Record] = {}
    for record in records:
        if specs_filter is None or specs_filter(record.result.spec):
            unique.setdefault(record.result.spec.id, record)  # merged stores hold a run twice: it is one run
    title = f"Validation scores, {selection} weights"
    if not unique:
        return Table(title, (Column("task", "task", numeric=False), *_MEASURES), (), ("No runs to show.",))
    arms, references = _cells(unique.values(), selection)
    settings = _varying([*references, *arms])
    rows: list[dict[str, Any]] = []
    all_groups: list[_Group] = []
    for beside, groups in _by_rows(arms, references):
        rows += [_reference_row(cell, settings) for cell in beside]
        rows += [_arm_row(cell, group, settings) for group in groups for cell in group.arms]
        all_groups += groups
    labels = {"task": "task", **ROW_AXES, **RECIPE_AXES, **VERSIONS}
    texts = {"task", "model", "precision", "passes", "batching", *VERSIONS}
    columns = tuple(Column(key, labels[key], numeric=key not in texts) for key in settings)
    notes = _notes(list(unique.values()), [*references, *arms], all_groups, rows, selection)
    return Table(title, columns + _MEASURES, tuple(rows), tuple(notes))


def _cells(records: Iterable[Record], selection: str) -> tuple[list[_Cell], list[_Cell]]:
    """Arms and references. Whatever differs in more than its seeds lands in another cell."""
    arms: dict[str, list[Record]] = {}
    references: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        arm = _canonical(record.result.spec.arm())
        if record.result.spec.kind == "finetune":
            arms.setdefault(arm, []).append(record)
            continue
        for name in record.result.metrics:
            references.setdefault((arm, name), []).append(record)
    return (
        [_Cell(found[0].result.spec, tuple(found), selection) for found in arms.values()],
        [_Cell(found[0].result.spec, tuple(found), name, name) for (_, name), found in references.items()],
    )


def _by_rows(arms: list[_Cell], references: list[_Cell]) -> list[tuple[list[_Cell], list[_Group]]]:
    """For each set of rows, in the order of the table: its references, and its arms grouped by recipe."""
    sets: dict[tuple[Any, ...], list[_Cell]] = {}
    for cell in [*references, *arms]:
        sets.setdefault(cell.spec.rows_key(), []).append(cell)
    row_keys = ("task", *ROW_AXES, "data", "task_revision", "weights")
    out = []
    for cells in sorted(sets.values(), key=lambda cells: _order(cells[-1], row_keys)):
        beside = sorted((cell for cell in cells if cell.reference), key=_reference_order)
        here = [cell for cell in cells if not cell.reference]
        stds = [cell for cell in here if not cell.spec.methods]
        bases = {id(cell): _baseline(cell, stds) for cell in here}
        recipes: dict[tuple[bool, str], list[_Cell]] = {}
        for cell in here:
            base = bases[id(cell)]
            recipes.setdefault((base is None, (base or cell).recipe()), []).append(cell)
        groups = [
            _Group(tuple(beside), bases[id(found[0])], tuple(sorted(found, key=_method_order)))
            for found in recipes.values()
        ]
        groups.sort(key=lambda group: _order(group.std or group.arms[0], (*RECIPE_AXES, "engine_revision")))
        out.append((beside, groups))
    return out


def _baseline(cell: _Cell, stds: list[_Cell]) -> _Cell | None:
    """The std arm of the same recipe. std++ takes more steps than the std it belongs to; None if two could be it."""
    same = [std for std in stds if std.recipe() == cell.recipe()]
    if _is_std_plus(cell):
        near = [std for std in stds if std.recipe(steps=False) == cell.recipe(steps=False)]
        same = [std for std in near if std.spec.steps < cell.spec.steps] or same
    return same[0] if len(same) == 1 else None


def _is_std_plus(cell: _Cell) -> bool:
    return any(method.name == "std++" for method in cell.spec.methods)


def _method_order(cell: _Cell) -> tuple[Any, ...]:
    return (bool(cell.spec.methods), not _is_std_plus(cell), cell.method, _canonical(cell.spec.arm()))


def _reference_order(cell: _Cell) -> tuple[Any, ...]:
    known = REFERENCES.index(cell.reference) if cell.reference in REFERENCES else len(REFERENCES)
    return (known, cell.reference, _canonical(cell.spec.arm()))


def _order(cell: _Cell, keys: Iterable[str]) -> tuple[Any, ...]:
    """Sorts by the settings ``keys``; None (all rows) after every number."""
    return tuple((value is None, value) for value in map(cell.setting, keys))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _varying(cells: list[_Cell]) -> list[str]:
    """``task``, then the settings with several values, and versions with several values for one name."""
    axes = [key for key in ROW_AXES if len({cell.setting(key) for cell in cells}) > 1]
    arms = [cell for cell in cells if not cell.reference]
    axes += [key for key in RECIPE_AXES if len({cell.setting(key) for cell in arms}) > 1]
    return ["task", *axes, *(key for key in VERSIONS if _tasks_with_several(key, cells))]


def _tasks_with_several(version: str, cells: list[_Cell]) -> set[str]:
    """Tasks for which one name (of the task, the model, the method) stands for several versions."""
    seen: dict[tuple[str, str], set[Any]] = {}
    for cell in cells:
        # another model has other weights and another method its own revision: these need no telling apart
        within = {"weights": cell.setting("model"), "method_revision": cell.method}.get(version, "")
        seen.setdefault((cell.spec.task, within), set()).add(cell.setting(version))
    return {task for (task, _), values in seen.items() if len(values) > 1}


def _reference_row(cell: _Cell, settings: list[str]) -> dict[str, Any]:
    row = {key: cell.setting(key) for key in settings} | {column.key: None for column in _MEASURES}
    measured = {"method": cell.method, "metric": cell.metric or None, "n": len(cell.scores), "mean": cell.mean}
    return {**row, **measured, "verdict": "", "style": "reference"}


def _arm_row(cell: _Cell, group: _Group, settings: list[str]) -> dict[str, Any]:
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
    row |= _cost(cell, group.std)
    return {**row, "style": "best"} if cell is group.best else row


def _cost(cell: _Cell, std: _Cell | None) -> dict[str, Any]:
    """Means over finished runs: seconds, bytes, forward passes a step, and seconds as a ratio to std's mean."""
    costs = [record.cost for record in cell.ok]
    seconds = _mean_measured(cost.process_seconds for cost in costs)
    base = _mean_measured(record.cost.process_seconds for record in std.ok) if std else None
    steps = sum(cost.steps for cost in costs)
    return {
        "seconds": seconds,
        "cost": seconds / base if seconds and base else None,
        "forward": sum(cost.forward_passes for cost in costs) / steps if steps else None,
        "memory": _mean_measured(cost.peak_memory for cost in costs),
    }


def _mean_measured(values: Iterable[float]) -> float | None:
    """Mean without the zeros, which stand for "not measured"."""
    measured = [value for value in values if value > 0]
    return statistics.fmean(measured) if measured else None


def _notes(
    records: list[Record], cells: list[_Cell], groups: list[_Group], rows: list[dict[str, Any]], selection: str
) -> list[str]:
    """What a reader must know to read the rows; a note appears only where it applies."""
    arms = [cell for cell in cells if not cell.reference]
    notes = [stats.DEGENERATE_RULE, stats.GATE_RULE] if arms else []
    verdicts = {group.verdict for group in groups}
    if NO_REFERENCE in verdicts:
        notes.append(f"{NO_REFERENCE}: whether std learned could not be checked, so differences may mean nothing.")
    if NO_BASELINE in verdicts:
        notes.append(
            f"{NO_BASELINE}: no finished std arm of the same rows and recipe "
            "(for std++: not exactly one of fewer steps)."
        )
    notes += _pair_notes(rows)
    lower = sorted({cell.metric for cell in arms if cell.lower_is_better and cell.metric})
    if lower:
        notes.append(f"{', '.join(lower)}: lower is better, so a negative difference favours the method.")
    finished = [record for record in records if record.result.status == "ok" and record.result.spec.kind == "finetune"]
    if selection == "best" and any(record.result.facts.get("selected_on") == "validation" for record in finished):
        notes.append("best: chosen on the split it is reported on, so optimistic.")
    missing = sum(len(cell.ok) - len(cell.scores) for cell in arms)
    if missing:
        notes.append(f"{missing} finished runs have no {selection} score and are left out.")
    notes += _cost_notes(finished) + _version_notes(cells) + _failure_notes(records)
    return notes


def _pair_notes(rows: list[dict[str, Any]]) -> list[str]:
    compared = [row for row in rows if row["vs_std"] is not None]
    if not compared:
        return []
    notes = [
        "vs std: mean difference over the seeds that both arms finished, with its 95 % t interval. Pairs are taken "
        "as independent; the intervals are not corrected for the number of rows."
    ]
    if any(row["failed"] for row in compared):
        notes.append("Failed and diverged runs are in no difference, which may flatter the method: read it with fail.")
    partial = [row for row in compared if row["vs_std_n"] < row["n"]]
    if partial:
        shown = "; ".join(f"{row['task']} {row['method']} {row['vs_std_n']} of {row['n']}" for row in partial)
        notes.append(f"Fewer pairs than runs: {shown}.")
    if min(row["vs_std_n"] for row in compared) < stats.FEWEST_PAIRS:
        notes.append(
            f"With fewer than {stats.FEWEST_PAIRS} pairs no exact paired test can reach p = 0.05, however large the "
            "difference (5 pairs: 0.0625 at best): add seeds before claiming one."
        )
    return notes


def _cost_notes(finished: list[Record]) -> list[str]:
    if not finished:
        return []
    kinds = ", ".join(sorted({record.cost.memory_of for record in finished if record.cost.memory_of}))
    notes = [
        "cost: CPU seconds of all threads of the process in training (no loading, no evaluation), mean over finished "
        "runs, relative to std. fwd: forward passes a step. "
        f"memory: mean of the runs' peaks{f' ({kinds})' if kinds else ''}."
    ]
    places = sorted({f"{record.cost.device or 'unknown'}, {record.cost.threads} threads" for record in finished})
    if len(places) > 1:
        notes.append(f"Runs come from several devices or thread counts, so costs may not compare: {'; '.join(places)}.")
    return notes


def _version_notes(cells: list[_Cell]) -> list[str]:
    found: dict[str, list[str]] = {}
    for key, label in VERSIONS.items():
        for task in sorted(_tasks_with_several(key, cells)):
            found.setdefault(task, []).append(label)
    return [f"{task}: rows differ in {', '.join(labels)}; they are never averaged." for task, labels in found.items()]


def _failure_notes(records: list[Record]) -> list[str]:
    """The first line of three errors, then a count."""
    bad = [record.result for record in records if record.result.status != "ok"]
    notes = []
    for result in bad[:3]:
        error = (result.error.strip().splitlines() or ["no message"])[0]
        name = result.spec.method if result.spec.kind == "finetune" else "reference"
        notes.append(
            f"{result.status}: {result.spec.task} {name}, seed {result.spec.seed}, data seed "
            f"{result.spec.data_seed}: {error}"
        )
    return notes + ([f"{len(bad) - 3} more runs failed or diverged."] if len(bad) > 3 else [])
