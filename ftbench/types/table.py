"""A table, ready for any output form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """``key`` is what scripts read (stable), ``label`` what people read."""

    key: str
    label: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """``rows`` map column keys to raw values (numbers stay numbers; None prints as a dash).

    A row may hold ``"style": "reference"`` for rows that are not runs. ``notes`` are printed below.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()
