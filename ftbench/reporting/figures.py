"""Charts as files for papers: PDF and PNG, colour-blind safe (Okabe and Ito 2008), legible in grey."""

from __future__ import annotations

import itertools
import re
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftbench.errors import StoreError, explain
from ftbench.reporting.marks import Chart, Mark, legend
from ftbench.reporting.svg import scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's colours, the first one for what has no colour of its own
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F00", "#666666")
_DASHES: tuple[Any, ...] = (
    "-", "-", (0, (6, 3)), (0, (2, 2)), (0, (8, 3, 2, 3)), (0, (4, 4)), (0, (10, 4)), (0, (1, 3)), (0, (6, 2, 1, 2)),
)  # fmt: skip
_SHAPES = ("o", "s", "^", "D", "v")
_WIDTH, _HEIGHT, _ROW = 5.5, 3.4, 0.3  # inches
_TITLE = 68  # letters of a line
_LEGEND = 90  # letters of a row of the legend


def write_figures(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """A PDF and a PNG for each chart, named after it; returns them. Raises StoreError where they cannot be written."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for chart, name in zip(charts, _file_names(charts), strict=True):
            written += _write(chart, folder / name)
    except OSError as error:
        raise StoreError(f"cannot write figures to {folder}: {explain(error)}") from error
    return written


def _file_names(charts: Sequence[Chart]) -> list[str]:
    """The charts' names as file names, no two alike, nor where a disk takes A for a."""
    names: dict[str, str] = {}
    for chart in charts:
        name = slug = _slug(chart.name)
        numbers = itertools.count(2)
        while name.lower() in names:
            name = f"{slug}-{next(numbers)}"
        names[name.lower()] = name
    return list(names.values())


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "figure"


def _write(chart: Chart, stem: Path) -> list[Path]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 1.3 + _ROW * len(chart.categories) if chart.categories else _HEIGHT
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _dress(axes, chart)
    named = {id(mark): mark.label for mark in legend(chart.marks)}
    for mark in chart.marks:
        _draw(axes, mark, _cut(named.get(id(mark), ""), _LEGEND).replace("$", r"\$") or None)
    _add_legend(axes)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("pdf", "png")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in a script the font lacks
        for path in paths:
            about = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
            figure.savefig(path, dpi=200, metadata=about)  # the same bytes every time
    return paths


def _dress(axes: Axes, chart: Chart) -> None:
    """Title, axes and ticks. A ``$`` in a name is a dollar, not mathematics."""
    axes.set_title(textwrap.fill(chart.title, _TITLE), fontsize=9, loc="left", parse_math=False)
    axes.set_xlabel(chart.x, fontsize=8, parse_math=False)
    axes.set_ylabel(chart.y, fontsize=8, parse_math=False)
    if chart.log:
        axes.set_xscale("log")
        _, ticks = scale([v for mark in chart.marks for v in mark.x], 0.0, 1.0, log=True)
        axes.set_xticks([v for v, _ in ticks], [label for _, label in ticks])
        axes.minorticks_off()
    if chart.hundredths:
        axis = axes.xaxis if chart.hundredths == "x" else axes.yaxis
        axis.set_major_formatter(lambda value, place: f"{100 * value:g}")
    if chart.categories:
        axes.set_yticks(range(len(chart.categories)), [_cut(name) for name in chart.categories])
        axes.set_ylim(len(chart.categories) - 0.5, -0.5)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
    axes.tick_params(labelsize=7)
    axes.grid(color="0.88", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _cut(name: str, most: int = 36) -> str:
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _draw(axes: Axes, mark: Mark, label: str | None) -> None:
    colour, alpha = COLOURS[mark.tone % len(COLOURS)], 0.55 if mark.faint else 1.0
    if mark.kind == "rule":
        for i, x in enumerate(mark.x):
            axes.axvline(
                x,
                color=colour,
                linewidth=1.2,
                linestyle=_DASHES[mark.tone % len(_DASHES)],
                label=label if i == 0 else None,
            )
    elif mark.kind == "band":
        for low, high in zip(mark.low, mark.high, strict=True):
            axes.axvspan(low, high, color=colour, alpha=0.18, linewidth=0, label=label)
    elif mark.kind == "line":
        dashes = _DASHES[mark.tone % len(_DASHES)]
        shape = _SHAPES[mark.tone % 5] if 0 < len(mark.x) <= 12 else ""
        axes.plot(
            mark.x, mark.y, color=colour, alpha=alpha, linewidth=1.3, linestyle=dashes, marker=shape, markersize=3,
            label=label,
        )  # fmt: skip
    elif mark.kind == "points":
        axes.scatter(
            mark.x, mark.y, color=colour, alpha=alpha, s=13, marker=_SHAPES[mark.tone % 5], label=label, zorder=3
        )
    else:
        wide = 0.9 if mark.kind == "thin bars" else 2.2
        ends = [
            [a - b for a, b in zip(mark.x, mark.low, strict=True)],
            [b - a for a, b in zip(mark.x, mark.high, strict=True)],
        ]
        axes.errorbar(
            mark.x,
            mark.y,
            xerr=ends,
            fmt="D",
            color=colour,
            markersize=2 + wide,
            elinewidth=wide,
            capsize=0,
            zorder=4,
            label=label,
        )


def _add_legend(axes: Axes) -> None:
    _, labels = axes.get_legend_handles_labels()
    if labels:
        columns = max(1, min(3, _LEGEND // max(map(len, labels))))
        axes.figure.legend(fontsize=6.5, frameon=False, loc="outside lower left", ncols=columns)
