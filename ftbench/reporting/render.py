"""A Table as text: for people (rich, markdown, latex) or for scripts (csv, json). ``FORMS`` names the forms.

People's forms fold an interval into the cell of its estimate (``words``); scripts' forms hold every raw value.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftbench.lookup import find
from ftbench.reporting.cells import ROW_AXES, SETTINGS
from ftbench.reporting.flat import to_csv, to_json
from ftbench.reporting.latex import to_latex
from ftbench.reporting.words import DASH, HASHES, cell_text, metric_name, one_line, people_columns
from ftbench.types import Column, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid

#: left out of narrow tables
_WIDE_ONLY = ("memory", "seconds")
_WIDE = 120
#: another value, other rows: these are set apart by a blank line (but for encoders, which probes set side by side)
_ROWS = ("task", *(key for key in ROW_AXES if key != "encoder"), "data", "weights", "task_revision")
_NARROWEST = 100  # of a text that does not go to a terminal
_FOLD = 16  # names are folded to this width, not further


def render(table: Table, form: str, console: Console | None = None) -> str:
    """The table as text that ends with a newline; ``console`` gives ``rich`` its width and colours.

    Raises UsageError for an unknown form.
    """
    return find(FORMS, form, "table form")(table, console)


def _markdown(table: Table, console: Console | None) -> str:
    columns = people_columns(table)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"

    lines = [f"**{one_line(table.title)}**", "", line([column.label for column in columns])]
    lines.append("|" + "|".join("---:" if column.numeric else "---" for column in columns) + "|")
    lines += [line([cell_text(row, column.key) for column in columns]) for row in table.rows]
    lines += ["", *(f"- {one_line(note)}" for note in table.notes)] if table.notes else []
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Layout:
    """A table as strings. ``between`` counts the blanks between columns."""

    title: str
    columns: tuple[Column, ...]
    cells: tuple[tuple[str, ...], ...]
    starts: tuple[bool, ...]  # whether a row is about other rows than the one above
    between: int

    def needed(self) -> int:
        """The width in which every number fits on its line; names may be folded."""
        from rich.cells import cell_len

        total = self.between * (len(self.columns) - 1)
        for column, *cells in zip(self.columns, *self.cells, strict=True):
            longest = max(cell_len(part) for text in (column.label, *cells) for part in text.split("\n"))
            total += longest if _unbroken(column) else min(longest, _FOLD)
        return total


def _unbroken(column: Column) -> bool:
    return column.numeric or column.key in HASHES


def _rich(table: Table, console: Console | None) -> str:
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    width = console.width if console.is_terminal else max(_NARROWEST, console.width)
    layout = _fit(table, width)
    out = io.StringIO()
    # wider than the terminal rather than without a number
    paper = Console(
        file=out,
        width=max(width, layout.needed()),
        force_terminal=console.is_terminal,
        color_system=console.color_system if console.is_terminal else None,  # type: ignore[arg-type]
        no_color=console.no_color,
    )
    plain = None if console.is_terminal else _plain(layout, paper.width)
    if table.rows and plain:
        out.write(plain)
    else:
        paper.print(_grid(table, layout) if table.rows else Text(table.title))
    for note in table.notes:
        paper.print(Text(f"- {one_line(note)}", style="dim"), width=width)
    return "\n".join(line.rstrip() for line in out.getvalue().split("\n"))


def _fit(table: Table, width: int) -> _Layout:
    """The roomiest layout that fits, squeezed in this order: gaps, the metric's column, intervals, settings."""
    hidden = () if width >= _WIDE else _WIDE_ONLY
    layouts = (
        _layout(table, hidden, between=between, metric=metric, merge=merge, gap=gap)
        for between, metric, merge, gap in (
            (2, True, False, " "),
            (1, True, False, " "),
            (1, False, False, " "),
            (1, False, False, "\n"),
            (1, False, True, "\n"),
        )
    )
    layout = next(layouts)
    while layout.needed() > width and (tighter := next(layouts, None)):
        layout = tighter
    return layout


