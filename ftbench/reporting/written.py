"""What networks wrote, beside what people did: a few documents of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftbench.types import Column, Record, Table

#: documents that are shown of each set of rows
SHOWN = 3


def written_table(records: Sequence[Record]) -> Table | None:
    """The summaries of ``SHOWN`` documents, evenly spaced: the first reference, then each arm's at its first seed.

    None without finished runs that wrote summaries and kept them.
    """
    arms: dict[tuple[Any, ...], Record] = {}
    for record in sorted(records, key=lambda r: (r.result.spec.data_seed, r.result.spec.seed)):
        spec = record.result.spec
        if spec.kind == "summarize" and record.result.status == "ok" and not spec.is_trial:
            arms.setdefault((spec.task, spec.data, spec.limit, spec.method, spec.model), record)
    columns = {key: found for key, record in arms.items() if (found := _read(record))}
    rows: list[dict[str, Any]] = []
    for rows_of in dict.fromkeys(key[:3] for key in columns):
        here = {key: found for key, found in columns.items() if key[:3] == rows_of}
        first = next(iter(here.values()))
        several = len({key[4] for key in here}) > 1
        for place in _spread(len(first["example"])):
            about = {"task": rows_of[0], "example": first["example"][place]}
            rows.append({**about, "by": "reference", "summary": first["reference"][place], "style": "reference"})
            for key, found in here.items():
                name = f"{key[3]}, {key[4]}" if several else key[3]
                rows.append({**about, "by": name, "summary": found["prediction"][place]})
    if not rows:
        return None
    texts = (Column("by", "by", numeric=False), Column("summary", "summary", numeric=False))
    return Table(
        "What was written", (Column("task", "task", numeric=False), Column("example", "row"), *texts), tuple(rows)
    )


def intervals_table(records: Sequence[Record]) -> Table | None:
    """Each run's ROUGE with its 95 % interval over documents, as people read it; None without runs that have them."""
    runs = [
        record
        for record in records
        if record.result.spec.kind == "summarize"
        and record.result.facts.get("intervals")
        and not record.result.spec.is_trial
    ]
    names = list(dict.fromkeys(name for record in runs for name in record.result.facts["intervals"]))
    if not names:
        return None
    rows = [
        {
            "task": record.result.spec.task,
            "method": record.result.spec.method,
            "seed": record.result.spec.seed,
            **{name: _with_interval(record, name) for name in names},
        }
        for record in runs
    ]
    columns = (
        Column("task", "task", numeric=False),
        Column("method", "method", numeric=False),
        Column("seed", "seed"),
        *(Column(name, f"{name} x 100", numeric=False) for name in names),
    )
    note = "Intervals: 95 %, bootstrap over the documents of one run. They say nothing of other seeds."
    return Table("Each run's scores, last weights", columns, tuple(rows), (note,))


def _with_interval(record: Record, name: str) -> str | None:
    """``31.20 [30.55, 31.90]``."""
    score, interval = record.result.score(name), record.result.facts["intervals"].get(name)
    if score is None or interval is None:
        return None
    low, high = interval
    return f"{100 * score:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _spread(count: int) -> list[int]:
    """``SHOWN`` positions of ``count``, in the middle of equal parts; fewer where there are fewer."""
    shown = min(SHOWN, count)
    return [(2 * place + 1) * count // (2 * shown) for place in range(shown)]


def _read(record: Record) -> dict[str, list[Any]] | None:
    """None where the summaries are gone or cannot be read."""
    path = record.folder / "predictions.parquet"
    if not path.exists():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["example", "prediction", "reference"])
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None
    return {name: table.column(name).to_pylist() for name in table.column_names}
