"""What every method of the families "representations" and "trajectory" keeps, in tiny runs.

The same contracts as ``tests/contracts/test_methods.py``, for methods whose result may be other weights than the last.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.errors import Interrupted
from ftbench.methods import METHODS, method_class
from ftbench.training.watch import Control

OWN = {
    "capcort-i": "capcort:CapcortI",
    "capcort-mlp": "capcort:CapcortMLP",
    "cka": "cka:CKA",
    "bss": "bss:BSS",
    "sam": "sam:SAM",
    "asam": "sam:ASAM",
    "ema": "ema:EMA",
    "wise-ft": "wise_ft:WiseFT",
    "lp-ft": "lp_ft:LPFT",
    "early-stop": "early_stop:EarlyStop",
}
ARMS = (
    *OWN,
    "capcort-i:cache=off,token=mean,calibrated=0.3",
    "capcort-mlp:token=all,layer=1",
    "cka:estimator=debiased,token=all",
    "bss:features=cls,weight=1",
    "asam:variant=released",
    "ema:window=0.5",
    "lp-ft:probe=fitted",
    "lp-ft+wise-ft",
    "sam+capcort-i",
    "r3f:eps=0.1+capcort-mlp+bss",
)
RECIPE = {"steps": 6, "micro_batch": 5}
TERMS = {"capcort-i": "drift", "capcort-mlp": "drift", "cka": "cka_loss", "bss": "bss"}


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, path in OWN.items():
            patch.setitem(METHODS, name, f"ftbench.methods.{path}")
        yield


@pytest.fixture(scope="module")
def run_of(
    tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def outcome(arm: str) -> Any:
        if arm not in made:
            folder = tmp_path_factory.mktemp("run")
            made[arm] = finetune_tiny(tiny_data(32, 16, 2), tiny_model, folder, arm, **RECIPE)
        return made[arm]

    return outcome


def assert_same_weights(a: Any, b: Any) -> None:
    ours, theirs = a.backbone.model.state_dict(), b.backbone.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", OWN)
def test_neutral_is_plain_fine_tuning(
    name: str, run_of: Callable[[str], Any], tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path
) -> None:
    plain, neutral = run_of("std"), method_class(name).neutral
    assert neutral
    call = ",".join(f"{key}={value}" for key, value in neutral.items())
    outcome = finetune_tiny(tiny_data(32, 16, 2), tiny_model, tmp_path, f"{name}:{call}", **RECIPE)
    assert {key: outcome.result.metrics[key] for key in plain.result.metrics} == plain.result.metrics
    for ours, theirs in zip(outcome.history, plain.history, strict=True):
        assert {key: ours[key] for key in theirs} == theirs
    assert_same_weights(outcome, plain)
    assert np.array_equal(outcome.predictions["probabilities"], plain.predictions["probabilities"])


@pytest.mark.parametrize("arm", ARMS)
def test_a_method_does_something_and_leaves_a_plain_model(arm: str, run_of: Callable[[str], Any]) -> None:
    outcome, plain = run_of(arm), run_of("std")
    ours, theirs = outcome.backbone.model.state_dict(), plain.backbone.model.state_dict()
    assert ours.keys() == theirs.keys()
    if arm not in ("early-stop", "ema"):  # never stopped; an average over the last tenth of 6 steps
        assert not all(torch.equal(ours[name], theirs[name]) for name in ours)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    for mine, other in zip(outcome.backbone.model.modules(), plain.backbone.model.modules(), strict=True):
        assert [len(getattr(mine, kind)) for kind in hooks] == [len(getattr(other, kind)) for kind in hooks]
    if "fitted" not in arm:
        assert outcome.history[0]["loss"] == plain.history[0]["loss"], "the first clean pass is the same"


@pytest.mark.parametrize("arm", TERMS)
def test_the_term_is_finite_and_not_negative(arm: str, run_of: Callable[[str], Any]) -> None:
    history = run_of(arm).history
    terms = [record[TERMS[arm]] for record in history if "loss" in record]
    assert len(terms) == 6 and all(0 <= term < 1e3 for term in terms) and max(terms) > 0
    ratios = [record[f"{TERMS[arm]}_gradient_ratio"] for record in history if f"{TERMS[arm]}_gradient_ratio" in record]
    assert len(ratios) == 5 and all(0 < ratio < 1e3 for ratio in ratios)


@pytest.mark.parametrize("arm", ARMS)
def test_interrupted_and_resumed_is_uninterrupted(
    arm: str, run_of: Callable[[str], Any], tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path
) -> None:
    whole, data = run_of(arm), tiny_data(32, 16, 2)
    turns = iter(range(1, 100))
    with pytest.raises(Interrupted):
        finetune_tiny(data, tiny_model, tmp_path, arm, Control(should_stop=lambda: next(turns) >= 3), **RECIPE)
    resumed = finetune_tiny(data, tiny_model, tmp_path, arm, **RECIPE)
    assert resumed.history == whole.history and resumed.result == whole.result
    assert_same_weights(resumed, whole)


@pytest.mark.parametrize("arm", ARMS)
def test_under_bf16_everything_is_finite(
    arm: str, tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path
) -> None:
    outcome = finetune_tiny(tiny_data(32, 16, 2), tiny_model, tmp_path, arm, precision="bf16", **RECIPE)
    numbers = [v for record in outcome.history for k, v in record.items() if k != "evaluation"]
    assert np.isfinite(numbers).all() and outcome.result.status == "ok"
    assert all(p.dtype == torch.float32 for p in outcome.backbone.model.parameters())


@pytest.mark.parametrize("arm", ["capcort-i", "cka", "bss"])
def test_joined_with_another_method_s_passes(
    arm: str, tiny_data: Any, tiny_model_without_dropout: Path, training_of: Any, tmp_path: Path
) -> None:
    from ftbench.training.engine import micro_step

    values = []
    for passes in ("separate", "joined"):
        run = training_of(tiny_data(), tiny_model_without_dropout, tmp_path, f"{arm}+r3f:eps=3", passes=passes)
        run.backbone.model.train()
        with torch.no_grad():
            run.backbone.model.bert.encoder.layer[0].output.dense.weight.mul_(1.5)
        values.append(micro_step(run, 0, 0, np.arange(8), 1.0)[0][TERMS[arm]].item())
    assert values[0] == pytest.approx(values[1], rel=1e-4) and values[0] > 1e-6
