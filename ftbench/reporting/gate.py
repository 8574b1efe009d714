"""Demands on runs for scripts: a score that must be reached, a baseline that must not be undercut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftbench.errors import UsageError
from ftbench.reporting import intervals
from ftbench.reporting.cells import (
    LABELS,
    RECIPE_AXES,
    ROW_AXES,
    VERSIONS,
    Cell,
    setting_columns,
    to_cells,
    unique,
    varying,
)
from ftbench.reporting.differences import LEVEL, Difference, contrast, with_holm
from ftbench.reporting.select import FIELDS, Clause, parse_clauses, passes
from ftbench.reporting.study import Study
from ftbench.reporting.summaries import summary
from ftbench.reporting.words import several
from ftbench.types import Column, Record, Table

#: what a demand can be about, besides the name of any metric
MEASURES = (
    "metric", "mean", "sd", "median", "min", "max", "n", "failed", "degenerate", "low", "high", "difference",
    "difference_low", "difference_high", "p_holm", "verdict",
)  # fmt: skip
#: what tells the runs of one arm apart
_OF_RUNS = ("seed", "data_seed", "status")


@dataclass(frozen=True)
class Verdict:
    """Whether a demand is met, and one line why."""

    met: bool
    line: str


def require(study: Study, text: str) -> Verdict:
    """Whether every arm that the demand names meets it; no such arm does not.

    text: clauses as in ``--where`` (which arms), and at least one on a measure: ``metric>=0.68`` (the headline's mean),
    ``low>=0.65`` (the lower end of its interval), ``difference>=0`` (to std), ``accuracy>=0.9``, ``failed=0``.
    Raises UsageError for a text that is no demand, and for one on some runs of an arm.
    """
    metrics = {name for r in study.records for s in r.result.metrics.values() for m in s.values() for name in m}
    known = {**FIELDS, **{name: name for name in (*sorted(metrics), *MEASURES)}}
    clauses = parse_clauses(text, known, "--require")
    which = [clause for clause in clauses if clause.key in FIELDS.values()]
    demands = [clause for clause in clauses if clause.key not in FIELDS.values()]
    if not demands:
        named = ", ".join(MEASURES)
        raise UsageError(f"--require '{text}' demands nothing: add a clause such as metric>=0.68. Known: {named}")
    for clause in which:
        if clause.key in _OF_RUNS:
            raise UsageError(
                f"--require '{clause}': a demand is on all runs of an arm. Give --where '{clause}' as well"
            )
    arms, _ = to_cells(unique(study.records), study.selection)
    cells = [cell for cell in arms if passes(cell.records[0], which)]
    if not cells:
        return Verdict(False, f"not met: {text}: no runs match")
    failures = [line for cell in cells if (line := _failure(study, cell, demands))]
    if failures:
        more = f" (and {len(failures) - 1} more arms)" if len(failures) > 1 else ""
        return Verdict(False, f"not met: {text}: {failures[0]}{more}")
    return Verdict(True, f"met: {text}: {len(cells)} {'arm' if len(cells) == 1 else 'arms'}")


def _failure(study: Study, cell: Cell, demands: Sequence[Clause]) -> str:
    values = _values(study, cell)
    for clause in demands:
        value = values.get(clause.key)
        if value is None:
            return f"{_named(cell)} has no {clause.key}"
        if not clause.holds(value):
            shown = f"{value:.4g}" if isinstance(value, float) else value
            return f"{_named(cell)} has {clause.key} {shown}"
    return ""


def _named(cell: Cell) -> str:
    return f"{cell.spec.task} {cell.method} ({cell.metric or 'no score'}, n {len(cell.scores)})"


def _values(study: Study, cell: Cell) -> dict[str, Any]:
    row = summary(cell, study.generator())
    values = {key: row[key] for key in ("mean", "sd", "median", "min", "max", "n", "failed", "degenerate")}
    interval = intervals.mean_interval(list(cell.scores.values()), study.generator())
    values |= {"metric": row["mean"], **({"low": interval.low, "high": interval.high} if interval else {})}
    for metric in {name for r in cell.ok for name in r.result.metrics.get(cell.selection, {}).get("validation", {})}:
        scores = [s for r in cell.ok if (s := r.result.score(metric, cell.selection)) is not None]
        values[metric] = float(np.mean(scores)) if scores else None
    found = [d for d in study.differences if d.cell.records[0] is cell.records[0]]
    if found and found[0].headline is not None:
        d = found[0]
        assert d.headline is not None
        values |= {"difference": d.headline.mean, "difference_low": d.headline.low, "difference_high": d.headline.high}
        values |= {"p_holm": d.p_holm, "verdict": d.verdict}
    return values


_COLUMNS = (
    Column("method", "method", numeric=False), Column("metric", "metric", numeric=False), Column("pairs", "pairs"),
    Column("before", "before"), Column("mean", "now"), Column("difference", "change"), Column("low", "low"),
    Column("high", "high"), Column("basis", "basis", numeric=False), Column("p", "p"), Column("p_holm", "p Holm"),
    Column("verdict", "verdict", numeric=False),
)  # fmt: skip
RULE = (
    "Change: now less baseline, over the seeds that both have, arms of one task, settings and method; revisions of "
    "code may differ, rows and weights may not. 'worse' is a regression: p below 5 % after Holm's correction over "
    "arms; and so is a run that failed, or has no finite score, and that the baseline finished. 'no test': so few "
    "seeds that no change of any size could have been told from chance."
)


@dataclass(frozen=True)
class Comparison:
    """Arms now against the same arms in a baseline.

    refused: what was not compared, and why; broken: arms with runs that failed and that the baseline finished
    """

    changes: tuple[Difference, ...]
    refused: tuple[str, ...]
    broken: tuple[str, ...] = ()

    @property
    def regressions(self) -> list[Difference]:
        return [change for change in self.changes if change.verdict == "worse"]

    @property
    def blind(self) -> list[Difference]:
        """Arms that changed, but in which no change could have been decided."""
        return [change for change in self.changes if _is_blind(change)]

    def verdict(self) -> Verdict:
        """Not met when an arm got worse or fails where it did not, or when nothing could be compared, or tested."""
        apart = f"; {len(self.refused)} not compared: {self.refused[0]}" if self.refused else ""
        if self.broken:
            more = f" (and {len(self.broken) - 1} more arms)" if len(self.broken) > 1 else ""
            return Verdict(False, f"regression: {self.broken[0]}{more}")
        if not self.changes:
            why = f": {self.refused[0]}" if self.refused else ""
            return Verdict(False, f"nothing to compare with the baseline{why}")
        if worse := self.regressions:
            first = worse[0]
            assert first.headline is not None
            more = f" (and {len(worse) - 1} more arms)" if len(worse) > 1 else ""
            return Verdict(
                False,
                f"regression: {_named(first.cell)} changed by {first.headline.mean:+.4f} "
                f"[{first.headline.low:+.4f}, {first.headline.high:+.4f}], p {first.p_holm:.3g} after Holm{more}",
            )
        unseen = f"{several(len(self.blind), 'arm')} without a test: {_unseen(self.blind[0])}" if self.blind else ""
        if len(self.blind) == len(self.changes):
            return Verdict(False, f"no regression could have been shown: {unseen}{apart}")
        shown = several(len(self.changes) - len(self.blind), "arm")
        return Verdict(True, f"no regression shown in {shown}{f'; {unseen}' if unseen else ''}{apart}")

    def table(self) -> Table:
        """A row for each arm that was compared."""
        keys = varying([change.cell for change in self.changes]) if self.changes else ["task"]
        rows = []
        for d in self.changes:
            row = {key: d.cell.setting(key) for key in keys} | dict.fromkeys(column.key for column in _COLUMNS)
            row |= {"method": d.cell.method, "metric": d.cell.metric, "pairs": len(d.a), "basis": d.basis or None}
            row |= {"before": float(np.mean(d.b)), "mean": float(np.mean(d.a))}
            row |= {"verdict": "no test" if _is_blind(d) else d.verdict}
            row |= {"difference": float(np.mean(d.differences)), "p_holm": d.p_holm}
            if d.headline is not None:
                row |= {"low": d.headline.low, "high": d.headline.high, "p": d.headline.p}
            rows.append(row)
        notes = [f"{text}." for text in self.broken] + [f"No test: {_unseen(d)}." for d in self.blind]
        notes += [f"Not compared: {text}." for text in self.refused]
        return Table("Against the baseline", setting_columns(keys) + _COLUMNS, tuple(rows), (RULE, *notes))


def _is_blind(d: Difference) -> bool:
    """Whether scores changed and no test of these seeds can reach 5 % after Holm: one pair without predictions, or so
    few pairs that all changed alike that the sign-flip test, which is all there is then, cannot."""
    if not any(d.differences):
        return False
    return d.headline is None or (d.headline.se == 0 and (d.p_holm or 0.0) >= LEVEL)


def _unseen(d: Difference) -> str:
    change = f"{_named(d.cell)} changed by {float(np.mean(d.differences)):+.4f}"
    if d.headline is None:
        return f"{change} in one pair of seeds"
    return f"{change} in each of {len(d.a)} pairs of seeds, of which p is {d.p_holm:.3g} at least after Holm"


def against(study: Study, baseline: Sequence[Record]) -> Comparison:
    """Every arm that the baseline has too, compared seed by seed; never rows or weights with others."""
    now, before = (to_cells(unique(records), study.selection)[0] for records in (study.records, baseline))
    found, refused, broken = [], [], []
    for cell in now:
        same = [other for other in before if _identity(other) == _identity(cell)]
        usable = [other for other in same if not _mismatch(cell, other)]
        if len(usable) != 1:
            why = _mismatch(cell, same[0]) if same and not usable else "several arms there" if usable else "not there"
            refused.append(f"{_named(cell)}: {why}")
            continue
        if failed := _failed_of(cell, usable[0]):
            runs = f"{failed} of {several(len(usable[0].scores), 'run')} that the baseline finished"
            broken.append(f"{_named(cell)}: {runs} failed here")
        keys = [key for key in cell.scores if key in usable[0].scores]
        if not keys:
            refused.append(f"{_named(cell)}: no seed that both finished")
            continue
        found.append(contrast(cell, usable[0], keys, study.kept))
        if lacking := [key for key in usable[0].scores if key not in _keys(cell)]:
            runs = f"{len(lacking)} of {several(len(usable[0].scores), 'run')} of the baseline"
            refused.append(f"{_named(cell)}: {runs} were not run here (seed {_shown(lacking)})")
    here = {_identity(cell) for cell in now}
    refused += [f"{_named(other)}: in the baseline only" for other in before if _identity(other) not in here]
    return Comparison(tuple(with_holm(found, "all")), tuple(refused), tuple(broken))


def _keys(cell: Cell) -> set[tuple[int, int]]:
    """(data seed, seed) of all runs, finished or not."""
    return {(record.result.spec.data_seed, record.result.spec.seed) for record in cell.records}


def _failed_of(cell: Cell, before: Cell) -> int:
    """How many runs have no score here that have one in the baseline."""
    return len((_keys(cell) & before.scores.keys()) - cell.scores.keys())


def _shown(keys: Sequence[tuple[int, int]]) -> str:
    """``2, 3, 4``; with the data seed where that is not 0."""
    texts = [f"{seed} of data seed {data}" if data else f"{seed}" for data, seed in sorted(keys)]
    return ", ".join([*texts[:8], *(["..."] if len(texts) > 8 else [])])


def _identity(cell: Cell) -> tuple[Any, ...]:
    return (cell.spec.task, cell.method, *(cell.setting(key) for key in (*ROW_AXES, *RECIPE_AXES) if key != "model"))


def _mismatch(cell: Cell, other: Cell) -> str:
    """What makes the two scores of different things; empty where nothing does."""
    names = [key for key in VERSIONS if key in ("data", "weights", "task_revision")]
    apart = [LABELS[key] for key in names if cell.setting(key) != other.setting(key)]
    if cell.ok and cell.metric != other.metric:
        apart.append("metric")
    return f"{', '.join(apart)} differ from the baseline's" if apart else ""


def step_summary(verdicts: Sequence[Verdict], tables: Sequence[str]) -> str:
    """Markdown for a CI's summary page: a line for each demand, then tables."""
    lines = [f"- {'PASS' if verdict.met else 'FAIL'}: {verdict.line}" for verdict in verdicts]
    return "\n".join(["## ftbench report", "", *lines, "", *tables]) + "\n"
