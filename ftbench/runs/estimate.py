"""How long and how large the rest of a study will be: from what was measured of its runs, and from a short sample.

A sample is a real run of a few steps on a few rows. Its steps are timed, its evaluations scaled to all rows. It is a
guess: other loads of the machine, longer texts and stopping early move it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ftbench.errors import Interrupted
from ftbench.lookup import import_object
from ftbench.models.locate import Checkpoint, weight_files
from ftbench.runs.overview import Overview
from ftbench.runs.work import WORK, Options, set_up
from ftbench.types import Data, Record, RunSpec

STEPS, ROWS = 3, 64
#: a run's small files, and bytes of a row in ``predictions.parquet``
FILES, ROW = 15_000, 40
#: a checkpoint against the weights: with the optimizer's two moments
CHECKPOINT = 3


@dataclass(frozen=True)
class Speed:
    """Seconds of an optimizer step, of scoring one row, and of everything before the first step."""

    step: float
    row: float
    start: float


@dataclass(frozen=True)
class Estimate:
    """What is left: hours one run after the other, bytes kept, bytes for a moment; arms measured and guessed."""

    hours: float
    bytes: int
    passing: int
    measured: int
    guessed: int


def estimate(
    overview: Overview,
    data: Mapping[str, Data],
    models: Mapping[str, Checkpoint],
    options: Options,
    *,
    seconds: float,
    tell: Callable[[str], None] = lambda text: None,
) -> Estimate:
    """What the runs to do will take. seconds: about how long samples may take in all; 0: none are taken."""
    speeds: dict[Any, Speed] = {}
    for spec in overview.runs.values():
        record = overview.records.get(spec.id)
        if record and record.result.status == "ok" and record.cost.wall_seconds and _key(spec) not in speeds:
            speeds[_key(spec)] = _measured(record, len(data[spec.data].splits.get("validation", ())))
    left = overview.to_do
    first = {key: spec for spec in reversed(left) if (key := _key(spec)) not in speeds}
    began = time.monotonic()
    for key, spec in reversed(first.items()):
        if time.monotonic() - began >= seconds:
            break
        if spec.weights in models and not spec.parents:
            tell(f"timing {spec.task} {spec.method}")
            speed = _sample(spec, data[spec.data], models[spec.weights], options)
            speeds |= {key: speed} if speed else {}
    total = sum(_seconds(spec, _of(spec, speeds), data[spec.data]) for spec in left) if speeds else 0.0
    sizes = {name: _weights(models[name]) for name in {spec.weights for spec in left} & models.keys()}
    kept = sum(_bytes(spec, data[spec.data], sizes, options) for spec in left)
    weights = max(sizes.values(), default=0)
    return Estimate(
        hours=total / 3600,
        bytes=kept,
        passing=CHECKPOINT * weights * options.setup.jobs,
        measured=len({_key(spec) for spec in left} & speeds.keys()),
        guessed=len({_key(spec) for spec in left} - speeds.keys()),
    )


def _key(spec: RunSpec) -> tuple[Any, ...]:
    """Runs that take as long a step."""
    return (
        spec.kind, spec.task, spec.weights, spec.method, spec.batch_size, spec.max_length, spec.precision, spec.layers,
        spec.passes, spec.repeats,
    )  # fmt: skip


def _of(spec: RunSpec, speeds: Mapping[Any, Speed]) -> Speed:
    """The speed of the run's like; else of the same method elsewhere, of the same kind, of any."""
    key = _key(spec)
    if key in speeds:
        return speeds[key]
    for places in ((0, 3), (0,), ()):
        alike = [speed for other, speed in speeds.items() if all(other[i] == key[i] for i in places)]
        if alike:
            return max(alike, key=lambda speed: speed.step)
    raise ValueError("nothing was measured")


def _measured(record: Record, rows: int) -> Speed:
    spec, cost = record.result.spec, record.cost
    scored = max(1, rows * min(spec.evaluations, max(1, cost.steps)))
    return Speed(cost.wall_seconds / max(1, cost.steps), cost.evaluate_seconds / scored, 2.0)


def _sample(spec: RunSpec, data: Data, model: Checkpoint, options: Options) -> Speed | None:
    """A few steps on a few rows; None where that fails, as the run will then, too."""
    from ftbench.training.run import Place
    from ftbench.training.watch import Control

    rows = max(ROWS, spec.batch_size)
    short = replace(spec, limit=rows, train_size=None, evaluations=1)
    if spec.steps:
        short = replace(short, steps=min(spec.steps, STEPS))
    work = import_object(WORK[spec.kind], "run")
    with TemporaryDirectory() as folder:
        place = Place(Path(folder), set_up(options), None, options.prefix_cache)
        began = time.monotonic()
        try:
            cost = work(short, data, model, place, Control()).cost
        except Interrupted:
            raise
        except Exception:  # whatever it is, the study will say it
            return None
        whole = time.monotonic() - began
    if not spec.steps:
        return Speed(0.0, whole / rows, 0.0)
    scored = min(rows, len(data.splits["validation"]))
    start = max(0.0, whole - cost.wall_seconds - cost.evaluate_seconds)
    return Speed(cost.wall_seconds / short.steps, cost.evaluate_seconds / scored, start)


def _seconds(spec: RunSpec, speed: Speed, data: Data) -> float:
    rows = {name: min(len(split), spec.limit or len(split)) for name, split in data.splits.items()}
    if not spec.steps:
        return speed.start + speed.row * sum(rows.values())
    return speed.start + spec.steps * speed.step + spec.evaluations * rows.get("validation", 0) * speed.row


def _bytes(spec: RunSpec, data: Data, sizes: Mapping[str, int], options: Options) -> int:
    rows = min(len(data.splits.get("validation", ())), spec.limit or 10**12)
    size = FILES + rows * (ROW + 4 * len(data.labels)) * bool(spec.steps)
    kept = options.keep_model and spec.steps and not spec.is_trial
    return size + (sizes.get(spec.weights, 0) if kept else 0)


def _weights(model: Checkpoint) -> int:
    return sum(path.stat().st_size for path in weight_files(model.folder))
