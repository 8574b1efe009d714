"""Runs that share a worker are those of processes of their own: nothing of one is met by the next."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ftbench.models import backbone
from ftbench.models.locate import is_unchanged, locate
from ftbench.runs.manifest import Manifest
from ftbench.runs.progress import Silent
from ftbench.runs.stages import Request, parse_arms, plan
from ftbench.runs.worker import Worker
from ftbench.tasks import resolve
from ftbench.tasks.sources import load
from ftbench.types import Data

FORK = multiprocessing.get_context("fork")


def results(root: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in root.rglob("result.json")}


def planned(study: Callable[..., Any], data: Data, root: Path) -> Path:
    """The plan file of four runs: std, and methods that change weights before the first step."""
    done = study("std", root=root, data=data)
    request = Request(
        data=list(done.grid.data.values()),
        models=list(done.grid.models.values()),
        arms=parse_arms(["mixout", "noisytune", "reinit:layers=1"], baseline=True),
        seeds=[0],
        references=False,
        fixed={"steps": 4, "batch_size": 8, "lr": 1e-3, "max_length": 32},
    )
    (stage,) = plan(request)
    return done.grid.write_plan(stage(()), for_workers=True).path


def test_runs_of_one_worker_are_those_of_several(
    study: Callable[..., Any], tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = load(resolve(str(tiny_folder())))
    together, apart = (planned(study, data, tmp_path / name) for name in ("together", "apart"))
    ids = [spec.id for spec in Manifest.read(together).runs]
    assert len(ids) == 4 and ids == [spec.id for spec in Manifest.read(apart).runs]
    worker = Worker(together, Silent(), lambda: False)
    for identity in ids[::-1]:  # so that std comes last
        record = worker.do(identity, again=True)
        assert record is not None and record.result.status == "ok"
    for identity in ids:
        process = FORK.Process(target=lambda one=identity: Worker(apart, Silent(), lambda: False).do(one, again=True))
        process.start()
        process.join(120)
        assert process.exitcode == 0
    assert results(tmp_path / "together") == results(tmp_path / "apart")
    assert len(results(tmp_path / "together")) == 4


def test_weights_that_were_changed_in_place_are_not_met_again(tiny_model: Path) -> None:
    checkpoint = locate(str(tiny_model))

    def read() -> Any:
        tokenizer = backbone.load_tokenizer(checkpoint)
        return backbone.load(checkpoint, tokenizer, ("a", "b"), regression=False, seed=0).model

    first = read()
    before = {name: value.clone() for name, value in first.state_dict().items()}
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    again = read().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in before.items())
    assert is_unchanged(checkpoint), "nor in the file, which is mapped into memory"
