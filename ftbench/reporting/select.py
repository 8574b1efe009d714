"""Which runs a report is about: filters, groups, another headline, another order.

A filter is a text such as ``task=rte,mrpc method=r3f* lr<=5e-5``: clauses that must all hold.
``,`` is or, ``*`` matches any letters, ``train=all`` is all rows. What a
reference row, or a run that measured a model as it is, has no say in (methods, recipes, seeds) does not remove it.
"""

from __future__ import annotations

import fnmatch
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftbench.errors import UsageError
from ftbench.lookup import find, nearest
from ftbench.metrics import LOWER_IS_BETTER
from ftbench.reporting.cells import LABELS, RECIPE_AXES, SETTINGS, TEXTS, UNSET, canonical, is_averaged
from ftbench.types import Record, Search, Table
from ftbench.types.run import TUNED

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "=": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_CLAUSE = re.compile(r"^([A-Za-z_][\w-]*)\s*(<=|>=|!=|==|=|<|>)\s*(.+)$")
#: names in a filter to fields: the fields themselves, and the labels that tables show for them
FIELDS = {
    **{label.replace(" ", "_").strip("."): key for key, label in LABELS.items()},
    **{key: key for key in SETTINGS},
    **{key: key for key in ("method", "seed", "data_seed", "status", "kind")},
}
_NOT_OF_REFERENCES = {"method", "seed", "status", *RECIPE_AXES, "method_revision", "engine_revision"}


