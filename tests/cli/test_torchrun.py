"""``torchrun -m ftbench finetune``: the same files as one process writes, and clear words for what cannot be shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbench.cli.app import main

RECIPE = [
    "--batch-size",
    "8",
    "--lr",
    "1e-3",
    "--max-length",
    "32",
    "--steps",
    "4",
    "--threads",
    "1",
    "--device",
    "cpu",
]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(
    tiny_folder: Callable[..., Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["finetune", "-t", str(tiny_folder()), "-m", str(tiny_model), "--method", "freelb", "--seeds", "0", *RECIPE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ftbench"]
    done = subprocess.run(
        [*launcher, *asked, "-o", str(tmp_path / "two"), "--json"],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 3, "only the first process prints"
    monkeypatch.setattr(sys, "argv", ["ftbench", *asked, "--micro-batch", "4", "--quiet", "-o", str(tmp_path / "one")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0

    def results(folder: Path) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in folder.rglob("result.json")}

    assert results(tmp_path / "two") == results(tmp_path / "one")
    costs = {path.parent.name[:4]: json.loads(path.read_text()) for path in (tmp_path / "two").rglob("cost.json")}
    assert costs["free"]["processes"] == 2 and costs["refe"]["processes"] == 1
    assert not list((tmp_path / "two").rglob("claim.json"))


@pytest.fixture
def as_one_of_two(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``as_one_of_two(rank, *arguments)``: the exit code of the command as a launcher would start it."""

    def run(rank: int, *arguments: object) -> Any:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setattr(sys, "argv", ["ftbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return run


def test_what_cannot_be_shared_is_said_before_anything_runs(
    as_one_of_two: Callable[..., Any],
    tiny_folder: Callable[..., Path],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["finetune", "-t", tiny_folder(), "-m", tiny_model, *RECIPE, "-o", tmp_path / "runs"]
    assert as_one_of_two(0, *asked, "--method", "r3f", "--method", "r4f") == 2
    assert "r4f: each of its passes changes what the next one computes" in capsys.readouterr().err
    assert as_one_of_two(0, *asked, "--jobs", "2") == 2
    assert "2 processes share every run: leave out --jobs" in capsys.readouterr().err
    assert as_one_of_two(0, "report", tmp_path) == 2
    assert "torchrun and accelerate launch are for ftbench finetune and summarize" in capsys.readouterr().err
    assert as_one_of_two(1, "report", tmp_path) == 2
    assert capsys.readouterr().err == "", "one of them says it"
    assert not (tmp_path / "runs").exists()
