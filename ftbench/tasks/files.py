"""A user's own tables: CSV, TSV, JSON lines, Parquet, or a folder with a train and a validation file."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ftbench.errors import UsageError
from ftbench.lookup import nearest

if TYPE_CHECKING:
    from pandas import DataFrame

#: What a validation split may be called, as a file's stem or as a split of the hub.
VALIDATION_NAMES = ("validation", "valid", "dev")


def read_tables(path: str) -> dict[str, DataFrame]:
    """``train`` and, if ``path`` is a folder that has one, ``validation``. A ``test.*`` is left alone.

    Raises UsageError: no such file, an unknown extension, a file that is empty, not UTF-8 or not of
    its format, a folder without a train file or with two that could be meant.
    """
    place = Path(path).expanduser()
    if not place.is_dir():
        return {"train": read_table(place)}
    found = {"train": _only(place, ("train",)), "validation": _only(place, VALIDATION_NAMES)}
    if found["train"] is None:
        there = ", ".join(sorted(entry.name for entry in place.iterdir())[:10]) or "nothing"
        raise UsageError(
            f"folder '{path}' has no train file (train{', train'.join(READERS)}); it holds {there}. "
            f"A folder in the hub's format is written hub:{path}"
        )
    return {split: read_table(file) for split, file in found.items() if file is not None}


def column_names(path: str) -> list[str]:
    """The columns of the (train) table at ``path``. Raises UsageError as ``read_tables`` does."""
    return [str(column) for column in read_tables(path)["train"].columns]


def read_table(path: Path, header: tuple[str, ...] = ()) -> DataFrame:
    """One file as a table of texts (CSV, TSV) or of the values it holds. Raises UsageError as above.

    header: the columns of a TSV that has no header line.
    """
    reader = READERS.get(path.suffix.lower())
    if not path.exists():
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"no file '{path}'.{nearest(path.name, names)}")
    if reader is None:
        raise UsageError(f"'{path}' is of no known kind: expected a file named {', '.join(READERS)}")
    try:
        if path.stat().st_size == 0:
            raise UsageError(f"'{path}' is empty")
        return _read_tsv(path, header) if header else reader(path)
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error}") from error


def _only(folder: Path, stems: tuple[str, ...]) -> Path | None:
    """The one table in ``folder`` with one of these stems. Raises UsageError when there are several."""
    files = [file for file in sorted(folder.iterdir()) if file.stem in stems and file.suffix.lower() in READERS]
    if len(files) > 1:
        raise UsageError(f"folder '{folder}' has {' and '.join(file.name for file in files)}: leave one of them")
    return files[0] if files else None


def _read_separated(path: Path, sep: str, quoting: Literal[0, 3], header: tuple[str, ...] = ()) -> DataFrame:
    """All cells as texts; "NA" and "null" are texts too. ``header``: the columns of a file without a header line."""
    import pandas

    with warnings.catch_warnings():
        # with index_col=False pandas only warns when it drops the cells of a row that is too long
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        try:
            table: DataFrame = pandas.read_csv(
                path,
                sep=sep,
                quoting=quoting,
                dtype=str,
                na_filter=False,
                index_col=False,
                encoding="utf-8-sig",
                names=list(header) if header else None,
                header=None if header else "infer",
            )
        except (pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
            raise UsageError(f"'{path}' is not a table with one number of columns: {error}") from error
        except pandas.errors.EmptyDataError as error:
            raise UsageError(f"'{path}' is empty") from error
    return table


def _read_csv(path: Path) -> DataFrame:
    return _read_separated(path, ",", csv.QUOTE_MINIMAL)


def _read_tsv(path: Path, header: tuple[str, ...] = ()) -> DataFrame:
    # a quote in a TSV is a quote: GLUE's files have unbalanced ones
    return _read_separated(path, "\t", csv.QUOTE_NONE, header)


def _read_json(path: Path) -> DataFrame:
    """JSON lines, or one JSON list of objects. Values keep their types; keys that a row lacks are None."""
    import pandas

    text = path.read_text(encoding="utf-8-sig")
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


def _read_parquet(path: Path) -> DataFrame:
    import pandas

    try:
        return pandas.read_parquet(path)
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise UsageError(f"'{path}' is not a Parquet file: {error}") from error


READERS: dict[str, Callable[[Path], DataFrame]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
