"""What commands say: records as a table for people or JSON for scripts, and a data set in a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ftbench.reporting.render import render
from ftbench.reporting.scores import scores_table
from ftbench.reporting.sensitivity import sensitivity_table
from ftbench.reporting.tables import runs_table
from ftbench.reporting.variance import variance_table
from ftbench.runs.files import plain
from ftbench.types import Data, Record


def print_records(records: Sequence[Record], *, form: str = "rich", selection: str = "last") -> None:
    """The tables of the records; ``json`` adds each run with all its scores, ``csv`` has the first table only."""
    tables = {
        "table": runs_table(records, selection=selection),
        "scores": scores_table(records, selection=selection),
        "sensitivity": sensitivity_table(records, selection=selection),
        "spread": variance_table(records, selection=selection),
    }
    if form == "json":
        shown = {name: json.loads(render(table, "json")) if table else None for name, table in tables.items()}
        print(json.dumps(plain({**shown, "runs": [describe(r) for r in records]}), indent=2, allow_nan=False))
        return
    wanted = [table for table in tables.values() if table][: 1 if form == "csv" else None]
    print("\n\n".join(render(table, form).rstrip("\n") for table in wanted))


def row_counts(data: Data) -> str:
    """``480 train, 120 validation rows``."""
    return ", ".join(f"{len(rows):,} {split}" for split, rows in data.splits.items()) + " rows"


def describe_data(data: Data) -> str:
    """``reviews: 480 train, 120 validation rows; 2 classes: bad, good``."""
    names = ", ".join(data.labels[:12]) + (" …" if len(data.labels) > 12 else "")
    kind = f"{len(data.labels)} classes: {names}" if names else "a regression"
    return f"{data.task.name}: {row_counts(data)}; {kind}"


def kept_weights(records: Sequence[Record]) -> list[str]:
    """The folders of the runs that kept their weights, as ``ftbench predict`` takes them."""
    return [str(record.folder) for record in records if (record.folder / "model").is_dir()]


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
