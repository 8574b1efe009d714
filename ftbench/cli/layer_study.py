"""Measuring layers, tuning them, and printing whether it paid; what ``variability --study`` does."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ftbench.cli.output import describe, describe_data, further_tables
from ftbench.cli.study import Ask, attended, to_request
from ftbench.reporting.cells import unique
from ftbench.reporting.flat import as_json
from ftbench.reporting.layer_study import LAYER_CLAIMS, layer_study_tables
from ftbench.reporting.render import render
from ftbench.reporting.reports import make
from ftbench.reporting.study import Study
from ftbench.runs.files import plain
from ftbench.runs.layer_study import LayerStudy
from ftbench.runs.store import Store
from ftbench.runs.work import Options
from ftbench.types import Record, Table


def run_layer_study(
    ask: Ask,
    output_dir: Path,
    options: Options,
    budgets: Sequence[int],
    *,
    oracle: bool,
    quiet: bool,
    form: str,
    figure: Path | None,
) -> int:
    """Does the study, prints its tables and verdicts and draws ``figure``. Returns how many runs failed.

    Raises what ``Grid.run`` raises, and UsageError for a figure of an unknown form and for what no study can have.
    """
    if figure is not None:
        from ftbench.reporting.pictures import check_name

        check_name(figure)
    request, _ = to_request(ask)
    stages = LayerStudy(request, budgets, oracle).stages()
    for data in request.data:
        if not quiet:
            print(describe_data(data), file=sys.stderr)
        for note in data.notes:
            print(f"note: {note}", file=sys.stderr)
    with attended(Store(output_dir), request.data, request.models, options, quiet=quiet) as grid:
        grid.run(stages)
    _print(grid.records, form)
    if figure is not None:
        from ftbench.reporting.layer_study_figure import draw_layer_study

        draw_layer_study(grid.records, figure)
    if not quiet:
        print(f"Runs are in {output_dir}/; `ftbench report {output_dir}` prints this again.", file=sys.stderr)
    return sum(record.result.status == "failed" for record in grid.records)


def _print(records: Sequence[Record], form: str) -> None:
    """The layers, what tuning them gave, and the verdicts; ``csv`` has the table of tuning only."""
    study = Study(records)
    tables: dict[str, Sequence[Table]] = {
        **{name: some for name, some in further_tables(unique(records).apart, (), form).items() if some},
        **layer_study_tables(records),
    }
    for number in LAYER_CLAIMS:
        found = make(study, f"claim:{number}")
        tables[f"claim_{number}"] = [found] if found else []
    if form == "json":
        documents = {name: as_json(some[0]) if some else None for name, some in tables.items()}
        print(json.dumps(plain({**documents, "runs": [describe(r) for r in records]}), indent=2, allow_nan=False))
        return
    wanted = [table for name, some in tables.items() for table in some if form != "csv" or name == "tuned"]
    print("\n\n".join(render(table, form).rstrip("\n") for table in wanted))
