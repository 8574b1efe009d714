"""What a study was done under is written down, and said where it differs: determinism, versions, memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbench.errors import Interrupted
from ftbench.reporting.tables import runs_table
from ftbench.runs import environment
from ftbench.runs.environment import done_under_others
from ftbench.runs.store import read_all
from ftbench.training import checkpoint

#: a user's own method, with an operation that torch does not promise to compute the same way twice
PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar

import torch

from ftbench.methods.method import Method


@dataclass
class Scatter(Method):
    name: ClassVar[str] = "scatter"
    family: ClassVar[str] = "tests"
    summary: ClassVar[str] = "writes twice to one place"

    def after_step(self, backbone, step):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
"""


def notes_of(root: Path) -> str:
    """What stands under the table of a store."""
    return "\n".join(runs_table(read_all([root]).records).notes)


def test_deterministic_refuses_what_is_not_and_is_recorded(
    study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_of_conditions.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    arm = "plugin_of_conditions:Scatter"
    try:
        strict = study("std", arm, deterministic=True, root=tmp_path / "strict").records
        assert torch.are_deterministic_algorithms_enabled()
        loose = study("std", arm, root=tmp_path / "loose").records
        assert not torch.are_deterministic_algorithms_enabled(), "the next study is as it is asked for"
    finally:
        torch.use_deterministic_algorithms(False)
    assert [record.result.status for record in loose] == ["ok", "ok"]
    assert [record.result.status for record in strict] == ["ok", "failed"]
    assert "put_ does not have a deterministic implementation" in strict[1].result.error
    one, other = ((records[0].folder / "result.json").read_bytes() for records in (strict, loose))
    assert one == other, "what is deterministic anyway is the same run"
    for record, asked in zip([*strict, *loose], [True, True, False, False], strict=True):
        assert json.loads((record.folder / "environment.json").read_text())["deterministic"] is asked


def test_runs_under_several_versions_are_told_and_noted(
    study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = environment.versions()
    older = {**here, "torch": "1.0", "transformers": "2.0"}
    with monkeypatch.context() as patch:
        patch.setattr(environment, "versions", lambda: older)
        before = study("std", seeds=[0, 1])
        assert done_under_others(before.records) == ""
        assert "several versions" not in notes_of(tmp_path / "runs")
    after = study("std", seeds=[0, 1, 2])
    assert len(after.heard.skipped) == 2, "they are kept"
    assert done_under_others(after.records) == "2 runs under torch 1.0, transformers 2.0"
    said = notes_of(tmp_path / "runs")
    assert f"Runs were done under several versions: torch 1.0 (2), {here['torch']} (1); transformers 2.0 (2)" in said


def test_a_run_that_goes_on_under_other_versions_says_so(
    study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = study("std", root=tmp_path / "whole").records[0]
    assert "software" not in whole.result.facts
    asked = iter([False] * 3 + [True] * 9)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "software", lambda: "torch 1.0, transformers 2.0")
        with pytest.raises(Interrupted):
            study("std", checkpoint_every=1, should_stop=lambda: next(asked))
    with caplog.at_level(logging.WARNING):
        (record,) = study("std").records
    assert "began under torch 1.0, transformers 2.0" in caplog.text
    both = ["torch 1.0, transformers 2.0", checkpoint.software()]
    assert record.result.facts == {**whole.result.facts, "software": both}
    assert record.result.metrics == whole.result.metrics
    assert f"began with: 1 under {both[0]} then {both[1]}" in notes_of(tmp_path / "runs")


def test_smaller_micro_batches_are_noted(
    study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftbench.methods.r3f import R3F

    penalty = R3F.penalty

    def too_large(self: Any, batch: Any, out: Any, views: Any) -> Any:
        if len(batch.labels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return penalty(self, batch, out, views)

    monkeypatch.setattr(R3F, "penalty", too_large)
    study("std", "r3f", seeds=[0, 1])
    said = notes_of(tmp_path / "runs")
    assert "done with smaller micro-batches at the same batch, runs: r3f (micro-batches of 4): 2." in said
