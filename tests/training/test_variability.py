"""Layers measured on a tiny network: what is stored equals the functions on its states, and bad rows are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.analysis.variability import nu
from ftbench.errors import UsageError
from ftbench.models import backbone
from ftbench.models.locate import locate
from ftbench.training import variability as layers
from ftbench.training.batches import tokenize
from ftbench.training.features import extract
from ftbench.training.run import Outcome, Place
from ftbench.training.watch import Control
from ftbench.types import Data, RunSpec

Measure = Callable[..., Outcome]


@pytest.fixture
def measure(tiny_family: Callable[[str], Path], tmp_path: Path) -> Measure:
    """``measure(data, family="bert", **fields)``: a run of a tiny network, 20 permutations and 20 resamples."""
    layers._LAST.clear()

    def run(data: Data, family: str = "bert", **fields: Any) -> Outcome:
        source = locate(str(tiny_family(family)))
        usual = {"pooling": "ordinary", "permutations": 20, "resamples": 20, "max_length": 32}
        spec = RunSpec(
            kind="variability",
            task="tiny",
            data=data.fingerprint,
            weights=source.fingerprint,
            **{**usual, **fields},
        )
        return layers.measure(spec, data, source, Place(tmp_path, torch.device("cpu")), Control())

    return run


def states(data: Data, folder: Path, pooling: Any = "ordinary") -> np.ndarray[Any, Any]:
    """(layers, rows, width)"""
    source = locate(str(folder))
    tokenizer = backbone.load_tokenizer(source)
    network = backbone.load(source, tokenizer, ("a", "b"), regression=False, seed=0)
    rows = data.splits["train"]
    tokens = tokenize(rows, tokenizer, 32, key="")
    return extract(network, tokens, rows.labels, (pooling,))[pooling].hidden


def column(outcome: Outcome, name: str) -> list[float]:
    metrics, count = outcome.result.metrics, outcome.result.facts["layers"]
    return [metrics[f"layer {n}"]["train"][name] for n in range(1, count + 1)]


@pytest.mark.parametrize(("family", "pooling"), [("bert", "ordinary"), ("bert", "mean"), ("gpt2", "last")])
def test_it_stores_nu_of_the_block_outputs(
    family: str, pooling: str, measure: Measure, tiny_data: Callable[..., Data], tiny_family: Callable[[str], Path]
) -> None:
    data = tiny_data(classes=3)
    outcome = measure(data, family, pooling=pooling)
    hidden, labels = states(data, tiny_family(family), pooling), data.splits["train"].labels
    assert column(outcome, "nu") == pytest.approx([nu(layer, labels) for layer in hidden], rel=1e-12)
    facts = outcome.result.facts
    assert facts["classes"] == dict(zip(data.labels, [16, 16, 16], strict=True)) and facts["dropped"] == []
    assert facts["layers"] == 2 and facts["width"] == 32 and facts["rows"] == {"train": 48}
    assert facts["whole"] and not measure(data, family, pooling=pooling, limit=40).result.facts["whole"]
    assert facts["layer"] in (None, facts["best"]) and facts["reason"]
    assert sum(column(outcome, "chosen_share")) == pytest.approx(1)
    assert outcome.cost.process_seconds > 0 and outcome.cost.evaluate_seconds > 0


def test_a_run_can_be_repeated_and_its_seed_draws_the_floor(measure: Measure, tiny_data: Callable[..., Data]) -> None:
    data = tiny_data()
    one, again, other = measure(data), measure(data), measure(data, seed=1)
    assert one.result.metrics == again.result.metrics or str(one.result.metrics) == str(again.result.metrics)
    assert column(one, "nu") == column(other, "nu") and column(one, "floor") != column(other, "floor")


def test_other_labels_of_the_same_rows_take_no_second_pass(
    measure: Measure, tiny_data: Callable[..., Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_data()
    first = measure(data)
    monkeypatch.setattr(layers, "extract", None)
    noisy = measure(data, label_noise=0.3)
    assert column(noisy, "effective_rank") == column(first, "effective_rank")
    assert column(noisy, "nu") != column(first, "nu")
    assert noisy.cost.process_seconds == first.cost.process_seconds
    with pytest.raises(TypeError):
        measure(data, pooling="mean")


def test_the_probe_is_scored_on_rows_it_did_not_see(measure: Measure, tiny_data: Callable[..., Data]) -> None:
    data = tiny_data(96)
    learned, shuffled = measure(data, probe=True), measure(data, probe=True, label_noise=0.5)
    assert min(column(learned, "probe")) > max(column(shuffled, "probe"))
    assert learned.result.facts["probe"] == "accuracy"
    assert set(learned.result.facts["spearman"]) >= {"nu", "ratio", "vci", "logme"}
    tiny = measure(tiny_data(10, classes=4), probe=True)  # no class has five rows: no fifth to score
    assert "probe" not in tiny.result.metrics["layer 1"]["train"]


def test_a_regression_in_bins_and_without(measure: Measure, tiny_data: Callable[..., Data]) -> None:
    data = tiny_data(classes=3, regression=True)
    binned = measure(data, bins=3, probe=True)
    assert binned.result.facts["classes"] == {"bin 1": 16, "bin 2": 16, "bin 3": 16}
    assert binned.result.facts["probe"] == "pearson"
    plain = measure(data, bins=0)
    assert plain.result.facts["headline"] == "logme" and plain.result.facts["verdict"] == "none"
    assert column(plain, "logme") == column(binned, "logme") and "nu" not in plain.result.metrics["layer 1"]["train"]


def with_row(data: Data, text: str, label: int) -> Data:
    """``data`` with one more train row."""
    rows = data.splits["train"]
    more = replace(
        rows,
        texts=((*rows.texts[0], text),),
        labels=np.append(rows.labels, label),
        index=np.append(rows.index, 1000),
    )
    return replace(data, splits={**data.splits, "train": more}, labels=("sport", "money", "odd"))


def test_a_text_without_an_ordinary_token_is_named(measure: Measure, tiny_data: Callable[..., Data]) -> None:
    data = with_row(tiny_data(), "  ", 1)
    with pytest.raises(UsageError, match=r"row 1000 of train .*no ordinary token.* 1 of 49 rows.*--pooling mean"):
        measure(data)
    assert measure(data, pooling="mean").result.status == "ok"


def test_a_class_of_one_row_is_left_out_and_said(measure: Measure, tiny_data: Callable[..., Data]) -> None:
    outcome = measure(with_row(tiny_data(), "the goal", 2))
    assert outcome.result.facts["dropped"] == ["odd"]
    assert outcome.result.facts["classes"] == {"sport": 24, "money": 24}


def test_states_that_are_not_finite_are_named(
    measure: Measure, tiny_data: Callable[..., Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = layers.extract

    def broken(*arguments: Any, **options: Any) -> Any:
        made = whole(*arguments, **options)
        made["ordinary"].hidden[1, 7, 3] = np.nan
        return made

    monkeypatch.setattr(layers, "extract", broken)
    with pytest.raises(UsageError, match=r"layer 2.*7.*not finite"):
        measure(tiny_data())
