"""Claims of papers, as data, and what was found about them. ``judging`` finds it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftbench.reporting.cells import Cell, setting_columns, varying
from ftbench.types import Column, Table

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
#: a difference smaller than this many points matters to nobody
MARGIN = 0.005


@dataclass(frozen=True)
class Claim:
    """One entry of ``claims.toml``."""

    number: int
    text: str
    source: str
    kind: str
    seeds: int
    supported_if: str
    contradicted_if: str = ""
    needs: str = ""
    better: tuple[str, ...] = ()
    than: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    of_tasks: int = 0
    wins: int = 0


@dataclass(frozen=True)
class Finding:
    """The verdict on a claim, why, and the comparisons that it rests on. about: models and sizes, else the cells'."""

    claim: Claim
    verdict: str
    why: str
    rows: tuple[dict[str, Any], ...] = ()
    cells: tuple[Cell, ...] = ()
    about: str = ""


def claims() -> list[Claim]:
    """Every claim, by number."""
    text = (Path(__file__).parent / "claims.toml").read_text("utf-8")
    entries: list[dict[str, Any]] = tomllib.loads(text)["claim"]
    for entry in entries:
        entry.update({key: tuple(value) for key, value in entry.items() if isinstance(value, list)})
    return [Claim(**entry) for entry in entries]


def is_named(method: str, names: Sequence[str]) -> bool:
    """Whether a claim's name means the method: ``std++`` is any ``std++:compute=...``, others are meant as they are."""
    return method in names or ("std++" in names and method.split(":")[0] == "std++")


def finding_table(finding: Finding) -> Table:
    """The comparisons behind a verdict, and the verdict in its notes."""
    keys = varying(list(finding.cells)) if finding.cells else ["task"]
    claim = finding.claim
    said = finding.about or _models_and_sizes(finding.cells)
    about = f" On {said}: nothing is said of others." if said else ""
    notes = (
        f"{finding.verdict.upper()}: {finding.why}.{about}",
        f"Claimed by {claim.source}. Supported if {claim.supported_if}"
        + (f"; contradicted if {claim.contradicted_if}" if claim.contradicted_if else "")
        + (f"; at least {claim.seeds} pairs of seeds for either." if claim.seeds else "."),
    )
    return Table(f"Claim {claim.number}: {claim.text}", setting_columns(keys) + COLUMNS, finding.rows, notes)


def _models_and_sizes(cells: Sequence[Cell]) -> str:
    models = sorted({str(cell.setting("model")) for cell in cells if cell.setting("model")})
    sizes = sorted({_size(cell) for cell in cells})
    return f"{', '.join(models) or 'an unnamed model'}, {', '.join(sizes)}" if sizes else ""


def _size(cell: Cell) -> str:
    rows = cell.ok[0].result.facts.get("rows", {}).get("train") if cell.ok else None
    size = cell.spec.train_size or rows
    return f"{cell.spec.task} with {size:,} rows" if size else cell.spec.task


COLUMNS = (
    Column("method", "method", numeric=False), Column("than", "than", numeric=False),
    Column("metric", "metric", numeric=False), Column("pairs", "pairs"), Column("difference", "difference"),
    Column("low", "low"), Column("high", "high"), Column("basis", "basis", numeric=False), Column("p_holm", "p Holm"),
    Column("cost", "cost"), Column("verdict", "says", numeric=False),
)  # fmt: skip
