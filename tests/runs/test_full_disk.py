"""A disk that is full: said clearly, nothing lost, the same command finishes once there is space.

A limit on the size of files (``RLIMIT_FSIZE``) is the portable full disk; where root may mount one, a
real one of a few hundred kilobytes is filled too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

RUN = ("--no-references", "--steps", "12", "--evaluations", "2")


def results(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(folder.rglob("result.json"))}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.is_file()]


#: what is being written when the space ends: flags, the largest file that still fits, what the message names
MOMENTS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "spec": ((), 300, "cannot write"),
    "history": ((), 1300, "history.jsonl"),
    "checkpoint": (("--checkpoint-every", "5"), 30_000, "checkpoint"),
    "model": (("--save-model", "all"), 30_000, "model"),
}


UNDISTURBED: dict[str, bytes] = {}


@pytest.fixture
def undisturbed(command: Callable[..., Any], tmp_path: Path) -> dict[str, bytes]:
    """The results of the same study with all the space it wants."""
    if not UNDISTURBED:
        assert command(*RUN, "--seeds", "0,1", "-o", tmp_path / "undisturbed").wait() == 0
        UNDISTURBED.update(results(tmp_path / "undisturbed"))
    assert len(UNDISTURBED) == 2
    return UNDISTURBED


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_full_disk(command: Callable[..., Any], tmp_path: Path, undisturbed: dict[str, bytes], moment: str) -> None:
    flags, limit, named = MOMENTS[moment]
    folder = tmp_path / "runs"
    assert command(*RUN, *flags, "--seeds", "0", "-o", folder).wait() == 0
    finished = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}

    full = command(*RUN, *flags, "--seeds", "0,1", "-o", folder, file_limit=limit)
    assert full.wait() == 1, full.err.read_text()
    said = full.err.read_text()
    assert "error: cannot " in said and named in said and "Traceback" not in said
    assert "larger than allowed" in said or "too large" in said
    assert full.out.read_text() == ""
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished} == finished
    assert len(results(folder)) == 1, "a run that could not be written is not finished"
    assert not hidden(folder) and not list(folder.rglob("claim.json"))

    again = command(*RUN, *flags, "--seeds", "0,1", "-o", folder)
    assert again.wait() == 0, again.err.read_text()
    assert results(folder) == undisturbed


@pytest.mark.parametrize("trouble", ["no folder", "no space"])
def test_a_cache_that_cannot_be_written_is_passed_over(
    command: Callable[..., Any], tmp_path: Path, undisturbed: dict[str, bytes], trouble: str
) -> None:
    """Tokenised rows go to a cache: where that cannot be written the run is the same run."""
    home = tmp_path / "home"
    if trouble == "no folder":
        home.write_text("a file where the cache should be")
    limit = None if trouble == "no folder" else 100
    done = command(*RUN, "--seeds", "0,1", "-o", tmp_path / "runs", home=home, file_limit=limit)
    if limit is None:
        assert done.wait() == 0, done.err.read_text()
        assert results(tmp_path / "runs") == undisturbed
    else:  # the rows pass, the first file of the run does not
        assert done.wait() == 1
        assert "error: cannot write" in done.err.read_text() and not results(tmp_path)
        assert not [path for path in home.rglob("*") if path.is_file()], "no rest in the cache"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KiB; skips where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not shutil.which("mount") or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("moment", ["checkpoint", "model", "everything"])
def test_a_really_full_disk(
    command: Callable[..., Any], undisturbed: dict[str, bytes], small_disk: Path, moment: str
) -> None:
    flags = MOMENTS[moment][0] if moment in MOMENTS else ()
    folder, ballast = small_disk / "runs", small_disk / "ballast"
    assert command(*RUN, "--seeds", "0", "-o", folder).wait() == 0
    first = results(folder)
    room = {"checkpoint": 60, "model": 60, "everything": 0}[moment] * 1024
    with ballast.open("wb") as stream:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        stream.write(b"\0" * max(0, free - room))
    full = command(*RUN, *flags, "--seeds", "0,1", "-o", folder)
    assert full.wait() == 1
    said = full.err.read_text()
    assert "Traceback" not in said
    assert "the disk is full" in said or "No space left" in said
    assert results(folder) == first and not hidden(folder)
    ballast.unlink()
    assert command(*RUN, *flags, "--seeds", "0,1", "-o", folder).wait() == 0
    assert results(folder) == undisturbed
