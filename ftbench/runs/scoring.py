"""Files of summaries, of any system, to scores. What ``ftbench summarize score`` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftbench.analysis.extracts import extracts, median_words
from ftbench.analysis.summaries import Options, Scores, score_summaries
from ftbench.errors import UsageError
from ftbench.lookup import nearest
from ftbench.tasks.encode_summaries import summary_cells
from ftbench.tasks.files import READERS, read_lines, read_table

#: columns that are taken when none is named, the first that is there; of predictions the first, which is what ``ftbench
#: predict`` calls them, or the only one
PREDICTION = ("prediction", "summary", "predicted_summary", "generated", "output")
REFERENCE = ("references", "reference", "summary", "highlights", "headline", "target")
DOCUMENT = ("document", "article", "text", "dialogue", "body", "source")
#: a file of another kind has a text a line
TABLES = tuple(READERS)


@dataclass(frozen=True)
class Asked:
    """Which files and columns; an empty column is looked for. line_break: what a line break is written as in them.
    encoding: of CSV, TSV and plain lines, as in ``types.Files``. The others are those of ``metrics.rouge.Options``.
    """

    predictions: tuple[str, ...]
    references: str
    documents: str = ""
    columns: tuple[str, ...] = ()
    reference_column: str = ""
    document_column: str = ""
    line_break: str = ""
    encoding: str = ""
    stem: bool = True
    tokenizer: str = "auto"
    sentences: str = "split"
    keep_unk: bool = True


@dataclass(frozen=True)
class Texts:
    """Texts of each row, and where they stand: a file, and a column of it if it is a table."""

    path: Path
    column: str
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Scored:
    """rows: one for each system and, with documents, each extract of ``analysis.extracts`` (``style`` reference).

    A row has ``system``, ``n``, each score by its name, and of ROUGE scores ``NAME_low`` and ``NAME_high``.
    """

    rows: tuple[Mapping[str, Any], ...]
    options: Options
    notes: tuple[str, ...] = field(default=())


def score_files(asked: Asked, *, processes: int = 1, progress: Callable[[int], None] | None = None) -> Scored:
    """Scores every column of every file of predictions against the references, in the order given.

    Raises UsageError: a file or column that is not there, or that is both sides, several columns that may be the
    predictions, numbers of rows that differ (with both), a file that is a system twice, and what ``score_summaries``
    and ``read_table`` raise.
    """
    theirs = read_texts(
        asked.references, asked.reference_column, REFERENCE, "--reference-column", asked.line_break, asked.encoding
    )
    references = theirs.rows
    documents = None
    if asked.documents:
        found = read_texts(
            asked.documents, asked.document_column, DOCUMENT, "--document-column", encoding=asked.encoding
        )
        documents = [" ".join(texts) for texts in found.rows]
        _require_as_many(asked.documents, "documents", documents, asked.references, references)
    systems = _systems(asked, theirs)
    for name, texts in systems.items():
        _require_as_many(name, "predictions", texts, asked.references, references)
    chosen = Options(asked.stem, asked.tokenizer, asked.keep_unk, asked.sentences)  # type: ignore[arg-type]
    options = chosen.fitted(references)
    extracted: dict[str, list[str]] = {}
    if documents is not None:
        extracted = extracts(documents, references, median_words([texts[0] for texts in references if texts] or [""]))
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    for style, named in (("reference", extracted), ("", systems)):
        for name, texts in named.items():
            scores = score_summaries(
                texts, references, documents, options=options, processes=processes, progress=progress
            )
            rows.append(_row(name, scores, style))
            of_one = f"{name}: " if len(systems) + len(extracted) > 1 else ""
            notes |= dict.fromkeys(note if note.endswith("or 0.") else of_one + note for note in scores.notes)
    return Scored(tuple(rows), options, tuple(notes))


def read_texts(
    file: str, column: str, usual: Sequence[str], flag: str, line_break: str = "", encoding: str = ""
) -> Texts:
    """The texts of each row: of a table's column, which may hold lists, or the lines of a file of any other kind.

    Raises UsageError: no such file or column, several that may be meant, no rows, what ``read_table`` raises.
    """
    path, chosen = Path(file).expanduser(), ""
    if path.suffix.lower() in TABLES:
        table = read_table(path, encoding=encoding).rename(columns=str)
        chosen = column or _usual_column(file, list(table.columns), usual, flag)
        if chosen not in table.columns:
            near = nearest(column, table.columns)
            raise UsageError(f"'{file}' has no column '{column}'.{near} Columns: {', '.join(table.columns)}")
        found = list(summary_cells(table[chosen], chosen, f"'{file}'"))
    else:
        if column:
            raise UsageError(f"{flag} {column}: '{file}' is no table ({', '.join(TABLES)}) and has a text a line")
        found = [(line,) if line.strip() else () for line in read_lines(path, encoding)]
    if not found:
        raise UsageError(f"'{file}' has no rows")
    if line_break:
        found = [tuple(text.replace(line_break, "\n") for text in texts) for texts in found]
    return Texts(path, chosen, found)


def _usual_column(file: str, names: Sequence[str], usual: Sequence[str], flag: str) -> str:
    """The column of a usual name. Raises UsageError where there is none, or where several may be the predictions."""
    found = [name for name in usual if name in names]
    if not found:
        raise UsageError(
            f"'{file}' has no column of a usual name ({', '.join(usual)}). Say it with {flag}. "
            f"Columns: {', '.join(names)}"
        )
    if usual is PREDICTION and len(found) > 1 and found[0] != PREDICTION[0]:
        raise UsageError(f"'{file}' has several columns that may be the predictions: {', '.join(found)}. "
                         f"Say which with {flag}")  # fmt: skip
    return found[0]


def _require_other(own: Texts, references: Texts, file: str) -> None:
    """Raises UsageError where predictions would be scored against themselves."""
    if own.column != references.column or not own.path.samefile(references.path):
        return
    if own.column:
        names = f"column '{own.column}' of '{file}'"
        raise UsageError(f"{names} would be both predictions and references: say the one with --column, or the other "
                         "with --reference-column")  # fmt: skip
    raise UsageError(f"'{file}' would be both predictions and references: expected two files")


def _systems(asked: Asked, references: Texts) -> dict[str, list[str]]:
    """The predictions of each system: one text a row, empty where there is none."""
    systems: dict[str, list[str]] = {}
    for file in asked.predictions:
        for column in asked.columns or ("",):
            found = read_texts(file, column, PREDICTION, "--column", asked.line_break, asked.encoding)
            _require_other(found, references, file)
            texts = found.rows
            several = next((row for row, each in enumerate(texts, start=1) if len(each) > 1), None)
            if several:
                raise UsageError(f"'{file}' has several predictions in row {several:,}: expected one")
            stem = Path(file).stem
            name = (f"{stem}:{column}" if len(asked.predictions) > 1 else column) if column else stem
            if name in systems:
                raise UsageError(f"two files of predictions are called {stem}: rename one, or score them apart")
            systems[name] = [each[0] if each else "" for each in texts]
    return systems


def _require_as_many(
    name: str, what: str, texts: Sequence[Any], reference_file: str, references: Sequence[Any]
) -> None:
    if len(texts) != len(references):
        raise UsageError(
            f"{name} has {len(texts):,} {what}, {reference_file} has {len(references):,} references: expected one "
            "for every reference, in the same order (an empty line is an empty summary)"
        )


def _row(name: str, scores: Scores, style: str) -> dict[str, Any]:
    ends = {
        f"{metric}_{end}": value
        for metric, interval in scores.intervals.items()
        for end, value in zip(("low", "high"), interval, strict=True)
    }
    n = len(next(iter(scores.rows.values())))
    return {"system": name, "n": n, **scores.means, **ends, **({"style": style} if style else {})}
