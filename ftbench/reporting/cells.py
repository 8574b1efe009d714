"""Which runs are averaged, and which stand beside each other: records -> cells -> groups.

A cell holds runs whose specs differ in nothing but the seeds; nothing else is ever averaged. A group is
one set of rows with one recipe: its arms, their std and the references of those rows.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ftbench.reporting import stats
from ftbench.types import Column, MethodSpec, Record, RunSpec, Search
from ftbench.types.run import TUNED

#: fields of RunSpec that a user sets; a column each where they vary. The first ones decide the rows.
ROW_AXES = {
    "model": "model", "train_size": "train", "imbalance": "imbal.", "label_noise": "noise", "select_on": "select",
    "limit": "limit", "max_length": "length", "encoder": "tuned on",
    "folds": "folds",
}  # fmt: skip
RECIPE_AXES = {
    "lr": "lr", "steps": "steps", "batch_size": "batch", "precision": "precision", "passes": "passes",
    "batching": "batching", "weight_decay": "decay", "warmup": "warmup", "clip": "clip", "evaluations": "evals",
    "micro_batch": "micro", "head": "head", "layers": "layers", "frozen_dropout": "frozen dropout",
    "max_target_length": "target tokens", "label_smoothing": "smoothing", "smoothed_over": "smoothed over",
    "source_prefix": "prefix", "num_beams": "beams", "length_penalty": "length penalty",
    "min_new_tokens": "fewest tokens", "max_new_tokens": "most tokens", "no_repeat_ngram_size": "no repeat",
    "early_stopping": "early stop", "evaluation_rows": "evaluated rows",
    "checkpoint": "checkpoint", "remote_code": "remote code",
}  # fmt: skip
#: those that only runs which summarize have
SUMMARY_AXES = frozenset({
    "max_target_length", "label_smoothing", "smoothed_over", "source_prefix", "num_beams", "length_penalty",
    "min_new_tokens", "max_new_tokens", "no_repeat_ngram_size", "early_stopping", "evaluation_rows",
})  # fmt: skip
#: what tells two versions of one task, checkpoint or code apart; a column each where one name has several
VERSIONS = {
    "data": "data", "weights": "weights", "task_revision": "task rev", "engine_revision": "engine rev",
    "method_revision": "method rev",
}  # fmt: skip
#: columns that name what a row is about, before its method
SETTINGS = ("task", *ROW_AXES, *RECIPE_AXES, *VERSIONS)
#: those that hold names, not numbers
TEXTS = frozenset({
    "task", "model", "encoder", "precision", "passes", "batching", "head", "layers", "frozen_dropout", "checkpoint",
    "remote_code",
    "smoothed_over", "source_prefix", "early_stopping", *VERSIONS,
})  # fmt: skip
LABELS = {"task": "task", **ROW_AXES, **RECIPE_AXES, **VERSIONS}
#: what tables say for a field that is empty
UNSET = {"layers": "all", "encoder": "pretrained"}
REFERENCES = ("majority", "mean", "cosine", "linear", "lead", "lead-3", "oracle")
#: references that know the answer: shown, but nothing has to beat them
CEILINGS = frozenset({"oracle"})

NOT_LEARNED = "std did not learn this"
NO_BASELINE = "no baseline"
NO_REFERENCE = "no reference rows"
NO_SEED = "no seed in common with std"


@dataclass(frozen=True)
class Cell:
    """Runs that are averaged: an arm, or one reference on one set of rows. ``studies``: see ``Search.study``."""

    spec: RunSpec
    records: tuple[Record, ...]
    selection: str
    reference: str = ""
    studies: frozenset[str] = frozenset()

    @cached_property
    def ok(self) -> tuple[Record, ...]:
        """The finished runs."""
        return tuple(record for record in self.records if record.result.status == "ok")

    @cached_property
    def metric(self) -> str:
        """The headline's name."""
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
        """Of the headline scores; None without any."""
        return statistics.fmean(self.scores.values()) if self.scores else None

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller headline is the better one."""
        return any(record.result.facts.get("lower_is_better") for record in self.records)

    @property
    def method(self) -> str:
        """The arm's or the reference's name."""
        return self.reference or self.spec.method

    @property
    def plain(self) -> bool:
        """Whether this is fine-tuning as it comes, for whatever number of steps: std or std++."""
        return not self.reference and (not self.spec.methods or _is_std_plus(self))

    def setting(self, key: str) -> Any:
        """The value in a settings column; references have no recipe."""
        if key == "method_revision":
            return "+".join(str(method.revision) for method in self.spec.methods) or None
        if key == "model":  # a label: runs of one arm may name one checkpoint in several ways
            return min(record.result.spec.model for record in self.records)
        if (self.reference and key in RECIPE_AXES) or (key in SUMMARY_AXES and self.spec.kind != "summarize"):
            return None
        value = getattr(self.spec, key)
        if key in UNSET and not value:
            return UNSET[key]
        return ("on" if value else "off") if isinstance(value, bool) else value

    def recipe(self, *, steps: bool = True) -> str:
        """What arms that are compared have in common."""
        left_out = {"methods"} if steps else {"methods", "steps"}
        return canonical({key: value for key, value in self.spec.arm().items() if key not in left_out})


@dataclass(frozen=True)
class Group:
    """Arms of one recipe on one set of rows, beside the references of those rows."""

    references: tuple[Cell, ...]
    std: Cell | None
    arms: tuple[Cell, ...]

    def bar(self, arm: Cell) -> Cell | None:
        """The reference that ``arm`` has to beat: the best one of its metric, none of ``CEILINGS``."""
        there = [(cell.mean, cell) for cell in self.references
                 if cell.metric == arm.metric and cell.mean is not None and cell.reference not in CEILINGS]  # fmt: skip
        best = min if arm.lower_is_better else max
        return best(there, key=lambda pair: pair[0])[1] if there else None

    def beaten(self, arm: Cell) -> Cell | None:
        """The reference that ``arm`` does not beat, if any."""
        bar = self.bar(arm)
        if bar is None or bar.mean is None or arm.mean is None:
            return None
        return None if stats.beats(arm.mean, bar.mean, arm.lower_is_better) else bar

    def is_unpaired(self, arm: Cell) -> bool:
        """Whether the arm and std both have scores, and none of one seed: they cannot be compared."""
        if self.std is None or arm is self.std or not arm.scores or not self.std.scores:
            return False
        return not arm.scores.keys() & self.std.scores.keys()

    @cached_property
    def verdict(self) -> str:
        """What the gate says of std here: empty when methods can be compared with it."""
        if self.std is None or self.std.mean is None:
            return NO_BASELINE
        if self.bar(self.std) is None:
            return NO_REFERENCE
        return NOT_LEARNED if self.beaten(self.std) else ""

    @cached_property
    def best(self) -> Cell | None:
        """The arm with the best mean, where there is a contest and std learned."""
        scored = [(cell.mean, cell) for cell in self.arms if cell.mean is not None]
        if self.verdict or len(scored) < 2:
            return None
        choose = min if scored[0][1].lower_is_better else max
        return choose(scored, key=lambda pair: pair[0])[1]


class Runs(list[Record]):
    """Fine-tuning and reference runs, each once. Trials of ``searches`` and runs of other kinds are ``apart``.

    Remembers its cells, which every table asks for.
    """

    def __init__(self, records: Iterable[Record], searches: Iterable[Search] = ()) -> None:
        found = list({record.result.spec.id: record for record in reversed(list(records))}.values())[::-1]
        super().__init__(filter(is_averaged, found))
        self.apart = [record for record in found if not is_averaged(record)]
        self.searches = tuple(searches)
        self.cells: dict[str, tuple[list[Cell], list[Cell]]] = {}


def is_averaged(record: Record) -> bool:
    """Whether a run's scores may stand in a mean: those of trials and of other kinds never do."""
    return record.result.spec.kind in (*TUNED, "reference") and not record.result.spec.is_trial


