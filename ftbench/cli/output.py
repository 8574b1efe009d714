"""What commands say: records as a table for people or JSON for scripts, and a data set in a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ftbench.reporting.cells import unique
from ftbench.reporting.costs import cost_table
from ftbench.reporting.flat import as_json
from ftbench.reporting.layers import layer_tables, layers_table, subsets_table
from ftbench.reporting.probes import probe_tables
from ftbench.reporting.render import render
from ftbench.reporting.scores import scores_table
from ftbench.reporting.searches import search_table
from ftbench.reporting.sensitivity import sensitivity_table
from ftbench.reporting.tables import runs_table
from ftbench.reporting.variance import variance_table
from ftbench.reporting.written import intervals_table, written_table
from ftbench.runs.files import plain
from ftbench.types import Data, Record, Search, Table

#: names of ``further_tables``; ``collapse`` is hundreds of rows, for scripts
FURTHER = ("search", "layers", "subsets", "probe", "probe_layers", "collapse")


def print_records(
    records: Sequence[Record], searches: Sequence[Search] = (), *, form: str = "rich", selection: str = "last"
) -> None:
    """The tables of the records; ``json`` adds each run with all its scores and each search with all its trials,
    ``csv`` has the first table only."""
    runs = unique(records, searches)
    table = runs_table(runs, selection=selection) if runs or not runs.apart else None
    further = further_tables(runs.apart, searches, form, tuned=runs)
    others = {
        "scores": scores_table(runs, selection=selection),
        "sensitivity": sensitivity_table(runs, selection=selection),
        "spread": variance_table(runs, selection=selection),
        "cost": cost_table(runs, selection=selection) if _saves(runs) else None,
        "intervals": intervals_table(runs),
        "written": written_table(runs),
    }
    tables = {
        "table": [table] if table else [],
        "search": further.pop("search"),
        **{name: [other] if other else [] for name, other in others.items()},
        **further,
    }
    if form == "json":
        lists = {"runs": [describe(r) for r in records], "searches": [describe_search(s) for s in searches]}
        print(json.dumps(plain({**as_documents(tables), **lists}), indent=2, allow_nan=False))
        return
    tables.pop("collapse", None)  # thousands of rows: for scripts
    wanted = [table for some in tables.values() for table in some][: 1 if form == "csv" else None]
    print("\n\n".join(render(table, form).rstrip("\n") for table in wanted))


def _saves(runs: Sequence[Record]) -> bool:
    """Whether some runs tune less than others, so that what they cost is the question."""
    specs = [record.result.spec for record in runs if record.result.spec.kind == "finetune"]
    return len({(spec.layers, *(method.label for method in spec.tuning)) for spec in specs}) > 1


def further_tables(
    records: Sequence[Record], searches: Sequence[Search], form: str, *, tuned: Sequence[Record] = ()
) -> dict[str, list[Table]]:
    """By the names of ``FURTHER``, what is no score of fine-tuning: searches, and runs of other kinds.

    Scripts' forms have one long table of all layers; people's have tables for each run, but one for all subsets.
    tuned: runs that left the encoders which were probed.
    """
    scripts = form in ("csv", "csv-long", "json")
    measured = [r for r in records if r.result.spec.kind == "variability" and r.result.status == "ok"]
    probes = [record for record in records if record.result.spec.kind == "probe"]
    search = search_table(searches)
    tables: dict[str, list[Table]] = {"search": [search] if search else []}
    if measured:
        from ftbench.runs.variability import compare_subsets

        subsets = compare_subsets(measured)
        inside = {row["id"] for row in subsets}
        full = [record for record in measured if record.result.spec.id not in inside]
        compared = subsets_table(subsets)
        tables |= {
            "layers": [layers_table(measured)] if scripts else layer_tables(full),
            "subsets": [compared] if compared else [],
        }
    if probes:
        found = zip(("probe", "probe_layers", "collapse"), probe_tables(probes, tuned).values(), strict=True)
        tables |= {name: [table] for name, table in found if table}
    return tables


def as_documents(tables: Mapping[str, Sequence[Table]]) -> dict[str, Any]:
    """For scripts: the table of each name, None where there is none."""
    return {name: as_json(some[0]) if some else None for name, some in tables.items()}


def row_counts(data: Data) -> str:
    """``480 train, 120 validation rows``."""
    return ", ".join(f"{len(rows):,} {split}" for split, rows in data.splits.items()) + " rows"


def describe_data(data: Data) -> str:
    """``reviews: 480 train, 120 validation rows; 2 classes: bad, good``."""
    names = ", ".join(data.labels[:12]) + (" …" if len(data.labels) > 12 else "")
    other = "summaries" if data.task.kind == "summarization" else "a regression"
    kind = f"{len(data.labels)} classes: {names}" if names else other
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
