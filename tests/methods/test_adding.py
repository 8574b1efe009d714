"""The method in docs/adding.md runs as the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbench import methods
from ftbench.cli.catalog import list_methods
from ftbench.errors import UsageError
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


def test_a_package_offers_methods_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the entry point group that the page names; one of the table's names stays the table's."""
    (group,) = re.findall(r"group `(ftbench\.\w+)`", PAGE.replace("\n", " "))
    (tmp_path / "offered_methods.py").write_text(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0])
    about = tmp_path / "offered-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: offered\nVersion: 1.0\n")
    entries = "two-passes = offered_methods:TwoPasses\nr3f = offered_methods:TwoPasses\n"
    (about / "entry_points.txt").write_text(f"[{group}]\n{entries}")
    monkeypatch.syspath_prepend(str(tmp_path))
    methods._entry_points.cache_clear()
    try:
        (two, r3f) = parse_stack("two-passes:weight=0.5+r3f")
        assert (two.label, r3f.revision) == ("two-passes:weight=0.5", 1)
        assert [type(method).__name__ for method in methods.make([two, r3f])] == ["TwoPasses", "R3F"]
        with pytest.raises(UsageError, match="Did you mean 'two-passes'"):
            parse_stack("two-pases")
        list_methods()
        assert "two-passes" in capsys.readouterr().out
    finally:
        methods._entry_points.cache_clear()


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
