"""What cannot be prepared on a network is found before anything runs, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.models.locate import locate
from ftbench.training.rehearsal import ROWS, few, rehearse
from ftbench.types import Data


@pytest.fixture
def rehearsal(tiny_family: Callable[[str], Path], tiny_data: Callable[..., Data], make_spec: Any) -> Callable[..., Any]:
    """``rehearsal("albert", "freeze", ...)``: name -> reason."""

    def run(family: str, *methods: str, data: Data | None = None, **fields: Any) -> dict[str, str]:
        folder, rows = tiny_family(family), data or tiny_data()
        model = locate(str(folder))
        specs = [(method, make_spec(rows, folder, method, **fields)) for method in methods]
        return rehearse(specs, {rows.fingerprint: rows}, {model.fingerprint: model})

    return run


@pytest.mark.parametrize(("family", "method", "reason"), [
    ("albert", "freeze", "freeze:layers=2: expected at most 1"),
    ("albert", "reinit", "reinit:layers=2: expected at most 1"),
    ("bert", "capcort-i:layer=9", "the model has 2 blocks"),
    ("gpt2", "mixout", "a gpt2 model has no linear layers to mix"),
    ("llama", "bitfit", "a llama model has no biases to train"),
])  # fmt: skip
def test_what_a_network_cannot(rehearsal: Callable[..., Any], family: str, method: str, reason: str) -> None:
    found = rehearsal(family, method, "std", "r3f", "llrd")
    assert found.keys() == {method} and reason in found[method] and "(model " in found[method]


@pytest.mark.parametrize("regression", [False, True])
def test_what_it_can(rehearsal: Callable[..., Any], tiny_data: Callable[..., Data], regression: bool) -> None:
    """A calibrated weight needs more than one label among the few rows; Fisher information a pass for each."""
    methods = ["capcort-i:calibrated=1", "child-tuning", "lp-ft:probe=fitted", "l2sp+mixout", "wise-ft"]
    assert rehearsal("bert", *methods, data=tiny_data(regression=regression)) == {}


@pytest.mark.parametrize(("fields", "refused"), [
    ({"micro_batch": 1}, {"cka": 2, "cka:estimator=debiased": 4}),
    ({"micro_batch": 3}, {"cka:estimator=debiased": 4}),
    ({"batch_size": 3}, {"cka:estimator=debiased": 4}),
    ({"micro_batch": 4}, {}),
])  # fmt: skip
def test_too_few_rows_for_a_term(rehearsal: Callable[..., Any], fields: Any, refused: dict[str, int]) -> None:
    arms = ("cka", "cka:estimator=debiased", "cka:weight=0", "cka:token=all", "bss", "r3f")
    found = rehearsal("bert", *arms, **fields)
    assert found.keys() == refused.keys()
    assert all(f"cka has no term on fewer than {rows} rows" in found[arm] for arm, rows in refused.items())


def test_a_rehearsal_leaves_the_network_to_the_next(rehearsal: Callable[..., Any]) -> None:
    """Freeze and bitfit each find all parameters; reinit the pretrained ones."""
    assert rehearsal("bert", "bitfit", "freeze", "reinit", "mixout", "l2sp") == {}


def test_the_few_rows_have_every_class(tiny_data: Callable[..., Data]) -> None:
    rows = tiny_data(n_train=48, classes=4).splits["train"]
    by_class = rows.take(np.argsort(rows.labels, kind="stable"))
    assert len(few(by_class)) == ROWS and set(few(by_class).labels) == {0, 1, 2, 3}
    assert len(few(rows.take(np.arange(3)))) == 3
    many = tiny_data(n_train=48, regression=True).splits["train"]
    spread = few(many).labels
    assert len(spread) == ROWS and {many.labels.min(), many.labels.max()} <= set(spread)
