"""``ftbench predict``."""

from __future__ import annotations

import json as json_lib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.cli import options as flags
from ftbench.errors import UsageError
from ftbench.runs.files import plain

if TYPE_CHECKING:
    from pandas import DataFrame

WRITERS = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")


def predict(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run that kept its weights (--save-model), or a folder with one such; a model's folder; a hub id.",
        ),
    ],
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What to predict for: CSV, TSV, JSONL or Parquet; .txt has a text a line."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .csv, .tsv, .jsonl, .parquet; .txt has the predictions alone, one a line [CSV on "
            "stdout].",
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Column of the texts; twice, or A,B, for pairs [those trained on].")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Encoding of a CSV or .txt, such as cp1252 [UTF-8 or UTF-16].")] = "",
    glue: Annotated[
        bool,
        typer.Option(
            "--glue", help="FILE is an official GLUE test file: write the submission file into the folder --output [.]."
        ),
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(help="For a model that ftbench did not train: a task with its columns and label names."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id: a branch, tag or commit [main].")] = None,
    trust_remote_code: flags.TrustRemoteCode = False,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of a row; what is longer is cut [as trained, else 128].", min=4)
    ] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="JSON lines instead of CSV on stdout.")] = False,
) -> None:
    """Use a trained model: a label and probabilities for every row of a table, or a summary.

    The table's columns are kept, its labels are not needed. `prediction` and `probability_<label>` are added; a
    regression has `prediction` only. A run of `ftbench summarize` writes summaries into `prediction`, with the beams
    and lengths that it was scored with.

    Examples:

        ftbench finetune --task reviews.csv --text review --label stars --save-model best

        ftbench predict runs new.csv --output labelled.csv

        ftbench predict runs glue_data/MRPC/test.tsv --glue --output submission

        ftbench predict runs/news-headline/std-seed0-1a2b3c4d5e6f articles.txt --output headlines.txt
    """
    from ftbench.runs import predict as work
    from ftbench.tasks import resolve

    if json and (glue or output is not None):
        raise UsageError(
            "--json is for stdout: a file named .jsonl with --output is JSON lines, --glue is GLUE's own form"
        )
    if not glue and output is not None:
        _require_writable(output, file)
    declared = resolve(task) if task else None
    trained = work.find_trained(run, revision, declared, remote_code=trust_remote_code)
    declared = declared or trained.task
    if glue and trained.writes:
        raise UsageError(f"--glue is for labels, and run '{run}' writes summaries")
    if glue:
        work.require_test_file(file, declared)
    table, texts = work.read_new(file, trained, flags.flatten(text), encoding)
    predicted = work.predict(trained, texts, max_length=max_length, device=device, attend=_show_written)
    if predicted.truncated:
        print(f"{predicted.truncated} of {len(table)} rows were cut (--max-length)", file=sys.stderr)
    labels = work.task_labels(predicted.labels, declared)
    if glue and declared is not None:
        name, content = work.submission(file, table, predicted, labels, declared)
        _write_text((output or Path()) / name, content)
        return
    _write(work.with_predictions(table, predicted, labels), output, as_json=json)


def _show_written(done: int, total: int) -> None:
    """How many summaries are written, on a terminal."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done:,} of {total:,} summaries written", end=end, file=sys.stderr, flush=True)


def _require_writable(output: Path, file: Path) -> None:
    """Raises UsageError for an unknown kind of file, and before the table to read is overwritten."""
    flags.one_of(output.suffix.lower() or output.name, WRITERS, "kind of --output")
    if output.exists() and file.exists() and output.samefile(file):
        raise UsageError(f"--output '{output}' is the table to read: give another name")


def _write(table: DataFrame, output: Path | None, *, as_json: bool) -> None:
    if output is None:
        text = _jsonl(table) if as_json else table.to_csv(index=False)
        sys.stdout.write(text)
        return
    kind = output.suffix.lower()
    if kind == ".parquet":
        import io

        sink = io.BytesIO()
        try:
            table.to_parquet(sink, index=False)
        except (ValueError, TypeError) as error:  # pyarrow's kinds are these
            raise UsageError(f"the table cannot be written as Parquet: {error}. Try .jsonl") from error
        _write_bytes(output, sink.getvalue())
    elif kind == ".jsonl":
        _write_text(output, _jsonl(table))
    elif kind == ".txt":
        _write_text(output, "".join(f"{_one_line(str(each))}\n" for each in table["prediction"]))
    else:
        _write_text(output, _tsv(table) if kind == ".tsv" else table.to_csv(index=False))


def _tsv(table: DataFrame) -> str:
    """Without quoting, as ftbench and GLUE read it: tabs and line breaks in a cell become blanks."""
    import csv

    one_line = table.map(lambda cell: _one_line(cell) if isinstance(cell, str) else cell)
    return one_line.to_csv(index=False, sep="\t", quoting=csv.QUOTE_NONE)


def _one_line(text: str) -> str:
    return " ".join(re.split(r"[\t\r\n]+", text))


def _jsonl(table: DataFrame) -> str:
    # not to_json, which cuts numbers to ten decimals
    rows = (json_lib.dumps(plain(row), ensure_ascii=False, default=str) for row in table.to_dict("records"))
    return "".join(f"{row}\n" for row in rows)


def _write_text(path: Path, text: str) -> None:
    _write_bytes(path, text.encode("utf-8", "surrogatepass"))


def _write_bytes(path: Path, content: bytes) -> None:
    from ftbench.runs.files import write_atomic, writing_in

    with writing_in(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)
    print(f"wrote {path}", file=sys.stderr)
