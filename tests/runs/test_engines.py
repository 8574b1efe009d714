"""The engine ``local``: the same numbers as here, and a run that crashes, hangs or is killed takes no other with it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftbench.cli.options import seconds
from ftbench.errors import Interrupted, UsageError
from ftbench.runs import machine
from ftbench.runs.attend import Attendant
from ftbench.runs.engines import ENGINES, Setup, State, make
from ftbench.runs.engines.local import Local, explain_end
from ftbench.runs.manifest import Manifest
from ftbench.runs.store import Store
from ftbench.runs.work import Options
from ftbench.types import Cost, Result, RunSpec

PLUGIN = """
import logging, os, sys, time
from dataclasses import dataclass
from typing import ClassVar
from ftbench.methods.method import Method

@dataclass
class Trouble(Method):
    what: str = "none"
    name: ClassVar[str] = "trouble"
    family: ClassVar[str] = "tests"
    summary: ClassVar[str] = "makes trouble"

    def penalty(self, batch, out, views):
        print("what a plug-in prints goes nowhere near the messages")
        logging.getLogger("ftbench.plugin").warning("mind the gap")
        if self.what == "raise":
            raise RuntimeError("loose")
        if self.what == "exit":
            os._exit(3)
        if self.what == "hang":
            time.sleep(600)
"""


def arm_of(spec: RunSpec) -> str:
    """``raise`` of the plug-in's ``what=raise``; its default, ``none``, is not in the name."""
    return spec.method.partition("what=")[2] or ("none" if "Trouble" in spec.method else spec.method)


def local(**changed: Any) -> Setup:
    return Setup(engine="local", threads=1, **{"jobs": 2, **changed})