def unique(records: Iterable[Record], searches: Iterable[Search] = ()) -> Runs:
    """Each run once: merged stores hold a run twice."""
    return records if isinstance(records, Runs) else Runs(records, searches)


def to_cells(records: Iterable[Record], selection: str) -> tuple[list[Cell], list[Cell]]:
    """Arms and references of ``unique`` records. Whatever differs in more than its seeds lands in another cell.

    Cells whose configuration was chosen in a search bear its study.
    """
    runs = unique(records)
    if selection not in runs.cells:
        runs.cells[selection] = _to_cells(runs, selection)
    return runs.cells[selection]


def _to_cells(records: Runs, selection: str) -> tuple[list[Cell], list[Cell]]:
    chosen: dict[str, set[str]] = {}
    for search in records.searches:
        chosen.setdefault(canonical(search.reported.arm()), set()).add(search.study)
    arms: dict[str, list[Record]] = {}
    references: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        arm = canonical(record.result.spec.arm())
        if record.result.spec.kind in TUNED:
            arms.setdefault(arm, []).append(record)
            continue
        for name in record.result.metrics:
            references.setdefault((arm, name), []).append(record)
    return (
        [
            Cell(found[0].result.spec, tuple(found), selection, studies=frozenset(chosen.get(arm, ())))
            for arm, found in arms.items()
        ],
        [Cell(found[0].result.spec, tuple(found), name, name) for (_, name), found in references.items()],
    )


