"""One run, one process: claims between processes, and the dead ones taken over."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftbench.errors import StoreError
from ftbench.runs import claim as claims
from ftbench.runs.claim import BEAT_SECONDS, DEAD_SECONDS, NAME, holder, take

FORK = multiprocessing.get_context("fork")


def write(folder: Path, *, age: float = 0.0, **changed: Any) -> Path:
    """A claim of this very process, but for what is changed, last renewed ``age`` seconds ago."""
    me = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    path = folder / NAME
    path.write_text(json.dumps({**me, **changed}))
    silent_for(path, age)
    return path


def silent_for(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {NAME}


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A living process that is not this one."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_claim_excludes_until_it_is_released(tmp_path: Path) -> None:
    held = take(tmp_path)
    assert held is not None
    assert take(tmp_path) is None
    assert holder(tmp_path) == f"pid {os.getpid()} on {socket.gethostname()}"
    held.release()
    assert holder(tmp_path) is None and not list(tmp_path.iterdir())
    again = take(tmp_path)
    assert again is not None
    again.release()
    again.release()  # twice does no harm


def test_another_process_sees_the_claim(tmp_path: Path) -> None:
    held = take(tmp_path)
    program = f"from pathlib import Path; from ftbench.runs.claim import take; print(take(Path({str(tmp_path)!r})))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert held is not None and done.stdout.strip() == "None"


def test_a_living_process_keeps_its_claim_however_silent(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    started = psutil.Process(other.pid).create_time()
    write(tmp_path, pid=other.pid, started=started, age=10 * DEAD_SECONDS)
    assert take(tmp_path) is None
    assert holder(tmp_path) == f"pid {other.pid} on {socket.gethostname()}"


def test_a_dead_process_loses_it(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    write(tmp_path, pid=other.pid, started=psutil.Process(other.pid).create_time())
    other.kill()
    other.wait()
    assert holder(tmp_path) is None
    assert take(tmp_path) is not None
    assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert not leftovers(tmp_path)


def test_a_zombie_is_dead(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    """Killed in a container whose first process never asks for it: the pid stays, nobody works there."""
    process = psutil.Process(other.pid)
    write(tmp_path, pid=other.pid, started=process.create_time())
    other.kill()
    deadline = time.monotonic() + 10
    while process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
    assert take(tmp_path) is not None


def test_a_pid_that_went_to_another_process(tmp_path: Path) -> None:
    write(tmp_path, started=psutil.Process().create_time() - 3600)
    assert holder(tmp_path) is None
    assert take(tmp_path) is not None


def test_a_start_time_is_compared_with_some_slack(tmp_path: Path) -> None:
    write(tmp_path, started=psutil.Process().create_time() + 0.5)
    assert take(tmp_path) is None


@pytest.mark.parametrize(("age", "is_free"), [(0.0, False), (DEAD_SECONDS - 30, False), (DEAD_SECONDS + 30, True)])
def test_another_host_is_judged_by_its_heartbeat(tmp_path: Path, age: float, is_free: bool) -> None:
    write(tmp_path, host="elsewhere", pid=1, started=0.0, age=age)
    assert holder(tmp_path) == (None if is_free else "pid 1 on elsewhere")
    assert (take(tmp_path) is not None) == is_free


@pytest.mark.parametrize(("age", "is_free"), [(0.0, False), (DEAD_SECONDS + 30, True)])
def test_another_container_on_this_host_is_judged_by_its_heartbeat(tmp_path: Path, age: float, is_free: bool) -> None:
    """Its pids are others: none of them says whether a process of it lives."""
    write(tmp_path, pids="pid:[1]", pid=2**22 + 1, age=age)
    assert (take(tmp_path) is not None) == is_free


def test_a_link_whose_answer_was_lost_is_a_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS says EEXIST where it made the link and the question was sent twice."""
    link = os.link

    def twice(*arguments: Any) -> None:
        link(*arguments)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", twice)
    held = take(tmp_path)
    assert held is not None and not leftovers(tmp_path)
    assert take(tmp_path) is None, "of another it still says what is so"
    held.release()
    assert not held.path.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "3", '{"host": 1}', '{"host": "h", "pid": "x", "started": 0}', "\0\0"]
)
def test_a_damaged_claim_holds_for_a_moment_only(tmp_path: Path, text: str) -> None:
    path = tmp_path / NAME
    path.write_text(text)
    assert take(tmp_path) is None, "somebody may be writing it"
    silent_for(path, BEAT_SECONDS + 5)
    assert take(tmp_path) is not None
    assert not leftovers(tmp_path)


def test_a_claim_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\xff\xfe\xfd")
    assert take(tmp_path) is None
    assert holder(tmp_path) == "another process"


def test_a_thread_renews_the_heartbeat_until_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the run is busy with, loading or saving: it must not look dead."""
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.01)
    held = take(tmp_path)
    assert held is not None
    silent_for(held.path, 500)
    deadline = time.monotonic() + 10
    while time.time() - held.path.stat().st_mtime > 100:
        assert time.monotonic() < deadline, "the heartbeat never came"
    held.release()
    assert not held.path.exists()


def test_release_leaves_the_claim_of_another(tmp_path: Path) -> None:
    """Taken for dead by a host that then took over: its claim is not ours to remove."""
    held = take(tmp_path)
    assert held is not None
    other = json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0, "token": "x"})
    held.path.write_text(other)
    held.release()
    assert held.path.read_text() == other


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def no_link(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_link)
    held = take(tmp_path)
    assert held is not None and take(tmp_path) is None
    assert not leftovers(tmp_path)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot make the output folder .*file: Not a directory"):
        take(tmp_path / "file")


def contend(folder: Path, start: Any, done: Any, results: Any) -> None:
    """A process that tries to claim at the same moment as the others, and keeps what it got until all have tried."""
    start.wait()
    try:
        results.put("won" if take(folder) else "lost")
    except BaseException as error:
        results.put(repr(error))
    done.wait()


def race(folder: Path, prepare: Callable[[Path], object], processes: int = 8) -> list[str]:
    prepare(folder)
    start, done, results = FORK.Event(), FORK.Event(), FORK.Queue()
    workers = [FORK.Process(target=contend, args=(folder, start, done, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    start.set()
    outcomes = sorted(results.get(timeout=30) for _ in workers)
    done.set()
    for worker in workers:
        worker.join(30)
    return outcomes


@pytest.mark.parametrize("round_number", range(5))
def test_a_race_for_a_free_run_has_one_winner(tmp_path: Path, round_number: int) -> None:
    assert race(tmp_path, lambda folder: None) == ["lost"] * 7 + ["won"]
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("round_number", range(5))
def test_a_race_for_a_dead_claim_has_a_winner_and_no_error(tmp_path: Path, round_number: int) -> None:
    """Two can win in theory (a living claim is moved for an instant while it is looked at again); they would
    write equal bytes, and the module says so. Never more, never none, never an exception."""
    outcomes = race(tmp_path, lambda folder: write(folder, pid=2**22 + 5, started=0.0))
    assert set(outcomes) == {"lost", "won"}
    assert outcomes.count("won") <= 2
    assert not leftovers(tmp_path)
