"""``ftbench validate``: look at the data before training on it."""

from __future__ import annotations

import json as codec
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftbench.cli import options as flags

#: what is counted in tokens: what its rows are called, and the flag that cuts them
ROWS = {"tokens": ("rows", "--max-length"), "summary_tokens": ("summaries", "--max-target-length")}
#: of each of ROWS, for each split the counts of ``token_lengths``
Lengths = Mapping[str, Mapping[str, Mapping[str, int]]]

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
    summary: Annotated[
        str | None,
        typer.Option(help="Column of the summaries, where these are to be learned [summary, highlights ...]."),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(help="classification; regression where labels are numbers to predict; summarization."),
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
        int | None,
        typer.Option(
            help="Tokens of a row that training would keep; what is longer is cut, and counted here [128; of documents "
            "the task's, else 512].",
            min=4,
        ),
    ] = None,
    max_target_length: Annotated[
        int | None, typer.Option(help="The same of summaries [the task's, else 64].", min=4)
    ] = None,
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

        ftbench validate pairs.csv --text article --summary headline
    """
    from ftbench.models.locate import locate
    from ftbench.runs.lengths import summary_lengths, token_lengths
    from ftbench.tasks import from_folder, resolve
    from ftbench.tasks.examine import examine
    from ftbench.tasks.sources import load

    kind = flags.one_of(kind, ("classification", "regression", "summarization"), "kind")
    if summary is not None:
        kind = "summarization"
    target = (summary or "") if kind == "summarization" else label
    task = resolve(file, tuple(flags.flatten(text)), target, kind, encoding)  # type: ignore[arg-type]
    data = load(from_folder([task], data_dir)[0] if data_dir else task)
    found = examine(data)
    checkpoint, decoding = locate(model), data.task.decoding
    usual = decoding.get("max_length", 512) if data.task.kind == "summarization" else 128
    lengths = {"tokens": token_lengths(data, checkpoint, max_length or usual)}
    if data.task.kind == "summarization":
        limit = max_target_length or decoding.get("max_target_length", 64)
        lengths["summary_tokens"] = summary_lengths(data, checkpoint, limit)
    if json:
        print(codec.dumps(_plain(data, found, lengths), indent=2, ensure_ascii=False))
        return
    _show(data, found, lengths)


def _plain(data: Data, found: Examined, lengths: Lengths) -> dict[str, Any]:
    from ftbench.tasks.examine import other_notes

    return {
        "task": data.task.name,
        "kind": data.task.kind,
        "labels": list(data.labels),
        "splits": {
            name: {**counts, **{what: of[name] for what, of in lengths.items()}}
            for name, counts in found.splits.items()
        },
        "warnings": _warnings(found, lengths),
        "notes": list(other_notes(data)),
    }


def _warnings(found: Examined, lengths: Lengths) -> list[str]:
    cut = [
        f"{name}: {tokens['cut']:,} of {found.splits[name]['rows']:,} {ROWS[what][0]} would be cut to "
        f"{tokens['limit']} tokens ({ROWS[what][1]})"
        for what, of in lengths.items()
        for name, tokens in of.items()
        if tokens["cut"]
    ]
    return [*cut, *found.warnings]


def _show(data: Data, found: Examined, lengths: Lengths) -> None:
    from rich.console import Console
    from rich.table import Table

    from ftbench.tasks.examine import other_notes

    console = Console(markup=False, highlight=False)
    names = list(found.splits)
    grid = Table(title=f"{data.task.name}: {data.task.kind}", title_justify="left")
    grid.add_column("")
    for name in names:
        grid.add_column(name, justify="right")
    for what in ("rows", "words_median", "words_max", "empty", "duplicates"):
        grid.add_row(what.replace("_", ", "), *(f"{found.splits[name][what]:,}" for name in names))
    for kind, of in lengths.items():
        title, cut = kind.replace("_", " "), ROWS[kind][0]
        for what in ("median", "p95", "max"):
            grid.add_row(f"{title}, {what}", *(f"{of[name][what]:,}" for name in names))
        grid.add_row(f"{cut} cut", *(f"{of[name]['cut']:,}" for name in names))
    for label in data.labels:
        counts = [found.splits[name]["labels"][label] for name in names]
        shares = [count / found.splits[name]["rows"] for name, count in zip(names, counts, strict=True)]
        grid.add_row(
            f"label {label}", *(f"{count:,} ({share:.0%})" for count, share in zip(counts, shares, strict=True))
        )
    if data.task.kind == "summarization":
        for what in ("words_median", "words_max", "references_max"):
            title = f"summary, {what.replace('_', ', ')}"
            grid.add_row(title, *(f"{found.splits[name]['summaries'][what]:,}" for name in names))
    elif not data.labels:
        for what in ("min", "mean", "max"):
            grid.add_row(f"target, {what}", *(f"{found.splits[name]['target'][what]:g}" for name in names))
    console.print(grid)
    warnings = _warnings(found, lengths)
    for warning in warnings:
        console.print(f"! {warning}", soft_wrap=True)
    for note in other_notes(data):
        console.print(f"- {note}", soft_wrap=True)
    if not warnings:
        console.print("Nothing to worry about.")
