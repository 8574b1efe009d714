"""Probe runs as a picture: the score of each layer, of each stage of a chain, and collapse against the score."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftbench.errors import UsageError
from ftbench.reporting.pictures import COLOURS, GREY, MARKERS, write
from ftbench.reporting.probed import PRETRAINED, RANDOM, Probed, group
from ftbench.types import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 6
CAPTION = (
    "Means over seeds, bars: lowest and highest seed. Grey: the pretrained encoder (solid) and a random one (dotted).\n"
    "Below: one point a run, top layer; circle: pretrained, cross: random."
)


def draw_probes(records: Sequence[Record], path: Path) -> None:
    """A column for each probed task, the first six. Above: by layer, or by stage where an encoder was tuned several
    times; below: effective rank against the score.

    Raises UsageError where nothing was probed, StoreError where the file cannot be written.
    """
    from matplotlib.figure import Figure

    sets = [found for found in group(records) if any(one.ok for one in found)][:MOST]
    if not sets:
        raise UsageError("--figure: no finished probe to draw")
    methods = sorted({one.spec.method for found in sets for one in found if not one.is_reference}, key=_std_first)
    staged = any(one.encoder.count(">") for found in sets for one in found)
    figure = Figure(figsize=(max(5.0, 3.0 * len(sets)), 5.4), layout="constrained")
    grid = figure.subplots(2, len(sets), squeeze=False)
    for column, found in enumerate(sets):
        above, below = grid[0][column], grid[1][column]
        (_by_stage if staged else _by_layer)(above, found, methods)
        _collapse(below, found, methods)
        above.set_title(found[0].spec.task, fontsize=9)
        for axes in (above, below):
            axes.tick_params(labelsize=7)
            axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylabel(f"probe: {sets[0][0].metric}", fontsize=8)
    grid[1][0].set_ylabel(f"probe: {sets[0][0].metric}", fontsize=8)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)), fontsize=7, frameon=False)
    figure.text(0.01, -0.03, CAPTION, fontsize=7, va="top")
    write(figure, path)


def _by_layer(axes: Axes, found: Sequence[Probed], methods: Sequence[str]) -> None:
    for one in (one for one in found if one.ok):
        layers = list(range(1, one.layers + 1))
        values = [one.values(one.metric, layer) for layer in layers]
        if one.is_reference:
            means = [statistics.fmean(v) for v in values]
            axes.plot(layers, means, color=GREY, ls=":" if one.encoder == RANDOM else "-", lw=1.2, label=one.encoder)
        else:
            _line(axes, layers, values, one.spec.method, methods)
    axes.set_xlabel("layer", fontsize=8)


def _by_stage(axes: Axes, found: Sequence[Probed], methods: Sequence[str]) -> None:
    """The top layer after each stage; x is the number of tasks that the encoder was tuned on before."""
    ready = [one for one in found if one.ok]
    for one in (one for one in ready if one.is_reference):
        level = statistics.fmean(_top(one))
        axes.axhline(level, color=GREY, ls=":" if one.encoder == RANDOM else "-", lw=1.2, label=one.encoder)
    for method in methods:
        own = sorted((one for one in ready if not one.is_reference and one.spec.method == method), key=_stage)
        _line(axes, [_stage(one) for one in own], [_top(one) for one in own], method, methods)
    axes.set_xlabel("tasks tuned on before", fontsize=8)
    axes.set_xticks(sorted({_stage(one) for one in ready if not one.is_reference}))


def _line(axes: Axes, x: Sequence[int], values: Sequence[Sequence[float]], method: str, methods: Sequence[str]) -> None:
    """Means of ``values``, a list for each x, with bars from the lowest to the highest."""
    means = [statistics.fmean(v) for v in values]
    spread = [
        [max(mean - min(v), 0.0) for mean, v in zip(means, values, strict=True)],  # a mean of equal values is rounded
        [max(max(v) - mean, 0.0) for mean, v in zip(means, values, strict=True)],
    ]
    axes.errorbar(x, means, yerr=spread, label=method, ms=4, lw=1.3, capsize=2, **_style(method, methods))


def _top(one: Probed) -> list[float]:
    return one.values(one.metric, one.layers)


def _collapse(axes: Axes, found: Sequence[Probed], methods: Sequence[str]) -> None:
    for one in (one for one in found if one.ok):
        layer = f"layer {one.layers}"
        ends = [
            (record.result.score("effective_rank", layer, "collapse"), record.result.score(one.metric, layer))
            for record in one.ok
        ]
        both = [(rank, score) for rank, score in ends if rank is not None and score is not None]
        ranks, scores = [rank for rank, _ in both], [score for _, score in both]
        if not one.is_reference:
            axes.scatter(ranks, scores, s=16, alpha=0.8, **_style(one.spec.method, methods))
        elif one.encoder == PRETRAINED:
            axes.scatter(ranks, scores, s=28, marker="o", facecolors="none", edgecolors=GREY)
        else:
            axes.scatter(ranks, scores, s=28, marker="x", color=GREY)
    axes.set_xlabel("effective rank", fontsize=8)


def _std_first(method: str) -> tuple[bool, str]:
    return method != "std", method


def _stage(one: Probed) -> int:
    return one.encoder.count(">") + 1


def _style(method: str, methods: Sequence[str]) -> dict[str, Any]:
    number = methods.index(method)
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
