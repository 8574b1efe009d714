"""What commands say: records as a table for people or JSON for scripts, and a data set in a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ftbench.reporting.layers import layer_tables, layers_table, subsets_table
from ftbench.reporting.render import render
from ftbench.reporting.scores import scores_table
from ftbench.reporting.searches import reported, search_table
from ftbench.reporting.sensitivity import sensitivity_table
from ftbench.reporting.tables import runs_table
from ftbench.reporting.variance import variance_table
from ftbench.runs.files import plain
from ftbench.types import Data, Record, Search, Table


def print_records(
    records: Sequence[Record], searches: Sequence[Search] = (), *, form: str = "rich", selection: str = "last"
) -> None:
    """The tables of the records; ``json`` adds each run with all its scores and each search with all its trials,
    ``csv`` has the first table only."""
    layers = [r for r in records if r.result.spec.kind == "variability"]
    runs = [r for r in records if r.result.spec.kind != "variability"]
    shown_runs = reported(runs)
    tables = {
        "table": runs_table(runs, searches, selection=selection) if runs or not layers else None,
        "search": search_table(searches),
        "scores": scores_table(shown_runs, selection=selection),
        "sensitivity": sensitivity_table(shown_runs, selection=selection),
        "spread": variance_table(shown_runs, selection=selection),
        **_of_layers([record for record in layers if record.result.status == "ok"], form),
    }
    if form == "json":
        shown = {name: json.loads(render(table, "json")) if table else None for name, table in tables.items()}
        lists = {"runs": [describe(r) for r in records], "searches": [describe_search(s) for s in searches]}
        print(json.dumps(plain({**shown, **lists}), indent=2, allow_nan=False))
        return
    wanted = [table for table in tables.values() if table][: 1 if form == "csv" else None]
    print("\n\n".join(render(table, form).rstrip("\n") for table in wanted))


def _of_layers(records: Sequence[Record], form: str) -> dict[str, Table | None]:
    """Measures by layer: one long table for scripts; for people tables for each run, but one for all subsets."""
    if not records:
        return {}
    from ftbench.runs.variability import compare_subsets

    subsets = compare_subsets(records)
    if form in ("csv", "json"):
        tables: dict[str, Table | None] = {"layers": layers_table(records)}
    else:
        inside = {row["id"] for row in subsets}
        full = [record for record in records if record.result.spec.id not in inside]
        tables = {f"layers {number}": table for number, table in enumerate(layer_tables(full))}
    return {**tables, "subsets": subsets_table(subsets)}


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
        "trial": spec.is_trial,
        "data_seed": spec.data_seed,
        "status": record.result.status,
        "error": record.result.error,
        "metrics": record.result.metrics,
        "folder": str(record.folder),
    }


def describe_search(search: Search) -> dict[str, Any]:
    """One search for scripts: what was varied, each trial with its run's id, and what was chosen."""
    return {
        "task": search.reported.task,
        "arm": search.arm,
        "axes": search.axes,
        "metric": search.metric,
        "share_of_train": search.share,
        "rows": search.rows,
        "trials": [asdict(trial) for trial in search.trials],
        "chosen": search.trials[search.chosen].configuration,
        "method": search.reported.method,
        "study": search.study,
    }
