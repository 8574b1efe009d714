"""``--engine slurm`` on a real SLURM of one node: done, preempted, requeued, cancelled, found again; the same bytes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import UsageError
from ftbench.runs.engines import Setup
from ftbench.runs.engines.slurm import Slurm, Task
from tests.slurm_node import slurm_node, why_not

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is SLURM"),
]
LONG = 800
deep = pytest.mark.skipif("FTBENCH_DEEP" not in os.environ, reason="minutes of waiting for SLURM: .ci/deep runs it")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a SLURM with two CPUs."""
    with slurm_node(tmp_path_factory.mktemp("slurm")) as environment:
        yield {
            **environment, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1",
            "FTBENCH_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_OFFLINE": "1",
        }  # fmt: skip


#: of every run, but for the number of steps and the output
USUAL = ("--no-references", "--checkpoint-every", "5", "--evaluations", "1", "--quiet")


@pytest.fixture
def arguments(tiny_folder: Callable[..., Path], tiny_model: Path) -> list[str]:
    """``ftbench finetune`` on the tiny task with what the fixture ``command`` has."""
    return [
        "finetune", "-t", str(tiny_folder()), "-m", str(tiny_model), "--batch-size", "8", "--lr", "1e-3",
        "--max-length", "32", "--threads", "1", "--device", "cpu", *USUAL,
    ]  # fmt: skip


def start(node: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ftbench", *map(str, arguments)]
    return subprocess.Popen(command, env=node, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(true: Callable[[], Any], what: str, seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.1)


def results(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(folder.rglob("result.json"))}


def jobs_of(folder: Path) -> dict[str, str]:
    """Run -> task, as the engine wrote it down."""
    found: dict[str, str] = {}
    for path in folder.glob(".studies/*/jobs.json"):
        found |= json.loads(path.read_text())
    return found


def logs(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob(".studies/*/slurm/*.err")))


def scancel(node: dict[str, str], *arguments: str) -> None:
    subprocess.run(["scancel", *arguments], env=node, check=True)


def start_now(node: dict[str, str], job: str) -> None:
    """SLURM lets a requeued task wait for two minutes."""

    def waits_no_more() -> bool:
        command = ["scontrol", "update", f"JobId={job}", "StartTime=now"]
        subprocess.run(command, env=node, capture_output=True, check=False)
        return f"{job} PENDING" not in queue(node)

    wait_for(waits_no_more, "second start")


def queue(node: dict[str, str]) -> str:
    asked = ["squeue", "--noheader", "--array", "--format", "%i %T"]
    return subprocess.run(asked, env=node, check=True, capture_output=True, text=True).stdout


def test_an_array_gives_what_one_process_gives(
    node: dict[str, str], arguments: list[str], command: Callable[..., Any], tmp_path: Path
) -> None:
    asked = ["--method", "r3f", "--seeds", "0", "--steps", "6"]
    here = command(*USUAL, *asked, "-o", tmp_path / "here")
    assert here.wait(600) == 0, here.err.read_text()
    asked = [*arguments, *asked, "--engine", "slurm", "--engine-option", "partition=main"]
    there = start(node, *asked, "-o", tmp_path / "there")
    _, err = there.communicate(timeout=600)
    assert there.returncode == 0, f"{err}\n{logs(tmp_path / 'there')}"
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert len(results(tmp_path / "there")) == 2
    jobs = jobs_of(tmp_path / "there")
    assert len(jobs) == 2 and len({job.split("_")[0] for job in jobs.values()}) == 1, "one array"


def test_preempted_and_out_of_time_goes_on_from_its_checkpoint(
    node: dict[str, str], arguments: list[str], command: Callable[..., Any], tmp_path: Path
) -> None:
    """What SLURM sends before the limit is sent by hand; the requeued task continues to the same bytes."""
    asked = ["--no-baseline", "--seeds", "0", "--steps", LONG]
    there = start(node, *arguments, *asked, "-o", tmp_path / "there", "--engine", "slurm", "--time-limit", "1h")
    wait_for(lambda: any((tmp_path / "there").rglob("checkpoint.safetensors")), "checkpoint")
    (job,) = jobs_of(tmp_path / "there").values()
    scancel(node, "--signal=USR2", job)
    wait_for(lambda: "DUE TO JOB REQUEUE" in logs(tmp_path / "there") and "RUNNING" not in queue(node), "requeue")
    start_now(node, job)
    _, err = there.communicate(timeout=600)
    assert there.returncode == 0, f"{err}\n{logs(tmp_path / 'there')}"
    said = logs(tmp_path / "there")
    assert f"JOB {job} ON" in said and "saving a checkpoint after this step" in said
    assert command(*USUAL, *asked, "-o", tmp_path / "here").wait(300) == 0
    assert results(tmp_path / "there") == results(tmp_path / "here")
    (cost,) = (tmp_path / "there").rglob("cost.json")
    assert json.loads(cost.read_text())["interruptions"] == 1


@deep
def test_stopped_and_continued(node: dict[str, str], arguments: list[str], tmp_path: Path) -> None:
    """Ctrl-C takes back what waits and lets what runs save; a command that was killed finds its tasks again."""
    asked = [*arguments, "--no-baseline", "--seeds", "0-3", "--steps", LONG, "-o", tmp_path / "runs"]
    asked += ["--engine", "slurm"]
    first = start(node, *asked)
    wait_for(lambda: any((tmp_path / "runs").rglob("checkpoint.safetensors")), "checkpoint")
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=600)
    assert first.returncode == 130 and "run the same command to continue" in err, err
    assert queue(node) == "", "nothing of it is left"
    assert not list((tmp_path / "runs").rglob("claim.json"))
    before = jobs_of(tmp_path / "runs")

    second = start(node, *asked)
    wait_for(lambda: jobs_of(tmp_path / "runs") != before and "RUNNING" in queue(node), "new tasks")
    submitted = jobs_of(tmp_path / "runs")
    second.kill()
    second.wait()
    assert "RUNNING" in queue(node), "they live on without it"
    third = start(node, *asked)
    _, err = third.communicate(timeout=600)
    assert third.returncode == 0, f"{err}\n{logs(tmp_path / 'runs')}"
    assert jobs_of(tmp_path / "runs") == submitted, "nothing was submitted twice"
    assert len(results(tmp_path / "runs")) == 4


