"""The method in docs/adding.md runs as the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbench.methods import METHODS, parse_stack

PAGE = (Path(__file__).parents[2] / "docs" / "adding.md").read_text()


def test_the_page_runs(
    tiny_data: Callable[..., Any], tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith("#")]) <= 25
    (tmp_path / "my_methods.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    (call,) = re.findall(r"--method (my_methods:\S+)", PAGE)
    data = tiny_data(24, 12, 2)
    own = finetune_tiny(data, tiny_model, tmp_path / "own", call, steps=4)
    plain = finetune_tiny(data, tiny_model, tmp_path / "std", "std", steps=4)
    neutral = finetune_tiny(data, tiny_model, tmp_path / "neutral", "my_methods:TwoPasses:weight=0", steps=4)
    assert own.history[0]["kl"] > 0 and own.result.metrics != {} and own.cost.forward_passes == 8
    assert neutral.result.metrics == plain.result.metrics
    assert own.result.spec.method == call


def test_an_edit_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page promises it."""
    import importlib
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    source = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    revisions = []
    for text in (source, source + "\n# edited\n"):
        (tmp_path / "edited_methods.py").write_text(text)
        sys.modules.pop("edited_methods", None)
        importlib.invalidate_caches()
        import linecache

        linecache.clearcache()
        revisions.append(parse_stack("edited_methods:TwoPasses")[0].revision)
    assert revisions[0] != revisions[1]
    assert parse_stack("r3f")[0].revision == 1 and "two-passes" not in METHODS
