"""From an ask in words to a study carried out and printed; what ``finetune`` and its successors share."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftbench.cli.options import cache_folder
from ftbench.cli.output import describe_data, kept_weights, print_records
from ftbench.cli.progress import Display, Lines
from ftbench.errors import Interrupted
from ftbench.models.locate import locate
from ftbench.runs.grid import Grid, Options
from ftbench.runs.signals import stop_on_signals
from ftbench.runs.stages import Request, check_joined, parse_arms, plan
from ftbench.runs.store import Store
from ftbench.tasks import expand, from_folder, resolve
from ftbench.tasks.sources import load


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A fine-tuning study in the user's words."""

    tasks: Sequence[str]
    own: Mapping[str, Any]
    data_dir: str | None
    models: Sequence[str]
    revision: str | None
    methods: Sequence[str]
    baseline: bool
    references: bool
    seeds: Sequence[int]
    data_seeds: Sequence[int]
    axes: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any]


def to_request(ask: Ask) -> Request:
    """Names to tasks, rows and checkpoints; raises UsageError for the first thing that is wrong.

    Methods and tasks are looked at before anything is loaded.
    """
    arms = parse_arms(ask.methods, baseline=ask.baseline)
    check_joined(arms, ask.fixed.get("passes", "separate"))
    tasks = [resolve(name, **ask.own) for name in expand(ask.tasks)]
    if ask.data_dir is not None:
        tasks = from_folder(tasks, ask.data_dir)
    models = [locate(name, ask.revision) for name in ask.models]
    data = [load(task) for task in tasks]
    return Request(
        data=data,
        models=models,
        arms=arms,
        seeds=ask.seeds,
        data_seeds=ask.data_seeds,
        axes=ask.axes,
        fixed=ask.fixed,
        references=ask.references,
    )


def run_study(
    ask: Ask,
    output_dir: Path,
    *,
    device: str,
    threads: int | None,
    force: bool,
    retry_failed: bool,
    save_model: str | None,
    checkpoint_every: int,
    quiet: bool,
    as_json: bool,
) -> int:
    """Does the study and prints its table. Returns how many runs failed. Raises what ``Grid.run`` raises."""
    request = to_request(ask)
    stages = plan(request)
    for data in request.data:
        if not quiet:
            print(describe_data(data), file=sys.stderr)
        for note in data.notes:
            print(f"note: {note}", file=sys.stderr)
    display = Display() if not quiet and sys.stderr.isatty() else Lines(quiet=quiet)
    with display, stop_on_signals(display.message) as should_stop:
        options = Options(
            device=device,
            threads=threads,
            cache=cache_folder(),
            force=force,
            retry_failed=retry_failed,
            keep_model=save_model is not None,
            checkpoint_every=checkpoint_every,
            should_stop=should_stop,
        )
        grid = Grid(
            Store(output_dir),
            {data.fingerprint: data for data in request.data},
            {model.fingerprint: model for model in request.models},
            display,
            options,
        )
        try:
            grid.run(stages)
            if save_model:
                grid.keep_models(save_model)
        except Interrupted:
            display.message(f"finished runs: {len(grid.records)}, in {output_dir}")
            raise
    print_records(grid.records, form="json" if as_json else "rich")
    if not quiet:
        print(f"Runs are in {output_dir}/; `ftbench report {output_dir}` prints this again.", file=sys.stderr)
        for folder in kept_weights(grid.records):
            print(f"Weights kept: `ftbench predict {folder} FILE` uses them.", file=sys.stderr)
    return sum(record.result.status == "failed" for record in grid.records)
