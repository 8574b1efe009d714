"""Charts as inline SVG: coloured by the page's style sheet, legible in grey by shape and dashes, escaped throughout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from ftbench.reporting.marks import Chart, Mark, legend

TONES = 9
DASHES = ("", "", "6 3", "2 2", "8 3 2 3", "4 4", "10 4", "1 3", "6 2 1 2")
_WIDTH, _RIGHT, _TOP, _BOTTOM = 480, 16, 24, 40
_ROW, _PLOT = 26, 230  # height of a category, and of a plot without categories
_LETTER = 7.0  # width of a letter of a label, about

Scale = Callable[[float], float]
Ticks = Sequence[tuple[float, str]]


def to_svg(chart: Chart) -> str:
    """One ``<svg>`` element, with a title for those who do not see it."""
    left = _left(chart)
    height = _TOP + _BOTTOM + (_ROW * len(chart.categories) if chart.categories else _PLOT)
    x, x_ticks = scale(
        [v for m in chart.marks for v in (*m.x, *m.low, *m.high)], left, _WIDTH - _RIGHT,
        log=chart.log, unit=100 if chart.hundredths == "x" else 1, most=max(3, int((_WIDTH - _RIGHT - left) / 50)),
    )  # fmt: skip
    y: Scale
    y_ticks: Ticks
    if chart.categories:
        y = lambda place: _TOP + _ROW * (place + 0.5)  # noqa: E731
        y_ticks = [(float(i), _cut(name, left)) for i, name in enumerate(chart.categories)]
    else:
        unit = 100 if chart.hundredths == "y" else 1
        y, y_ticks = scale([v for mark in chart.marks for v in mark.y], height - _BOTTOM, _TOP, unit=unit)
    legend, extra = _legend(chart.marks, left)
    names = chart.categories or tuple(label for _, label in y_ticks)
    parts = [
        *(_line(x(v), _TOP, x(v), height - _BOTTOM, "grid") for v, _ in x_ticks),
        *(_line(left, y(v), _WIDTH - _RIGHT, y(v), "grid") for v, _ in y_ticks),
        *(_text(x(v), height - _BOTTOM + 15, label, "middle") for v, label in x_ticks),
        *(_text(left - 6, y(v) + 4, label, "end", full) for (v, label), full in zip(y_ticks, names, strict=True)),
        _text((left + _WIDTH - _RIGHT) / 2, height - 6, chart.x, "middle", css="axis"),
        *([_text(left, 14, chart.y, "start", css="axis")] if chart.y else []),
        *(part for mark in chart.marks for part in _draw(mark, x, y, height - _BOTTOM)),
        f'<g transform="translate(0 {height})">{legend}</g>',
    ]
    title = f"<title>{escape(chart.title)}</title>"
    return f'<svg viewBox="0 0 {_WIDTH} {height + extra}" role="img">{title}{"".join(parts)}</svg>'


def scale(
    values: Sequence[float], start: float, end: float, *, log: bool = False, unit: float = 1, most: int = 8
) -> tuple[Scale, Ticks]:
    """From data to pixels ``start`` .. ``end``, with a margin, and the ticks, labelled ``unit`` times their value.

    ``most`` limits the ticks, 3 or more.
    """
    shown = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
    to = math.log10 if log else float
    low, high = to(min(shown)), to(max(shown))
    margin = 0.05 * (high - low) or max(abs(low), 1.0) * 0.05
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return start + (end - start) * (to(value) - low) / (high - low)

    ticks = _log_ticks(low, high, most) if log else _ticks(low, high, most)
    return place, [(v, f"{unit * v:g}") for v in ticks]


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers."""
    power = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(m * power for m in (1, 2, 5, 10, 20) if (high - low) / (m * power) <= most)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    if high - low < 0.7:  # less than a factor of five
        return _ticks(10**low, 10**high, most)
    span = range(math.floor(low), math.ceil(high) + 1)
    fine = [m * 10.0**k for k in span for m in (1, 2, 5) if low <= math.log10(m * 10.0**k) <= high]
    coarse = [v for v in fine if f"{v:e}".startswith("1")]
    found = coarse if len(fine) > most else fine
    return found or [10.0 ** ((low + high) / 2)]


def _left(chart: Chart) -> float:
    longest = max((len(name) for name in chart.categories), default=6)
    return min(230.0, 14 + _LETTER * longest)


