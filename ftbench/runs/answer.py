"""From a finished race to its answer: standings, learning curve, what the chosen model costs to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ftbench.runs.choosing import CURVE_UNITS, FOLDS, Choosing
from ftbench.runs.race import FAILED, Race
from ftbench.tasks.examine import examine
from ftbench.types import Choice, CurvePoint, Record, Standing


def answer(choosing: Choosing, records: Sequence[Record], command: str) -> Choice:
    """Of a protocol whose stages are all done. command: what repeats it."""
    race, parts, final = choosing.race, choosing.parts, choosing.final
    assert final is not None
    pool, test = parts.pool.splits["train"], parts.whole.splits["validation"]
    held = len(pool) // FOLDS
    majority = None
    if parts.pool.labels:
        majority = float((test.labels == np.bincount(pool.labels).argmax()).mean())
    return Choice(
        task=parts.pool.task.name,
        model=choosing.by_name[race.choice].model.name,
        metric=choosing.scorer.metric,
        lower_is_better=choosing.scorer.sign < 0,
        labels=parts.pool.labels,
        rows={"pool": len(pool), "train": len(pool) - held, "held": held, "test": len(test)},
        folds=FOLDS,
        margin=race.rules.margin,
        default=race.baseline,
        base=race.base,
        choice=race.choice,
        why=race.why_over,
        standings=tuple(standing(race, name, choosing.scorer.sign) for name in race.candidates),
        curve=tuple(curve(choosing, records)),
        run=final.result.spec.id,
        folder=str(final.folder),
        spent=choosing.journal.elapsed,
        budget=choosing.budget,
        notes=(
            *(note for note in examine(parts.whole).warnings if not note.startswith("validation: ")),
            *parts.notes,
            *parts.pool.notes,
        ),
        command=command,
        scored=len(choosing.journal.finals),
        majority=majority if choosing.scorer.metric == "accuracy" else None,
        serving=measured(choosing, final),
    )


def standing(race: Race, name: str, sign: float) -> Standing:
    """How a candidate stands, beside the default; one that failed does not: the draws that it survived say little."""
    units, out = race.units(name), race.out.get(name, "")
    beside = units and name != race.baseline and not out.startswith(FAILED)
    gap = race.gap(name, race.baseline) if beside else None
    gains = {} if gap is None else {"gain": gap.estimate.mean, "low": gap.estimate.low, "high": gap.estimate.high}
    mean = sign * race.mean(name) if units else None
    return Standing(
        name=name,
        units=units,
        mean=mean,
        seconds=race.seconds(name) if units else None,
        out=out,
        **gains,
    )


def curve(choosing: Choosing, records: Sequence[Record]) -> list[CurvePoint]:
    """Of linear and of the fine-tuned candidate that is shown: a point for each size that has a run."""
    done = {record.result.spec.id: record for record in records if record.result.status == "ok"}
    race, sign = choosing.race, choosing.scorer.sign
    points = []
    for name in choosing.curves:
        sizes = choosing.sizes
        steps = Race([str(rows) for rows in sizes], race.rules, rows=race.rows)
        for rows in sizes:
            for unit in range(min(CURVE_UNITS, race.units(name))):
                spec = choosing.ready(name, unit, rows if rows != sizes[-1] else None)
                record = done.get(spec.id) if spec else None
                scored = record and choosing.scorer.scored(record, choosing.by_name[name].reference or "last", 0.0)
                if scored:
                    steps.add(str(rows), unit, scored)
        for place, rows in enumerate(sizes):
            if not steps.units(str(rows)):
                continue
            gap = steps.gap(str(rows), str(sizes[place - 1])) if place else None
            ends: Mapping[str, float] = (gap and {"low": gap.estimate.low, "high": gap.estimate.high}) or {}
            points.append(CurvePoint(
                name=name, rows=rows, units=steps.units(str(rows)), mean=sign * steps.mean(str(rows)),
                gain=gap.estimate.mean if gap else None, **ends,
            ))  # fmt: skip
    return points


def measured(choosing: Choosing, final: Record) -> dict[str, float]:
    """See ``training.serving``; empty where the weights are not there."""
    folder = final.folder / "model"
    if not folder.is_dir():
        return {}
    from ftbench.models.locate import locate
    from ftbench.training.serving import serving

    spec = final.result.spec
    rows = choosing.parts.whole.splits["validation"]
    return serving(
        locate(str(folder)), rows, max_length=spec.max_length, precision=spec.precision, device=choosing.device
    )