@dataclass(frozen=True)
class Clause:
    """``key`` compared with any of ``values``."""

    key: str
    sign: str
    values: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Whether a value passes: any of the values for ``=``, none of them for ``!=``."""
        if self.sign == "=":
            return any(_equal(value, wanted) for wanted in self.values)
        if self.sign == "!=":
            return not any(_equal(value, wanted) for wanted in self.values)
        left, right = _number(value), _number(self.values[0])
        if left is None or right is None:
            return False
        return _OPERATORS[self.sign](left, right)

    def __str__(self) -> str:
        return f"{self.key}{self.sign}{','.join(self.values)}"


def parse_clauses(text: str, known: dict[str, str], flag: str) -> list[Clause]:
    """``"task=rte lr<=5e-5"`` to clauses; ``known`` maps names to keys. Raises UsageError naming ``flag``."""
    clauses = []
    for part in re.sub(r"\s*(<=|>=|!=|==|=|<|>)\s*", r"\1", text.strip()).split():
        match = _CLAUSE.match(part)
        if match is None:
            raise UsageError(f"{flag} '{part}': expected NAME=VALUE or NAME<=NUMBER, such as task=rte or lr<=5e-5")
        name, sign, value = match[1].replace("-", "_"), match[2].replace("==", "="), match[3]
        key = find(known, name, f"name in {flag}")
        values = _alternatives(value, key)
        if sign not in ("=", "!=") and (key in TEXTS | {"method", "status", "kind"} or _number(value) is None):
            raise UsageError(f"{flag} '{part}': {sign} compares numbers")
        clauses.append(Clause(key, sign, values))
    return clauses


def _alternatives(value: str, key: str) -> tuple[str, ...]:
    """``std,r3f:weight=1,eps=0`` is two methods: a field of a method belongs to the method before it."""
    pieces: list[str] = []
    for piece in value.split(","):
        if key == "method" and pieces and "=" in piece and ":" not in piece.split("=")[0]:
            pieces[-1] += f",{piece}"
        else:
            pieces.append(piece)
    return tuple(pieces)


def _equal(value: Any, wanted: str) -> bool:
    left, right = _number(value), _number(wanted)
    if left is not None and right is not None:
        return left == right
    return fnmatch.fnmatchcase(str(value), wanted)


def _number(value: Any) -> float | None:
    """``all`` rows, a field that is None, are more than any number of them."""
    if value is None or value == "all":
        return math.inf
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def field_of(record: Record, key: str) -> Any:
    """What a clause compares."""
    spec = record.result.spec
    if key == "status":
        return record.result.status
    if key == "method_revision":
        return "+".join(str(method.revision) for method in spec.methods)
    value = getattr(spec, key)
    return UNSET[key] if key in UNSET and not value else value


def where(records: Iterable[Record], texts: Sequence[str]) -> list[Record]:
    """The records that every clause of every text lets pass. Raises UsageError for a text that is no filter."""
    clauses = [clause for text in texts for clause in parse_clauses(text, FIELDS, "--where")]
    return [record for record in records if passes(record, clauses)]


def unmet(records: Sequence[Record], kept: Sequence[Record], texts: Sequence[str]) -> list[str]:
    """What to say where no run that a method made is left, with the nearest of the values that there are."""
    tuned = [record for record in records if _is_tuned(record)]
    if not texts or not records or any(map(_is_tuned, kept)) or (kept and not tuned):
        return []
    clauses = [clause for text in texts for clause in parse_clauses(text, FIELDS, "--where")]
    near = ""
    for clause in clauses:
        there = {str(field_of(record, clause.key)) for record in tuned or records}
        if clause.sign == "=" and not any(clause.holds(field_of(record, clause.key)) for record in tuned or records):
            near = near or nearest(clause.values[0], there)
    return [f"none of {len(tuned) or len(records)} runs match {' '.join(texts)}.{near}"]


def passes(record: Record, clauses: Iterable[Clause]) -> bool:
    """Whether all clauses hold that have a say on such a record."""
    untuned = not _is_tuned(record)
    return all(
        (untuned and clause.key in _NOT_OF_REFERENCES) or clause.holds(field_of(record, clause.key))
        for clause in clauses
    )


def _is_tuned(record: Record) -> bool:
    """Whether a method and a recipe made what was measured."""
    spec = record.result.spec
    return spec.kind in TUNED or (spec.kind == "probe" and bool(spec.parents))


def searches_of(searches: Iterable[Search], records: Iterable[Record]) -> list[Search]:
    """Those with a trial, or a run of the chosen configuration, among the records."""
    specs = [record.result.spec for record in records]
    ids, arms = {spec.id for spec in specs}, {canonical(spec.arm()) for spec in specs}
    return [s for s in searches if canonical(s.reported.arm()) in arms or any(trial.id in ids for trial in s.trials)]


def by(records: Sequence[Record], names: Sequence[str]) -> list[tuple[dict[str, Any], list[Record]]]:
    """Records apart by the values of settings; a reference is in every group that its rows belong to.

    Raises UsageError for a name that is no setting.
    """
    settings = {name: key for name, key in FIELDS.items() if key in SETTINGS}
    keys = [find(settings, name.replace("-", "_"), "setting of --by") for name in names]
    groups: dict[tuple[Any, ...], list[Record]] = {}
    runs = [record for record in records if record.result.spec.kind != "reference"]
    for record in runs or records:
        groups.setdefault(tuple(field_of(record, key) for key in keys), [])
    ordered = sorted(groups, key=lambda values: [(value is None, str(type(value)), value) for value in values])
    out = []
    for values in ordered:
        clauses = [Clause(key, "=", (str(value),)) for key, value in zip(keys, values, strict=True)]
        out.append((dict(zip(keys, values, strict=True)), [r for r in records if _is_of(r, clauses, values)]))
    return out


def _is_of(record: Record, clauses: Sequence[Clause], values: Sequence[Any]) -> bool:
    untuned = not _is_tuned(record)
    return all(
        (untuned and clause.key in _NOT_OF_REFERENCES) or field_of(record, clause.key) == value
        for clause, value in zip(clauses, values, strict=True)
    )


def with_metric(records: Sequence[Record], metric: str) -> list[Record]:
    """The records judged by another metric; runs that lack it have no score. Raises UsageError where no run has it.

    The majority's score is known of a task's own headline only, so it decides nothing here.
    """
    known = {
        name: name
        for record in filter(is_averaged, records)
        for splits in record.result.metrics.values()
        for name in splits.get("validation", {})
    }
    find(known, metric, "metric of these runs")
    out = []
    for record in records:
        if not is_averaged(record):
            out.append(record)
            continue
        facts = {**record.result.facts, "headline": metric, "lower_is_better": metric in LOWER_IS_BETTER}
        if record.result.facts.get("headline") != metric:
            facts.pop("majority_score", None)
        out.append(replace(record, result=replace(record.result, facts=facts)))
    return out


def sort_rows(tables: Sequence[Table], key: str) -> list[Table]:
    """Rows of every table that has the column, by it; ``-key`` descends, rows without a value come last.

    Raises UsageError where no table has the column.
    """
    name, down = key.removeprefix("-"), key.startswith("-")
    known = {column.key: column.key for table in tables for column in table.columns}
    find(known, name, "column of --sort")

    def is_missing(row: Any) -> bool:
        value = row.get(name)
        return value is None or (isinstance(value, float) and math.isnan(value))

    def place(row: Any) -> tuple[bool, Any]:
        """Numbers before texts: a column may hold both."""
        return isinstance(row[name], str), row[name]

    out = []
    for table in tables:
        if name not in {column.key for column in table.columns}:
            out.append(table)
            continue
        rows = sorted((row for row in table.rows if not is_missing(row)), key=place, reverse=down)
        out.append(replace(table, rows=(*rows, *filter(is_missing, table.rows))))
    return out
