"""``ftbench download``."""

from __future__ import annotations

import json as codec
import sys
from typing import Annotated, Any

import typer

from ftbench.cli import options as flags
from ftbench.errors import FtbenchError, UsageError


def download(
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "-t",
            help="Tasks or groups (`ftbench list tasks`), or hub:ORG/NAME; repeat it, or list with commas.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Models of the hub by id; repeat it, or list with commas.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Revision of the models: a branch, tag or commit [main].")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Text column of a hub:ORG/NAME; twice, or A,B, for pairs.")
    ] = None,
    label: Annotated[str, typer.Option(help="Label column of a hub:ORG/NAME.")] = "label",
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")] = False,
) -> None:
    """Fetch data sets and models into the hub's cache, so that runs need no network after.

    What is in the cache already is checked, not fetched again. Later, without a network, set HF_HUB_OFFLINE=1. HF_HOME
    says where the cache is, if not in ~/.cache/huggingface; HF_TOKEN opens private repositories. What cannot be had
    is said, spares the rest, and makes the command exit with 1.

    Examples:

        ftbench download --task glue-small,trec --model FacebookAI/roberta-base

        HF_HUB_OFFLINE=1 ftbench finetune --task rte --model FacebookAI/roberta-base --method r3f
    """
    from ftbench.cli.output import row_counts
    from ftbench.models.locate import locate
    from ftbench.tasks import expand, resolve
    from ftbench.tasks.sources import load

    if not task and not model:
        raise UsageError("nothing to fetch: give --task or --model")
    wanted = [resolve(name, tuple(flags.flatten(text)), label) for name in expand(flags.flatten(task))]
    rows: list[dict[str, Any]] = []
    for each in wanted:
        rows.append(_try("task", each.name, lambda each=each: row_counts(load(each))))
    for name in flags.flatten(model):
        rows.append(_try("model", name, lambda name=name: f"fingerprint {locate(name, revision).fingerprint}"))
    if json:
        print(codec.dumps(rows, indent=2))
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


def _try(kind: str, name: str, fetch: Any) -> dict[str, Any]:
    """One thing fetched or not; a failure spares the others."""
    try:
        row = {"kind": kind, "name": name, "ok": True, "what": fetch()}
    except FtbenchError as error:
        row = {"kind": kind, "name": name, "ok": False, "what": str(error)}
    print(f"{kind} {name}: {'' if row['ok'] else 'FAILED: '}{row['what']}", file=sys.stderr)
    return row