@deep
def test_a_task_that_is_cancelled_by_hand_is_handed_over_again(
    node: dict[str, str], arguments: list[str], tmp_path: Path
) -> None:
    asked = [*arguments, "--no-baseline", "--seeds", "0", "--steps", LONG, "-o", tmp_path / "runs", "--engine", "slurm"]
    there = start(node, *asked)
    wait_for(lambda: any((tmp_path / "runs").rglob("checkpoint.safetensors")), "checkpoint")
    scancel(node, *jobs_of(tmp_path / "runs").values())
    _, err = there.communicate(timeout=600)
    assert there.returncode == 0, f"{err}\n{logs(tmp_path / 'runs')}"
    assert len(results(tmp_path / "runs")) == 1


@deep
def test_a_real_time_limit(node: dict[str, str], arguments: list[str], tmp_path: Path) -> None:
    """A run that never ends is requeued as often as allowed; then it has failed, and keeps its checkpoint."""
    asked = [*arguments, "--no-baseline", "--seeds", "0", "--steps", "1000000", "-o", tmp_path / "runs"]
    asked += ["--engine", "slurm", "--time-limit", "1m", "--engine-option", "requeues=1"]
    there = start(node, *asked)
    _, err = there.communicate(timeout=900)
    assert there.returncode == 1, err
    (path,) = (tmp_path / "runs").rglob("result.json")
    result = json.loads(path.read_text())
    assert result["status"] == "failed" and "time limit too often" in result["error"], result
    assert len(re.findall(r"JOB \d+ ON .* DUE TO JOB REQUEUE", logs(tmp_path / "runs"))) == 1
    assert list((tmp_path / "runs").rglob("checkpoint.safetensors"))


def test_what_sbatch_refuses_is_said(node: dict[str, str], arguments: list[str], tmp_path: Path) -> None:
    asked = [*arguments, "--seeds", "0", "--steps", "2", "-o", tmp_path / "runs", "--engine", "slurm"]
    there = start(node, *asked, "--engine-option", "partition=gpu")
    _, err = there.communicate(timeout=600)
    assert there.returncode == 2 and "sbatch refused the jobs" in err and "partition" in err, err
    assert "Traceback" not in err


def test_without_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"no sbatch, srun, squeue, scancel here"):
        Slurm(Setup(engine="slurm"))


def test_a_task_survives_pickling() -> None:
    import pickle

    task = Task("plan.json", "0123456789ab", False, 1)
    assert pickle.loads(pickle.dumps(task)) == task
