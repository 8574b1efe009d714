"""``ftbench validate``: look at the data before training on it."""

from __future__ import annotations

import json as codec
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftbench.cli import options as flags

if TYPE_CHECKING:
    from ftbench.tasks.examine import Examined
    from ftbench.types import Data


def validate(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Your table, folder or task file; hub:ORG/NAME; or a task's name.")
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of the texts; twice, or A,B, for pairs [text, sentence, review ... if there is one such]."
        ),
    ] = None,
    label: Annotated[str, typer.Option(help="Column of the labels.")] = "label",
    kind: Annotated[
        str, typer.Option(help="classification, or regression where labels are numbers to predict.")
    ] = "classification",
    encoding: Annotated[
        str, typer.Option(help="Encoding of a CSV, such as cp1252 [UTF-8, or UTF-16 where the file says so].")
    ] = "",
    data_dir: Annotated[
        str | None,
        typer.Option(help="Where FILE is a task's name: the folder with its download, such as glue_data [the hub]."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model whose tokens are counted: minilm, a folder or a hub id.")
    ] = "minilm",
    max_length: Annotated[
        int,
        typer.Option(help="Tokens of a row that training would keep; what is longer is cut, and counted here.", min=4),
    ] = 128,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")] = False,
) -> None:
    """Check a data set before training on it; nothing is trained or written.

    Shows rows, the balance of the labels, lengths in tokens and how many rows would be cut; warns (!) of repeated
    texts, of texts that are in train and in validation, of doubtful labels, and says (-) what was done to the rows.
    Exits with 2 when the data cannot be used, with 0 when it can, whatever the warnings.

    Examples:

        ftbench validate reviews.csv --text review --label stars

        ftbench validate my-task.toml --json

        ftbench validate rte --data-dir glue_data
    """
    from ftbench.models.locate import locate
    from ftbench.runs.lengths import token_lengths
    from ftbench.tasks import from_folder, resolve
    from ftbench.tasks.examine import examine
    from ftbench.tasks.sources import load

    kind = flags.one_of(kind, ("classification", "regression"), "kind")
    task = resolve(file, tuple(flags.flatten(text)), label, kind, encoding)  # type: ignore[arg-type]
    data = load(from_folder([task], data_dir)[0] if data_dir else task)
    found = examine(data)
    lengths = token_lengths(data, locate(model), max_length)
    if json:
        print(codec.dumps(_plain(data, found, lengths), indent=2, ensure_ascii=False))
        return
    _show(data, found, lengths)


def _plain(data: Data, found: Examined, lengths: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    return {
        "task": data.task.name,
        "kind": data.task.kind,
        "labels": list(data.labels),
        "splits": {name: {**counts, "tokens": lengths[name]} for name, counts in found.splits.items()},
        "warnings": _warnings(found, lengths),
        "notes": list(data.notes),
    }


def _warnings(found: Examined, lengths: Mapping[str, Mapping[str, int]]) -> list[str]:
    cut = [
        f"{name}: {tokens['cut']:,} of {found.splits[name]['rows']:,} rows would be cut to {tokens['limit']} tokens "
        "(--max-length)"
        for name, tokens in lengths.items()
        if tokens["cut"]
    ]
    return [*cut, *found.warnings]


def _show(data: Data, found: Examined, lengths: Mapping[str, Mapping[str, int]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    names = list(found.splits)
    grid = Table(title=f"{data.task.name}: {data.task.kind}", title_justify="left")
    grid.add_column("")
    for name in names:
        grid.add_column(name, justify="right")
    for what in ("rows", "words_median", "words_max", "empty", "duplicates"):
        grid.add_row(what.replace("_", ", "), *(f"{found.splits[name][what]:,}" for name in names))
    for what, title in (
        ("median", "tokens, median"),
        ("p95", "tokens, p95"),
        ("max", "tokens, max"),
        ("cut", "rows cut"),
    ):
        grid.add_row(title, *(f"{lengths[name][what]:,}" for name in names))
    for label in data.labels:
        counts = [found.splits[name]["labels"][label] for name in names]
        shares = [count / found.splits[name]["rows"] for name, count in zip(names, counts, strict=True)]
        grid.add_row(
            f"label {label}", *(f"{count:,} ({share:.0%})" for count, share in zip(counts, shares, strict=True))
        )
    if not data.labels:
        for what in ("min", "mean", "max"):
            grid.add_row(f"target, {what}", *(f"{found.splits[name]['target'][what]:g}" for name in names))
    console.print(grid)
    warnings = _warnings(found, lengths)
    for warning in warnings:
        console.print(f"! {warning}", soft_wrap=True)
    for note in data.notes:
        console.print(f"- {note}", soft_wrap=True)
    if not warnings:
        console.print("Nothing to worry about.")
