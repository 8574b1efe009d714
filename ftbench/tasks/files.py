"""A user's own tables: CSV, TSV, JSON lines, Parquet, or a folder with a train and a validation file.

CSV may come from a spreadsheet: with a byte-order mark, in UTF-16, separated by semicolons, tabs or bars,
with Excel's ``sep=;`` line.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ftbench.errors import UsageError
from ftbench.lookup import nearest
from ftbench.types.task import Files

if TYPE_CHECKING:
    from pandas import DataFrame

#: What a validation split may be called, as a file's stem or as a split of the hub.
VALIDATION_NAMES = ("validation", "valid", "dev")
#: Spreadsheets, which are not read.
SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
#: What a CSV may be separated by, the likeliest first, judged by its first rows.
DELIMITERS, SNIFFED_ROWS = (",", ";", "\t", "|"), 50
#: characters of a cell that it is judged by; csv's own limit of 131,072 is less than a long text
LONGEST_CELL = 2**26


def read_tables(source: Files) -> dict[str, DataFrame]:
    """``train`` and, if there is one, ``validation``. A ``test.*`` in a folder is left alone.

    Raises UsageError: no such file, an unknown extension, a file that is empty, in another encoding or not of
    its format, two columns of one name, a folder without a train file or with two that could be meant.
    """
    if source.files:
        return {split: read_table(Path(file), encoding=source.encoding) for split, file in source.files.items()}
    place = Path(source.path).expanduser()
    if not place.is_dir():
        return {"train": read_table(place, encoding=source.encoding)}
    found = {"train": only_table(place, ("train",)), "validation": only_table(place, VALIDATION_NAMES)}
    if found["train"] is None:
        there = ", ".join(sorted(entry.name for entry in place.iterdir())[:10]) or "nothing"
        raise UsageError(
            f"folder '{source.path}' has no train file (train{', train'.join(READERS)}); it holds {there}. "
            f"A folder in the hub's format is written hub:{source.path}"
        )
    return {split: read_table(file, encoding=source.encoding) for split, file in found.items() if file is not None}


def read_table(path: Path, header: tuple[str, ...] = (), encoding: str = "") -> DataFrame:
    """One file as a table of texts (CSV, TSV) or of the values it holds. Raises UsageError as above.

    header: the columns of a TSV that has no header line.
    """
    reader = READERS.get(path.suffix.lower())
    _require_file(path)
    if reader is None:
        hint = ". Save the sheet as CSV" if path.suffix.lower() in SHEETS else ""
        raise UsageError(f"'{path}' is of no known kind: expected a file named {', '.join(READERS)}{hint}")
    try:
        if path.stat().st_size == 0:
            raise UsageError(f"'{path}' is empty")
        table = reader(path, header, encoding)
    except (UnicodeError, LookupError) as error:
        raise _wrong_encoding(path, encoding, error) from error
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error}") from error
    twice = sorted(set(table.columns[table.columns.duplicated()]))
    if twice:
        raise UsageError(f"'{path}' has several columns called '{twice[0]}': rename them")
    return table


def read_lines(path: Path, encoding: str = "") -> list[str]:
    """The lines of a file of plain text, UTF-8 or UTF-16 unless told. Raises UsageError where it cannot be read."""
    _require_file(path)
    try:
        text = path.read_text(encoding=encoding or _encoding(path))
    except (UnicodeError, LookupError) as error:
        raise _wrong_encoding(path, encoding, error) from error
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror}") from error
    return text.removesuffix("\n").split("\n") if text else []


def _wrong_encoding(path: Path, encoding: str, error: Exception) -> UsageError:
    """A file that is not in the encoding, or an encoding that nobody knows."""
    if isinstance(error, UnicodeError):
        name, why = encoding, str(error)  # where UTF-16 lacks its byte-order mark
        if isinstance(error, UnicodeDecodeError):
            name, why = error.encoding, f"{error.reason} at byte {error.start}"
        way = "save it as UTF-8, or say its encoding, such as --encoding cp1252"
        return UsageError(f"'{path}' is not {(name or 'UTF-8').upper()} ({why}): {way}")
    return UsageError(f"--encoding '{encoding}': {error}. Expected a name such as cp1252 or utf-16")


def _require_file(path: Path) -> None:
    """Raises UsageError with the nearest name where there is no such file."""
    if not path.exists():
        known = {*READERS, path.suffix.lower()}
        entries = path.parent.iterdir() if path.parent.is_dir() else ()
        names = [entry.name for entry in entries if entry.is_dir() or entry.suffix.lower() in known]
        raise UsageError(f"no file '{path}'.{nearest(path.name, names)}")


def only_table(folder: Path, stems: tuple[str, ...]) -> Path | None:
    """The one table in ``folder`` with one of these stems. Raises UsageError when there are several."""
    files = [file for file in sorted(folder.iterdir()) if file.stem in stems and file.suffix.lower() in READERS]
    if len(files) > 1:
        raise UsageError(f"folder '{folder}' has {' and '.join(file.name for file in files)}: leave one of them")
    return files[0] if files else None


def _read_separated(path: Path, header: tuple[str, ...], encoding: str, *, tsv: bool) -> DataFrame:
    """All cells as texts; "NA" and "null" are texts too. A blank line is an empty cell where there is one column, but
    for those at the end, else it is nothing."""
    import pandas

    encoding = encoding or _encoding(path)
    # a quote in a TSV is a quote: GLUE's files have unbalanced ones
    dialect = _Dialect("\t", csv.QUOTE_NONE) if tsv else _sniff(path, encoding)
    alone = _has_one_column(path, encoding, dialect)
    text = _only_column(path, encoding, dialect.skip) if alone else ""
    with warnings.catch_warnings():
        # with index_col=False pandas only warns when it drops the cells of a row that is too long
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        try:
            table: DataFrame = pandas.read_csv(
                io.StringIO(text) if alone else path,
                sep=dialect.delimiter,
                quoting=dialect.quoting,
                skiprows=0 if alone else dialect.skip,
                dtype=str,
                na_filter=False,
                index_col=False,
                encoding=encoding,
                header=None,
                skip_blank_lines=not alone,
            )
        except (pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
            raise UsageError(f"'{path}' is not a table with one number of columns: {str(error).strip()}") from error
        except pandas.errors.EmptyDataError as error:
            raise UsageError(f"'{path}' is empty") from error
    if not header:
        # the first row by hand: pandas would number columns of one name
        header, table = tuple(table.iloc[0]), table.iloc[1:].reset_index(drop=True)
    elif len(header) != table.shape[1]:
        raise UsageError(f"'{path}' has {table.shape[1]} columns: expected {len(header)} ({', '.join(header)})")
    table.columns = pandas.Index(header)
    return table


@dataclass(frozen=True)
class _Dialect:
    delimiter: str
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
    skip: int = 0


def _encoding(path: Path) -> str:
    """UTF-16 where the byte-order mark says so, else UTF-8 with or without one."""
    with path.open("rb") as stream:
        start = stream.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    """Cells of ``LONGEST_CELL`` may be read by csv, whose limit is the process's."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _sniff(path: Path, encoding: str) -> _Dialect:
    """The delimiter: as Excel's first line says it, else a comma unless only another one gives equal rows."""
    with path.open(encoding=encoding, newline="") as stream, _long_cells():
        said = re.fullmatch(r"sep=(.)", stream.readline().rstrip("\r\n"))
        if said:
            return _Dialect(said[1], skip=1)
        for delimiter in DELIMITERS:
            stream.seek(0)
            try:
                rows = list(itertools.islice(csv.reader(stream, delimiter=delimiter), SNIFFED_ROWS))
            except csv.Error:  # a cell beyond the limit: pandas has none
                continue
            widths = {len(row) for row in rows if row}
            if len(widths) == 1 and widths != {1}:
                return _Dialect(delimiter)
    return _Dialect(",")


