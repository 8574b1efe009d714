"""Where the spread of an arm comes from: which rows were drawn, the seed, or neither."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ftbench.reporting.cells import Cell, setting_columns, to_cells, unique, varying
from ftbench.types import Column, Record, Table

RULE = (
    "Spread: standard deviations of a two-way random-effects analysis of variance over data seeds and seeds (one run "
    "for each pair; negative estimates are 0). draw: other rows or flipped labels; seed: other head, order and dropout "
    "masks; rest: their interaction. Few draws or seeds estimate a deviation poorly."
)


class Components(NamedTuple):
    """Standard deviations; ``draws`` and ``seeds`` count the levels of the complete grid they come from."""

    draws: int
    seeds: int
    draw: float
    seed: float
    rest: float


def components(scores: Mapping[tuple[int, int], float]) -> Components | None:
    """Of (data seed, seed) to score; over the seeds that every draw has. None below two draws or two seeds.

    Method of moments: var(draw) = (MS_draw - MS_rest) / seeds, var(seed) = (MS_seed - MS_rest) / draws,
    var(rest) = MS_rest (Searle, Casella, McCulloch 1992, chapter 4).
    """
    draws = sorted({draw for draw, _ in scores})
    seeds = sorted(s for s in {seed for _, seed in scores} if all((draw, s) in scores for draw in draws))
    a, b = len(draws), len(seeds)
    if a < 2 or b < 2:
        return None
    grid = [[scores[draw, seed] for seed in seeds] for draw in draws]
    mean = sum(map(sum, grid)) / (a * b)
    by_draw = [sum(row) / b for row in grid]
    by_seed = [sum(column) / a for column in zip(*grid, strict=True)]
    ms_draw = b * sum((m - mean) ** 2 for m in by_draw) / (a - 1)
    ms_seed = a * sum((m - mean) ** 2 for m in by_seed) / (b - 1)
    rest = sum((grid[i][j] - by_draw[i] - by_seed[j] + mean) ** 2 for i in range(a) for j in range(b))
    ms_rest = rest / ((a - 1) * (b - 1))
    return Components(
        a, b, math.sqrt(max(0.0, (ms_draw - ms_rest) / b)), math.sqrt(max(0.0, (ms_seed - ms_rest) / a)),
        math.sqrt(ms_rest),
    )  # fmt: skip


def variance_table(records: Sequence[Record], *, selection: str = "last") -> Table | None:
    """A row for each arm with several data seeds and seeds; None without one."""
    arms, _ = to_cells(unique(records), selection)
    found = [(cell, parts) for cell in arms if (parts := components(cell.scores))]
    if not found:
        return None
    settings = varying(arms)
    columns = (
        *setting_columns(settings),
        Column("method", "method", numeric=False),
        Column("metric", "metric", numeric=False),
        Column("draws", "draws"),
        Column("seeds", "seeds"),
        Column("sd_draw", "sd draw"),
        Column("sd_seed", "sd seed"),
        Column("sd_rest", "sd rest"),
    )
    rows = tuple(_row(cell, parts, settings) for cell, parts in found)
    return Table("Where the spread comes from", columns, rows, (RULE,))


def _row(cell: Cell, parts: Components, settings: Sequence[str]) -> dict[str, Any]:
    return {
        **{key: cell.setting(key) for key in settings},
        "method": cell.method,
        "metric": cell.metric,
        "draws": parts.draws,
        "seeds": parts.seeds,
        "sd_draw": parts.draw,
        "sd_seed": parts.seed,
        "sd_rest": parts.rest,
    }
