"""EMA against torch's recorded averages, and as the result of a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftbench.errors import UsageError
from ftbench.lookup import build
from ftbench.methods.ema import EMA
from ftbench.methods.method import Step
from ftbench.training.engine import train

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "swa_ema.json").read_text())
CLOSE = {"rtol": ORACLE["tolerance"]["rtol"], "atol": ORACLE["tolerance"]["atol"]}
GIVEN, EXPECTED = ORACLE["inputs"]["weight_sequence"], ORACLE["outputs"]["torch_ema"]


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"])).reshape(recorded["shape"])


def moment(number: int, steps: int) -> Step:
    return Step(number, steps, 1e-3, torch.Generator())


@pytest.mark.parametrize("cut", [None, 0, 2])
def test_averages_equal_torch_s(cut: int | None) -> None:
    """Also where the run is interrupted after the step ``cut``. Buffers are left at the last step's."""
    model = nn.ParameterDict({name: nn.Parameter(torch.zeros_like(tensor(GIVEN[0][name]))) for name in "wb"})
    backbone: Any = SimpleNamespace(model=model)
    method = EMA(decay=ORACLE["inputs"]["ema_decay"])
    for number, weights in enumerate(GIVEN):
        with torch.no_grad():
            for name in "wb":
                model[name].copy_(tensor(weights[name]))
        method.after_step(backbone, moment(number, len(GIVEN)))
        for name in "wb":
            assert torch.equal(model[name], tensor(weights[name])), "training goes on from its own weights"
            torch.testing.assert_close(method.state_dict()[name], tensor(EXPECTED[number][name]), **CLOSE)
        if number == cut:
            saved = {name: value.clone() for name, value in method.state_dict().items()}
            method = EMA(decay=ORACLE["inputs"]["ema_decay"])
            method.load_state_dict(saved)
    method.finish(backbone)
    for name in "wb":
        torch.testing.assert_close(model[name].detach(), tensor(EXPECTED[-1][name]), **CLOSE)


@pytest.mark.parametrize(
    ("window", "steps", "decay"), [(0.1, 100, 0.9), (0.5, 10, 0.8), (0.1, 5, 0.0), (1.0, 8, 0.875)]
)
def test_the_window_is_a_share_of_the_run(window: float, steps: int, decay: float) -> None:
    model = nn.Linear(1, 1, bias=False)
    backbone: Any = SimpleNamespace(model=model)
    method = EMA(window=window)
    for number, value in enumerate((1.0, 2.0)):
        nn.init.constant_(model.weight, value)
        method.after_step(backbone, moment(number, steps))
    assert method.state_dict()["weight"].item() == pytest.approx(decay + 2 * (1 - decay))


def test_the_result_is_the_average_of_the_run_s_weights(
    tiny_data: Any, tiny_model: Path, training_of: Any, finetune_tiny: Any, tmp_path: Path
) -> None:
    plain = training_of(tiny_data(), tiny_model, tmp_path / "a", steps=8)
    path: list[list[Tensor]] = []
    train(plain, lambda run: path.append([p.detach().double() for p in run.backbone.model.parameters()]))
    expected = path[0]
    for weights in path[1:]:
        expected = [0.7 * average + 0.3 * w for average, w in zip(expected, weights, strict=True)]
    outcome = finetune_tiny(tiny_data(), tiny_model, tmp_path / "b", "ema:decay=0.7", steps=8)
    std = finetune_tiny(tiny_data(), tiny_model, tmp_path / "c", steps=8)
    for ours, theirs, last in zip(outcome.backbone.model.parameters(), expected, path[-1], strict=True):
        torch.testing.assert_close(ours.detach().double(), theirs, rtol=1e-5, atol=1e-6)
        assert not torch.equal(ours.detach().double(), last)
    assert outcome.result.metrics["raw"] == std.result.metrics["last"]
    assert outcome.history == std.history


def test_it_is_loaded_before_others_fold_their_weights(
    tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path
) -> None:
    """Whichever comes first in the stack: R4F's names for weights are gone once it has folded them."""
    plain = finetune_tiny(tiny_data(), tiny_model, tmp_path / "std", "std", steps=2)
    for stack in ("ema:window=1+r4f", "r4f+ema:window=1"):
        outcome = finetune_tiny(tiny_data(), tiny_model, tmp_path / stack, stack, steps=2)
        assert outcome.backbone.model.state_dict().keys() == plain.backbone.model.state_dict().keys()
        assert {"last", "raw", "best"} <= outcome.result.metrics.keys()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": "0"}, "ema:window=0: expected more than 0 and at most 1"),
        ({"window": "2"}, "ema:window=2"),
        ({"decay": "1"}, "ema:decay=1: expected 0 or more and below 1"),
        ({"decay": "-0.1"}, "ema:decay=-0.1"),
        ({"decay": "auto"}, "ema:decay=auto: expected a number"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build(EMA, fields, "ema")
    assert message in str(error.value)
