"""Records made by hand, and how tests read a table; imported by name: ``from tests.reporting.conftest import run``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftbench.types import Cost, MethodSpec, Record, Result, RunSpec, Table

STD: tuple[MethodSpec, ...] = ()
R3F = (MethodSpec("r3f"),)
STD_PLUS = (MethodSpec("std++"),)
FACTS = {"headline": "accuracy", "majority_score": 0.5, "distinct_predictions": 2}
REFS = {"linear": 0.6, "majority": 0.5, "cosine": 0.55}


def run(
    score: float | None,
    seed: int = 0,
    methods: tuple[MethodSpec, ...] = STD,
    *,
    status: Any = "ok",
    error: str = "",
    metric: str = "accuracy",
    others: Mapping[str, float | None] | None = None,
    splits: Mapping[str, Mapping[str, float]] | None = None,
    facts: Mapping[str, Any] | None = None,
    cost: Cost | None = None,
    **spec: Any,
) -> Record:
    """A run of std with a headline score; ``others`` are further metrics, ``splits`` further splits."""
    fields = {"kind": "finetune", "task": "rte", "data": "d1", "weights": "w1", "steps": 100, **spec}
    asked = RunSpec(methods=methods, seed=seed, **fields)
    metrics: Any = {}
    if score is not None:
        metrics = {"last": {"validation": {metric: score, **(others or {})}, **(splits or {})}}
    facts = {} if score is None else {**FACTS, "headline": metric, **(facts or {})}
    result = Result(spec=asked, status=status, metrics=metrics, facts=facts, error=error)
    return Record(Path("run"), result, cost or Cost(process_seconds=10.0, steps=100, forward_passes=100))


def references(metric: str = "accuracy", *, data_seed: int = 0, scores: Mapping[str, float], **spec: Any) -> Record:
    """One reference run: a score for each reference."""
    fields = {"kind": "reference", "task": "rte", "data": "d1", "weights": "w1", "data_seed": data_seed, **spec}
    metrics = {name: {"validation": {metric: score}} for name, score in scores.items()}
    return Record(
        Path("run"), Result(spec=RunSpec(**fields), status="ok", metrics=metrics, facts={"headline": metric}), Cost()
    )


def arms(std: Sequence[float], r3f: Sequence[float], **more: Any) -> list[Record]:
    """A run of std and of r3f for each score, seeds 0, 1, 2, ..."""
    return [run(s, i, **more) for i, s in enumerate(std)] + [run(s, i, R3F, **more) for i, s in enumerate(r3f)]


def row(table: Table | None, method: str, **settings: Any) -> Mapping[str, Any]:
    """The only row of a method with these settings."""
    assert table is not None
    found = [r for r in table.rows if r["method"] == method and settings.items() <= r.items()]
    assert len(found) == 1, found
    return found[0]


def keys(table: Table | None) -> list[str]:
    """The columns' keys, in order."""
    assert table is not None
    return [column.key for column in table.columns]


def keep(record: Record, folder: Path, labels: Any, predictions: Any, probabilities: Any = None) -> Record:
    """The record with its predictions on disk, and the accuracy that they give."""
    import dataclasses

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = folder / record.result.spec.id
    place.mkdir(parents=True, exist_ok=True)
    columns = {"example": np.arange(len(labels)), "label": labels, "prediction": predictions}
    if probabilities is not None:
        columns["probabilities"] = list(probabilities)
    pq.write_table(
        pa.table({name: pa.array(values) for name, values in columns.items()}), place / "predictions.parquet"
    )
    scores = {**record.result.metrics["last"]["validation"], "accuracy": float(np.mean(labels == predictions))}
    metrics = {**record.result.metrics, "last": {**record.result.metrics["last"], "validation": scores}}
    return Record(place, dataclasses.replace(record.result, metrics=metrics), record.cost)


def study_on_disk(
    folder: Path, seeds: int = 6, rows: int = 200, gain: float = 0.0, taste: float = 0.0, **spec: Any
) -> list[Record]:
    """std and r3f on the same rows; r3f gets about ``gain`` more of them right, and by ``taste`` other ones."""
    import numpy as np

    random = np.random.default_rng(0)
    labels = random.integers(0, 2, rows)
    skill, likes = random.random(rows), random.normal(0, 1, rows)
    found = []
    for methods, extra in ((STD, 0.0), (R3F, gain)):
        for seed in range(seeds):
            own = likes * taste if methods else 0.0
            right = skill + own + random.normal(0, 0.1, rows) < 0.75 + extra
            chance = np.where(np.where(right, labels, 1 - labels)[:, None] == [0, 1], 0.9, 0.1)
            record = run(0.5, seed, methods, facts={"kind": "classification"}, **spec)
            found.append(keep(record, folder, labels, chance.argmax(axis=1), chance))
    return found
