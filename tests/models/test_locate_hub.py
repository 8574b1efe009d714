"""A model of the hub, as the hub's own cache keeps it on disk, without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = "import sys; from ftbench.models.locate import locate; print(locate(*sys.argv[1:]).fingerprint)"


def cached(model: Path, cache: Path) -> None:
    """Puts a model folder into a cache as ``org/tiny`` at branch main."""
    repo = cache / "models--org--tiny"
    shutil.copytree(model, repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)


def ask(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``locate`` in a process of its own: the hub reads its settings when it is imported."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_cached_model_is_found_offline_and_is_the_same_as_its_folder(tiny_model: Path, tmp_path: Path) -> None:
    cached(tiny_model, tmp_path / "cache")
    here = ask(tmp_path, str(tiny_model)).stdout.strip()
    assert len(here) == 16
    for arguments in (("org/tiny",), ("org/tiny", "main"), ("org/tiny", COMMIT)):
        found = ask(tmp_path / "cache", *arguments)
        assert found.stdout.strip() == here, found.stderr


def test_another_revision_is_not_made_up(tiny_model: Path, tmp_path: Path) -> None:
    cached(tiny_model, tmp_path / "cache")
    found = ask(tmp_path / "cache", "org/tiny", "v2")
    assert found.returncode != 0
    assert "FtbenchError" in found.stderr and "org/tiny" in found.stderr
