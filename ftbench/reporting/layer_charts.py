"""Pictures of ``ftbench variability``: nu, nu over its floor and the probe, by layer, with l* and its spread."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ftbench.reporting.layer_figure import title
from ftbench.reporting.marks import Chart, Mark
from ftbench.reporting.study import Study
from ftbench.types import Result

#: runs that are drawn
MOST = 8
#: measure -> what it is called, and its tone
MEASURES = {
    "nu": ("nu", 1),
    "ratio": ("nu / nu of shuffled labels", 2),
    "probe": ("score of the linear probe", 3),
}
NOTE = "Upright: l*, the layer with the lowest nu; the band is the middle 95 % of l* over resamples of the rows."


def layer_charts(study: Study) -> Iterator[Chart]:
    """A chart for each measure of each finished run with nu, the first eight runs."""
    results = [r.result for r in study.apart if r.result.spec.kind == "variability" and r.result.status == "ok"]
    for result in [result for result in results if result.facts["headline"] == "nu"][:MOST]:
        for name in MEASURES:
            if chart := _chart(result, name):
                yield chart


def _chart(result: Result, name: str) -> Chart | None:
    label, tone = MEASURES[name]
    points = _points(result, name)
    if len(points) < 2:
        return None
    x, y = zip(*points, strict=True)
    facts, layers = result.facts, (1.0, float(result.facts["layers"]))
    marks = [
        Mark("band", low=(facts["low"] - 0.4,), high=(facts["high"] + 0.4,), label="l* over resamples", tone=8),
        Mark("rule", (float(facts["best"]),), label=f"l* = {facts['best']}", tone=8),
        Mark("line", x, y, label=label, tone=tone, names=tuple(f"layer {n:g}: {v:.4g}" for n, v in points)),
    ]
    if name == "nu" and (floor := _points(result, "floor")):
        fx, fy = zip(*floor, strict=True)
        marks.append(Mark("line", fx, fy, label="nu of shuffled labels", tone=0, faint=True))
    if name == "ratio":
        marks.append(Mark("line", layers, (1.0, 1.0), label="no better than chance", tone=0, faint=True))
    about = title(result).replace("\n", "; ")
    axis = label if name != "probe" else f"{label}: {facts['probe']}"
    return Chart(f"layers-{result.spec.task}-{name}", f"Layers: {about}", "layer", axis, tuple(marks), note=NOTE)


def _points(result: Result, name: str) -> list[tuple[float, float]]:
    """(layer, value) where it is finite."""
    found = [(n, result.metrics[f"layer {n}"]["train"].get(name)) for n in range(1, result.facts["layers"] + 1)]
    return [(float(n), float(value)) for n, value in found if value is not None and math.isfinite(value)]
