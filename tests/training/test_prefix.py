"""Training from cached states is training: the same losses, the same weights, and what is frozen is not run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.errors import Interrupted
from ftbench.models.locate import locate
from ftbench.training import prefix
from ftbench.training.run import Outcome, Place, finetune
from ftbench.training.watch import Control
from tests.outcomes import assert_equal_outcomes, stop_after, weights

Run = Callable[..., Outcome]
LAYERS = {"layers": "2:2:2", "steps": 6}


@pytest.fixture(autouse=True)
def _said(caplog: pytest.LogCaptureFixture) -> None:
    prefix._say.cache_clear()
    caplog.set_level(logging.WARNING)


@pytest.fixture
def run(tiny_data: Any, tiny_model: Path, make_spec: Callable[..., Any], tmp_path: Path) -> Run:
    """``run("r3f", use="on", model=folder, rows=16, **fields)``: two batches of 8 rows, three epochs."""

    def train(
        arm: str = "std",
        use: str = "on",
        model: Path = tiny_model,
        rows: int = 16,
        control: Control | None = None,
        folder: str = "",
        **fields: Any,
    ) -> Outcome:
        data = tiny_data(rows, 8)
        place = tmp_path / (folder or f"run-{len(list(tmp_path.iterdir()))}")
        place.mkdir(exist_ok=True)
        spec = make_spec(data, model, arm, **{**LAYERS, "lr": 1e-3, **fields})
        here = Place(place, torch.device("cpu"), tmp_path / "cache", use)
        return finetune(spec, data, locate(str(model)), here, control or Control())

    return train


def assert_near(cached: Outcome, whole: Outcome, most: float = 1e-5) -> None:
    ours, theirs = ([r["loss"] for r in o.history if "loss" in r] for o in (cached, whole))
    assert len(ours) == len(theirs) and np.abs(np.subtract(ours, theirs)).max() < most
    for name, value in weights(cached).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=1e-3, atol=1e-4)


FAMILIES = ("bert", "roberta", "xlm-roberta", "deberta", "deberta-v2", "electra", "distilbert", "mpnet", "modernbert")
DECODERS = ("llama", "qwen2", "qwen3", "gpt2")


@pytest.mark.parametrize("family", [*FAMILIES, *DECODERS, "bart"])
def test_every_family_has_the_same_losses(
    family: str, run: Run, tiny_family: Callable[[str], Path], caplog: Any
) -> None:
    fields = {"model": tiny_family(family), "layers": "2:3:3" if family == "bart" else "2:2:2"}
    cached, whole = run(use="on", **fields), run(use="off", **fields)
    assert caplog.messages == []
    assert cached.history[0]["loss"] != 0 and cached.result.facts == whole.result.facts
    assert_near(cached, whole)


METHODS = (
    "lora", "adapter:width=4", "bitfit", "r3f:eps=0.1", "r3f:dropout=shared", "rdrop", "hype:eps=0.1", "sam", "freelb",
    "smart", "mixout", "noisytune", "r4f", "ema", "lp-ft:probe=fitted", "wise-ft", "child-tuning", "l2sp",
)  # fmt: skip


@pytest.mark.parametrize("arm", METHODS)
def test_every_kind_of_method_has_the_same_losses(arm: str, run: Run, caplog: Any) -> None:
    assert_near(run(arm), run(arm, "off"), 1e-4)
    assert caplog.messages == [], "the cache was used"


def test_bit_for_bit_where_batches_are_those_of_the_cache(run: Run) -> None:
    """One batch, of all rows and so of one width: rounding is the same too."""
    assert_equal_outcomes(run(use="on", batch_size=16), run(use="off", batch_size=16))


def test_what_is_frozen_is_run_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []
    prepare = prefix.Prefix.proven

    def proven(self: Any, batch: Any) -> Any:
        found = prepare(self, batch)
        if not seen:
            seen.append(("begun", True))
            bert = self._network.model.bert
            for name, module in {
                "low": bert.encoder.layer[0].attention,
                "words": bert.embeddings.word_embeddings,
            }.items():
                module.register_forward_hook(
                    lambda m, a, o, name=name: seen.append((name, self._network.model.training))
                )
        return found

    monkeypatch.setattr(prefix.Prefix, "proven", proven)
    run(evaluations=1)
    assert ("low", False) in seen, "evaluation runs everything"
    assert ("low", True) not in seen and ("words", True) not in seen


def test_another_seed_reads_the_same_file(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run("std", seed=0)
    (file,) = (tmp_path / "cache").glob("prefix-*.npy")
    table = np.load(file, mmap_mode="r")
    assert table.dtype == np.float32 and table.shape[1] == 32

    def again(*arguments: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(prefix.Prefix, "_pieces", again)
    run("std", seed=1), run("lora", seed=1)
    with pytest.raises(AssertionError, match="computed again"):
        run("noisytune")
    with pytest.raises(AssertionError, match="computed again"):
        run("std", rows=24)


@pytest.mark.parametrize("content", [b"", b"not numpy", None])
def test_a_damaged_file_is_made_anew(content: bytes | None, run: Run, tmp_path: Path) -> None:
    first = run()
    (file,) = (tmp_path / "cache").glob("prefix-*.npy")
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    assert_equal_outcomes(run(), first)
    assert np.load(file).shape[1] == 32


def test_states_of_other_rows_are_noticed(run: Run, tmp_path: Path, caplog: Any) -> None:
    whole = run(use="off")
    run()
    (file,) = (tmp_path / "cache").glob("prefix-*.npy")
    np.save(file, np.load(file)[::-1])
    assert_equal_outcomes(run(), whole)
    assert caplog.messages == ["no prefix cache: a method changes what the frozen layers give"]


def test_a_cache_that_cannot_be_written_is_gone_without(run: Run, tmp_path: Path, caplog: Any) -> None:
    whole = run(use="off", batch_size=16)
    for path in (tmp_path / "cache").glob("*"):
        path.unlink()
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("in the way")
    assert_equal_outcomes(run(use="on", batch_size=16), whole)
    assert len(caplog.messages) == 1 and "no prefix cache: it cannot be written" in caplog.messages[0]


@pytest.mark.parametrize(
    ("arm", "family", "layers", "reason"),
    [
        ("neftune", "bert", "2:2:2", "a method changes what the frozen layers give"),
        ("capcort-i", "bert", "2:2:2", "capcort-i reads the states of all blocks"),
        ("std", "t5", "2:3:3", "a t5 model reads more of its lowest 1 blocks than what the last one gives"),
        ("std", "bart", "3:3:3", "a bart model reads more of its lowest 2 blocks than what the last one gives"),
    ],
)
def test_where_there_is_no_way_in_it_is_said_once(
    arm: str, family: str, layers: str, reason: str, run: Run, tiny_family: Callable[[str], Path], caplog: Any
) -> None:
    fields = {"model": tiny_family(family), "layers": layers}
    whole = run(arm, "off", **fields)
    assert_equal_outcomes(run(arm, "on", **fields), whole)
    run(arm, "auto", **fields)
    assert caplog.messages == [f"no prefix cache: {reason}"]


@pytest.mark.parametrize(
    ("use", "fields", "made"),
    [
        ("auto", {}, True),
        ("auto", {"steps": 2}, False),
        ("on", {"steps": 2}, True),
        ("auto", {"layers": "1:1:2"}, False),
        ("on", {"layers": "1:1:2"}, True),
        ("auto", {"frozen_dropout": True}, False),
        ("on", {"frozen_dropout": True}, False),
        ("auto", {"layers": ""}, False),
        ("off", {}, False),
    ],
)
def test_when_it_is_made(use: str, fields: dict[str, Any], made: bool, run: Run, tmp_path: Path) -> None:
    outcome = run(use=use, **fields)
    assert bool(list((tmp_path / "cache").glob("prefix-*"))) == made
    if not made:
        assert_equal_outcomes(outcome, run(use="off", **fields))


def test_auto_leaves_large_ones(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "LARGEST", 1000)
    run(use="auto")
    assert not list((tmp_path / "cache").glob("prefix-*"))


def test_interrupted_and_resumed_is_uninterrupted(run: Run) -> None:
    with pytest.raises(Interrupted):
        run("r3f", control=stop_after(3), folder="cut")
    assert_equal_outcomes(run("r3f", folder="cut"), run("r3f"))


def test_under_bf16_it_is_as_near_as_bf16_is(run: Run) -> None:
    cached, whole = run(precision="bf16"), run(precision="bf16", use="off")
    assert_near(cached, whole, 5e-3)
