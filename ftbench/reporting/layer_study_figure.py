"""A study of layers as a picture: the score of tuning at every place, over nu of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ftbench.errors import UsageError
from ftbench.reporting.layer_runs import Tuned, measured_by_layer, tuned_layers
from ftbench.reporting.pictures import BLUE, GREEN, GREY, ORANGE, write
from ftbench.types import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 6
CAPTION = (
    "Points: single seeds; line: their mean, tuning k layers up to this one with the head on it. Green line: tuning "
    "all; dotted: the best place.\nBelow: nu before training (lower should be better). Vertical line: l*, dashed where "
    "it is not recommended."
)


def draw_layer_study(records: Sequence[Record], path: Path) -> None:
    """A column for each way to tune and number of layers, the first six: above the scores, below nu.

    Raises UsageError where no place was tuned, StoreError where the file cannot be written.
    """
    from matplotlib.figure import Figure

    swept = [(tuned, count) for tuned in tuned_layers(records) for count in tuned.counts]
    shown = [(t, k) for t, k in swept if sum(score is not None for score in t.by_layer(k)) > 1][:MOST]
    if not shown:
        raise UsageError("--figure: no runs that tune at several places to draw")
    figure = Figure(figsize=(max(4.5, 3.2 * len(shown)), 4.6), layout="constrained")
    grid = figure.subplots(2, len(shown), sharex="col", sharey="row", squeeze=False, height_ratios=[2, 1])
    for column, (tuned, count) in enumerate(shown):
        _draw_scores(grid[0][column], tuned, count)
        _draw_nu(grid[1][column], tuned)
    grid[0][0].set_ylabel(shown[0][0].first.metric, fontsize=8)
    grid[1][0].set_ylabel("nu", fontsize=8)
    figure.text(0.01, -0.02, CAPTION, fontsize=7, va="top")
    write(figure, path)


def _draw_scores(axes: Axes, tuned: Tuned, count: int) -> None:
    spec, layers = tuned.first.spec, np.arange(1, tuned.blocks + 1)
    for layer in layers[count - 1 :]:
        place = next(p for p in tuned.places(count) if p.top == layer)
        scores = list(tuned.scores(tuned.same(place)).values())
        axes.plot([layer] * len(scores), scores, ls="", marker=".", ms=3, color=BLUE, alpha=0.4)
    means = np.array([np.nan if score is None else score for score in tuned.by_layer(count)])
    axes.plot(layers, means, color=BLUE, marker="o", ms=4, lw=1.5)
    if whole := tuned.all():
        axes.axhline(float(np.mean(list(whole.values()))), color=GREEN, lw=1.2)
    if best := tuned.best_place(count):
        axes.axhline(means[best.top - 1], color=GREY, lw=0.9, ls=":")
    _mark(axes, tuned)
    size = f", {spec.train_size:,} rows" if spec.train_size else ""
    way = "full" if tuned.first.method == "std" else tuned.first.method
    axes.set_title(f"{spec.task}{size}\n{way}, k = {count}", fontsize=9)


def _draw_nu(axes: Axes, tuned: Tuned) -> None:
    layers = np.arange(1, tuned.blocks + 1)
    for record in tuned.measures.values():
        curve = measured_by_layer(record, "nu")
        if curve is not None:
            axes.plot(layers, np.where(np.isfinite(curve), curve, np.nan), color=ORANGE, marker="s", ms=4, lw=1.5)
    _mark(axes, tuned)
    axes.set_ylim(bottom=0)
    axes.set_xticks(layers if len(layers) <= 12 else layers[::3])
    axes.set_xlabel("layer", fontsize=8)


def _mark(axes: Axes, tuned: Tuned) -> None:
    for record in tuned.measures.values():
        facts = record.result.facts
        axes.axvline(facts["best"], color=GREY, ls="-" if facts["layer"] else "--", lw=1.2)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
