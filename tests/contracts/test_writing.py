"""The contracts of methods where summaries are written, on a tiny T5 (BitFit, which wants biases, on a tiny BART).

Numbers are those of ``test_methods.py``. What a method does to a step is looked at in steps without evaluation; whole
runs, with what they write, are in ``tests/training/test_summarize.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.methods import METHODS, make, method_class, parse_stack
from ftbench.methods.freelb import FreeLB
from ftbench.methods.noise import NoisedPass
from ftbench.methods.smart import Smart
from ftbench.runs.stages import check_fit
from ftbench.training.engine import micro_step, optimizer_step
from ftbench.training.summaries import smoothed_loss
from tests.conftest import save_tiny
from tests.outcomes import neutral_arm

NOT_HERE = tuple(name for name in METHODS if method_class(name).no_writing)
FITTED = {"freeze": "freeze:layers=1", "reinit": "reinit:layers=1"}
ARMS = (
    *(FITTED.get(name, name) for name in METHODS if name not in (*NOT_HERE, "std++")),
    "r3f:variant=released", "r3f:where=both,eps=0.1", "r3f:where=decoder,dropout=shared,eps=0.1",
    "capcort-i:token=all", "rdrop:variant=bert",
)  # fmt: skip
#: nothing to compare in contract 5: see ``test_methods.py``
REDRAWN = ("hype", "neftune", "mixout", "vat")
STEPS = 3


@pytest.fixture(scope="module")
def data(tiny_summaries: Callable[..., Any]) -> Any:
    return tiny_summaries(24, 8)


@pytest.fixture(scope="module")
def prepare(
    data: Any, tiny_family: Callable[[str], Path], training_of: Callable[..., Any], tmp_path_factory: Any
) -> Callable[..., Any]:
    models = tmp_path_factory.mktemp("models")
    still = {
        "t5": save_tiny(models / "t5-still", "t5", dropout_rate=0.0),
        "bart": save_tiny(models / "bart-still", "bart", dropout=0.0, attention_dropout=0.0, activation_dropout=0.0),
    }

    def prepared(arm: str, *, dropout: bool = True, **fields: Any) -> Any:
        family = "bart" if arm == "bitfit" else "t5"
        folder = tiny_family(family) if dropout else still[family]
        return training_of(data, folder, tmp_path_factory.mktemp("run"), arm, **{"label_smoothing": 0.1, **fields})

    return prepared


def trained(run: Any) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """What a few steps log, and the weights after them."""
    run.backbone.model.train()
    logged = []
    for step in range(STEPS):
        logged.append({name: float(value) for name, value in optimizer_step(run, step).items()})
        run.state.step += 1
    return logged, {name: p.detach().clone() for name, p in run.backbone.model.named_parameters()}


@pytest.fixture(scope="module")
def plain(prepare: Callable[..., Any]) -> Any:
    return trained(prepare("std", micro_batch=5))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NOT_HERE])
def test_1_neutral_is_plain(name: str, prepare: Callable[..., Any], plain: Any) -> None:
    if arm := neutral_arm(name):
        logged, weights = trained(prepare(arm, micro_batch=5))
        for ours, theirs in zip(logged, plain[0], strict=True):
            assert {key: ours[key] for key in theirs} == (
                theirs if name != "freelb" else pytest.approx(theirs, rel=1e-4)
            )
        assert weights.keys() == plain[1].keys()
        if name == "freelb":  # the table that encoder, decoder and head share has its three gradients in another order
            torch.testing.assert_close(weights, plain[1], rtol=1e-5, atol=1e-5)
        else:
            assert all(torch.equal(weights[key], plain[1][key]) for key in weights)


@pytest.mark.parametrize("arm", ARMS[1:])
def test_2_and_4_it_acts_the_same_twice_and_reaches_all(arm: str, prepare: Callable[..., Any], plain: Any) -> None:
    first, again = (trained(prepare(arm, micro_batch=5)) for _ in range(2))
    assert first[0] == again[0] and all(torch.equal(first[1][key], again[1][key]) for key in first[1])
    assert all(np.isfinite(list(row.values())).all() for row in first[0])
    if arm not in ("ema", "wise-ft", "early-stop"):  # these act on what becomes of the weights
        assert any(key not in plain[1] or not torch.equal(first[1][key], plain[1][key]) for key in first[1])
    run = prepare(arm)
    run.backbone.model.train()
    micro_step(run, 0, 0, np.arange(8), 1.0)
    for name, parameter in run.backbone.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def step_of(run: Any, pieces: list[Any]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Logged sums and gradients of one step in ``pieces``, weighted as the engine weights them."""
    run.backbone.model.train()
    run.backbone.model.zero_grad()
    whole, logged = np.concatenate(pieces), {}
    for micro, part in enumerate(pieces):
        shares = run.size(part) / run.size(whole), len(part) / len(whole)
        for name, value in micro_step(run, 0, micro, part, *shares)[0].items():
            logged[name] = logged.get(name, 0.0) + value.item()
    return logged, {n: p.grad.clone() for n, p in run.backbone.model.named_parameters() if p.grad is not None}


