"""Scoring: the rows' order, dropout off, and what the run keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.errors import OneRowTooMuch
from ftbench.metrics import METRICS
from ftbench.training import evaluate
from ftbench.training.batches import tokenize
from ftbench.training.evaluate import decide, predict, probabilities, score


@pytest.fixture
def run(
    tiny_data: Callable[..., Any], tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> tuple[Any, Any]:
    data = tiny_data(16, 21, 3)
    training = training_of(data, tiny_model, tmp_path)
    rows = data.splits["validation"]
    return training.backbone, (tokenize(rows, training.backbone.tokenizer, 32, key=""), rows)


def test_logits_are_in_the_rows_order_whatever_the_batches(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network, (tokens, rows) = run
    logits = predict(network, tokens)
    assert logits.shape == (21, 3) and logits.dtype == np.float32
    monkeypatch.setattr(evaluate, "EVAL_BATCH", 4)
    np.testing.assert_allclose(predict(network, tokens), logits, rtol=1e-4, atol=1e-5)
    network.model.eval()
    for position in (0, 7, 20):
        inputs = network.tokenizer(rows.texts[0][position], return_tensors="pt")
        with torch.no_grad():
            alone = network.model(**inputs).logits[0].numpy()
        np.testing.assert_allclose(logits[position], alone, rtol=1e-4, atol=1e-5)


def test_batches_are_halved_where_memory_ends(run: Any) -> None:
    network, (tokens, _) = run
    sizes: list[int] = []

    def compute(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return network.forward(inputs).logits.float()

    room = 21
    whole = evaluate.over_rows(network, tokens, compute)
    room = 6
    sizes.clear()
    np.testing.assert_allclose(evaluate.over_rows(network, tokens, compute), whole, rtol=1e-4, atol=1e-5)
    assert sizes == [21, 10, 5, 5, 11, 5, 6]
    room = 0
    with pytest.raises(OneRowTooMuch, match="at a single row, in an evaluation: CUDA out of memory"):
        evaluate.over_rows(network, tokens, compute)


def test_other_errors_of_an_evaluation_are_what_they_are(run: Any) -> None:
    network, (tokens, _) = run

    def compute(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        raise RuntimeError("loose")

    with pytest.raises(RuntimeError, match="loose"):
        evaluate.over_rows(network, tokens, compute)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_put_back(training: bool, run: Any) -> None:
    network, (tokens, _) = run
    network.model.train(training)
    first = predict(network, tokens)
    assert network.model.training is training
    assert np.array_equal(first, predict(network, tokens))


def test_predicting_draws_no_random_numbers_and_keeps_no_gradients(run: Any) -> None:
    network, (tokens, _) = run
    state = torch.get_rng_state()
    predict(network, tokens)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad and not p.is_inference() for p in network.model.parameters())


def test_left_padding_reads_the_last_token(
    tiny_data: Callable[..., Any],
    tiny_family: Callable[[str], Path],
    training_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """GPT-2's head reads one token: a row must score the same alone and next to a longer one.

    Its positions count from the left edge, padding included, so rows are equal in length here.
    """
    data = tiny_data(16, 12, 2)
    network = training_of(data, tiny_family("gpt2"), tmp_path).backbone
    assert network.tokenizer.padding_side == "left"
    rows = data.splits["validation"]
    tokens = tokenize(rows, network.tokenizer, 3, key="")
    logits = predict(network, tokens)
    monkeypatch.setattr(evaluate, "EVAL_BATCH", 1)
    np.testing.assert_allclose(predict(network, tokens), logits, rtol=1e-4, atol=1e-5)


def test_probabilities_and_decisions() -> None:
    logits = np.array([[1.0, 3.0, 2.0], [500.0, -500.0, 0.0]], dtype=np.float32)
    found = probabilities(logits)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(-1), 1)
    np.testing.assert_allclose(found[0], np.exp([1, 3, 2]) / np.exp([1, 3, 2]).sum())
    assert found[1] == pytest.approx([1.0, 0.0, 0.0])
    assert decide(logits, regression=False).tolist() == [1, 0]
    assert decide(logits[:, :1], regression=True).tolist() == [1.0, 500.0]


def test_scores_are_plain_floats_by_name() -> None:
    scores = score(np.array([0, 1, 1]), np.array([0, 1, 0]), ["accuracy", "macro_f1"])
    assert list(scores) == ["accuracy", "macro_f1"] and all(type(value) is float for value in scores.values())
    assert scores["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_the_outcome_holds_what_was_predicted(
    kind: str, tiny_data: Callable[..., Any], tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    data = tiny_data(24, 12, 3, regression=kind == "regression")
    outcome = finetune_tiny(data, tiny_model, tmp_path, steps=9, select_on=0.25)
    predictions, rows = outcome.predictions, data.splits["validation"]
    assert np.array_equal(predictions["example"], rows.index) and np.array_equal(predictions["label"], rows.labels)
    last = outcome.result.metrics["last"]
    for metric in data.task.metrics:
        assert last["validation"][metric] == METRICS[metric](predictions["prediction"], rows.labels)
    assert ("probabilities" in predictions) == (kind == "classes")
    assert last.keys() == {"validation", "selection"}
    evaluations = {r["step"]: r["evaluation"] for r in outcome.history if "evaluation" in r}
    assert evaluations[9] == last
    headline = data.task.metrics[0]
    best = max(evaluations, key=lambda step: (evaluations[step]["selection"][headline], -step))
    assert outcome.result.metrics["best"] == evaluations[best] and outcome.result.facts["best_step"] == best
    assert outcome.result.facts["selected_on"] == "selection"


def test_a_tiny_model_learns(
    tiny_data: Callable[..., Any], tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    outcome = finetune_tiny(tiny_data(), tiny_model, tmp_path, steps=24)
    assert outcome.result.score("accuracy") > 0.8 > outcome.result.facts["majority_score"]
    losses = [record["loss"] for record in outcome.history if "loss" in record]
    assert losses[-1] < 0.5 * losses[0]
