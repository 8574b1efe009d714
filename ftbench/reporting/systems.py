"""Scores of systems whose files were scored, beside the extracts that need no system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftbench.metrics import ROUGE
from ftbench.types import Column, Table

#: what ROUGE does not see: as people read it, and what it is
WORDING = {
    "length_ratio": ("length ratio", "words of a prediction / of its references"),
    "repetition": ("repeated", "pairs of words that a prediction says again"),
    "empty": ("empty", "predictions without a word"),
    "novel_1": ("new words", "words that the document does not have"),
    "novel_2": ("new pairs", "pairs of words that the document does not have"),
    "copy_rate": ("copied", "words in runs of three or more that stand in the document"),
}
INTERVALS = "F1, mean over the rows; in brackets its 95 % interval over other such rows (bootstrap, 1,000 resamples)."


def system_tables(rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> tuple[Table, Table]:
    """ROUGE with its intervals, and what it does not see. rows: as ``runs.scoring.Scored`` has them."""
    several = [name for name in (f"mean_{rouge}" for rouge in ROUGE) if any(name in row for row in rows)]
    scores = [*ROUGE, *several]
    columns = [
        Column("system", "system", numeric=False), Column("n", "n"),
        *(Column(key, key.replace("_", " ")) for name in scores for key in (name, f"{name}_low", f"{name}_high")),
    ]  # fmt: skip
    means = ["Of several references the best one counts; mean: of all of them."] if several else []
    rouge = Table("ROUGE", tuple(columns), tuple(rows), (INTERVALS, *means, *_below(rows), *notes))
    shown = [key for key in WORDING if any(key in row for row in rows)]
    wording = Table(
        "What ROUGE does not see",
        (Column("system", "system", numeric=False), *(Column(key, WORDING[key][0]) for key in shown)),
        tuple(rows),
        (f"Means over the rows. {'; '.join(f'{WORDING[key][0]}: {WORDING[key][1]}' for key in shown)}.",),
    )
    return rouge, wording


def _below(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Systems that are no better than the beginning of the document, in ROUGE-1."""
    leads = [row for row in rows if row.get("style") == "reference" and row["system"].startswith("lead")]
    if not leads:
        return []
    best = max(leads, key=lambda row: float(row["rouge1"]))
    below = [row["system"] for row in rows if not row.get("style") and row["rouge1"] <= best["rouge1"]]
    return [f"Below the beginning of the document ({best['system']}): {', '.join(below)}."] if below else []
