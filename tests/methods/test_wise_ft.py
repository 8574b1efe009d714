"""WiSE-FT against the released code's recorded weights, and its candidates in a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftbench.errors import FtbenchError, UsageError
from ftbench.lookup import build
from ftbench.methods.wise_ft import WiseFT, between

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "wise_ft.json").read_text())
CLOSE = {"rtol": ORACLE["tolerance"]["rtol"], "atol": ORACLE["tolerance"]["atol"]}
GRID = [f"alpha={number / 10}" for number in range(1, 10)]


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"])).reshape(recorded["shape"])


@pytest.mark.parametrize("alpha", ORACLE["outputs"]["plain"])
def test_the_line_equals_the_released_code_s(alpha: str) -> None:
    start, end = ({k: tensor(v) for k, v in ORACLE["inputs"][f"theta_{i}"].items()} for i in (0, 1))
    named = {k: nn.Parameter(v) for k, v in end.items()}
    model: Any = SimpleNamespace(named_parameters=named.items)
    began = {named[k]: v for k, v in start.items()}
    found = between(began, SimpleNamespace(model=model), float(alpha))  # type: ignore[arg-type]
    for name, expected in ORACLE["outputs"]["plain"][alpha].items():
        torch.testing.assert_close(found[name], tensor(expected), **CLOSE)


@pytest.fixture
def outcomes(tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path) -> Any:
    def run(arm: str) -> Any:
        folder = tmp_path / arm.replace(":", "_")
        return finetune_tiny(tiny_data(48, 40, 4), tiny_model, folder, arm, steps=20, lr=5e-3)

    return run


def test_every_alpha_is_scored_from_one_run(
    outcomes: Any, tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    plain, ours = outcomes("std"), outcomes("wise-ft:alpha=0.3")
    metrics = ours.result.metrics
    assert [name for name in metrics if name.startswith("alpha=")] == GRID
    assert metrics["last"] == metrics["alpha=0.3"] and metrics["raw"] == plain.result.metrics["last"]
    assert metrics["alpha=0.1"] != metrics["alpha=0.9"]
    start = dict(training_of(tiny_data(48, 40, 4), tiny_model, tmp_path).backbone.model.named_parameters())
    end = dict(plain.backbone.model.named_parameters())
    for name, parameter in ours.backbone.model.named_parameters():
        head = name.startswith(("classifier.", "bert.pooler."))
        expected = end[name] if head else 0.7 * start[name].double() + 0.3 * end[name].double()
        torch.testing.assert_close(parameter.double(), expected.double(), rtol=1e-6, atol=1e-7)
    again = outcomes("wise-ft:alpha=0.9")
    assert again.result.metrics["last"] == metrics["alpha=0.9"], "whatever was scored before"


def test_the_ends_of_the_line(
    outcomes: Any, tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    pretrained, plain = outcomes("wise-ft:alpha=0"), outcomes("std")
    start = dict(training_of(tiny_data(48, 40, 4), tiny_model, tmp_path).backbone.model.named_parameters())
    for name, parameter in pretrained.backbone.model.named_parameters():
        head = name.startswith(("classifier.", "bert.pooler."))
        assert torch.equal(parameter, dict(plain.backbone.model.named_parameters())[name] if head else start[name])


@pytest.mark.parametrize("stack", ["wise-ft:alpha=0+mixout", "mixout+wise-ft:alpha=0"])
def test_what_mixout_mixes_is_on_the_line_too(
    stack: str, outcomes: Any, tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    start = dict(training_of(tiny_data(48, 40, 4), tiny_model, tmp_path).backbone.model.named_parameters())
    for name, parameter in outcomes(stack).backbone.model.named_parameters():
        if not name.startswith(("classifier.", "bert.pooler.")):
            assert torch.equal(parameter, start[name]), name


def test_weights_that_are_gone_are_said() -> None:
    gone = {nn.Parameter(torch.zeros(2)): torch.zeros(2)}
    model: Any = SimpleNamespace(named_parameters=lambda: [("weight", nn.Parameter(torch.zeros(2)))])
    with pytest.raises(FtbenchError, match="wise-ft: another method put new weights"):
        between(gone, SimpleNamespace(model=model), 0.5)  # type: ignore[arg-type]


def test_every_alpha_mixes_what_an_average_has_left(outcomes: Any) -> None:
    """``ema`` ends with its average: the line goes there, for the result and for what is scored beside it."""
    metrics = outcomes("ema:decay=0.9+wise-ft").result.metrics
    assert metrics["last"] == metrics["alpha=0.5"] and metrics["raw"] == outcomes("std").result.metrics["last"]


def test_one_copy_is_mixed_at_a_time(tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path) -> None:
    run = training_of(tiny_data(), tiny_model, tmp_path, "wise-ft")
    line = run.methods[0].candidates(run.backbone)
    assert list(line) == GRID and len(line) == 9
    name = "bert.embeddings.word_embeddings.weight"
    (key, first) = next(iter(line.items()))
    assert key == "alpha=0.1" and torch.allclose(first[name], run.backbone.model.state_dict()[name])
    with torch.no_grad():
        run.backbone.model.get_parameter(name).add_(1.0)
    torch.testing.assert_close(line["alpha=0.4"][name], first[name] + 0.4)
    assert not any(key.startswith(("classifier.", "bert.pooler.")) for key in first)


@pytest.mark.parametrize("alpha", ["-0.1", "1.1", "nan"])
def test_wrong_fields_are_refused(alpha: str) -> None:
    with pytest.raises(UsageError, match=f"wise-ft:alpha={alpha}: expected 0 to 1"):
        build(WiseFT, {"alpha": alpha}, "wise-ft")
