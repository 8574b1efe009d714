"""``ftbench report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ftbench.cli import options as flags
from ftbench.errors import UsageError


def report(
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders with runs [runs].", show_default=False)] = None,
    form: flags.Form = "rich",
    selection: Annotated[
        str, typer.Option(help="last (the last epoch) or best (the best epoch, marked where it was chosen).")
    ] = "last",
    json: flags.Json = False,
) -> None:
    """Print the table of the runs in one or more folders again.

    What cannot be read (half-written, foreign, newer files) is counted and named on stderr.

    Examples:

        ftbench report

        ftbench report runs other-runs --format csv > table.csv
    """
    from ftbench.cli.output import print_records
    from ftbench.reporting.render import FORMS
    from ftbench.runs.store import read_all

    flags.one_of(form, tuple(FORMS), "format")
    flags.one_of(selection, ("last", "best"), "selection")
    folders = runs or [Path("runs")]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"there is no folder '{folder}' with runs: give the --output-dir of a finetune command")
    found = read_all(folders)
    for line in found.skipped:
        print(f"skipped {line}", file=sys.stderr)
    print_records(found.records, found.searches, form="json" if json else form, selection=selection)
