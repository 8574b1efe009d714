"""Studies on the tiny model: in this process (``study``), or as a command in a forked one (``command``)."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftbench.models.locate import locate
from ftbench.runs.grid import Grid
from ftbench.runs.stages import Request, parse_arms, plan
from ftbench.runs.store import Store
from ftbench.runs.work import Options
from ftbench.types import Data, Record, RunSpec

FORK = multiprocessing.get_context("fork")


class Heard:
    """A study's progress, remembered: what was started, and what was skipped."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.skipped: list[str] = []
        self.waited: list[str] = []
        self.total = 0

    def planned(self, total: int) -> None:
        self.total = total

    def started(self, spec: RunSpec) -> None:
        self.begun.append(spec.id)

    def finished(self, record: Record, *, skipped: bool) -> None:
        if skipped:
            self.skipped.append(record.result.spec.id)

    def waiting(self, who: str) -> None:
        self.waited.append(who)

    def working(self, runs: Any) -> None: ...

    def step(self, done: int, total: int, loss: float | None) -> None: ...

    def evaluated(self, done: int, metric: str, value: float) -> None: ...


@pytest.fixture
def heard() -> Heard:
    """A study's progress, remembered."""
    return Heard()


@dataclass
class Done:
    """What a study gave, and what was heard of it."""

    records: list[Record]
    heard: Heard
    grid: Grid


@pytest.fixture
def study(tmp_path: Path, tiny_model: Path, tiny_data: Callable[..., Data]) -> Callable[..., Done]:
    """``study("r3f", seeds=[0, 1])``: real runs of 4 steps into tmp_path/runs."""

    def run(*methods: str, **changed: Any) -> Done:
        data = changed.pop("data", None) or tiny_data()
        model = locate(str(changed.pop("model", tiny_model)))
        keep = changed.pop("keep", None)
        store = Store(changed.pop("root", tmp_path / "runs"))
        request = Request(
            data=[data],
            models=[model],
            arms=parse_arms(methods, baseline=changed.pop("baseline", False)),
            seeds=changed.pop("seeds", [0]),
            references=changed.pop("references", False),
            fixed={"steps": 4, "batch_size": 8, "lr": 1e-3, "max_length": 32, **changed.pop("fixed", {})},
        )
        heard = Heard()
        options = Options(device="cpu", threads=1, keep_model=keep is not None, **changed)
        grid = Grid(store, {data.fingerprint: data}, {model.fingerprint: model}, heard, options)
        grid.run(plan(request))
        if keep:
            grid.keep_models(keep)
        return Done(grid.records, heard, grid)

    return run


class Command:
    """``ftbench ...`` in a forked process: torch is already loaded, so it starts at once."""

    def __init__(self, arguments: list[str], folder: Path, file_limit: int | None, home: Path | None) -> None:
        self.out, self.err = folder / "stdout.txt", folder / "stderr.txt"
        self.process = FORK.Process(target=self._main, args=(arguments, file_limit, home))
        self.process.start()

    def _main(self, arguments: list[str], file_limit: int | None, home: Path | None) -> None:
        from ftbench.cli.app import main

        for number, path in ((1, self.out), (2, self.err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if home:
            os.environ["FTBENCH_HOME"] = str(home)
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        sys.argv = ["ftbench", *arguments]
        main()

    @property
    def pid(self) -> int:
        pid = self.process.pid
        assert pid is not None
        return pid

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.is_alive()

    def wait(self, timeout: float = 60) -> int:
        """The exit code."""
        self.process.join(timeout)
        code = self.process.exitcode
        assert code is not None, f"still running after {timeout} s: {self.err.read_text()}"
        return code


@pytest.fixture(scope="session")
def _loaded(
    tiny_model: Path, tiny_data: Callable[..., Data], finetune_tiny: Callable[..., Any], tmp_path_factory: Any
) -> None:
    """All that a run imports is imported here once: a forked process has it."""
    for name in ("pyarrow.parquet", "rich.table", "scipy.stats", "sklearn.linear_model", "ftbench.cli.study"):
        importlib.import_module(name)
    importlib.import_module("ftbench.training.reference")
    finetune_tiny(tiny_data(), tiny_model, tmp_path_factory.mktemp("warm"), "r3f", steps=2)


@pytest.fixture
def command(
    _loaded: None, tmp_path: Path, tiny_model: Path, tiny_folder: Callable[..., Path]
) -> Iterator[Callable[..., Command]]:
    """``command("-o", folder, ...)``: ``ftbench finetune`` on the tiny task and model; ``.wait()`` gives the code."""
    usual = ["finetune", "--task", str(tiny_folder()), "--model", str(tiny_model), "--threads", "1", "--device", "cpu"]
    recipe = ["--batch-size", "8", "--lr", "1e-3", "--max-length", "32"]
    started: list[Command] = []

    def start(*arguments: object, file_limit: int | None = None, home: Path | None = None) -> Command:
        folder = tmp_path / f"command-{len(started)}"
        folder.mkdir()
        started.append(Command([*usual, *recipe, *map(str, arguments)], folder, file_limit, home))
        return started[-1]

    yield start
    for each in started:
        if each.is_running():
            each.process.kill()
            each.process.join()
