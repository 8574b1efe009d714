"""``ftbench report``."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftbench.cli import options as flags
from ftbench.errors import StoreError, UsageError, explain

if TYPE_CHECKING:
    from ftbench.reporting.gate import Verdict
    from ftbench.reporting.study import Study
    from ftbench.types import Record, Search, Table

WHICH, WHAT, OUT, CHECK = "Which runs", "Which tables", "Output", "Checks for scripts"
FORM_HELP = "rich, markdown, latex, csv (one table), csv-long (a row for each score of each run) or json."
WHERE_HELP = "Only runs that match: 'task=rte,mrpc method=std,r3f* lr<=5e-5'. Repeat for more clauses."
TABLE_HELP = (
    "Tables to print, a comma list, or all: runs, scores, sensitivity, spread, differences, across, arms, tests, cost, "
    "budget, stability; search, layers, subsets, probe, probe_layers, collapse [where they apply, all but arms to "
    "stability, and collapse]."
)


def report(
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders with runs [runs].", show_default=False)] = None,
    where: Annotated[list[str] | None, typer.Option(help=WHERE_HELP, rich_help_panel=WHICH)] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Tables of their own for each value of a setting.", rich_help_panel=WHICH)
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Judge by this metric [the task's first].", rich_help_panel=WHICH)
    ] = None,
    selection: Annotated[
        str,
        typer.Option(
            help="last (the last epoch) or best (the best epoch, marked where it was chosen).", rich_help_panel=WHICH
        ),
    ] = "last",
    table: Annotated[list[str] | None, typer.Option(help=TABLE_HELP, rich_help_panel=WHAT)] = None,
    paper: Annotated[
        str | None,
        typer.Option(help="Set published figures beside ours: r3f, hype, minilm.", rich_help_panel=WHAT),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(help="What these runs say of a paper's claim: its number, or all.", rich_help_panel=WHAT),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Sort rows by a column, such as mean or -mean.", rich_help_panel=WHAT)
    ] = None,
    family: Annotated[
        str,
        typer.Option(help="Comparisons that Holm's correction takes together: task, all, none.", rich_help_panel=WHAT),
    ] = "task",
    form: Annotated[str, typer.Option("--format", help=FORM_HELP, rich_help_panel=OUT)] = "rich",
    json: flags.Json = False,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page.", rich_help_panel=OUT)] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Write every picture to this folder, as PDF and PNG.", rich_help_panel=OUT)
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with 1 unless met: 'task=rte method=r3f metric>=0.68'. Also low, difference, failed, ...",
            rich_help_panel=CHECK,
        ),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="A folder with earlier runs to compare with.", rich_help_panel=CHECK)
    ] = None,
    fail_on_regression: Annotated[
        bool,
        typer.Option(
            "--fail-on-regression",
            help="Exit with 1 when a test finds an arm worse, when a run fails that did not, or when nothing could be "
            "tested.",
            rich_help_panel=CHECK,
        ),
    ] = False,
    summary: Annotated[
        Path | None, typer.Option(help="Append a Markdown summary to this file.", rich_help_panel=CHECK)
    ] = None,
) -> None:
    """Print what the runs in one or more folders show, and what they cannot show.

    What cannot be read (half-written, foreign, newer files) is counted and named on stderr.

    Examples:

        ftbench report

        ftbench report runs other-runs --format csv > table.csv

        ftbench report --where 'task=rte method=std,r3f*' --table differences,tests

        ftbench report runs --html report.html --figures figures

        ftbench report --require 'task=rte method=r3f metric>=0.68' --compare baseline --fail-on-regression
    """
    from ftbench.cli.output import FURTHER
    from ftbench.reporting import gate
    from ftbench.reporting.render import FORMS
    from ftbench.reporting.reports import DEFAULT, REPORTS, claim_names
    from ftbench.reporting.study import Study

    form = "json" if json else flags.one_of(form, (*FORMS, "csv-long"), "format")
    flags.one_of(selection, ("last", "best"), "selection")
    flags.one_of(family, ("task", "all", "none"), "family")
    if fail_on_regression and compare is None:
        raise UsageError("--fail-on-regression needs --compare FOLDER")
    if by and form == "csv":
        raise UsageError("--format csv is one table: give --where instead of --by, or --format csv-long or json")
    if sort and form in ("json", "csv-long"):
        raise UsageError(f"--sort is of tables to read: --format {form} has a fixed order")
    if table and form == "csv-long":
        raise UsageError("--format csv-long is a row for each score of each run: it has no --table")
    named = [flags.one_of(name, (*REPORTS, *FURTHER, "all"), "table") for name in flags.flatten(table)]
    if form == "csv" and (len(named) > 1 or "all" in named):
        raise UsageError("--format csv is one table: name one with --table, or give --format json")
    every = "all" in named or (form == "json" and not named)
    usual = (DEFAULT[0], "search", *DEFAULT[1:], *FURTHER[1:-1])
    names = (*REPORTS, *FURTHER) if every else tuple(named) or usual
    beside = [*([f"paper:{paper}"] if paper else []), *claim_names(flags.flatten(claim))]
    names = (*beside, *(names if named or not beside else ()))
    skipped: list[str] = []
    records, searches = _read(runs or [Path("runs")], where or [], metric, skipped)
    how: dict[str, Any] = {"searches": searches, "selection": selection, "family": family}
    short = not named and not beside and form in ("rich", "markdown")
    baseline = _read([compare], where or [], metric, skipped)[0] if compare else None
    study = Study(records, **how) if require or compare or summary else None
    # before the tables: what is no demand is said at once
    demanded = [gate.require(study, text) for text in require or []] if study else []
    _write(records, html, figures, skipped, **how)
    _print(records, flags.flatten(by), names, form, sort, short=short, **how)
    if study is None:
        return
    compared = _check(study, demanded, baseline, form, summary)
    if not all(one.met for one in demanded) or (fail_on_regression and compared is not None and not compared.met):
        raise typer.Exit(1)


def _read(
    folders: Sequence[Path], where: Sequence[str], metric: str | None, skipped: list[str]
) -> tuple[list[Record], list[Search]]:  # fmt: skip
    """The runs asked for and their searches; adds to ``skipped`` what could not be read, and says it on stderr."""
    from ftbench.reporting import select
    from ftbench.runs.store import read_all

    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"there is no folder '{folder}' with runs: give the --output-dir of a finetune command")
    found = read_all(folders)
    for line in found.skipped:
        print(f"skipped {line}", file=sys.stderr)
    skipped += found.skipped
    kept = select.where(found.records, where)
    for line in select.unmet(found.records, kept, where):
        print(line, file=sys.stderr)
    searches = select.searches_of(found.searches, kept)
    return select.with_metric(kept, metric) if metric and kept else kept, searches


def _print(
    records: Sequence[Record], by: Sequence[str], names: Sequence[str], form: str, sort: str | None,
    *, short: bool, searches: Sequence[Search], **how: Any,
) -> None:  # fmt: skip
    from ftbench.reporting import select
    from ftbench.reporting.conclusions import as_lines, conclusions
    from ftbench.reporting.flat import long_csv
    from ftbench.reporting.select import sort_rows
    from ftbench.reporting.study import Study

    if form == "csv-long":
        print(long_csv(records), end="")
        return
    groups = select.by(records, by) if by else [({}, list(records))]
    studies = [(about, Study(found, searches=select.searches_of(searches, found), **how)) for about, found in groups]
    if form == "json":
        documents = [_document(about, study, names) for about, study in studies]
        print(jsonlib.dumps(documents[0] if not by else {"groups": documents}, indent=2, allow_nan=False))
        return
    tables = [table for about, study in studies for table in _tables(about, study, names, form)]
    tables = sort_rows(tables, sort) if sort else tables
    if not tables:
        print(f"these runs give no table of {', '.join(names)}", file=sys.stderr)
        return
    _print_tables(tables[:1] if form == "csv" and not by else tables, form)
    lines = [line for _, study in studies for line in as_lines(conclusions(study))] if short else []
    if lines:
        print("\nIn short:\n" + "\n".join(lines))


def _tables(about: dict[str, Any], study: Study, names: Sequence[str], form: str) -> list[Table]:
    from dataclasses import replace

    found = [table for some in _named(study, names, form).values() for table in some]
    if about:
        group = ", ".join(f"{key} {'all' if value is None else value}" for key, value in about.items())
        found = [replace(table, title=f"{table.title} ({group})") for table in found]
    return found


def _named(study: Study, names: Sequence[str], form: str) -> dict[str, list[Table]]:
    """The tables of each name, none where these runs give none."""
    from ftbench.cli.output import FURTHER, further_tables
    from ftbench.reporting.reports import make

    further = (
        further_tables(study.apart, study.searches, form, tuned=study.records) if set(names) & set(FURTHER) else {}
    )
    made = {name: make(study, name) for name in names if name not in FURTHER}
    return {name: further.get(name, []) if name in FURTHER else [t] if (t := made[name]) else [] for name in names}


def _print_tables(tables: Sequence[Table], form: str) -> None:
    from ftbench.reporting.render import render

    print("\n\n".join(render(table, form).rstrip("\n") for table in tables))


def _write(records: Sequence[Record], html: Path | None, figures: Path | None, skipped: list[str], **how: Any) -> None:
    """The page and the pictures; says on stderr what was written."""
    from ftbench.reporting.study import Study

    study = Study(records, **how)
    if html is not None:
        from ftbench.cli.output import FURTHER
        from ftbench.reporting.page import to_html

        more = _tables({}, study, FURTHER[:-1], "rich")
        _save(html, to_html(study, skipped=skipped, more=more))
        print(f"wrote {html}", file=sys.stderr)
    if figures is not None:
        from ftbench.reporting.charts import charts
        from ftbench.reporting.figures import write_figures

        written = write_figures(charts(study), figures)
        print(f"wrote {len(written)} files to {figures}", file=sys.stderr)


def _document(about: dict[str, Any], study: Study, names: Sequence[str]) -> dict[str, Any]:
    """``table`` is what ``finetune --json`` calls the table of runs."""
    from ftbench.cli.output import as_documents, describe, describe_search
    from ftbench.runs.files import plain

    tables = {("table" if name == "runs" else name): some for name, some in _named(study, names, "json").items()}
    lists = {
        "runs": [describe(record) for record in (*study.records, *study.apart)],
        "searches": [describe_search(search) for search in study.searches],
    }
    document: dict[str, Any] = plain({**as_documents(tables), **lists})
    return {"by": about, **document} if about else document


def _check(
    study: Study, demanded: Sequence[Verdict], baseline: Sequence[Record] | None, form: str, summary: Path | None
) -> Verdict | None:
    """Compares with the baseline, says on stderr what is met, and appends the summary; what the comparison says."""
    from ftbench.reporting import gate
    from ftbench.reporting.render import render
    from ftbench.reporting.reports import make

    verdicts, compared = list(demanded), None
    tables = [make(study, "runs"), make(study, "differences")]
    if baseline is not None:
        comparison = gate.against(study, baseline)
        compared = comparison.verdict()
        verdicts.append(compared)
        tables.append(comparison.table())
        if form in ("rich", "markdown", "latex"):
            print()
            _print_tables([comparison.table()], form)
    for verdict in verdicts:
        print(verdict.line, file=sys.stderr)
    if summary is not None:
        text = gate.step_summary(verdicts, [render(t, "markdown") for t in tables if t and t.rows])
        _save(summary, text, mode="a")
    return compared


def _save(path: Path, text: str, mode: str = "w") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {explain(error)}") from error
