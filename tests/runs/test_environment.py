"""What a run writes down of its machine holds no secret."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbench.runs.environment import command

TOKEN = "hf_" + "abcdEFGH1234" * 2


def test_the_command_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "finetune",
        "--task",
        "hub:me/data",
        "--model",
        f"https://me:{TOKEN}@host/x",
        TOKEN,
        "sk-half_done",
        "--lr",
    ]
    monkeypatch.setattr(sys, "argv", ["ftbench", *words])
    assert command() == [
        "ftbench", "finetune", "--task", "hub:me/data", "--model", "https://***@host/x", "***", "***", "--lr",
    ]  # fmt: skip


def test_no_file_of_a_run_has_a_secret(
    study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, TOKEN)
    monkeypatch.setattr(sys, "argv", ["ftbench", "finetune", f"--model={TOKEN}"])
    study("std")
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert files and not [path.name for path in files if TOKEN.encode() in path.read_bytes()]
    (environment,) = (tmp_path / "runs").rglob("environment.json")
    assert json.loads(environment.read_text())["processes"] == 1
