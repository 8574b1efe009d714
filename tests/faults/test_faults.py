"""What can go wrong around a grid: after each, nothing finished is lost or changed, and a restart ends with the same
bytes. ``tests/runs`` has single runs killed and disks that are full at each kind of write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import killing

RUN = ("--no-references", "--steps", "12", "--evaluations", "2", "--method", "r3f", "--seeds", "0,1")


@pytest.mark.slow
def test_killed_at_random_moments(tiny_folder: Callable[..., Path], tiny_model: Path, tmp_path: Path) -> None:
    command = killing.grid(tiny_folder(), tiny_model, steps=30)
    counts = killing.kill_until(2, command, tmp_path, int(os.environ.get("FTBENCH_SEED", "1")), print)
    assert counts.good and counts.kills.total() >= 2, counts


def results(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(folder.rglob("result.json"))}


UNDISTURBED: dict[str, Path] = {}


@pytest.fixture
def undisturbed(command: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished grid; copy it before doing anything to it."""
    if not UNDISTURBED:
        folder = tmp_path_factory.mktemp("undisturbed") / "runs"
        assert command(*RUN, "-o", folder).wait() == 0
        UNDISTURBED["runs"] = folder
    assert len(results(UNDISTURBED["runs"])) == 4
    return UNDISTURBED["runs"]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "foreign": lambda content: b'{"name": "another program\'s", "spec": [1, 2], "schema": 1}',
    "bit-flipped": lambda content: bytes([*content[:-20], content[-20] ^ 4, *content[-19:]]),
    "binary": lambda content: bytes(range(256)) * 8,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_in_the_store(
    command: Callable[..., Any], undisturbed: Path, tmp_path: Path, damage: str
) -> None:
    """Every file of one finished run, result and all; of another all but the result; the plan; a half-done run."""
    folder = tmp_path / "runs"
    shutil.copytree(undisturbed, folder)
    first, second, third, fourth = sorted(folder.glob("*/*-seed*"))
    for path in (*first.iterdir(), *(p for p in second.iterdir() if p.name != "result.json")):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for path in (folder / ".studies").glob("*.json"):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    shutil.rmtree(third)
    third.mkdir()
    (third / "checkpoint.safetensors").write_bytes(DAMAGES[damage](os.urandom(5000)))
    untouched = (fourth / "result.json").stat().st_mtime_ns, (second / "result.json").stat().st_mtime_ns

    again = command(*RUN, "-o", folder)
    assert again.wait() == 0, again.err.read_text()
    assert "Traceback" not in again.err.read_text()
    assert results(folder) == results(undisturbed)
    assert ((fourth / "result.json").stat().st_mtime_ns, (second / "result.json").stat().st_mtime_ns) == untouched
    assert list(first.glob("result.json.damaged-*")), "it is kept aside, not thrown away"


@pytest.mark.parametrize("claim", ["dead", "empty", "foreign"])
def test_a_dead_claimant(command: Callable[..., Any], undisturbed: Path, tmp_path: Path, claim: str) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(undisturbed, folder)
    for run in folder.glob("*/*-seed1-*"):
        (run / "result.json").unlink()
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        import socket

        told = {"host": socket.gethostname(), "pid": gone.pid, "started": time.time() - 60, "token": "t"}
        content = {"dead": json.dumps(told), "empty": "", "foreign": "[]"}[claim]
        (run / "claim.json").write_text(content)
        os.utime(run / "claim.json", (time.time() - 60,) * 2)
    assert command(*RUN, "-o", folder).wait() == 0
    assert results(folder) == results(undisturbed)


def test_two_commands_on_one_folder(command: Callable[..., Any], undisturbed: Path, tmp_path: Path) -> None:
    both = [command(*RUN, "-o", tmp_path / "runs") for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0], both[1].err.read_text()
    assert results(tmp_path / "runs") == results(undisturbed)
    starts = "\n".join(one.err.read_text() for one in both)
    assert "Traceback" not in starts


@pytest.fixture
def read_only(undisturbed: Path, tmp_path: Path) -> Iterator[Path]:
    """A store with one run missing on a file system that cannot be written; skips where none may be mounted."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    if not shutil.which("mount") or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("cannot mount here")
    try:
        shutil.copytree(undisturbed, folder / "runs")
        next((folder / "runs").glob("*/r3f-seed1-*/result.json")).unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder / "runs"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_folder(command: Callable[..., Any], read_only: Path) -> None:
    before = results(read_only)
    done = command(*RUN, "-o", read_only)
    assert done.wait() == 1
    said = done.err.read_text()
    assert "error: cannot " in said and "read-only" in said and "Traceback" not in said, said
    assert results(read_only) == before


PLUG_IN = '''
import os, sys, time
from dataclasses import dataclass
from typing import ClassVar
from ftbench.methods.method import Method


@dataclass
class Bad(Method):
    """does: raise, hang, exit, print."""

    does: str = "print"
    name: ClassVar[str] = "bad"
    family: ClassVar[str] = "tests"
    summary: ClassVar[str] = "misbehaves at the third step"

    def after_step(self, backbone, step):
        if step.number == 2:
            if self.does == "raise":
                raise RuntimeError("bad weather")
            if self.does == "hang":
                time.sleep(3600)
            if self.does == "exit":
                os._exit(3)
        print("a method talks", os.getpid())
        os.write(1, b"and writes past Python\\n")
'''


@pytest.mark.slow
@pytest.mark.skipif("FTBENCH_DEEP" not in os.environ, reason="waits for a time limit: .ci/deep runs it")
def test_plug_ins_that_misbehave(tiny_folder: Callable[..., Path], tiny_model: Path, tmp_path: Path) -> None:
    """One raises, one hangs, one ends its process, one prints: each is recorded, the others are done all the same."""
    (tmp_path / "misbehaving.py").write_text(PLUG_IN)
    methods = [f"misbehaving:Bad:does={what}" for what in ("raise", "hang", "exit", "print")]
    asked = [
        *killing.grid(tiny_folder(), tiny_model, steps=6), *(word for name in methods for word in ("--method", name)),
        "--time-limit", "60s", "--json", "-o", str(tmp_path / "runs"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*asked, "--seeds", "0"], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=400
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    found = {run["method"]: run for run in json.loads(done.stdout)["runs"]}
    stored = {
        one["spec"]["methods"][0]["fields"].get("does", "print") if one["spec"]["methods"] else "std": one
        for one in (json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("result.json"))
        if not one["spec"]["methods"] or one["spec"]["methods"][0]["name"].endswith("Bad")
    }
    assert len(found) == 6
    assert {name: one["status"] for name, one in stored.items()} == {
        "std": "ok", "raise": "failed", "hang": "failed", "exit": "failed", "print": "ok",
    }  # fmt: skip
    assert "bad weather" in stored["raise"]["error"]
    assert "--time-limit" in stored["hang"]["error"]
    assert "exit code 3" in stored["exit"]["error"]
