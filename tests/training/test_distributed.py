"""One run on several processes is the run of one process, to the last bit: two gloo processes, every method."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbench.errors import FtbenchError, Interrupted, StoreError
from ftbench.methods import METHODS, method_class
from ftbench.training import distributed, run
from ftbench.training.distributed import ALONE, Group
from ftbench.training.watch import Control
from tests.conftest import make_spec_of, tiny_data_of, tiny_summaries_of
from tests.outcomes import same, weights

FORK = multiprocessing.get_context("fork")
#: a method that cannot be as it is on two blocks; forms that go other ways through the loop
FITTED = {"freeze": "freeze:layers=1", "reinit": "reinit:layers=1"}
ARMS = (
    *(FITTED.get(name, name) for name in METHODS if not method_class(name).in_order),
    "child-tuning:mode=F", "lp-ft:share=0.5", "smart:proximal=1", "sam+r3f+llrd", "freelb+early-stop",
)  # fmt: skip
#: batches of 8 rows as 3, 3 and 2: two processes have two rounds, the second is not full
RECIPE = {"steps": 3, "micro_batch": 3}
#: what differs between processes that share a run and one that does it
CLOCKS = ("process_seconds", "wall_seconds", "evaluate_seconds", "peak_memory", "processes", "flops")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def together(size: int, work: Callable[[Group], Any], folder: Path) -> list[Any]:
    """What ``work`` gives in each of ``size`` processes that form a group."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()

    def main(rank: int) -> None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(size)}
        torch.set_num_threads(1)
        with distributed.joined(rank, size) as group:
            torch.save(work(group), folder / f"{rank}.pt")

    processes = [FORK.Process(target=main, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(600)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def run_in(group: Group, model: Path, folder: Path, methods: str, control: Control | None = None, **fields: Any) -> Any:
    """All that a run gives, as plain values."""
    from ftbench.models.locate import locate
    from ftbench.training.summarize import summarize

    writes = fields.pop("writes", False)
    data = tiny_summaries_of(16, 6) if writes else tiny_data_of(32, 16, 2)
    folder.mkdir(parents=True, exist_ok=True)
    spec = make_spec_of(data, model, methods, **{**RECIPE, **fields})
    place = run.Place(folder, torch.device("cpu"), group=group)
    found = (summarize if writes else run.finetune)(spec, data, locate(str(model)), place, control or Control())
    cost = {name: value for name, value in vars(found.cost).items() if name not in CLOCKS}
    return {
        "result": (found.result.status, found.result.metrics, found.result.facts, found.history),
        "cost": cost,
        "processes": found.cost.processes,
        "predictions": {name: column.tolist() for name, column in found.predictions.items()},
        "weights": weights(found),
    }


def assert_same(ours: Any, theirs: Any) -> None:
    for kind in ("result", "cost", "predictions"):
        assert ours[kind] == theirs[kind]
    assert same(ours["weights"], theirs["weights"])


@pytest.fixture(scope="module")
def shared(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every arm, in two processes; for each of them arm -> run."""
    folder = tmp_path_factory.mktemp("shared")

    def work(group: Group) -> dict[str, Any]:
        return {arm: run_in(group, tiny_model, folder / str(number), arm) for number, arm in enumerate(ARMS)}

    return together(2, work, folder)


@pytest.mark.parametrize("arm", ARMS)
def test_two_processes_are_one(arm: str, shared: list[dict[str, Any]], tiny_model: Path, tmp_path: Path) -> None:
    alone = run_in(ALONE, tiny_model, tmp_path, arm)
    for each in shared:
        assert_same(each[arm], alone)
        assert each[arm]["processes"] == 2 and alone["processes"] == 1


def test_more_processes_more_micro_batches(tiny_model: Path, tmp_path: Path) -> None:
    """The order of the sum does not depend on their number: 7 micro-batches in 3 processes."""
    fields = {"batch_size": 7, "micro_batch": 1, "methods": "r3f+child-tuning:mode=F", "steps": 2}

    def work(group: Group) -> Any:
        return run_in(group, tiny_model, tmp_path / "three", **fields)

    alone = run_in(ALONE, tiny_model, tmp_path / "one", **fields)
    for each in together(3, work, tmp_path / "answers"):
        assert_same(each, alone)


def test_a_process_without_rows_in_the_first_step(tiny_model: Path, tmp_path: Path) -> None:
    """A method that remembers the first weights does so in every process: batches of 2 and 30 rows, 15 at a time."""
    fields = {"batch_size": 30, "micro_batch": 15, "batching": "bucket", "methods": "smart:proximal=1,beta=0.5",
              "steps": 4, "seed": 0}  # fmt: skip

    def work(group: Group) -> Any:
        return run_in(group, tiny_model, tmp_path / "two", **fields)

    alone = run_in(ALONE, tiny_model, tmp_path / "one", **fields)
    for each in together(2, work, tmp_path / "answers"):
        assert_same(each, alone)


@pytest.mark.parametrize("arm", ["r3f", "freelb"])
def test_summaries_too(arm: str, tiny_family: Callable[[str], Path], tmp_path: Path) -> None:
    """Trained together, written by the first."""
    fields = {"methods": arm, "writes": True, "steps": 2}

    def work(group: Group) -> Any:
        return run_in(group, tiny_family("bart"), tmp_path / "two", **fields)

    alone = run_in(ALONE, tiny_family("bart"), tmp_path / "one", **fields)
    for each in together(2, work, tmp_path / "answers"):
        assert_same(each, alone)


def test_interrupted_in_two_goes_on_in_one(tiny_model: Path, tmp_path: Path) -> None:
    """One of them is asked to stop, all do; the checkpoint is that of a run in any number of processes."""
    fields = {"methods": "smart:proximal=1", "steps": 4}

    def work(group: Group) -> str:
        asked = iter([False, group.rank == 1, True])
        try:
            run_in(group, tiny_model, tmp_path / "cut", control=Control(should_stop=lambda: next(asked)), **fields)
        except Interrupted as error:
            return str(error)
        return ""

    said = together(2, work, tmp_path / "answers")
    assert said == ["stopped after step 2 of 4; run the same command to continue"] * 2
    resumed = run_in(ALONE, tiny_model, tmp_path / "cut", **fields)
    whole = run_in(ALONE, tiny_model, tmp_path / "whole", **fields)
    assert resumed["cost"].pop("interruptions") == 1 and whole["cost"].pop("interruptions") == 0
    assert_same(resumed, whole)


def test_what_goes_wrong_in_one_goes_wrong_in_all(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And they can go on to the next run together."""

    def raising(group: Group, error: Exception) -> str:
        def broken(*arguments: Any) -> Any:
            raise error

        with pytest.MonkeyPatch.context() as patch:
            if group.rank == 1:
                patch.setattr("ftbench.training.engine.micro_step", broken)
            try:
                run_in(group, tiny_model, tmp_path / "broken", "std")
            except Exception as caught:
                return f"{type(caught).__name__}: {caught}"
        return ""

    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd one")

    def work(group: Group) -> list[str]:
        errors = [RuntimeError("CUDA out of memory"), StoreError("full"), Odd(1, 2)]
        said = [raising(group, error) for error in errors]
        first = group.first(lambda: group.rank)
        return [*said, str(first), str(group.each(lambda: group.rank))]

    expected = ["RuntimeError: CUDA out of memory", "StoreError: full", "FtbenchError: Odd: odd one", "0", "[0, 1]"]
    assert together(2, work, tmp_path / "answers") == [expected, expected]


def test_processes_that_drift_apart_are_noticed(tiny_model: Path, tmp_path: Path) -> None:
    """A method of the user's that is something else in every process."""
    from ftbench.methods.std import Std

    def work(group: Group) -> str:
        def after_step(self: Any, backbone: Any, step: Any) -> None:
            with torch.no_grad():
                next(iter(backbone.model.parameters())).add_(group.rank * 1e-3)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Std, "after_step", after_step)
            patch.setattr("ftbench.methods.make", lambda specs: [Std()])
            try:
                run_in(group, tiny_model, tmp_path / "drift", "std")
            except FtbenchError as error:
                return str(error)
        return ""

    for said in together(2, work, tmp_path / "answers"):
        assert "hold different weights at step 3" in said


def test_a_process_without_a_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from ftbench.errors import UsageError

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Group(1, 2).device(torch.device("cpu")) == torch.device("cpu")
    assert ALONE.device(torch.device("cuda")) == torch.device("cuda")
    with pytest.raises(UsageError, match="process 1 of 2 has no GPU of its own: this machine has 1"):
        Group(1, 2).device(torch.device("cuda"))
