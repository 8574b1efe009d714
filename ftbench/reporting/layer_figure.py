"""The curves of ``ftbench variability`` as a picture: nu, nu over its floor and the probe, by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ftbench.errors import UsageError
from ftbench.reporting.pictures import BLUE, GREEN, GREY, ORANGE, write
from ftbench.types import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 8
CAPTION = (
    "Line: lowest nu (dashed: not recommended). Bars: share of resamples that choose a layer; band: their middle 95 %."
)
#: measure -> label of its axis, colour, marker
ROWS = {
    "nu": ("nu (lower: better)", BLUE, "o"),
    "ratio": ("nu / nu of shuffled labels", ORANGE, "s"),
    "probe": ("score of the linear probe", GREEN, "^"),
}


def draw_layers(results: Sequence[Result], path: Path) -> None:
    """A column for each run with nu, the first eight; a row for each measure.

    The vertical line is l*, whole where it is recommended and dashed where it is not; the band is the middle 95 % of
    the resamples' l*. Grey bars are the share of the resamples that choose a layer, in their own scale from 0 to 1.
    Raises UsageError where no run has nu, StoreError where the file cannot be written.
    """
    from matplotlib.figure import Figure

    shown = [result for result in results if result.status == "ok" and result.facts["headline"] == "nu"][:MOST]
    if not shown:
        raise UsageError("--figure: no run has nu to draw")
    rows = [name for name in ROWS if any(name in _layer(result, 1) for result in shown)]
    figure = Figure(figsize=(max(4.0, 2.8 * len(shown)), 1.9 * len(rows) + 0.7), layout="constrained")
    grid = figure.subplots(len(rows), len(shown), sharex="col", squeeze=False)
    for column, result in enumerate(shown):
        for row, name in enumerate(rows):
            _draw(grid[row][column], result, name)
            if column == 0:
                grid[row][column].set_ylabel(ROWS[name][0], fontsize=8)
        grid[0][column].set_title(title(result), fontsize=9)
        grid[-1][column].set_xlabel("layer", fontsize=8)
    figure.text(0.01, -0.02, CAPTION, fontsize=7, va="top")
    write(figure, path)


def _draw(axes: Axes, result: Result, name: str) -> None:
    layers, facts = range(1, result.facts["layers"] + 1), result.facts
    values = [_layer(result, n).get(name, math.nan) for n in layers]
    _, colour, marker = ROWS[name]
    axes.axvspan(facts["low"] - 0.4, facts["high"] + 0.4, color=GREY, alpha=0.15, lw=0)
    axes.axvline(facts["best"], color=GREY, ls="-" if facts["layer"] else "--", lw=1.2)
    axes.plot(layers, values, color=colour, marker=marker, ms=4, lw=1.5)
    if name == "ratio":
        axes.axhline(1, color=GREY, lw=0.8, ls=":")
    if name == "nu":
        shares = axes.twinx()
        shares.bar(layers, [_layer(result, n)["chosen_share"] for n in layers], color=GREY, alpha=0.35, width=0.5)
        shares.set_ylim(0, 1)
        shares.set_axis_off()
        axes.set_zorder(shares.get_zorder() + 1)
        axes.patch.set_visible(False)
    if name != "probe":
        axes.set_ylim(0, 1.08 * max([v for v in values if not math.isnan(v)], default=1))
    axes.set_xticks(list(layers) if len(layers) <= 12 else list(layers)[::3])
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _layer(result: Result, number: int) -> dict[str, float]:
    """The layer's measures; NaN for what is infinite, or was and is null in the store."""
    found = result.metrics[f"layer {number}"]["train"]
    return {name: v if v is not None and math.isfinite(v) else math.nan for name, v in found.items()}


def title(result: Result) -> str:
    """``sst2, 4,000 rows``, and on a second line the verdict."""
    spec, facts = result.spec, result.facts
    verdict = f"recommended: layer {facts['layer']}" if facts["layer"] else f"no layer: {facts['verdict']}"
    rows = f"{facts['rows']['train']:,} rows"
    noise = f", noise {spec.label_noise:g}" if spec.label_noise else ""
    rare = f", imbalance {spec.imbalance:g}" if spec.imbalance is not None else ""
    return f"{spec.task}, {rows}{rare}{noise}\n{verdict}"
