"""Early stopping: when it stops, what it keeps, and that both survive an interruption."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ftbench.errors import Interrupted, UsageError
from ftbench.lookup import build
from ftbench.methods.early_stop import EarlyStop, _say
from ftbench.training.watch import Control, Watch


def evaluate(method: EarlyStop, scores: list[float], first: int = 0) -> tuple[list[bool], float]:
    """Weights are the number of the evaluation. Returns what it said, and the weights at the end."""
    model = nn.Linear(1, 1)
    backbone: Any = SimpleNamespace(model=model)
    said = []
    for number, score in enumerate(scores, start=first):
        nn.init.constant_(model.weight, number)
        said.append(method.evaluated(backbone, number, score))
    method.finish(backbone)
    return said, model.weight.item()


@pytest.mark.parametrize(
    ("fields", "scores", "stops", "kept"),
    [
        ({"patience": 2}, [0.5, 0.6, 0.6, 0.6], [False, False, False, True], 1),
        ({"patience": 1}, [0.5, 0.4], [False, True], 0),
        ({"patience": 2}, [0.5, 0.4, 0.6, 0.5, 0.4], [False, False, False, False, True], 2),
        ({"patience": 2, "min_delta": 0.2}, [0.5, 0.6, 0.65], [False, False, True], 0),
        ({"patience": 2}, [-3.0, -2.0, float("nan"), float("nan")], [False, False, False, True], 1),
        ({"patience": 2, "keep": "last"}, [0.5, 0.4, 0.3], [False, False, True], 2),
        ({"patience": 9}, [float("nan")], [False], 0),
    ],
)
def test_when_it_stops_and_what_it_keeps(
    fields: dict[str, Any], scores: list[float], stops: list[bool], kept: int
) -> None:
    assert evaluate(EarlyStop(**fields), scores) == (stops, kept)


def test_its_state_survives() -> None:
    first = EarlyStop(patience=2)
    evaluate(first, [0.1, 0.7, 0.3])
    state = {name: value.clone() for name, value in first.state_dict().items()}
    resumed = EarlyStop(patience=2)
    resumed.load_state_dict(state)
    assert evaluate(resumed, [0.7], first=3) == ([True], 1)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy by step: it is best after step 6 of 24."""
    accuracy = {3: 0.5, 6: 0.9, 9: 0.6, 12: 0.6, 15: 0.6, 18: 0.6, 21: 0.6, 24: 0.6}
    plain = Watch.score

    def score(self: Watch, run: Any) -> Any:
        scores = plain(self, run)
        scores["validation"]["accuracy"] = accuracy[run.state.step]
        return scores

    monkeypatch.setattr(Watch, "score", score)


def test_a_run_stops_and_ends_with_the_best_weights(
    scripted: None, tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path
) -> None:
    data = tiny_data(24, 12, 2)  # 3 steps in an epoch
    outcome = finetune_tiny(data, tiny_model, tmp_path / "a", "early-stop:patience=2", steps=24)
    assert [r["step"] for r in outcome.history if "evaluation" in r] == [3, 6, 9, 12]
    assert outcome.cost.steps == 12 and outcome.result.facts["best_step"] == 6
    best = finetune_tiny(data, tiny_model, tmp_path / "b", "early-stop:patience=1", steps=24)
    assert best.cost.steps == 9
    for ours, theirs in zip(outcome.backbone.model.parameters(), best.backbone.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), "both keep step 6"
    last = finetune_tiny(data, tiny_model, tmp_path / "c", "early-stop:patience=2,keep=last", steps=24)
    pairs = zip(outcome.backbone.model.parameters(), last.backbone.model.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("after", [5, 7, 10])
def test_interrupted_and_resumed(
    after: int, scripted: None, tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path
) -> None:
    data, arm = tiny_data(24, 12, 2), "early-stop:patience=2"
    whole = finetune_tiny(data, tiny_model, tmp_path / "whole", arm, steps=24)
    turns = iter(range(1, 100))
    with pytest.raises(Interrupted):
        finetune_tiny(
            data, tiny_model, tmp_path / "cut", arm, Control(should_stop=lambda: next(turns) >= after), steps=24
        )
    resumed = finetune_tiny(data, tiny_model, tmp_path / "cut", arm, steps=24)
    assert resumed.history == whole.history and resumed.result == whole.result and resumed.cost.steps == 12
    for ours, theirs in zip(resumed.backbone.model.parameters(), whole.backbone.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patience": "0"}, "early-stop:patience=0: expected 1 or more"),
        ({"patience": "1.5"}, "early-stop:patience=1.5: expected a whole number"),
        ({"min_delta": "-1"}, "early-stop:min_delta=-1: expected 0 or more"),
        ({"keep": "all"}, "early-stop:keep=all: expected best or last"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build(EarlyStop, fields, "early-stop")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arm", "fields", "warned"),
    [
        ("early-stop", {"steps": 8}, True),  # 4 epochs, after each an evaluation: the fourth in vain is the last step
        ("early-stop", {"steps": 10}, False),
        ("early-stop", {"steps": 20, "evaluations": 4}, True),
        ("early-stop:patience=1", {"steps": 6}, False),
        ("std", {"steps": 2, "checkpoint": "best"}, False),
    ],
)
def test_a_run_that_it_cannot_stop_is_told_once(
    arm: str, fields: dict[str, Any], warned: bool, tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    _say.cache_clear()
    for _ in range(2):
        training_of(tiny_data(16, 8), tiny_model, tmp_path, arm, **fields)
    said = [record.getMessage() for record in caplog.records if "cannot stop" in record.getMessage()]
    assert len(said) == warned
    if warned:
        assert said == [
            "early-stop:patience=3 cannot stop a run of 4 evaluations, at the ends of epochs: it takes 5 or more"
        ]
