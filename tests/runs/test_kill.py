"""Killed, stopped, restarted: the numbers are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STEPS = 60
RUN = ("--method", "r3f", "--no-references", "--seeds", "0", "--steps", STEPS, "--checkpoint-every", "5")


def step_on_disk(folder: Path, method: str) -> int:
    """The step in the header of a run's checkpoint; -1 once it has a result, 0 when there is nothing."""
    for run in folder.glob(f"*/{method}-seed*"):
        if (run / "result.json").exists():
            return -1
        try:
            with (run / "checkpoint.safetensors").open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                return int(json.loads(json.loads(stream.read(length))["__metadata__"]["state"])["step"])
        except (OSError, ValueError, KeyError, struct.error):
            return 0
    return 0


def wait_for(what: Callable[[], bool], is_running: Callable[[], bool]) -> None:
    """Until it is so. Fails if the command ends first."""
    deadline = time.monotonic() + 300
    while not what():
        assert is_running() and time.monotonic() < deadline, "the moment never came"
        time.sleep(0.002)


def results(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("result.json"))}


def numbers(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on interruptions: results, histories, predictions."""
    kept = ("result.json", "history.jsonl", "predictions.parquet", "spec.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.name in kept}


UNDISTURBED: dict[str, bytes] = {}


@pytest.fixture
def undisturbed(command: Callable[..., Any], tmp_path: Path) -> dict[str, bytes]:
    """The numbers of the same study when nobody disturbs it; without checkpoints, too."""
    if not UNDISTURBED:
        folder = tmp_path / "undisturbed"
        assert command(*RUN[:-2], "-o", folder).wait() == 0
        UNDISTURBED.update(numbers(folder))
    assert len(UNDISTURBED) == 2 * 4
    return UNDISTURBED


@pytest.mark.slow
def test_killed_at_three_moments(command: Callable[..., Any], tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    for name, moment in (
        ("early", lambda folder: step_on_disk(folder, "std") > 0),
        ("between", lambda folder: any(folder.glob("*/r3f-*/claim.json"))),  # std gave its claim back before that
        ("late", lambda folder: step_on_disk(folder, "r3f") >= STEPS // 2),
    ):
        folder = tmp_path / name
        running = command(*RUN, "-o", folder)
        wait_for(lambda moment=moment, folder=folder: moment(folder), running.is_running)
        os.kill(running.pid, signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        at_death = results(folder)
        assert len(at_death) < 2, f"{name}: nothing was left to continue"
        assert list(folder.rglob("claim.json")), "the dead one still holds its claim: that is what is tested"
        at = {method: step_on_disk(folder, method) for method in ("std", "r3f")}
        again = command(*RUN, "-o", folder)
        assert again.wait() == 0, again.err.read_text()
        assert numbers(folder) == undisturbed, f"{name}: killed at {at}"
        costs = [json.loads(path.read_text()) for path in folder.rglob("cost.json")]
        assert [cost["steps"] for cost in costs] == [STEPS, STEPS]
        assert sum(cost["interruptions"] for cost in costs) == sum(step > 0 for step in at.values())
        # killed right after a result was written, a finished run may keep its claim: nobody asks for it any more
        done_before = {folder / path for path in at_death}
        assert {path.parent / "result.json" for path in folder.rglob("claim.json")} <= done_before
        assert not list(folder.rglob("*checkpoint*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_stopped_on_request(
    command: Callable[..., Any], tmp_path: Path, undisturbed: dict[str, bytes], number: signal.Signals
) -> None:
    """No checkpoint was due (one a minute): the one on disk is of the signal."""
    folder = tmp_path / "stopped"
    running = command(*RUN[:-2], "-o", folder)
    wait_for(lambda: any(folder.glob("*/r3f-*/claim.json")), running.is_running)
    os.kill(running.pid, number)
    assert running.wait() == 130
    said = running.err.read_text()
    assert f"{number.name}: saving a checkpoint after this step" in said
    assert "finished runs: 1, in" in said
    assert "interrupted: stopped after step" in said and "run the same command to continue" in said
    assert "Traceback" not in said and running.out.read_text() == ""
    at = step_on_disk(folder, "r3f")
    assert 0 < at < STEPS and f"after step {at} of {STEPS}" in said
    assert not list(folder.rglob("claim.json")), "it gave its claim back"
    again = command(*RUN, "-o", folder)
    assert again.wait() == 0
    assert numbers(folder) == undisturbed


@pytest.mark.slow
def test_a_real_command_stops_and_continues(
    tmp_path: Path, tiny_model: Path, tiny_folder: Callable[..., Path], undisturbed: dict[str, bytes]
) -> None:
    """As a user starts it: ``python -m ftbench``, a process of its own, SIGTERM, the same command again."""
    folder = tmp_path / "real"
    arguments = [
        sys.executable, "-m", "ftbench", "finetune", "-t", str(tiny_folder()), "-m", str(tiny_model), "--threads", "1",
        "--batch-size", "8", "--lr", "1e-3", "--max-length", "32", "--device", "cpu", *map(str, RUN), "-o", str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(lambda: step_on_disk(folder, "std") > 0, lambda: running.poll() is None)
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 130 and out == "" and "run the same command to continue" in err
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert numbers(folder) == undisturbed
