"""A disk that is full: said clearly, nothing lost, the same command finishes once there is space.

A limit on the size of files (``RLIMIT_FSIZE``) is the portable full disk; where root may mount one, a
real one of a few hundred kilobytes is filled too. For a single file of a run the space ends just there: the
system says so when the file is synced or written. What ``ftbench predict`` writes is in ``tests/cli/test_predict.py``.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
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
    "plan": ((), 1300, ".studies"),
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
    assert "larger than allow" in said or "too large" in said  # the limit cuts this very text
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


def full_for(name: str, patch: pytest.MonkeyPatch) -> None:
    """From here on there is no space for files called ``name``; a command that is started after inherits it."""
    sync, write = os.fsync, Path.write_text

    def fsync(number: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{number}")).name.startswith(f".{name}."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(number)

    def write_text(path: Path, text: str, *arguments: Any, **named: Any) -> int:
        if path.name.startswith(f".{name}."):
            write(path, text[: len(text) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, text, *arguments, **named)

    patch.setattr(os, "fsync", fsync)
    patch.setattr(Path, "write_text", write_text)


ONE_RUN = (
    "claim.json", "spec.json", "cost.json", "history.jsonl", "environment.json", "predictions.parquet", "result.json",
)  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a file's name is looked up in /proc")
@pytest.mark.parametrize("name", ONE_RUN)
def test_no_space_for_one_file_of_a_run(
    command: Callable[..., Any], tmp_path: Path, undisturbed: dict[str, bytes], name: str
) -> None:
    folder = tmp_path / "runs"
    assert command(*RUN, "--seeds", "0", "-o", folder).wait() == 0
    first = results(folder)
    with pytest.MonkeyPatch.context() as patch:
        full_for(name, patch)
        full = command(*RUN, "--seeds", "0,1", "-o", folder)
    assert full.wait() == 1
    said = full.err.read_text()
    assert "the disk is full: free some space" in said and "Traceback" not in said and full.out.read_text() == ""
    assert "cannot write" in said and (name in said or name == "claim.json")
    assert results(folder) == first, "the one before is kept, the one without a result is not finished"
    assert not hidden(folder) and not list(folder.rglob("claim.json"))
    assert command(*RUN, "--seeds", "0,1", "-o", folder).wait() == 0
    assert results(folder) == undisturbed


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a file's name is looked up in /proc")
def test_no_space_for_the_reason_of_a_crash(
    command: Callable[..., Any], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    from ftbench.methods.r3f import R3F

    def crash(*arguments: object) -> None:
        raise RuntimeError("no such kernel")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(R3F, "penalty", crash)
        full_for("error.txt", patch)
        full = command(*RUN, "--seeds", "0", "--method", "r3f", "-o", tmp_path / "runs")
    assert full.wait() == 1
    said = full.err.read_text()
    assert "error.txt: the disk is full" in said and "Traceback" not in said
    assert results(tmp_path / "runs").items() <= undisturbed.items(), "std was done before"
    assert len(results(tmp_path / "runs")) == 1 and not hidden(tmp_path / "runs")


def test_a_cache_that_fills_up_on_the_way(
    command: Callable[..., Any], tmp_path: Path, tiny_folder: Callable[..., Path]
) -> None:
    """The tokens of 1,500 rows do not fit any more, all files of the runs do."""
    asked = (*RUN, "--task", tiny_folder(1500, 24), "--seeds", "0")
    assert command(*asked, "-o", tmp_path / "whole", home=tmp_path / "whole-home").wait() == 0
    sizes = sorted(path.stat().st_size for path in (tmp_path / "whole-home").rglob("tokens-*"))
    assert sizes[-1] > 30_000 > max(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())

    home = tmp_path / "home"
    done = command(*asked, "-o", tmp_path / "runs", home=home, file_limit=30_000)
    assert done.wait() == 0, done.err.read_text()
    assert results(tmp_path / "runs") == results(tmp_path / "whole")
    assert sorted(path.stat().st_size for path in home.rglob("*") if path.is_file()) == sizes[:-1], "no rest of it"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("list", "methods"), ("list", "methods", "--json")])
def test_stdout_on_a_full_disk(arguments: tuple[str, ...]) -> None:
    """As in ``ftbench report --json > runs.json``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with open("/dev/full", "w") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "ftbench", *arguments],
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: ") and "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


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
