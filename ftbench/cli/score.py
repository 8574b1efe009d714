"""``ftbench summarize score``: any system's file against references."""

from __future__ import annotations

import json as codec
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftbench.cli import options as flags

if TYPE_CHECKING:
    from ftbench.runs.scoring import Scored

TEXTS, SCORING = "Files and columns", "How it is scored"
FILE = "JSON lines, Parquet, CSV or TSV; any other file has a summary a line."


def score(
    predictions: Annotated[
        list[str],
        typer.Option(
            metavar="FILE", help=f"A system's summaries: {FILE} Repeat for several systems.", rich_help_panel=TEXTS
        ),
    ],
    references: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="The references, in the same order; a list in a cell is several.",
            rich_help_panel=TEXTS,
        ),
    ],
    documents: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The documents: adds the scores of their beginnings (lead) and what is new and copied.",
            rich_help_panel=TEXTS,
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of the summaries; several, or a comma list, are systems of their own [prediction or summary].",
            rich_help_panel=TEXTS,
        ),
    ] = None,
    reference_column: Annotated[
        str, typer.Option(help="Column of the references [references, reference, summary ...].", rich_help_panel=TEXTS)
    ] = "",
    document_column: Annotated[
        str, typer.Option(help="Column of the documents [document, article, text ...].", rich_help_panel=TEXTS)
    ] = "",
    line_break: Annotated[
        str,
        typer.Option(
            metavar="MARK",
            help="What a line break is written as in the files, such as `<q>` or `<n>`.",
            rich_help_panel=TEXTS,
        ),
    ] = "",
    encoding: Annotated[
        str, typer.Option(help="Of CSV, TSV and plain lines, such as cp1252 [UTF-8 or UTF-16].", rich_help_panel=TEXTS)
    ] = "",
    stem: Annotated[
        bool, typer.Option("--stem/--no-stem", help="Porter's stemmer, as nearly all papers.", rich_help_panel=SCORING)
    ] = True,
    tokenizer: Annotated[
        str,
        typer.Option(
            help="Which words count: ascii (a-z and 0-9, as rouge_score), unicode (of any script), or auto: unicode "
            "where the references are not in a-z.",
            rich_help_panel=SCORING,
        ),
    ] = "auto",
    sentences: Annotated[
        str,
        typer.Option(
            help="Of rougeLsum: split (a text of one line is split into sentences), or lines as they are.",
            rich_help_panel=SCORING,
        ),
    ] = "split",
    without_unk: Annotated[
        bool, typer.Option("--without-unk", help="Take `<unk>` and UNK out of the references.", rich_help_panel=SCORING)
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Processes that share more than 1,000 rows [the cores, at most 8].", min=1)
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="JSON on stdout, for scripts: fractions, not hundredths.")
    ] = False,
) -> None:
    """Score the summaries of any system: ROUGE with intervals, and what ROUGE does not see.

    ROUGE is rouge_score's F1 with stemming; rougeLsum is what papers on CNN/DailyMail call R-L. docs/rouge.md says how
    the variants differ, in numbers.

    Examples:

        ftbench summarize score --predictions mine.txt --references refs.jsonl

        ftbench summarize score --predictions mine.jsonl --references test.parquet --documents test.parquet

        ftbench summarize score --predictions systems.parquet --column bart,t5 --references refs.txt --no-stem
    """
    from ftbench.runs.scoring import Asked, score_files

    flags.one_of(tokenizer, ("auto", "ascii", "unicode"), "tokenizer")
    flags.one_of(sentences, ("split", "lines"), "way to find sentences")
    asked = Asked(
        predictions=tuple(predictions),
        references=references,
        documents=documents or "",
        columns=tuple(flags.flatten(column)),
        reference_column=reference_column,
        document_column=document_column,
        line_break=line_break,
        encoding=encoding,
        stem=stem,
        tokenizer=tokenizer,
        sentences=sentences,
        keep_unk=not without_unk,
    )
    with _Counter() as counter:
        scored = score_files(asked, processes=jobs or min(8, os.cpu_count() or 1), progress=counter.add)
    if json:
        print(codec.dumps(_plain(scored), indent=2, ensure_ascii=False))
        return
    _show(scored)


class _Counter:
    """How many rows are scored, on a terminal."""

    def __init__(self) -> None:
        self.done = 0
        self.shown = sys.stderr.isatty()

    def __enter__(self) -> _Counter:
        return self

    def add(self, rows: int) -> None:
        self.done += rows
        if self.shown:
            print(f"\r{self.done:,} summaries scored", end="", file=sys.stderr, flush=True)

    def __exit__(self, *exception: Any) -> None:
        if self.shown and self.done:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _plain(scored: Scored) -> dict[str, Any]:
    """Extracts bear ``"reference": true``."""
    systems = [
        {**{key: value for key, value in row.items() if key != "style"}, "reference": row.get("style") == "reference"}
        for row in scored.rows
    ]
    options = scored.options
    return {
        "systems": systems,
        "options": {
            "stem": options.stem,
            "tokenizer": options.tokenizer,
            "sentences": options.sentences,
            "without_unk": not options.keep_unk,
        },
        "notes": list(scored.notes),
    }


def _show(scored: Scored) -> None:
    from ftbench.reporting.render import render
    from ftbench.reporting.systems import system_tables

    print("\n\n".join(render(table, "rich").rstrip("\n") for table in system_tables(scored.rows, scored.notes)))