def by_rows(arms: list[Cell], references: list[Cell]) -> list[tuple[list[Cell], list[Group]]]:
    """For each set of rows, in the order of the table: its references, and its arms grouped by recipe."""
    sets: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in [*references, *arms]:
        sets.setdefault(cell.spec.rows_key(), []).append(cell)
    row_keys = ("task", *ROW_AXES, "data", "task_revision", "weights")
    out = []
    for cells in sorted(sets.values(), key=lambda cells: _order(cells[-1], row_keys)):
        beside = sorted((cell for cell in cells if cell.reference), key=_reference_order)
        here = [cell for cell in cells if not cell.reference]
        bases = {id(cell): _baseline(cell, here) for cell in here}
        recipes: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in here:
            base = bases[id(cell)]
            of = (base.method, base.setting("method_revision")) if base else ()
            recipes.setdefault((*of, (base or cell).recipe()), []).append(cell)
        groups = [
            Group(tuple(beside), bases[id(found[0])], tuple(sorted(found, key=_method_order)))
            for found in recipes.values()
        ]
        groups.sort(key=lambda group: _order(group.std or group.arms[0], (*RECIPE_AXES, "engine_revision")))
        out.append((beside, groups))
    return out


def _baseline(cell: Cell, arms: list[Cell]) -> Cell | None:
    """The std arm that was searched alike, else that of the same recipe. std++ takes more steps than the std it belongs
    to; None if two could be it.

    A stack that begins with a method which chooses what is tuned has that method alone in std's place; this one, where
    there is no std, itself.
    """
    tuning = cell.spec.tuning
    wanted = () if cell.spec.methods == tuning else tuning
    alike = [arm for arm in arms if arm.studies & cell.studies and _names(arm.spec.methods) == _names(wanted)]
    stds = [arm for arm in arms if arm.spec.methods == wanted]
    if alike:
        return alike[0] if len(alike) == 1 else None
    same = [std for std in stds if std.recipe() == cell.recipe()]
    if _is_std_plus(cell):
        near = [std for std in stds if std.recipe(steps=False) == cell.recipe(steps=False)]
        same = [std for std in near if std.spec.steps < cell.spec.steps] or same
    if not same and cell.spec.methods == tuning:
        return cell
    return same[0] if len(same) == 1 else None


def _names(methods: Iterable[MethodSpec]) -> list[str]:
    """Without the fields: those of what was searched alike may differ."""
    return [method.name for method in methods]


def _is_std_plus(cell: Cell) -> bool:
    return any(method.name == "std++" for method in cell.spec.methods)


def _method_order(cell: Cell) -> tuple[Any, ...]:
    return (bool(cell.spec.methods), not _is_std_plus(cell), cell.method, canonical(cell.spec.arm()))


def _reference_order(cell: Cell) -> tuple[Any, ...]:
    known = REFERENCES.index(cell.reference) if cell.reference in REFERENCES else len(REFERENCES)
    return (known, cell.reference, canonical(cell.spec.arm()))


def _order(cell: Cell, keys: Iterable[str]) -> tuple[Any, ...]:
    """Sorts by the settings ``keys``; None (all rows) after every number."""
    return tuple((value is None, value) for value in map(cell.setting, keys))


def canonical(value: Any) -> str:
    """Equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def setting_columns(keys: Iterable[str]) -> tuple[Column, ...]:
    """Columns of settings, in the order given."""
    return tuple(Column(key, LABELS[key], numeric=key not in TEXTS) for key in keys)


def described(cell: Cell, keys: Iterable[str]) -> str:
    """``rte, lr 1e-05, steps 100``: the task, then the settings ``keys`` of the cell."""
    values = (
        (LABELS[key], cell.setting(key)) for key in keys if key not in SUMMARY_AXES or cell.spec.kind == "summarize"
    )
    shown = (f"{label} {'all' if v is None else f'{v:g}' if isinstance(v, float) else v}" for label, v in values)
    return ", ".join([cell.spec.task, *shown])


def varying(cells: list[Cell]) -> list[str]:
    """``task``, then the settings with several values, and versions with several values for one name."""
    axes = [key for key in ROW_AXES if len({cell.setting(key) for cell in cells}) > 1]
    arms = [cell for cell in cells if not cell.reference]
    able = {True: [cell for cell in arms if cell.spec.kind == "summarize"], False: arms}
    axes += [key for key in RECIPE_AXES if len({cell.setting(key) for cell in able[key in SUMMARY_AXES]}) > 1]
    return ["task", *axes, *(key for key in VERSIONS if tasks_with_several(key, cells))]


def tasks_with_several(version: str, cells: list[Cell]) -> set[str]:
    """Tasks for which one name (of the task, the model, the method) stands for several versions."""
    seen: dict[tuple[str, str], set[Any]] = {}
    for cell in cells:
        # another model has other weights and another method its own revision: these need no telling apart
        within = {"weights": cell.setting("model"), "method_revision": cell.method}.get(version, "")
        seen.setdefault((cell.spec.task, within), set()).add(cell.setting(version))
    return {task for (task, _), values in seen.items() if len(values) > 1}
