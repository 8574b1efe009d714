"""ftbench.training.predict: a saved run predicts what it predicted when it was scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.errors import UsageError
from ftbench.models.locate import locate
from ftbench.training.predict import Predicted, predict_texts

Texts = tuple[tuple[str, ...], ...]
Saved = tuple[Any, Path, Texts]


def predict(folder: Path, texts: Texts, **changed: Any) -> Predicted:
    asked: dict[str, Any] = {"max_length": 32, "precision": "fp32", "device": "cpu", **changed}
    return predict_texts(locate(str(folder)), texts, **asked)


@pytest.fixture(scope="module")
def saved(
    tiny_data: Callable[..., Any],
    tiny_family: Callable[[str], Path],
    finetune_tiny: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Saved]:
    """``saved(family="bert", precision="fp32", classes=3, ...)``: an outcome, its saved model, its validation texts."""
    made: dict[str, Saved] = {}

    def save(family: str = "bert", precision: str = "fp32", **rows: Any) -> Saved:
        key = repr((family, precision, rows))
        if key not in made:
            data = tiny_data(32, 70, **rows)  # more than one batch
            folder = tmp_path_factory.mktemp("saved")
            outcome = finetune_tiny(data, tiny_family(family), folder, steps=12, precision=precision)
            outcome.backbone.save(folder / "model")
            made[key] = outcome, folder / "model", data.splits["validation"].texts
        return made[key]

    return save


def assert_same_predictions(saved: Saved, **changed: Any) -> Predicted:
    """Up to the last bits: weights that are loaded lie elsewhere in memory, and kernels depend on that."""
    outcome, folder, texts = saved
    found = predict(folder, texts, **changed)
    if found.probabilities is None:
        np.testing.assert_allclose(found.values, outcome.predictions["prediction"], rtol=1e-5)
    else:
        assert np.array_equal(found.values, outcome.predictions["prediction"])
        np.testing.assert_allclose(found.probabilities, outcome.predictions["probabilities"], rtol=1e-5)
        assert np.ptp(found.probabilities, axis=0).max() > 1e-3, "one prediction for all would be no test"
    return found


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "distilbert", "bart"])
def test_a_saved_run_predicts_what_was_scored(saved: Callable[..., Saved], family: str) -> None:
    found = assert_same_predictions(saved(family, classes=3))
    assert found.labels == ("sport", "money", "stage") and found.truncated == 0
    assert found.probabilities is not None and found.probabilities.shape == (70, 3)
    np.testing.assert_allclose(found.probabilities.sum(-1), 1)
    assert np.array_equal(found.probabilities.argmax(-1), found.values)


def test_pairs(saved: Callable[..., Saved]) -> None:
    both = saved(pairs=True)
    assert assert_same_predictions(both).labels == ("other", "same")
    first, second = both[2]
    swapped = predict(both[1], (second, first))
    assert not np.array_equal(swapped.probabilities, predict(both[1], (first, second)).probabilities)


def test_a_regression_has_numbers_and_no_names(saved: Callable[..., Saved]) -> None:
    found = assert_same_predictions(saved(regression=True))
    assert found.labels == () and found.probabilities is None
    assert found.values.dtype == np.float64 and np.ptp(found.values) > 1e-3


def test_the_precision_of_the_run(saved: Callable[..., Saved]) -> None:
    half = saved(precision="bf16")
    found = assert_same_predictions(half, precision="bf16")
    full = predict(half[1], half[2])
    assert found.probabilities is not None and full.probabilities is not None
    assert not np.array_equal(found.probabilities, full.probabilities)
    np.testing.assert_allclose(found.probabilities, full.probabilities, atol=0.05)


def test_predictions_are_in_the_order_of_the_rows(saved: Callable[..., Saved]) -> None:
    _, folder, (texts,) = saved(classes=3)
    found = predict(folder, (texts,))
    back = predict(folder, (texts[::-1],))
    one = predict(folder, ((texts[5],),))
    assert found.probabilities is not None and back.probabilities is not None and one.probabilities is not None
    np.testing.assert_allclose(back.probabilities[::-1], found.probabilities, atol=1e-6)
    np.testing.assert_allclose(one.probabilities[0], found.probabilities[5], atol=1e-6)


def test_rows_that_lose_tokens_are_counted(saved: Callable[..., Saved]) -> None:
    _, folder, (texts,) = saved(classes=3)
    found = predict(folder, (texts,), max_length=8)
    assert found.truncated == sum(len(text.split()) > 6 for text in texts) > 0
    assert predict(folder, (("goal",) * 3,), max_length=8).truncated == 0


def test_an_empty_text_is_a_row_like_any_where_there_are_special_tokens(saved: Callable[..., Saved]) -> None:
    _, folder, _ = saved(classes=3)
    assert len(predict(folder, (("", "goal"),)).values) == 2


def test_a_row_without_tokens_is_refused(saved: Callable[..., Saved]) -> None:
    _, folder, _ = saved("gpt2", classes=3)
    with pytest.raises(UsageError, match=r"row \d has no tokens: its text is empty"):
        predict(folder, (("goal", "", "bank"),))


# --------------------------------------------------------------------------------- what cannot predict


def test_a_plain_encoder_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"has not been trained as a classifier: it lacks classifier\.bias"):
        predict(tiny_model, (("goal",),))


def test_a_head_without_its_pooler_is_refused(saved: Callable[..., Saved], tmp_path: Path) -> None:
    """A head whose first half would be drawn at random predicts nothing."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(saved(classes=3)[1], tmp_path / "half")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"it lacks bert\.pooler\.dense\.bias.*--save-model best"):
        predict(folder, (("goal",),))


@pytest.mark.parametrize("trouble", ["another number of classes", "rubbish", "unknown family"])
def test_a_broken_checkpoint_is_one_message(saved: Callable[..., Saved], tmp_path: Path, trouble: str) -> None:
    folder = shutil.copytree(saved(classes=3)[1], tmp_path / "broken")
    if trouble == "rubbish":
        (folder / "model.safetensors").write_bytes(b"\0" * 100)
    else:
        config = json.loads((folder / "config.json").read_text())
        if trouble == "unknown family":
            config["model_type"] = "nonesuch"
        else:
            config["id2label"] = {str(i): f"LABEL_{i}" for i in range(5)}
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="broken'"):
        predict(folder, (("goal",),))


def test_an_unknown_device_is_refused(saved: Callable[..., Saved]) -> None:
    with pytest.raises(UsageError, match="device 'gpu' cannot be used"):
        predict(saved(classes=3)[1], (("goal",),), device="gpu")


# ------------------------------------------------------------------------------------------- padding


def pad_left(folder: Path) -> Path:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
    return folder


def test_a_tokenizer_that_pads_left_as_in_training(
    tiny_data: Callable[..., Any], tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """BERT reads its first token, so training set its tokenizer to pad right: that is kept."""
    data = tiny_data(32, 24)
    outcome = finetune_tiny(data, pad_left(shutil.copytree(tiny_model, tmp_path / "left")), tmp_path / "run")
    outcome.backbone.save(tmp_path / "model")
    assert_same_predictions((outcome, tmp_path / "model", data.splits["validation"].texts))


def test_a_foreign_model_that_pads_left_is_not_fed_padding(saved: Callable[..., Saved], tmp_path: Path) -> None:
    _, folder, texts = saved(classes=3)
    left = pad_left(shutil.copytree(folder, tmp_path / "left"))
    ours, theirs = predict(folder, texts).probabilities, predict(left, texts).probabilities
    assert ours is not None and theirs is not None
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
