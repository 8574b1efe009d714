"""``ftbench ...`` in the test's own process: what it says, and how it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftbench.cli.app import main


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def both(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        """What ``--json`` printed; fails when the command did."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    def runs(self) -> list[dict[str, Any]]:
        """The runs that ``--json`` printed."""
        found: list[dict[str, Any]] = self.json()["runs"]
        return found


Ftbench = Callable[..., Said]


def call(*arguments: object) -> int:
    """``ftbench ...``: its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ftbench", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@pytest.fixture
def ftbench(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ftbench:
    """``ftbench("finetune", "--seeds", "a")`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")  # click wraps its messages

    def run(*arguments: object) -> Said:
        capfd.readouterr()
        code = call(*arguments)
        return Said(code, *capfd.readouterr())

    return run


def refused(said: Said, *named: str, code: int = 2) -> None:
    """One message on stderr that names the thing; nothing on stdout, no traceback."""
    assert said.code == code, said.both
    assert said.out == ""
    assert "Traceback" not in said.err
    missing = [text for text in named if text not in said.err]
    assert not missing, f"{missing} not in: {said.err}"
