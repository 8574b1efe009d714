"""``checkpoint=best``: a run that ends with the weights of its best evaluation, and is else plain fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import Interrupted, UsageError
from ftbench.training.watch import Watch
from tests.outcomes import assert_equal_outcomes, same, stop_after, weights

STEPS = 12


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy by step, while it trains: best after step 6 of 12."""
    plain = Watch.score

    def score(self: Watch, run: Any) -> Any:
        scores = plain(self, run)
        scores["validation"]["accuracy"] = {3: 0.5, 6: 0.9, 9: 0.9, 12: 0.6}[run.state.step]
        return scores

    monkeypatch.setattr(Watch, "score", score)


def test_it_trains_as_ever_and_ends_with_the_best_weights(
    tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path
) -> None:
    data = tiny_data(24, 12, 2)  # 3 steps in an epoch

    def run(name: str, method: str = "std", control: Any = None, **fields: Any) -> Any:
        return finetune_tiny(data, tiny_model, tmp_path / name, method, control, steps=STEPS, **fields)

    plain, best, by_method = run("a"), run("b", checkpoint="best"), run("c", "early-stop:patience=100")
    assert best.history == plain.history and best.result.spec.id != plain.result.spec.id
    assert same(weights(best), weights(by_method)) and not same(weights(best), weights(plain))
    assert best.result.facts["best_step"] == 6
    assert best.result.metrics["raw"] == plain.result.metrics["last"]
    with pytest.raises(Interrupted):
        run("d", control=stop_after(8), checkpoint="best")
    assert_equal_outcomes(run("d", checkpoint="best"), best)
    averaged = run("e", "ema", checkpoint="best")
    assert same(weights(averaged), weights(run("f", "ema"))), "a method whose result is other weights has its own"


def test_another_word_is_refused(tiny_data: Any, tiny_model: Path, finetune_tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="checkpoint is 'first': expected last or best"):
        finetune_tiny(tiny_data(24, 12, 2), tiny_model, tmp_path, checkpoint="first")
