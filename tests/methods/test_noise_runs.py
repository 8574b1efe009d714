"""Noise and adversaries in whole runs on a tiny BERT: neutral points, resuming, bf16, micro-batches, saved models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.methods import parse_stack
from ftbench.methods.freelb import FreeLB
from ftbench.methods.smart import Smart
from ftbench.methods.vat import VAT
from tests.outcomes import assert_resumable, gradients_of, same, weights

NAMES = ("rdrop", "smart", "freelb", "vat", "hype", "noisytune", "neftune")
#: what has state, hooks or a backward pass of its own; the contracts know every method at its defaults
RESUMED = ("smart:proximal=1,beta=0.5", "freelb+hype:eps=0.1", "noisytune+vat+neftune", "rdrop:variant=readme")
BF16 = (*NAMES, "smart:variant=released,proximal=1", "neftune:variant=released", "freelb:norm=linf", "freelb+hype")


@pytest.fixture(scope="module")
def data(tiny_data: Callable[..., Any]) -> Any:
    return tiny_data(32, 16, 2)


@pytest.mark.parametrize("arm", RESUMED)
def test_resumed_is_uninterrupted_and_not_plain(
    arm: str, data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], run_of: Any, tmp_path: Path
) -> None:
    whole, plain = run_of(arm), run_of("std")
    assert_resumable(finetune_tiny, data, tiny_model, tmp_path, whole, 2)
    assert not same(weights(whole), weights(plain)) and weights(whole).keys() == weights(plain).keys()
    assert not any(m._forward_pre_hooks for m in whole.backbone.model.modules())


@pytest.mark.parametrize("regression", [False, True])
def test_under_bf16_everything_is_finite(
    regression: bool, tiny_data: Callable[..., Any], tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    data = tiny_data(16, 8, 2, regression=regression)
    plain = gradients_of(training_of(data, tiny_model, tmp_path, "std", precision="bf16"), [np.arange(8)])
    for arm in BF16:
        run = training_of(data, tiny_model, tmp_path, arm, precision="bf16")
        logged, gradients = gradients_of(run, [np.arange(8)])
        assert np.isfinite(list(logged.values())).all(), arm
        assert all(gradient.isfinite().all() and gradient.dtype == torch.float32 for gradient in gradients.values())
        assert any(not torch.equal(gradient, plain[1][name]) for name, gradient in gradients.items()), arm
        if "kl" in logged:
            assert logged["kl"] > 0


@pytest.mark.parametrize(
    "arm",
    [
        "rdrop",
        "smart:eps=0.2,steps=2,step_size=10",
        "smart:variant=released,step_size=10",
        "smart:proximal=1",
        "vat",
        "freelb",
        "freelb:norm=linf",
    ],
)
def test_a_batch_is_the_sum_of_its_micro_batches(
    arm: str,
    data: Any,
    tiny_model_without_dropout: Path,
    training_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # noise by row and position, because a micro-batch draws its own and is padded to its own length
    table = torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1

    def draw(_: Any, embeddings: Tensor, batch: Any) -> Tensor:
        return table[batch.ids, : embeddings.shape[1]] * batch.inputs["attention_mask"].unsqueeze(-1)

    for cls in (Smart, VAT, FreeLB):
        monkeypatch.setattr(cls, "draw", draw)
    run = training_of(data, tiny_model_without_dropout, tmp_path, arm)
    whole, gradients = gradients_of(run, [np.arange(16)])
    cut_up, summed = gradients_of(run, np.split(np.arange(16), [5, 12]))
    assert whole == pytest.approx(cut_up, rel=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(summed[name], gradient, rtol=2e-3, atol=2e-6)


def test_freelb_gives_the_table_the_gradient_of_every_pass(
    data: Any, tiny_model: Path, training_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With no ascent and no start, K equal passes (equal masks too) are one plain pass, whatever K."""
    plain = gradients_of(training_of(data, tiny_model, tmp_path, "std"), [np.arange(8)])
    run = training_of(data, tiny_model, tmp_path, "freelb:steps=3,init=0,step_size=0")
    logged, gradients = gradients_of(run, [np.arange(8)])
    assert logged == pytest.approx(plain[0]) and run.meter.cost.forward_passes == 3
    for name, gradient in plain[1].items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-7)
    other = training_of(data, tiny_model, tmp_path, "freelb:steps=3,init=0,step_size=0,dropout=independent")
    assert gradients_of(other, [np.arange(8)])[0] != pytest.approx(plain[0])


def test_passes_are_counted(data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path) -> None:
    for arm, passes in {"smart": 3, "smart:steps=3": 5, "smart:proximal=1": 4, "vat": 3, "rdrop": 2, "hype": 1}.items():
        run = training_of(data, tiny_model, tmp_path, arm)
        gradients_of(run, [np.arange(8)])
        assert run.meter.cost.forward_passes == passes, arm
        assert all(module.training for module in run.backbone.model.modules())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_proximal_term_starts_at_the_starting_weights(
    precision: str, data: Any, tiny_model_without_dropout: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    """Nothing at first; then the divergence from the first prediction; autocast keeps no copy of the other weights."""
    run = training_of(data, tiny_model_without_dropout, tmp_path, "smart:weight=0,proximal=2", precision=precision)
    assert gradients_of(run, [np.arange(8)])[0]["smart"] == pytest.approx(0, abs=1e-9)
    (method,) = run.methods
    past = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.no_grad():
        for parameter in run.backbone.model.parameters():
            parameter.mul_(1.2)
    assert gradients_of(run, [np.arange(8)])[0]["smart"] > 1e-4
    assert all(torch.equal(value, past[name]) for name, value in method.state_dict().items())


def test_rdrop_joins_its_passes(
    data: Any, tiny_model_without_dropout: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    found = [
        gradients_of(training_of(data, tiny_model_without_dropout, tmp_path, "rdrop", passes=passes), [np.arange(8)])
        for passes in ("separate", "joined")
    ]
    (separate, ours), (joined, theirs) = found
    assert joined == pytest.approx(separate, rel=1e-4)
    for name, gradient in ours.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-3, atol=1e-6)
    for arm in ("smart", "vat", "freelb"):
        with pytest.raises(UsageError, match="needs its passes apart"):
            training_of(data, tiny_model_without_dropout, tmp_path, arm, passes="joined")


def test_freelb_takes_no_terms() -> None:
    with pytest.raises(UsageError, match="freelb owns the backward pass"):
        parse_stack("freelb+r3f")