def _has_one_column(path: Path, encoding: str, dialect: _Dialect) -> bool:
    """By the first line that is not blank."""
    with path.open(encoding=encoding, newline="") as stream, _long_cells():
        lines = itertools.islice(stream, dialect.skip, None)
        try:
            rows = csv.reader(lines, delimiter=dialect.delimiter, quoting=dialect.quoting)
            return len(next((row for row in rows if any(map(str.strip, row))), ())) == 1
        except csv.Error:  # a cell beyond the limit, see ``_sniff``
            return False


def _only_column(path: Path, encoding: str, skip: int) -> str:
    """The file's lines, without those of its dialect and the blank ones around them."""
    with path.open(encoding=encoding, newline="") as stream:
        for _ in range(skip):
            stream.readline()
        return stream.read().strip("\r\n")


def _read_csv(path: Path, header: tuple[str, ...], encoding: str) -> DataFrame:
    return _read_separated(path, header, encoding, tsv=False)


def _read_tsv(path: Path, header: tuple[str, ...], encoding: str) -> DataFrame:
    return _read_separated(path, header, encoding, tsv=True)


def _read_json(path: Path, header: tuple[str, ...], encoding: str) -> DataFrame:
    """JSON lines, or one JSON list of objects. Values keep their types; keys that a row lacks are None."""
    import pandas

    text = path.read_text(encoding=encoding or _encoding(path))
    rows: list[Any] = []
    try:
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            # not splitlines(): it also splits at the line separators that JSON allows inside a text
            for line in filter(str.strip, text.split("\n")):
                rows.append(json.loads(line))  # one by one, so that the message can count them
    except ValueError as error:
        raise UsageError(f"'{path}' is not JSON lines: row {len(rows) + 1}: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"'{path}' is not JSON lines: expected an object, such as {{\"text\": ...}}, in every row")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return pandas.DataFrame({key: pandas.Series([row.get(key) for row in rows], dtype=object) for key in columns})


def _read_parquet(path: Path, header: tuple[str, ...], encoding: str) -> DataFrame:
    import pandas

    try:
        return pandas.read_parquet(path)
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise UsageError(f"'{path}' is not a Parquet file: {error}") from error


READERS: dict[str, Callable[[Path, tuple[str, ...], str], DataFrame]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
