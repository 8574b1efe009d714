"""One self-contained page: nothing is fetched, everything that came from a run is escaped."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftbench.reporting.charts import charts
from ftbench.reporting.conclusions import conclusions
from ftbench.reporting.marks import Chart
from ftbench.reporting.reports import REPORTS, make
from ftbench.reporting.study import Study
from ftbench.reporting.svg import to_svg
from ftbench.reporting.words import cell_text, one_line, people_columns, plain
from ftbench.types import Record, Table

#: tables of the page, in their order
TABLES = (
    "differences",
    "across",
    "runs",
    "arms",
    "tests",
    "scores",
    "sensitivity",
    "spread",
    "cost",
    "budget",
    "stability",
)


def to_html(study: Study, *, skipped: Sequence[str] = (), more: Sequence[Table] = ()) -> str:
    """The page of a study; ``more`` tables come last, ``skipped`` lines say what could not be read."""
    assert set(TABLES) == set(REPORTS)
    commands, places = origins([*study.records, *study.apart])
    return fill(
        title="ftbench report",
        about=f"Scores of the {study.selection} weights. Columns sort when their heads are clicked.",
        conclusions=conclusions(study),
        charts=charts(study),
        tables=[*(table for name in TABLES if (table := make(study, name)) and table.rows), *more],
        commands=commands,
        places=places,
        skipped=list(skipped),
    )


def fill(*, charts: Sequence[Chart], tables: Sequence[Table], **fields: Any) -> str:
    """The template with pictures and tables drawn; ``fields`` are its other names."""
    from jinja2 import Environment
    from markupsafe import Markup

    template = Environment(autoescape=True).from_string((Path(__file__).parent / "page.html").read_text("utf-8"))
    return template.render(
        pictures=[{"title": c.title, "note": c.note, "svg": Markup(to_svg(c))} for c in charts],
        tables=[_table(table, f"t{i}") for i, table in enumerate(tables)],
        **{"skipped": [], **fields},
    )


def _table(table: Table, name: str) -> dict[str, Any]:
    columns = people_columns(table)
    rows = []
    for row in table.rows:
        cells = []
        for column in columns:
            value = plain(row.get(column.key))
            number = column.numeric and isinstance(value, int | float) and not isinstance(value, bool)
            css = f"n {column.key}" if column.numeric else column.key
            cells.append({"text": cell_text(row, column.key), "css": css, "value": value if number else None})
        rows.append({"style": row.get("style", ""), "cells": cells})
    notes = [one_line(note) for note in table.notes]
    return {"id": name, "title": table.title, "columns": columns, "rows": rows, "notes": notes}


def origins(records: Sequence[Record]) -> tuple[list[str], list[dict[str, Any]]]:
    """The commands that made the runs, and the environments they ran in; what was not kept is left out."""
    commands: Counter[str] = Counter()
    environments: Counter[str] = Counter()
    for record in records:
        found = environment(record)
        command = found.pop("command", None)
        if isinstance(command, list):
            commands[shlex.join(map(str, command))] += 1
        if found:
            environments[json.dumps(found, indent=2, sort_keys=True)] += 1
    places = [{"name": _named(text), "runs": n, "text": text} for text, n in environments.most_common()]
    return [text for text, _ in commands.most_common()], places


def environment(record: Record) -> dict[str, Any]:
    """``environment.json`` of a run; empty where it was not kept or cannot be read."""
    try:
        found = json.loads((record.folder / "environment.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(text: str) -> str:
    found = json.loads(text)
    versions = found.get("versions") if isinstance(found.get("versions"), dict) else {}
    parts = [
        found.get("device_name") or found.get("device"),
        *(f"{n} {versions[n]}" for n in ("ftbench", "torch") if n in versions),
    ]
    return ", ".join(str(part) for part in parts if part) or "environment"
