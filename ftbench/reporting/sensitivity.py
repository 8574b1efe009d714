"""How much a method depends on its settings: the spread of an arm over learning rates, batch sizes and lengths."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ftbench.reporting import stats
from ftbench.reporting.cells import RECIPE_AXES, Cell, setting_columns, to_cells, unique, varying
from ftbench.types import Column, Record, Table

#: one point on the scale of 0 to 1 that the metrics have
POINT = 0.01
RULE = (
    "Sensitivity: each setting stands by its mean over seeds. spread is the best mean less the worst, within 1 point "
    "the share of settings whose mean is at most 0.01 from the method's own best. A spread as small as the seeds' own "
    "sd says nothing about settings; a setting without a finished run counts as not within."
)
UNEQUAL = "Methods differ in how many settings they were run at, so their spreads do not compare."


def sensitivity_table(records: Sequence[Record], *, selection: str = "last") -> Table | None:
    """A row for each method that was run at several settings of the recipe on the same rows; None without one."""
    arms, _ = to_cells(unique(records), selection)
    families: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in arms:
        families.setdefault(
            (*cell.spec.rows_key(), cell.spec.engine_revision, cell.method, cell.setting("method_revision")), []
        ).append(cell)
    swept = [cells for cells in families.values() if len(cells) > 1]
    if not swept:
        return None
    shown = [key for key in varying(arms) if key not in RECIPE_AXES]
    rows = [_row(cells, shown) for cells in swept]
    columns = (
        *setting_columns(shown),
        Column("method", "method", numeric=False),
        Column("metric", "metric", numeric=False),
        Column("settings", "settings"),
        Column("best", "best"),
        Column("best_at", "at", numeric=False),
        Column("worst", "worst"),
        Column("worst_at", "at", numeric=False),
        Column("spread", "spread"),
        Column("seed_sd", "seed sd"),
        Column("within_point", "within 1 point"),
        Column("bad", "fail+deg."),
    )
    sizes: dict[tuple[Any, ...], set[int]] = {}
    for cells in swept:
        sizes.setdefault(cells[0].spec.rows_key(), set()).add(len(cells))
    notes = (RULE, *((UNEQUAL,) if any(len(counts) > 1 for counts in sizes.values()) else ()))
    title = f"Sensitivity to {', '.join(_axes(swept))}"
    return Table(title, columns, tuple(rows), notes)


def _axes(families: Sequence[list[Cell]]) -> list[str]:
    """Labels of the recipe's settings that vary within a method."""
    varied = {key for cells in families for key in varying(cells)}
    return [label for key, label in RECIPE_AXES.items() if key in varied]


def _row(cells: list[Cell], shown: Sequence[str]) -> dict[str, Any]:
    lower = any(cell.lower_is_better for cell in cells)
    scored = [(cell.mean, cell) for cell in cells if cell.mean is not None]
    row: dict[str, Any] = {
        **{key: cells[0].setting(key) for key in shown},
        "method": cells[0].method,
        "metric": next((cell.metric for cell in cells if cell.metric), None),
        "settings": len(cells),
        "bad": sum(len(cell.records) - len(cell.ok) for cell in cells)
        + sum(stats.is_degenerate(record.result) for cell in cells for record in cell.ok),
    }
    if not scored:
        return row
    ranked = sorted(scored, key=lambda pair: pair[0] if lower else -pair[0])
    (best, at_best), (worst, at_worst) = ranked[0], ranked[-1]
    sds = [statistics.stdev(cell.scores.values()) for _, cell in scored if len(cell.scores) > 1]
    names = [key for key in varying(cells) if key in RECIPE_AXES]
    return row | {
        "best": best,
        "best_at": _setting(at_best, names),
        "worst": worst,
        "worst_at": _setting(at_worst, names),
        "spread": abs(best - worst),
        "seed_sd": statistics.fmean(sds) if sds else None,
        # scores are ratios of counts: a tie may differ in the last bit
        "within_point": sum(abs(best - mean) <= POINT + 1e-12 for mean, _ in scored) / len(cells),
    }


def _setting(cell: Cell, names: Sequence[str]) -> str:
    """``lr 5e-05, batch 16``."""
    values = ((RECIPE_AXES[name], cell.setting(name)) for name in names)
    return ", ".join(
        f"{label} {value:g}" if isinstance(value, float) else f"{label} {value}" for label, value in values
    )
