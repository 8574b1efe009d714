"""``ftbench status`` and ``ftbench cancel``: studies that run, wherever they do."""

from __future__ import annotations

import json as codec
import sys
from pathlib import Path
from typing import Annotated

import typer

from ftbench.errors import UsageError

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The output folder (-o) of the study.")]
Name = Annotated[str | None, typer.Option("--study", help="Only this one, by the name that status prints.")]
SHOWN = 20


def status(
    folder: Folder = Path("runs"),
    study: Name = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")] = False,
) -> None:
    """How far the studies in a folder are, whatever does their runs: read from disk alone.

    Examples:

        ftbench status runs

        ftbench status runs/claim-3-quick --json
    """
    from ftbench.runs.status import studies

    found = studies(folder)
    if study is not None:
        names = ", ".join(one.name for one in found)
        found = [one for one in found if one.name == study]
        if not found:
            raise UsageError(f"no study '{study}' in '{folder}'. There is {names}")
    if json:
        rows = [
            {
                "study": one.name,
                "command": one.command,
                "stopping": one.stopping,
                "counts": one.counts(),
                "runs": [run.__dict__ for run in one.runs],
            }
            for one in found
        ]
        print(codec.dumps(rows, indent=2))
        return
    for one in found:
        counts = ", ".join(f"{number:,} {state}" for state, number in one.counts().items())
        print(f"{one.name}: {len(one.runs):,} runs: {counts}{'; asked to stop' if one.stopping else ''}")
        print(f"  {one.command}")
        telling = [run for run in one.runs if run.state in ("running", "failed", "diverged", "interrupted")]
        for run in telling[:SHOWN]:
            why = run.who or run.why
            print(f"  {run.state}: {run.folder}{f': {why}' if why else ''}")
        if len(telling) > SHOWN:
            print(f"  and {len(telling) - SHOWN} more; --json has them all")


def cancel(
    folder: Folder = Path("runs"),
    study: Name = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for runs to stop.", min=0)] = 120.0,
) -> None:
    """Ask the studies of a folder to stop: what runs saves a checkpoint after its step. The same command continues.

    It works from any machine that sees the folder, and for any engine.

    Examples:

        ftbench cancel runs
    """
    from ftbench.runs.status import cancel as ask

    names, left = ask(folder, study, wait=wait)
    if not names:
        print("nothing is left to do there", file=sys.stderr)
        return
    if left:
        print(f"asked {', '.join(names)} to stop; {left} runs have not yet", file=sys.stderr)
        raise typer.Exit(1)
    print(f"stopped {', '.join(names)}; run the same command to continue", file=sys.stderr)