def couples(arm: str) -> bool:
    """Whether it says that its term depends on which rows share a micro-batch."""
    return any(method.couples(writes=True) for method in make(parse_stack(arm)))


def test_what_couples_the_rows() -> None:
    """The released R3F counts the padding, whose amount differs; the other R-Drops sum."""
    assert [arm for arm in ARMS if couples(arm)] == ["cka", "r3f:variant=released", "rdrop:variant=bert"]


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in REDRAWN and not couples(arm)])
def test_5_a_batch_is_the_sum_of_its_micro_batches(
    arm: str, prepare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though summaries differ in length: a mean over target tokens is one over the whole batch."""
    table = torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1
    monkeypatch.setattr(NoisedPass, "add_noise", lambda _, e, batch: e + table[batch.ids, : e.shape[1]])
    for adversary in (Smart, FreeLB):
        monkeypatch.setattr(adversary, "draw", lambda _, e, batch: table[batch.ids, : e.shape[1]] * 1e-3)
    run = prepare(arm, dropout=False)
    whole, gradients = step_of(run, [np.arange(16)])
    cut, summed = step_of(run, np.split(np.arange(16), (5, 10)))
    assert whole == pytest.approx(cut, rel=1e-5, abs=1e-8)
    for name, gradient in gradients.items():
        torch.testing.assert_close(summed[name], gradient, rtol=1e-4, atol=2e-6)


def test_the_loss_is_that_of_transformers(prepare: Callable[..., Any], data: Any) -> None:
    """Without padding's logits, one number: the model's own loss on the padded batch."""
    run = prepare("std", dropout=False, label_smoothing=0.0)
    network, positions = run.backbone, np.arange(8)
    ours = micro_step(run, 0, 0, positions, 1.0)[0]["loss"].item()
    tokenizer, rows = network.tokenizer, data.splits["train"].take(positions)
    inputs = tokenizer(list(rows.texts[0]), padding=True, return_tensors="pt")
    labels = tokenizer([summaries[0] for summaries in rows.summaries], padding=True, return_tensors="pt").input_ids
    labels = labels.masked_fill(labels == tokenizer.pad_token_id, -100)
    theirs = network.model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, labels=labels).loss.item()
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("arm", ["r3f", "r3f:variant=released", "rdrop"])
def test_10_under_bf16_the_term_is_finite_and_noise_alive(arm: str, prepare: Callable[..., Any]) -> None:
    logged, _ = trained(prepare(arm, precision="bf16"))
    assert all(np.isfinite(list(row.values())).all() for row in logged)
    assert arm == "rdrop" or logged[0]["noise_alive"] > 0.9
    assert logged[0]["kl"] > 0


@pytest.mark.parametrize("arm", ["r3f", "r3f:variant=released,where=both", "rdrop"])
def test_joined_passes_are_separate_ones_without_dropout(arm: str, prepare: Callable[..., Any]) -> None:
    apart, gradients = step_of(prepare(arm, dropout=False), [np.arange(8)])
    joined, together = step_of(prepare(arm, dropout=False, passes="joined"), [np.arange(8)])
    assert apart == pytest.approx(joined, rel=1e-4, abs=1e-7)
    for name, gradient in gradients.items():
        torch.testing.assert_close(together[name], gradient, rtol=1e-3, atol=1e-5)


def test_the_released_r3f_counts_padding_and_sentences(prepare: Callable[..., Any]) -> None:
    run = prepare("r3f:variant=released,eps=0.5", dropout=False)
    assert run.backbone.keep_padding
    paper = prepare("r3f:eps=0.5", dropout=False)
    assert not paper.backbone.keep_padding
    one, other = (micro_step(r, 0, 0, np.arange(8), 1.0)[0]["kl"].item() for r in (run, paper))
    tokens = run.size(np.arange(8))
    assert one > other * tokens / 8  # T times a mean over tokens, and what stands at the padding


@pytest.mark.parametrize("name", NOT_HERE)
def test_methods_that_do_not_apply_say_why(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} does not apply to summarization: .{{20}}"):
        check_fit(parse_stack(name), writes=True)
    check_fit(parse_stack(name), writes=False)


def test_where_needs_a_decoder() -> None:
    with pytest.raises(UsageError, match="r3f:where=both: there is no decoder, expected encoder"):
        check_fit(parse_stack("r3f:where=both"), writes=False)
    (method,) = make(parse_stack("r3f:where=both"))
    assert method.unfit(writes=True) == ""


def test_smoothing_spreads_as_it_is_told(prepare: Callable[..., Any]) -> None:
    losses = {
        over: micro_step(prepare("std", dropout=False, smoothed_over=over), 0, 0, np.arange(8), 1.0)[0]["loss"].item()
        for over in ("all", "others")
    }
    assert losses["all"] != losses["others"]
    logits, labels = torch.randn(5, 9), torch.randint(9, (5,))
    assert smoothed_loss(logits, labels, 0.0, "all") == smoothed_loss(logits, labels, 0.0, "others")
