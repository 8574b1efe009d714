"""The page of ``ftbench choose``: sentences, standings, learning curve; for a terminal, as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftbench.reporting.choice import Tested, sentences, tested
from ftbench.reporting.marks import Chart, Mark
from ftbench.reporting.page import fill, origins
from ftbench.reporting.render import render
from ftbench.types import Choice, Column, Record, Table


@dataclass(frozen=True)
class Page:
    """A choice, ready to be shown; ``commands`` repeat it and use it."""

    title: str
    conclusions: tuple[str, ...]
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    commands: tuple[str, ...]
    notes: tuple[str, ...]


def page_of(choice: Choice, final: Record) -> Page:
    """Reads what the chosen model predicted for the test part."""
    selection = "linear" if final.result.spec.kind == "reference" else "last"
    found = tested(choice, final, selection)
    pictures = (forest(choice), lines(choice))
    return Page(
        title=f"What to use for {choice.task}: {choice.choice}",
        conclusions=tuple(sentences(choice, found, final)),
        tables=(
            standings(choice),
            *([by_label(found)] if found.by_label else []),
            *([curve(choice)] if choice.curve else []),
        ),
        charts=tuple(chart for chart in pictures if chart is not None),
        commands=(choice.command, f"ftbench predict {choice.folder} new.csv --output labelled.csv"),
        notes=tuple(choice.notes),
    )


def standings(choice: Choice) -> Table:
    """Every candidate, the best mean first, those without a run last."""
    columns = (
        Column("method", "candidate", False), Column("n", "draws"), Column("mean", choice.metric),
        Column("difference", f"over {choice.default}"), Column("low", "low"), Column("high", "high"),
        Column("seconds", "one run"), Column("outcome", "outcome", False),
    )  # fmt: skip
    side = -1 if choice.lower_is_better else 1
    ordered = sorted(choice.standings, key=lambda one: (one.mean is None, -side * (one.mean or 0.0)))
    rows = tuple(
        {
            "method": one.name, "n": one.units, "mean": one.mean, "difference": one.gain, "low": one.low,
            "high": one.high, "seconds": one.seconds, "outcome": "chosen" if one.name == choice.choice else one.out,
            "style": "best" if one.name == choice.choice else "reference" if not one.units else "",
        }
        for one in ordered
    )  # fmt: skip
    note = (
        f"Means over draws of {choice.rows['train']:,} rows to train on and {choice.rows['held']:,} to score, from the "
        f"{choice.rows['pool']:,} that are not the test part. Candidates with fewer draws were dropped on the way, so "
        "read the differences, which are over shared draws, with 95 % intervals over further draws and rows."
    )
    return Table("The race", columns, rows, (note,))


def by_label(found: Tested) -> Table:
    """How many of each label's test rows were right."""
    columns = (Column("label", "label", False), Column("n", "test rows"), Column("right", "right"))
    rows = tuple({"label": name, "n": n, "right": f"{share:.0%}"} for name, n, share in found.by_label)
    return Table("The test part, by label", columns, rows)


def curve(choice: Choice) -> Table:
    """Score by rows to train on."""
    columns = (
        Column("method", "candidate", False), Column("train", "rows"), Column("n", "draws"),
        Column("mean", choice.metric), Column("difference", "over half the rows"), Column("low", "low"),
        Column("high", "high"),
    )  # fmt: skip
    rows = tuple(
        {
            "method": p.name,
            "train": p.rows,
            "n": p.units,
            "mean": p.mean,
            "difference": p.gain,
            "low": p.low,
            "high": p.high,
        }
        for p in choice.curve
    )
    return Table("What labels bring", columns, rows, ("The same draws with fewer of their rows.",))


def forest(choice: Choice) -> Chart | None:
    """Differences to the default."""
    shown = [one for one in choice.standings if one.gain is not None and one.low is not None and one.high is not None]
    if not shown:
        return None
    shown.sort(key=lambda one: -(one.gain or 0.0))
    marks = [Mark("rule", (0.0,), label=choice.default)]
    for place, one in enumerate(shown):
        tone = 2 if one.name == choice.choice else 1
        value, low, high = one.gain or 0.0, one.low or 0.0, one.high or 0.0
        name = f"{one.name}: {value:+.3f} [{low:+.3f}, {high:+.3f}], {one.units} draws"
        marks.append(Mark("bars", (value,), (place,), (low,), (high,), tone=tone, faint=bool(one.out), names=(name,)))
    return Chart(
        "race", f"Better than {choice.default}?", f"{choice.metric}, difference", "", tuple(marks),
        tuple(one.name for one in shown), note="95 % intervals over further draws and rows; pale: dropped on the way.",
    )  # fmt: skip


def lines(choice: Choice) -> Chart | None:
    """Learning curves."""
    names = list(dict.fromkeys(point.name for point in choice.curve))
    marks = []
    for tone, name in enumerate(names, start=1):
        points = [point for point in choice.curve if point.name == name]
        if len(points) > 1:
            x, y = tuple(float(p.rows) for p in points), tuple(p.mean for p in points)
            said = tuple(f"{name}, {p.rows} rows: {p.mean:.3f}" for p in points)
            marks.append(Mark("line", x, y, label=name, tone=tone, names=said))
    if not marks:
        return None
    note = "Means over the same draws."
    return Chart("labels", "What labels bring", "rows trained on", choice.metric, tuple(marks), log=True, note=note)


def to_terminal(page: Page) -> str:
    """Text for a terminal, ending with a newline; wrapped by its width."""
    from rich.console import Console

    width = Console().width
    parts = [page.title, "=" * len(page.title), ""]
    parts += [line for text in page.conclusions for line in _wrapped(text, width)]
    parts += [line for note in page.notes for line in _wrapped(note, width, "! ")]
    parts += ["", *(render(table, "rich").rstrip("\n") + "\n" for table in page.tables)]
    parts += ["Again: " + page.commands[0], "Use it: " + page.commands[1]]
    return "\n".join(parts) + "\n"


def to_markdown(page: Page) -> str:
    """The page without its pictures."""
    parts = [f"# {page.title}", "", *(f"- {text}" for text in page.conclusions), ""]
    if page.notes:
        parts += ["**Look at your data:**", "", *(f"- {note}" for note in page.notes), ""]
    parts += [render(table, "markdown") for table in page.tables]
    parts += ["To repeat it, and to use it:", "", "```bash", *page.commands, "```"]
    return "\n".join(parts) + "\n"


def to_html(page: Page, records: Sequence[Record]) -> str:
    """One self-contained page with its pictures."""
    _, places = origins(records)
    notes = [{"text": f"Look at your data: {note}"} for note in page.notes]
    return fill(
        title=page.title,
        about="Written by ftbench choose. Columns sort when their heads are clicked.",
        conclusions=[*({"text": text} for text in page.conclusions), *notes],
        charts=page.charts,
        tables=page.tables,
        commands=list(page.commands),
        places=places,
    )


def _wrapped(text: str, width: int, mark: str = "- ") -> list[str]:
    import textwrap

    return textwrap.wrap(text, max(40, width - 1), initial_indent=mark, subsequent_indent="  ")
