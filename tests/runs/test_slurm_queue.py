"""What the slurm engine makes of programs that refuse, fall silent or forget: stand-ins for SLURM's own on the PATH."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import UsageError
from ftbench.runs.attend import Attendant
from ftbench.runs.engines import Setup, slurm
from ftbench.runs.engines.slurm import Jobs, Slurm, Task
from ftbench.runs.manifest import Manifest
from ftbench.runs.progress import Unshown
from ftbench.runs.store import Store
from ftbench.runs.work import Options, record_failure
from ftbench.types import Cost, Record, Result, RunSpec

pytest.importorskip("submitit")
SPECS = [RunSpec(kind="finetune", task="t", data="d", weights="w", steps=3, seed=seed) for seed in range(4)]
IDS = [spec.id for spec in SPECS]
PROGRAMS = {
    "sbatch": """
        n=$(($(cat calls 2>/dev/null || echo 0) + 1)); echo $n > calls
        if [ $n -ge $(cat refuse 2>/dev/null || echo 99) ]; then echo "error: AssocMaxSubmitJobLimit" >&2; exit 1; fi
        echo "Submitted batch job $((100 + n))" """,
    "squeue": """
        if [ -e silent ]; then echo "slurm_load_jobs error: Socket timed out" >&2; exit 1; fi
        cat queue 2>/dev/null; exit 0""",
    "srun": "", "scancel": "",
}  # fmt: skip


class Cluster:
    """The programs' folder: files in it say how they behave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, body in PROGRAMS.items():
            (folder / name).write_text(f"#!/bin/sh\ncd {folder}\n{body}\n")
            (folder / name).chmod(0o755)

    def queues(self, *tasks: str) -> None:
        (self.folder / "queue").write_text("".join(f"{task}\n" for task in tasks))

    def is_silent(self, silent: bool) -> None:
        (self.folder / "silent").touch() if silent else (self.folder / "silent").unlink(missing_ok=True)

    def refuses_from(self, call: int) -> None:
        (self.folder / "refuse").write_text(str(call))

    @property
    def calls(self) -> int:
        """How often something was submitted."""
        path = self.folder / "calls"
        return int(path.read_text()) if path.exists() else 0


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.0)
    return Cluster(tmp_path / "bin")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / ".studies" / "plan.json"
    Manifest(path=path, runs=SPECS, tasks={}, models={}, options=Options().to_json()).write()
    return path


@pytest.fixture
def engine() -> Slurm:
    return Slurm(Setup(engine="slurm", jobs=2, threads=1))


def states(engine: Slurm) -> dict[str, str]:
    return {one: state.name for one, state in engine.states(0).items()}


def test_tasks_that_squeue_says_nothing_of_wait(cluster: Cluster, plan: Path, engine: Slurm) -> None:
    cluster.is_silent(True)
    engine.start(plan, IDS)
    assert set(states(engine).values()) == {"queued"} and cluster.calls == 1
    cluster.is_silent(False)
    cluster.queues("101_0 RUNNING", "101_1 PENDING", "101_2 PENDING", "101_3 PENDING")
    assert sorted(states(engine).values()) == ["queued", "queued", "queued", "running"]
    cluster.is_silent(True)
    assert "ended" not in states(engine).values(), "it was there when SLURM last spoke"
    cluster.is_silent(False)
    cluster.queues()
    assert set(states(engine).values()) == {"ended"}


def test_nothing_is_handed_over_twice_while_squeue_is_silent(cluster: Cluster, plan: Path, engine: Slurm) -> None:
    engine.start(plan, IDS)
    cluster.is_silent(True)
    with pytest.raises(UsageError, match=r"squeue does not answer \(.*Socket timed out\)"):
        Slurm(Setup(engine="slurm")).start(plan, IDS)
    assert cluster.calls == 1


