"""Trackers show what was stored, once a run, and never harm a study."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbench.cli.progress import Lines
from ftbench.errors import UsageError
from ftbench.models.locate import locate
from ftbench.runs import track
from ftbench.runs.store import Store
from ftbench.types import Data, Record
from tests.reporting.conftest import R3F, run

HISTORY = [
    {"step": 1, "loss": 1.5, "kl": 0.25, "lr": 1e-4},
    {"step": 2, "loss": 1.0, "kl": 0.5, "lr": 5e-5},
    {"step": 2, "evaluation": {"validation": {"accuracy": 0.75}}},
]


def stored(root: Path, seed: int = 0, **more: Any) -> Record:
    return kept(root, run(0.75, seed, R3F, **more), history=HISTORY)


def kept(root: Path, record: Record, **more: Any) -> Record:
    store = Store(root)
    store.folder(record.result.spec).mkdir(parents=True, exist_ok=True)
    return store.save(record.result, record.cost, **more)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, round(e.value, 6)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_every_curve_and_score(tmp_path: Path) -> None:
    record = stored(tmp_path)
    shown = track.tracked(Lines(quiet=True), "tensorboard", tmp_path)
    shown.finished(record, skipped=False)
    (folder,) = (tmp_path / "tensorboard" / "rte").iterdir()
    assert folder.name == record.folder.name
    found = curves(folder)
    assert found["train/loss"] == [(1, 1.5), (2, 1.0)] and found["train/kl"] == [(1, 0.25), (2, 0.5)]
    assert found["validation/accuracy"] == [(2, 0.75)] and found["final/last/validation/accuracy"][0][1] == 0.75


def test_once_a_run_and_again_where_it_was_done_again(tmp_path: Path) -> None:
    record, written = stored(tmp_path), []
    shown: Any = track.tracked(Lines(quiet=True), "tensorboard", tmp_path)
    shown.write = lambda record, folder: written.append((folder / "events").write_text("x"))
    shown.finished(record, skipped=True)  # done by an earlier command that did not track
    shown.finished(record, skipped=True)
    assert len(written) == 1
    shown.finished(record, skipped=False)
    assert len(written) == 2
    assert [p.name for p in (tmp_path / "tensorboard" / "rte").iterdir()] == [record.folder.name]
    bare = kept(tmp_path, run(0.5, 3))
    shown.finished(bare, skipped=False)  # a reference, say: it has no history
    assert len(written) == 2


def test_a_broken_tracker_is_said_once_and_harms_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown: Any = track.tracked(Lines(quiet=True), "tensorboard", tmp_path)

    def broken(record: Record, folder: Path) -> None:
        raise ConnectionError("no network")

    shown.write = broken
    for seed in (0, 1):
        shown.finished(stored(tmp_path, seed), skipped=False)
    said = capsys.readouterr().err
    assert said.count("ConnectionError: no network") == 1 and "Runs are kept" in said
    assert not list((tmp_path / "tensorboard" / "rte").iterdir())


def test_unknown_and_missing_trackers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    assert track.tracked(lines, None, tmp_path) is lines
    with pytest.raises(UsageError, match="Did you mean 'tensorboard'"):
        track.tracked(lines, "tensorbord", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package wandb: pip install wandb"):
        track.tracked(lines, "wandb", tmp_path)


def test_runs_of_an_arm_are_one_group(tmp_path: Path) -> None:
    one, other, third = stored(tmp_path), stored(tmp_path, 1), stored(tmp_path, lr=1e-5)
    groups = [track.arm(record.result.spec) for record in (one, other, third)]
    assert groups[0] == groups[1] != groups[2]
    assert track.config(other)["seed"] == 1 and track.config(other)["method"] == "r3f"


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    monkeypatch.setitem(os.environ, "WANDB_MODE", "offline")
    track.tracked(Lines(quiet=True), "wandb", tmp_path).finished(stored(tmp_path), skipped=False)
    (kept,) = (tmp_path / "wandb" / "rte").glob("*/wandb/offline-run-*/run-*.wandb")
    assert b"train/kl" in kept.read_bytes()


def test_a_study_is_tracked_as_it_goes(
    tmp_path: Path, tiny_data: Callable[..., Data], tiny_model: Path, make_spec: Callable[..., Any]
) -> None:
    from ftbench.cli.study import attended
    from ftbench.runs.work import Options

    data, model = tiny_data(), locate(str(tiny_model))
    spec = make_spec(data, tiny_model, steps=4)
    with attended(Store(tmp_path), [data], [model], Options(), quiet=True, track="tensorboard") as grid:
        (record,) = grid.run([lambda records: [spec]])
    (folder,) = (tmp_path / "tensorboard" / "tiny").iterdir()
    rows = [json.loads(line) for line in (record.folder / "history.jsonl").read_text().splitlines()]
    losses = [(row["step"], round(row["loss"], 5)) for row in rows if "loss" in row]
    assert [(step, round(value, 5)) for step, value in curves(folder)["train/loss"]] == losses