@pytest.mark.slow
def test_trouble_stays_with_its_run(
    study: Callable[..., Any],
    tiny_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run that raises, one that ends its process, one that hangs; and the good ones are as in this process. What
    runs warn of is heard once a study."""
    from ftbench.tasks import resolve
    from ftbench.tasks.sources import load

    (tmp_path / "plugin_of_engines.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    data = load(resolve(str(tiny_folder())))
    arms = [f"plugin_of_engines:Trouble:what={what}" for what in ("raise", "exit", "hang", "none")]
    root = tmp_path / "there"
    late = study(arms[2], data=data, setup=local(time_limit=2.0), root=root)
    there = study("std", arms[0], arms[1], arms[3], data=data, references=True, setup=local(), root=root)
    assert {record.result.status for record in there.records if record.result.spec.kind == "reference"} == {"ok"}
    tuned = [record.result for record in (*late.records, *there.records) if record.result.spec.kind == "finetune"]
    by_arm = {arm_of(result.spec): result for result in tuned}
    assert {name: result.status for name, result in by_arm.items()} == {
        "std": "ok", "raise": "failed", "exit": "failed", "hang": "failed", "none": "ok",
    }  # fmt: skip
    assert by_arm["raise"].error == "RuntimeError: loose" and "failure" not in by_arm["raise"].facts
    assert "exit code 3" in by_arm["exit"].error and by_arm["exit"].facts["failure"] == "lost"
    assert "2 s" in by_arm["hang"].error and by_arm["hang"].facts["failure"] == "time limit"
    folder = next(r.folder for r in there.records if r.result.facts.get("failure") == "lost")
    assert [record.message for record in caplog.records].count("mind the gap") == 2
    assert "The end of its log" in (folder / "error.txt").read_text()
    here = study("std", data=data, references=True, root=tmp_path / "here")
    for record in here.records:
        other = tmp_path / "there" / record.folder.relative_to(tmp_path / "here")
        assert (other / "result.json").read_bytes() == (record.folder / "result.json").read_bytes()
    assert not list((tmp_path / "there").rglob("claim.json"))


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_run_done_again(
    study: Callable[..., Any], tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftbench.tasks import resolve
    from ftbench.tasks.sources import load

    data = load(resolve(str(tiny_folder())))
    killed: list[int] = []
    states = Local.states

    def kill_one(self: Local, wait: float) -> Any:
        for worker in self._workers.values():
            if worker.step and not killed:
                killed.append(worker.popen.pid)
                os.kill(worker.popen.pid, signal.SIGKILL)
        return states(self, 0.01)

    monkeypatch.setattr(Local, "states", kill_one)
    fixed = {"steps": 200}
    there = study("std", data=data, setup=local(jobs=1), checkpoint_every=5, fixed=fixed, root=tmp_path / "there")
    assert killed and [record.result.status for record in there.records] == ["ok"]
    monkeypatch.undo()
    here = study("std", data=data, fixed=fixed, root=tmp_path / "here")
    pair = [done.records[0].folder / "result.json" for done in (here, there)]
    assert pair[0].read_bytes() == pair[1].read_bytes()


def test_a_worker_without_a_run_ends_when_the_study_is_stopped(tmp_path: Path) -> None:
    """By itself, not killed after a minute of waiting: a signal alone would leave it reading."""
    spec = RunSpec(kind="finetune", task="made-up", data="0", weights="0", steps=1)
    store = Store(tmp_path)
    store.folder(spec).mkdir(parents=True)
    store.save(Result(spec=spec, status="ok"), Cost())
    plan = tmp_path / ".studies" / "made-up.json"
    Manifest(path=plan, runs=[spec], tasks={}, models={}, options=Options(device="cpu").to_json()).write()
    engine = Local(local(jobs=1))
    engine.start(plan, [spec.id])
    while engine.states(60.0)[spec.id].name != "ended":
        pass
    (worker,) = engine._workers.values()
    assert not worker.identity and worker.popen.poll() is None
    engine.cancel()
    assert worker.popen.returncode == 0


class Scripted:
    """An engine that says what it is told to."""

    def __init__(self, *said: dict[str, State]) -> None:
        self.said, self.started, self.cancelled = list(said), [], False

    def start(self, plan: Path, ids: Any, *, again: bool = False) -> None:
        self.started += [(one, again) for one in ids]

    def states(self, wait: float) -> dict[str, State]:
        return self.said.pop(0)

    def cancel(self) -> None:
        self.cancelled = True

    def close(self) -> None: ...


def attendant(engine: Any, tmp_path: Path, heard: Any, **changed: Any) -> Attendant:
    fields = {"retries": 0, "should_stop": lambda: False, **changed}
    return Attendant(engine, tmp_path / "plan.json", Store(tmp_path / "runs"), heard, **fields)


SPEC = RunSpec(kind="finetune", task="t", data="d", weights="w", steps=1)


def test_a_lost_run_is_tried_again_once_and_then_recorded(tmp_path: Path, heard: Any) -> None:
    log = tmp_path / "slot-0.log"
    log.write_text("\n".join(f"line {n}" for n in range(100)))
    lost = {SPEC.id: State(name="ended", reason="its process was killed", log=log)}
    engine = Scripted(lost, lost)
    ((record, by_another),) = attendant(engine, tmp_path, heard).results({SPEC.id: SPEC})
    assert engine.started == [(SPEC.id, False)] * 2 and not by_another
    assert record.result.status == "failed" and record.result.facts == {"failure": "lost"}
    text = (record.folder / "error.txt").read_text()
    assert "line 99" in text and "line 10\n" not in text


@pytest.mark.parametrize(("retries", "starts"), [(0, 1), (2, 3)])
def test_a_time_out_is_tried_again_only_where_asked(tmp_path: Path, heard: Any, retries: int, starts: int) -> None:
    late = {SPEC.id: State(name="ended", reason="stopped after 5 s", timed_out=True)}
    engine = Scripted(*[late] * starts)
    list(attendant(engine, tmp_path, heard, retries=retries).results({SPEC.id: SPEC}))
    assert len(engine.started) == starts


def test_a_stop_reaches_the_engine(tmp_path: Path, heard: Any) -> None:
    engine = Scripted()
    with pytest.raises(Interrupted, match="run the same command to continue"):
        list(attendant(engine, tmp_path, heard, should_stop=lambda: True).results({SPEC.id: SPEC}))
    assert engine.cancelled


def test_every_engine_is_in_the_table_and_has_the_four_calls() -> None:
    folder = Path(__file__).parents[2] / "ftbench" / "runs" / "engines"
    assert set(ENGINES) == {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert all(hasattr(Local(Setup()), call) for call in ("start", "states", "cancel", "close"))
    with pytest.raises(UsageError, match="Did you mean 'local'"):
        make(Setup(engine="lokal"))


def test_a_worker_whose_parent_is_gone_does_not_fail_its_run() -> None:
    """It is killed with what it had to say; the run stops at a checkpoint, it does not fail."""
    from ftbench.runs.worker import Slot

    read, write = os.pipe()
    os.close(read)
    slot = Slot(os.fdopen(write, "w"))
    for done in range(1, 4):
        slot.step(done, 3, None)
    slot.say("ended")


def test_why_a_process_ended() -> None:
    assert "SIGKILL" in explain_end(-9) and "SIGSEGV" in explain_end(-11) and "exit code 3" in explain_end(3)


# -------------------------------------------------------------------------------------- flags


def chosen(**changed: Any) -> Setup:
    usual = {"jobs": "1", "engine": None, "jobs_per_gpu": 1, "time_limit": None, "device": "cpu", "threads": None}
    return machine.setup(**{**usual, "extra": {}, **changed})


def test_several_jobs_are_local_with_one_thread_each() -> None:
    assert chosen().engine == "here" and chosen().threads is None
    assert (chosen(jobs="3").engine, chosen(jobs="3").jobs, chosen(jobs="3").threads) == ("local", 3, 1)
    assert chosen(jobs="3", threads=4).threads == 4
    assert chosen(time_limit=9.0).engine == "local"
    assert chosen(jobs="auto", threads=10_000).jobs == 1


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    setup = chosen(jobs="4", device="auto", jobs_per_gpu=2)
    assert setup.gpus == ("2", "3")
    assert [Local(setup)._environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["2", "3", "2", "3"]
    assert chosen(jobs="auto", device="auto", jobs_per_gpu=3).jobs == 6
    with pytest.raises(UsageError, match="--jobs-per-gpu 3"):
        chosen(jobs="5", device="auto")


@pytest.mark.parametrize(("wrong", "said"), [
    ({"jobs": "0"}, "whole number above 0"), ({"jobs": "two"}, "whole number above 0"),
    ({"engine": "slrum"}, "Did you mean 'slurm'|Known"), ({"engine": "here", "jobs": "2"}, "one run at a time"),
    ({"engine": "here", "time_limit": 5.0}, "take --engine local"), ({"device": "cuda:1", "jobs": "2"}, "one GPU"),
])  # fmt: skip
def test_what_cannot_be_is_said(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chosen(**wrong)


def test_seconds() -> None:
    assert [seconds(text) for text in ("90", "90s", "1.5m", "2h")] == [90, 90, 90, 7200]
    for text in ("0", "-1", "x", "1d", "inf", "nan"):
        with pytest.raises(UsageError, match="--time-limit"):
            seconds(text)


# --------------------------------------------------------------------------- plan, status, cancel


def test_status_and_cancel_read_the_disk(study: Callable[..., Any], tmp_path: Path, capsys: Any) -> None:
    from ftbench.runs.status import cancel, studies

    done = study("std", seeds=[0, 1])
    (state,) = studies(tmp_path / "runs")
    assert state.counts() == {"done": 2} and not state.stopping
    assert cancel(tmp_path / "runs", None, wait=0) == ([], 0), "what is over is not asked to stop"
    (done.records[0].folder / "result.json").unlink()
    claim = done.grid.store.claim(done.records[0].result.spec)
    assert claim is not None
    (state,) = studies(tmp_path / "runs")
    assert state.counts() == {"done": 1, "running": 1} and f"pid {os.getpid()}" in state.runs[0].who + state.runs[1].who
    began = time.monotonic()
    assert cancel(tmp_path / "runs", None, wait=0.1, poll=0.02) == ([state.name], 1)
    assert time.monotonic() - began < 5
    claim.release()
    with pytest.raises(UsageError, match="no study 'x'"):
        cancel(tmp_path / "runs", "x", wait=0)
    assert study("std", seeds=[0, 1]).heard.begun == [done.records[0].result.spec.id], "a new command lifts the stop"
    with pytest.raises(UsageError, match="has no study"):
        studies(tmp_path)


def test_commands_that_begin_alike_leave_each_other_their_plans(study: Callable[..., Any], tmp_path: Path) -> None:
    """Other options have a plan of their own; in a shared one the runs of a later stage stay for its workers."""
    from ftbench.runs.status import studies

    first = study("std", "r3f", seeds=[0])
    specs = [record.result.spec for record in first.records]
    plan = first.grid.write_plan(specs, for_workers=False)
    study("std", "r3f", seeds=[0], retries=2)
    paths = set((tmp_path / "runs" / ".studies").glob("*.json"))
    assert len(paths) == 2 and plan.path in paths
    assert {Manifest.read(path).options["retries"] for path in paths} == {0, 2}
    later = [replace(spec, seed=1) for spec in specs]
    first.grid.write_plan(later, for_workers=False)
    again = study("std", "r3f", seeds=[0])
    assert again.grid._plan == plan.path
    assert [spec.id for spec in Manifest.read(plan.path).runs] == [spec.id for spec in (*specs, *later)]
    (shared,) = [one for one in studies(tmp_path / "runs") if one.name == plan.path.stem]
    assert shared.counts() == {"done": 2}, "what nobody asks for any more is not waited for"
    claim = again.grid.store.claim(later[0])
    assert claim is not None
    (shared,) = [one for one in studies(tmp_path / "runs") if one.name == plan.path.stem]
    assert shared.counts() == {"done": 2, "running": 1}
    claim.release()


def test_a_plan_file_that_is_not_one_is_an_error(study: Callable[..., Any], tmp_path: Path) -> None:
    from ftbench.errors import StoreError
    from ftbench.runs.status import studies

    study("std")
    (path,) = (tmp_path / "runs" / ".studies").glob("*.json")
    whole = path.read_bytes()
    plan = Manifest.read(path)
    assert [spec.kind for spec in plan.runs] == ["finetune"]
    wrong = (whole[:50], b"[]", b'{"schema": 9}', b"", whole.replace(b'"folder": "tiny/', b'"folder": "../../'))
    for content in wrong[:4]:
        path.write_bytes(content)
        with pytest.raises(StoreError, match="cannot read the plan"):
            Manifest.read(path)
    path.write_bytes(wrong[4])
    with pytest.raises(StoreError, match="outside the folder"):
        studies(tmp_path / "runs")
