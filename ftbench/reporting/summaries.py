"""Each arm by itself: how many runs, how many failed, where the scores lie, and what further seeds would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftbench.reporting import intervals, stats
from ftbench.reporting.cells import Cell, Group, by_rows, setting_columns, to_cells, unique, varying
from ftbench.reporting.differences import LEVEL, contrast
from ftbench.reporting.predictions import Kept
from ftbench.types import Column, Record, Table

RULE = (
    "95 %: interval of the mean over further seeds, Student's t below 20 scores and BCa from 20 on. Where runs failed, "
    "diverged or were degenerate one mean would hide two things, so two numbers stand there: bad, the share of such "
    "runs with Wilson's interval, and the interval of the other runs' mean (rest)."
)
NEAR = (
    "Marked where a form can: the best mean, and those that the test of differences does not tell from it (p of 5 % or "
    "more, not corrected). The best of several is best by luck too."
)
_MEASURES = (
    Column("method", "method", numeric=False), Column("metric", "metric", numeric=False), Column("n", "n"),
    Column("failed", "fail"), Column("degenerate", "deg."), Column("mean", "mean"), Column("sd", "sd"),
    Column("rest", "rest"), Column("rest_low", "low"), Column("rest_high", "high"),
    Column("interval", "by", numeric=False), Column("median", "med."), Column("q1", "q1"), Column("q3", "q3"),
    Column("min", "min"), Column("max", "max"), Column("bad", "bad"), Column("bad_low", "low"),
    Column("bad_high", "high"),
)  # fmt: skip


def summary_table(
    records: Sequence[Record], generator: np.random.Generator, kept: Kept, *, selection: str = "last"
) -> Table | None:
    """A row for each arm; None without one."""
    arms, references = to_cells(unique(records), selection)
    if not arms:
        return None
    settings = varying(arms)
    seed = int(generator.integers(2**62))
    rows = tuple(
        {key: cell.setting(key) for key in settings}
        | summary(cell, np.random.default_rng(seed))
        | style(group, cell, kept)
        for _, groups in by_rows(arms, references)
        for group in groups
        for cell in group.arms
    )
    notes = (RULE, stats.DEGENERATE_RULE, *((NEAR,) if any("style" in row for row in rows) else ()))
    return Table(f"Arms, {selection} weights", setting_columns(settings) + _MEASURES, rows, notes)


def style(group: Group, cell: Cell, kept: Kept) -> dict[str, str]:
    """``best`` for the best mean of a group whose std learned, ``near`` for those that no test tells from it."""
    best = group.best
    if best is None or not cell.scores:
        return {}
    if cell is best:
        return {"style": "best"}
    keys = [key for key in cell.scores if key in best.scores]
    headline = contrast(cell, best, keys, kept).headline if keys and cell.metric == best.metric else None
    return {"style": "near"} if headline is None or headline.p >= LEVEL else {}


def summary(cell: Cell, generator: np.random.Generator) -> dict[str, Any]:
    """One arm's row; statistics are None where there are too few scores for them."""
    row: dict[str, Any] = dict.fromkeys(column.key for column in _MEASURES)
    degenerate = {id(record) for record in cell.ok if stats.is_degenerate(record.result)}
    bad = len(cell.records) - len(cell.ok) + len(degenerate)
    row |= {
        "method": cell.method, "metric": cell.metric or None, "n": len(cell.scores),
        "failed": len(cell.records) - len(cell.ok), "degenerate": len(degenerate),
    }  # fmt: skip
    if bad:
        low, high = intervals.wilson(bad, len(cell.records))
        row |= {"bad": bad / len(cell.records), "bad_low": low, "bad_high": high}
    scores = list(cell.scores.values())
    if scores:
        q1, q3 = intervals.quartiles(scores)
        row |= stats.summary(scores)._asdict() | {"q1": q1, "q3": q3, "min": min(scores)}
    rest = _scores_of(cell, degenerate)
    if rest:
        row["rest"] = float(np.mean(rest))
    if interval := intervals.mean_interval(rest, generator):
        row |= {"rest_low": interval.low, "rest_high": interval.high, "interval": interval.kind}
    return row


def _scores_of(cell: Cell, left_out: set[int]) -> list[float]:
    kept = {(r.result.spec.data_seed, r.result.spec.seed) for r in cell.ok if id(r) not in left_out}
    return [score for key, score in cell.scores.items() if key in kept]
