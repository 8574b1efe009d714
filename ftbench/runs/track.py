"""Runs in TensorBoard or Weights & Biases, off unless asked for.

A run is written once it is stored, from its ``history.jsonl`` and ``result.json``: what a tracker shows is what was
kept, once, however often the run was interrupted; training never waits for a tracker and never fails with one; and a
study that is done already is tracked by the same command, for free. Steps are optimizer steps; wall times are of the
writing.

    OUTPUT/tensorboard/<task>/<run>/    event files: tensorboard --logdir OUTPUT/tensorboard
    OUTPUT/wandb/<task>/<run>/          what wandb keeps of a run; with WANDB_MODE=offline `wandb sync` sends it later
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ftbench.errors import UsageError
from ftbench.lookup import find
from ftbench.runs.progress import StudyProgress
from ftbench.types import Record, RunSpec

#: scalars by tag at a step, such as ``{"train/loss": 0.5}``
Logged = Mapping[str, float]


class Shown(StudyProgress, Protocol):
    """What shows a study."""

    def message(self, text: str) -> None:
        """Says a line."""


def tracked(shown: Shown, name: str | None, root: Path) -> Shown:
    """``shown``, which also writes the runs of a study in ``root`` to the tracker ``name``; None: ``shown`` itself.

    Raises UsageError for an unknown tracker, and for one whose package is not installed.
    """
    if name is None:
        return shown
    write = find(TRACKERS, name, "tracker")
    package = importlib.util.find_spec(name)
    if package is None or package.origin is None:  # without origin: a folder of that name, which wandb leaves about
        raise UsageError(f"--track {name} needs the package {name}: pip install {name}")
    return _Tracking(shown, name, write, root)


class _Tracking:
    """Passes everything on. What goes wrong with the tracker is said once, and then nothing more is tracked."""

    def __init__(self, shown: Shown, name: str, write: Callable[[Record, Path], None], root: Path) -> None:
        self.shown, self.name, self.write, self.root = shown, name, write, root
        self.message, self.planned, self.started = shown.message, shown.planned, shown.started
        self.waiting, self.working = shown.waiting, shown.working
        self.step, self.evaluated, self.wrote = shown.step, shown.evaluated, shown.wrote
        self.broken = False

    def finished(self, record: Record, *, skipped: bool) -> None:
        self.shown.finished(record, skipped=skipped)
        place = self.root / self.name / record.folder.parent.name / record.folder.name
        if self.broken or (skipped and place.exists()) or not (record.folder / "history.jsonl").exists():
            return
        fresh = place.with_name(f".{uuid.uuid4().hex[:8]}-{place.name}")
        try:
            fresh.mkdir(parents=True)
            self.write(record, fresh)
            shutil.rmtree(place, ignore_errors=True)
            os.replace(fresh, place)
        except Exception as error:  # trackers can fail in any way; no run may
            self.broken = True
            self.shown.message(
                f"--track {self.name}: {type(error).__name__}: {error}. Runs are kept all the same; the same command "
                "tracks the missing ones"
            )
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def scalars(record: Record) -> Iterator[tuple[int, Logged]]:
    """(step, scalars by tag) of a stored run: ``train/NAME`` for what was logged, ``SPLIT/METRIC`` for evaluations."""
    for line in (record.folder / "history.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        step = int(row.pop("step"))
        scores = row.pop("evaluation", {})
        found = {f"train/{name}": value for name, value in row.items()}
        found |= {f"{split}/{metric}": value for split, of in scores.items() for metric, value in of.items()}
        yield step, {tag: float(value) for tag, value in found.items() if isinstance(value, int | float)}


def final(record: Record) -> dict[str, float]:
    """Every score of the result: ``final/SELECTION/SPLIT/METRIC``."""
    return {
        f"final/{selection}/{split}/{metric}": float(value)
        for selection, splits in record.result.metrics.items()
        for split, scores in splits.items()
        for metric, value in scores.items()
        if value is not None
    }


def config(record: Record) -> dict[str, str | int | float | bool]:
    """What was asked, flat: the spec's single values, the seed among them, with method, id and status."""
    spec = record.result.spec
    plain = {name: value for name, value in spec.to_json().items() if isinstance(value, str | int | float | bool)}
    return {**plain, "method": spec.method, "id": spec.id, "status": record.result.status}


def arm(spec: RunSpec) -> str:
    """A name that the runs of an arm share, whatever their seeds: what a tracker groups by."""
    shared = replace(spec, seed=0, data_seed=0, parents=()).id
    return f"{spec.task} {spec.method} {shared}"[-128:]


def _tensorboard(record: Record, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step, values in scalars(record):
            for tag, value in values.items():
                writer.add_scalar(tag, value, step)
        writer.add_hparams(config(record), final(record), run_name=".")


def _wandb(record: Record, folder: Path) -> None:
    import wandb

    spec = record.result.spec
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or "ftbench",
        dir=str(folder),
        id=spec.id,
        name=record.folder.name,
        group=arm(spec),
        job_type="trial" if spec.is_trial else spec.kind,
        config=config(record),
        settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
    )
    for step, values in scalars(record):
        run.log(dict(values), step=step)
    run.summary.update(final(record))
    run.finish(exit_code=0 if record.result.status == "ok" else 1)


TRACKERS: dict[str, Callable[[Record, Path], None]] = {"tensorboard": _tensorboard, "wandb": _wandb}
