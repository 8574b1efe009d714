"""A run is claimed by an exclusive file, so that several processes can work on one folder.

``claim.json`` holds host, pid and the process's start time; its modification time is the heartbeat.
A claim is dead when its process is gone (same host, where the pids are the same ones: not in another container) or has
been silent for ten minutes (elsewhere); a dead claim is taken over. Should two processes ever win, they write equal
bytes.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path

import psutil

from ftbench.runs.files import writing_in

NAME = "claim.json"
BEAT_SECONDS = 10.0
DEAD_SECONDS = 600.0
#: how file systems say that they have no hard links
NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


class Claim:
    """Held until ``release``; a thread renews the heartbeat, whatever the run is busy with."""

    def __init__(self, path: Path, content: str) -> None:
        self.path = path
        self._content = content
        self._released = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Gives the run free; the claim of whoever took it over stays."""
        self._released.set()
        with contextlib.suppress(OSError):
            if self.path.read_text() == self._content:
                self.path.unlink()


def take(folder: Path) -> Claim | None:
    """Claims the run in ``folder``; None while a living process has it. Raises StoreError when it cannot write."""
    path = folder / NAME
    with writing_in(folder):
        for _ in range(3):
            try:
                return Claim(path, _create(path))
            except FileExistsError:
                if not _bury(path):
                    return None
    return None


def holder(folder: Path) -> str | None:
    """``"pid 123 on host"`` of the living claimant, or None."""
    path = folder / NAME
    if not path.exists() or _is_dead(path):
        return None
    try:
        claim = json.loads(path.read_text())
        return f"pid {claim['pid']} on {claim['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def _create(path: Path) -> str:
    """Writes this process's claim and returns its text.

    The whole content appears at once: written aside, then linked to its name, which fails if that exists.
    """
    me = {"host": socket.gethostname(), "pids": _pids(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    content = json.dumps({**me, "token": uuid.uuid4().hex})
    temporary = path.with_name(f".{NAME}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(content)
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno in NO_LINKS:
                with path.open("x") as stream:
                    stream.write(content)
            elif not _is(path, content):  # NFS can say that there was one when it has just made ours
                raise
    finally:
        temporary.unlink(missing_ok=True)
    return content


def _is(path: Path, content: str) -> bool:
    with contextlib.suppress(OSError):
        return path.read_bytes() == content.encode()
    return False


@functools.cache
def _pids() -> str:
    """Which processes a pid here can name: containers may share a machine's name, not its pids."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _bury(path: Path) -> bool:
    """Moves a dead claim out of the way. True when it is worth trying to claim again."""
    if not _is_dead(path):
        return not path.exists()
    grave = path.with_name(f".dead-{uuid.uuid4().hex[:8]}")
    try:
        os.rename(path, grave)
    except FileNotFoundError:
        return True
    if not _is_dead(grave):  # someone buried the dead one first and this is a living claim: put it back
        with contextlib.suppress(OSError):
            os.link(grave, path)
        grave.unlink(missing_ok=True)
        return False
    grave.unlink(missing_ok=True)
    return True


def _is_dead(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
        claim = json.loads(path.read_text())
        host, pid, started = claim["host"], int(claim["pid"]), float(claim["started"])
        here = host == socket.gethostname() and claim.get("pids", _pids()) == _pids()
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _age(path) > BEAT_SECONDS  # damaged, and nobody is writing it
    if not here:
        return age > DEAD_SECONDS
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - started) > 2.0
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
