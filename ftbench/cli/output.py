"""Records to stdout: a table for people, JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ftbench.reporting.render import render
from ftbench.reporting.tables import runs_table
from ftbench.types import Record


def print_records(records: Sequence[Record], *, form: str = "rich", selection: str = "last") -> None:
    """The table of the records; ``json`` adds each run with all its scores."""
    table = runs_table(records, selection=selection)
    if form == "json":
        print(
            json.dumps({"table": json.loads(render(table, "json")), "runs": [describe(r) for r in records]}, indent=2)
        )
    else:
        print(render(table, form).rstrip("\n"))


def describe(record: Record) -> dict[str, Any]:
    """One run for scripts."""
    spec = record.result.spec
    return {
        "id": spec.id,
        "kind": spec.kind,
        "task": spec.task,
        "method": spec.method,
        "seed": spec.seed,
        "data_seed": spec.data_seed,
        "status": record.result.status,
        "error": record.result.error,
        "metrics": record.result.metrics,
        "folder": str(record.folder),
    }