def _layout(table: Table, hidden: Sequence[str], *, between: int, metric: bool, merge: bool, gap: str) -> _Layout:
    columns = [column for column in people_columns(table) if column.key not in hidden]
    title = table.title
    metrics = {row.get("metric") for row in table.rows}
    if not metric and len(metrics) == 1:
        columns = [column for column in columns if column.key != "metric"]
        title = ": ".join(filter(None, (title, metric_name(metrics.pop() or ""))))
    settings = [column for column in columns if column.key in SETTINGS]
    others = [column for column in columns if column.key not in SETTINGS]
    named = [[cell_text(row, column.key) for column in settings] for row in table.rows]
    if merge and len(settings) > 1:
        labels = ["", *(f"{column.label}=" for column in settings[1:])]
        pairs = [list(zip(labels, texts, strict=True)) for texts in named]
        named = [[" ".join(label + text for label, text in row if text != DASH)] for row in pairs]
        settings = [Column("settings", "settings", numeric=False)]
    cells = [
        (*_unrepeated(texts, named[i - 1] if i else []), *(cell_text(row, column.key, gap) for column in others))
        for i, (texts, row) in enumerate(zip(named, table.rows, strict=True))
    ]
    rows = [[row.get(key) for key in _ROWS] for row in table.rows]
    starts = tuple(bool(i) and row != rows[i - 1] for i, row in enumerate(rows))
    return _Layout(title, (*settings, *others), tuple(cells), starts, between)


def _unrepeated(texts: list[str], above: list[str]) -> list[str]:
    """Blanks the settings, from the left, that the row above has as well."""
    return ["" if texts[: i + 1] == above[: i + 1] else text for i, text in enumerate(texts)]


def _plain(layout: _Layout, width: int) -> str | None:
    """What ``_grid`` gives without colours, in a tenth of the time; None where rich has to fold something."""
    from rich.cells import cell_len

    rows = [[cell.split("\n") for cell in row] for row in (tuple(c.label for c in layout.columns), *layout.cells)]
    widths = [max(cell_len(line) for row in rows for line in row[i]) for i in range(len(layout.columns))]
    total = sum(widths) + layout.between * (len(widths) - 1)
    if max(total, cell_len(layout.title)) > width:
        return None

    def block(row: Sequence[Sequence[str]]) -> list[str]:
        lines = []
        for k in range(max(map(len, row))):
            texts = [cell[k] if k < len(cell) else "" for cell in row]
            gaps = [" " * (w - cell_len(t)) for w, t in zip(widths, texts, strict=True)]
            padded = [g + t if c.numeric else t + g for c, t, g in zip(layout.columns, texts, gaps, strict=True)]
            lines.append((" " * layout.between).join(padded))
        return lines

    lines = [layout.title, *block(rows[0]), "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * total]
    for row, start in zip(rows[1:], layout.starts, strict=True):
        lines += [*([""] if start else []), *block(row)]
    return "\n".join(lines) + "\n"


def _grid(table: Table, layout: _Layout) -> Grid:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    # the box draws one blank between columns, padding the rest
    padding = (0, layout.between - 1, 0, 0)
    grid = Grid(title=Text(layout.title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=padding)
    grid.pad_edge = False
    for column in layout.columns:
        justify = "right" if column.numeric else "left"
        grid.add_column(Text(column.label), justify=justify, no_wrap=_unbroken(column), overflow="fold")  # type: ignore[arg-type]
    for row, cells, start in zip(table.rows, layout.cells, layout.starts, strict=True):
        if start:
            grid.add_section()
        best = row.get("style") == "best"
        texts = [
            Text(cell, style="bold" if best and column.key in ("mean", "nu") else "")
            for column, cell in zip(layout.columns, cells, strict=True)
        ]
        grid.add_row(*texts, style="dim italic" if row.get("style") == "reference" else "")
    return grid


FORMS: dict[str, Callable[[Table, Console | None], str]] = {
    "rich": _rich,
    "csv": lambda table, console: to_csv(table),
    "markdown": _markdown,
    "latex": lambda table, console: to_latex(table),
    "json": lambda table, console: to_json(table),
}
