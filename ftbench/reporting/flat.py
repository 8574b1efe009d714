"""Tables and runs for scripts: every raw value, under stable names. ``docs/statistics.md`` describes the columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from ftbench.reporting.cells import RECIPE_AXES, ROW_AXES, VERSIONS
from ftbench.reporting.words import plain
from ftbench.types import Record, Table
from ftbench.types.run import TUNED

#: columns of the long form: one row for each score of each run
LONG = (
    "id", "kind", "trial", "status", "task", "method", "seed", "data_seed", *ROW_AXES, *RECIPE_AXES, *VERSIONS,
    "pooling", "selection", "split", "metric", "score", "training_seconds", "flops", "peak_memory",
    "trained_parameters",
    "forward_passes", "device", "error",
)  # fmt: skip


def to_csv(table: Table) -> str:
    """The wide form: the table's rows under the columns' keys."""
    return _written(
        [column.key for column in table.columns], ([row.get(c.key) for c in table.columns] for row in table.rows)
    )


def long_csv(records: Sequence[Record]) -> str:
    """The long form: a row for each score of each run, and one without a score for a run that has none."""
    return _written(LONG, ([row.get(key) for key in LONG] for record in records for row in _scores(record)))


def _scores(record: Record) -> Iterator[dict[str, Any]]:
    result, cost = record.result, record.cost
    spec = result.spec
    about = {key: getattr(spec, key) for key in LONG if hasattr(spec, key)} | {
        "trial": spec.is_trial, "status": result.status, "error": result.error.strip().split("\n")[0],
        "method_revision": "+".join(str(method.revision) for method in spec.methods) or None,
        "training_seconds": cost.training_seconds or None, "flops": cost.flops or None,
        "peak_memory": cost.peak_memory or None,
        "trained_parameters": cost.trained_parameters or None, "forward_passes": cost.forward_passes or None,
        "device": cost.device or None,
    }  # fmt: skip
    if spec.kind in (*TUNED, "reference"):
        about["pooling"] = None
    if spec.kind in ("reference", "variability"):
        about |= dict.fromkeys(("method", *RECIPE_AXES))
    if not any(scores for splits in result.metrics.values() for scores in splits.values()):
        yield about
    for selection, splits in result.metrics.items():
        for split, scores in splits.items():
            for metric, score in scores.items():
                yield {**about, "selection": selection, "split": split, "metric": metric, "score": score}


def _written(header: Sequence[str], rows: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([defused(value) for value in row] for row in rows)
    return out.getvalue()


def defused(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets a quote in front; numbers stay as they are."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
    return plain(value)


def to_json(table: Table) -> str:
    """Title, columns, rows and notes."""
    return json.dumps(as_json(table), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_json(table: Table) -> dict[str, Any]:
    """What ``to_json`` writes."""
    keys = [column.key for column in table.columns]
    rows = []
    for row in table.rows:
        raw = {key: plain(row.get(key)) for key in keys}
        rows.append({**raw, "style": row["style"]} if row.get("style") else raw)
    columns = [{"key": column.key, "label": column.label, "numeric": column.numeric} for column in table.columns]
    return {"schema": 1, "title": table.title, "columns": columns, "rows": rows, "notes": list(table.notes)}