def test_what_went_in_before_a_refusal_is_remembered(
    cluster: Cluster, plan: Path, engine: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "LARGEST_ARRAY", 2)
    cluster.refuses_from(2)
    cluster.queues("101_0 RUNNING", "101_1 PENDING")
    with pytest.raises(UsageError, match=r"sbatch refused the jobs: .*Limit.* 2 others are in the queue"):
        engine.start(plan, IDS)
    assert Jobs.of(plan).ids == {IDS[0]: "101_0", IDS[1]: "101_1"}
    cluster.refuses_from(99)
    Slurm(Setup(engine="slurm")).start(plan, IDS)
    assert Jobs.of(plan).ids.keys() == set(IDS) and cluster.calls == 3, "only the rest is handed over"


@pytest.fixture
def attendant(plan: Path, engine: Slurm) -> Callable[..., Attendant]:
    def make(again: Sequence[str] = ()) -> Attendant:
        return Attendant(engine, plan, Store(plan.parent.parent), Unshown(), 0, lambda: False, set(again))

    return make


def results(attendant: Attendant, spec: RunSpec) -> list[Record]:
    return [record for record, _ in attendant.results({spec.id: spec})]


def test_an_old_result_is_not_what_a_new_task_did(cluster: Cluster, attendant: Callable[..., Attendant]) -> None:
    spec, store = SPECS[0], attendant().store
    store.folder(spec).mkdir(parents=True)
    before = store.save(Result(spec=spec, status="ok", metrics={}, facts={}), Cost())
    (record,) = results(attendant([spec.id]), spec)
    assert record.result.status == "failed" and "ended without a result" in record.result.error
    assert cluster.calls == 2, "it was tried once more"
    kept = store.find(spec)
    assert kept is not None and kept.result == before.result


def test_a_run_that_fails_when_it_is_done_again_says_why(
    cluster: Cluster, attendant: Callable[..., Attendant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its good result stays, so that only the reason beside it is new: that is an answer, and no lost task."""
    spec, one = SPECS[0], attendant([SPECS[0].id])
    one.store.folder(spec).mkdir(parents=True)
    before = one.store.save(Result(spec=spec, status="ok", metrics={}, facts={}), Cost())
    start = one.engine.start

    def fail(*arguments: Any, **more: Any) -> None:
        start(*arguments, **more)
        record_failure(one.store, spec, "out of memory", "Traceback\nMemoryError: no room\n", Cost(), {})

    monkeypatch.setattr(one.engine, "start", fail)
    (record,) = results(one, spec)
    assert (record.result.status, record.result.error) == ("failed", "MemoryError: no room")
    kept = one.store.find(spec)
    assert kept is not None and kept.result == before.result and cluster.calls == 1


@pytest.mark.parametrize("again", [False, True])
def test_a_task_waits_while_another_process_has_its_run(
    plan: Path, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, store = SPECS[0], Store(plan.parent.parent)
    store.folder(spec).mkdir(parents=True)
    if again:
        store.save(Result(spec=spec, status="ok", metrics={}, facts={}), Cost())
    tries: list[int] = []

    def work(task: Task) -> int:
        tries.append(1)
        if len(tries) == 3:
            store.save(Result(spec=spec, status="ok", metrics={}, facts={"new": 1}), Cost())
        return 0

    monkeypatch.setattr(Task, "_work", work)
    monkeypatch.setattr(slurm, "AGAIN_SECONDS", 0.01)
    before = signal.getsignal(signal.SIGINT)
    try:
        Task(str(plan), spec.id, again, None)()
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(tries) == 3


def test_no_failure_is_written_while_a_process_has_the_run(
    cluster: Cluster, attendant: Callable[..., Attendant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task is not in the queue, and the run goes on elsewhere."""
    one, spec = attendant(), SPECS[0]
    claim = one.store.claim(spec)
    assert claim is not None
    monkeypatch.setattr("ftbench.runs.attend.TAKEN_SECONDS", 0.01)
    start = one.engine.start

    def finish(*arguments: Any, **more: Any) -> None:
        if cluster.calls == 2:  # the other process ends
            one.store.save(Result(spec=spec, status="ok", metrics={}, facts={}), Cost())
            claim.release()
        start(*arguments, **more)

    monkeypatch.setattr(one.engine, "start", finish)
    (record,) = results(one, spec)
    assert record.result.status == "ok"
    assert json.loads((record.folder / "result.json").read_text())["status"] == "ok"
