"""Measuring layers and printing what was found; what ``variability`` does once its words are understood."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ftbench.cli.output import describe_data, print_records
from ftbench.cli.study import Ask, attended, to_request
from ftbench.runs.store import Store
from ftbench.runs.variability import FULL, layer_specs
from ftbench.runs.work import Options


def run_layers(
    ask: Ask,
    output_dir: Path,
    options: Options,
    *,
    quiet: bool,
    form: str,
    figure: Path | None,
) -> int:
    """Measures, prints the tables and draws ``figure``. Returns how many runs failed.

    Raises what ``Grid.run`` raises, and UsageError for a figure of an unknown form.
    """
    if figure is not None:
        from ftbench.reporting.pictures import check_name

        check_name(figure)
    request, _ = to_request(ask)
    specs = layer_specs(request)
    for data in request.data:
        if not quiet:
            print(describe_data(data), file=sys.stderr)
        for note in data.notes:
            print(f"note: {note}", file=sys.stderr)
    with attended(Store(output_dir), request.data, request.models, options, quiet=quiet) as grid:
        records = grid.run([lambda _: specs])
    print_records(records, form=form)
    if figure is not None:
        from ftbench.reporting.layer_figure import draw_layers

        results = [record.result for record in records]
        draw_layers([result for result in results if replace(result.spec, **FULL) == result.spec], figure)
    if not quiet:
        print(f"Runs are in {output_dir}/; `ftbench report {output_dir}` prints this again.", file=sys.stderr)
    return sum(record.result.status == "failed" for record in records)