def _cut(text: str, left: float) -> str:
    room = int((left - 14) / _LETTER)
    return text if len(text) <= room else text[: room - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _line(x1: float, y1: float, x2: float, y2: float, css: str, dash: str = "") -> str:
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{style}/>'


def _rectangle(x: float, width: float, y: float, height: float, css: str) -> str:
    return f'<rect class="band {css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, full: str = "", css: str = "label") -> str:
    title = f"<title>{escape(full)}</title>" if full and full != text else ""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{title}{escape(text)}</text>'


def _draw(mark: Mark, x: Scale, y: Scale, bottom: float) -> list[str]:
    css = f"t{mark.tone % TONES}{' faint' if mark.faint else ''}"
    names = mark.names or ("",) * len(mark.x)
    if mark.kind == "rule":
        dash = DASHES[mark.tone % TONES] or "4 3"
        return [_hint(_line(x(v), _TOP, x(v), bottom, f"rule {css}", dash), mark.label) for v in mark.x]
    if mark.kind == "band":
        ends = [(x(low), x(high)) for low, high in zip(mark.low, mark.high, strict=True)]
        return [_hint(_rectangle(left, right - left, _TOP, bottom - _TOP, css), mark.label) for left, right in ends]
    if mark.kind == "line":
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(mark.x, mark.y, strict=True))
        dash = DASHES[mark.tone % TONES]
        style = f' stroke-dasharray="{dash}"' if dash else ""
        dots = [_shape(0, x(a), y(b), css, n) for a, b, n in zip(mark.x, mark.y, names, strict=True) if n]
        return [f'<polyline class="line {css}" points="{path}"{style}/>', *dots]
    if mark.kind == "points":
        return [_shape(mark.tone, x(a), y(b), css, n) for a, b, n in zip(mark.x, mark.y, names, strict=True)]
    thin = "thin " if mark.kind == "thin bars" else ""
    bars = zip(mark.x, mark.y, mark.low, mark.high, names, strict=True)
    return [
        _hint(_line(x(low), y(b), x(high), y(b), f"{thin}bar {css}") + _shape(3, x(a), y(b), f"{thin}{css}", ""), name)
        for a, b, low, high, name in bars
    ]


def _hint(markup: str, name: str) -> str:
    return f"<g><title>{escape(name)}</title>{markup}</g>" if name else markup


def _shape(tone: int, x: float, y: float, css: str, name: str, r: float = 3.4) -> str:
    """A circle, square, triangle, diamond or upside-down triangle, by tone."""
    title = f"<title>{escape(name)}</title>" if name else ""
    corners = {
        1: ((-1, -1), (1, -1), (1, 1), (-1, 1)), 2: ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
        3: ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)), 4: ((0, 1.2), (1.1, -0.9), (-1.1, -0.9)),
    }.get(tone % 5)  # fmt: skip
    if corners is None:
        return f'<circle class="dot {css}" cx="{x:.1f}" cy="{y:.1f}" r="{r}">{title}</circle>'
    points = " ".join(f"{x + r * a:.1f},{y + r * b:.1f}" for a, b in corners)
    return f'<polygon class="dot {css}" points="{points}">{title}</polygon>'


def _legend(marks: Sequence[Mark], left: float) -> tuple[str, float]:
    """Entries in rows as wide as the picture, and their height."""
    parts, at, row = [], 8.0, 0
    for mark in legend(marks):
        text = mark.label if len(mark.label) <= 60 else mark.label[:59] + "\N{HORIZONTAL ELLIPSIS}"
        width = 34 + _LETTER * len(text)
        if at > 8 and at + width > _WIDTH:
            at, row = 8.0, row + 1
        y, css = 14 + 18 * row, f"t{mark.tone % TONES}{' faint' if mark.faint else ''}"
        if mark.kind == "points":
            parts.append(_shape(mark.tone, at + 11, y - 4, css, ""))
        elif mark.kind == "band":
            parts.append(_rectangle(at, 22, y - 9, 10, css))
        else:
            dash = DASHES[mark.tone % TONES] or ("4 3" if mark.kind == "rule" else "")
            parts.append(_line(at, y - 4, at + 22, y - 4, f"{mark.kind.removesuffix('s')} {css}", dash))
        parts.append(_text(at + 27, y, text, "start", mark.label))
        at += width
    return "".join(parts), (24 + 18 * row if parts else 0)
