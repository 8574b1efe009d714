"""Features: every block and pooling of every family equals a pass over the row alone, whatever lies around it."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftbench.errors import StoreError, UsageError
from ftbench.models import backbone as models
from ftbench.models import feature_files, features
from ftbench.models.feature_files import open_stores
from ftbench.models.features import extract, stream
from ftbench.models.locate import locate
from ftbench.models.pooling import POOLINGS, reads_last, special_ids

#: family -> whether its head reads the last token
FAMILIES = dict.fromkeys(
    ["bert", "roberta", "deberta", "deberta-v2", "electra", "albert", "distilbert", "mpnet", "modernbert"], False
) | dict.fromkeys(["bart", "t5", "llama", "qwen2", "qwen3", "gpt2"], True)
#: what can be padded on the left: a decoder that follows an encoder cannot
SIDES = [
    (name, side) for name, last in FAMILIES.items() for side in ("right", "left") if side == "right" or last
    if (name, side) not in (("bart", "left"), ("t5", "left"))
]  # fmt: skip
TEXTS = ("goal match team of the day", "bank", "the song is new", "zebra moon", "old stock", "a comet a rocket a moon")
Family = Callable[[str], Path]


def load(folder: Path, side: str = "right") -> models.Backbone:
    source = locate(str(folder))
    network = models.load(source, models.load_tokenizer(source), ["a", "b", "c"], regression=False, seed=0)
    network.tokenizer.padding_side = side
    return network


def rows_of(network: models.Backbone, texts: tuple[str, ...]) -> tuple[np.ndarray[Any, Any], features.Collate]:
    """Lengths and collate, as ``extract`` takes them."""
    ids = network.tokenizer(list(texts))["input_ids"]

    def collate(positions: np.ndarray[Any, Any]) -> dict[str, Tensor]:
        return dict(network.tokenizer([texts[i] for i in positions], padding=True, return_tensors="pt"))

    return np.array([len(row) for row in ids]), collate


def features_of(network: models.Backbone, texts: tuple[str, ...] = TEXTS, **rest: Any) -> dict[Any, Any]:
    return extract(network, *rows_of(network, texts), np.arange(len(texts)), rest.pop("poolings", POOLINGS), **rest)


def alone(network: models.Backbone, text: str, *, last: bool) -> dict[str, np.ndarray[Any, Any]]:
    """The same of one row, from its states and from where its words lie: (layers, width) for each pooling."""
    encoded = network.tokenizer(text, return_tensors="pt")
    ids, words = encoded["input_ids"][0].tolist(), network.tokenizer(text, add_special_tokens=False)["input_ids"]
    first = next(i for i in range(len(ids)) if ids[i : i + len(words)] == words)
    with torch.no_grad():
        states = [state[0] for state in network.block_outputs(dict(encoded))]
    found: dict[str, list[Tensor]] = {"mean": [], "ordinary": [], "cls": [], "last": []}
    for number, state in enumerate(states):
        later = int(network.model.config.is_encoder_decoder and number == 2)  # the decoder begins with a start token
        found["mean"].append(state.mean(0))
        found["ordinary"].append(state[first + later : first + later + len(words)].mean(0))
        found["cls"].append(state[-1 if last else 0])
        found["last"].append(state[-1])
    return {pooling: torch.stack(vectors).numpy() for pooling, vectors in found.items()}


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_features_are_those_of_each_row_alone(name: str, side: str, tiny_family: Family) -> None:
    network = load(tiny_family(name), side)
    found = features_of(network)
    for pooling, of_all in found.items():
        assert of_all.pooling == pooling and of_all.hidden.dtype == np.float32
        assert of_all.layers == (3 if name in ("bart", "t5") else 2) and of_all.labels.tolist() == list(range(6))
    for row, text in enumerate(TEXTS):
        for pooling, expected in alone(network, text, last=FAMILIES[name]).items():
            np.testing.assert_allclose(found[pooling].hidden[:, row], expected, rtol=1e-4, atol=2e-6, err_msg=pooling)
    spread = np.ptp(found["ordinary"].hidden, axis=1)
    assert (spread.max(1) > 1e-3).all()


def test_windows_batches_and_the_rows_order_change_nothing(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load(tiny_model)
    texts = (TEXTS * 4)[:21]
    whole = features_of(network, texts)
    order = np.random.default_rng(0).permutation(21)
    shuffled = features_of(network, tuple(texts[i] for i in order))
    monkeypatch.setattr(features, "BATCH", 2)
    monkeypatch.setattr(features, "WINDOW", 8)
    small = features_of(network, texts)
    for pooling in POOLINGS:
        np.testing.assert_allclose(shuffled[pooling].hidden, whole[pooling].hidden[:, order], atol=1e-6)
        np.testing.assert_allclose(small[pooling].hidden, whole[pooling].hidden, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_stream_gives_every_row_once_and_leaves_the_model_as_it_was(
    training: bool, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH", 2)
    monkeypatch.setattr(features, "WINDOW", 4)
    network = load(tiny_model)
    network.model.train(training)
    seen: list[int] = []
    total = torch.zeros(2, 32)

    def each(positions: np.ndarray[Any, Any], pooled: dict[Any, Tensor]) -> None:
        assert list(pooled) == ["mean"] and pooled["mean"].shape == (2, len(positions), 32)
        assert not pooled["mean"].requires_grad and not network.model.training
        seen.extend(positions.tolist())
        total.add_(pooled["mean"].sum(1))

    stream(network, *rows_of(network, TEXTS), ["mean"], each)
    assert sorted(seen[:4]) == [0, 1, 2, 3] and sorted(seen[4:]) == [4, 5]
    assert network.model.training is training
    assert not any(block._forward_hooks for block in network.blocks)
    np.testing.assert_allclose(total, features_of(network)["mean"].hidden.sum(1), rtol=1e-5)


def test_features_are_float32_when_the_pass_is_not(tiny_model: Path) -> None:
    network = load(tiny_model)
    exact = features_of(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = features_of(network)
    for pooling in POOLINGS:
        assert rounded[pooling].hidden.dtype == np.float32
        np.testing.assert_allclose(rounded[pooling].hidden, exact[pooling].hidden, atol=0.05)
    mean = torch.from_numpy(rounded["mean"].hidden)
    assert (mean != mean.bfloat16().float()).any(), "the mean is taken in float32"


def test_large_features_lie_in_files(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load(tiny_model)
    memory = features_of(network, folder=tmp_path)
    assert not list(tmp_path.iterdir()) and not isinstance(memory["cls"].hidden, np.memmap)
    monkeypatch.setattr(feature_files, "IN_MEMORY", 0)
    monkeypatch.setattr(features, "BATCH", 2)
    monkeypatch.setattr(features, "WINDOW", 4)
    files = features_of(network, folder=tmp_path / "new", poolings=["cls", "mean"])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["cls.npy", "mean.npy"]
    for pooling, found in files.items():
        assert isinstance(found.hidden, np.memmap) and not found.hidden.flags.writeable
        np.testing.assert_allclose(found.hidden, memory[pooling].hidden, atol=1e-6)
        assert np.array_equal(np.load(tmp_path / "new" / f"{pooling}.npy"), found.hidden)


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    message = r"1,000,000,000,000 rows in 12 layers of width 768 take 34332275.4 GiB, and \S+ GiB are free in"
    with pytest.raises(StoreError, match=message):
        open_stores(["mean"], (12, 10**12, 768), 64, tmp_path / "features")
    assert not list((tmp_path / "features").iterdir())


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load(tiny_model)
    features_of(network)
    monkeypatch.setattr(feature_files, "IN_MEMORY", 0)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write features to"):
        features_of(network, folder=tmp_path / "file")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
        with pytest.raises(StoreError, match=r"cannot write features to .*mean.npy: the file would be larger"):
            features_of(network, folder=tmp_path, poolings=["mean"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_states_that_are_not_finite_are_named(tiny_model: Path) -> None:
    network = load(tiny_model)
    moon = network.tokenizer.convert_tokens_to_ids("moon")
    with torch.no_grad():
        network.model.get_input_embeddings().weight[moon] = float("inf")
    with pytest.raises(UsageError, match=r"layer 1 gives NaN or infinity for row [35]:"):
        features_of(network)
    network = load(tiny_model)
    with torch.no_grad():
        network.blocks[1].output.dense.bias[3] = float("nan")
    with pytest.raises(UsageError, match=r"layer 2 gives NaN or infinity for row"):
        features_of(network)


def test_a_row_without_an_ordinary_token_is_named(tiny_model: Path) -> None:
    network = load(tiny_model)
    texts = ("goal match", "", "team")
    assert features_of(network, texts, poolings=["mean", "cls"])["mean"].hidden.shape == (2, 3, 32)
    with pytest.raises(UsageError, match="row 1 has no ordinary token"):
        features_of(network, texts, poolings=["ordinary"])


def test_unknown_words_are_ordinary_and_framing_tokens_are_not(tiny_family: Family) -> None:
    bert = load(tiny_family("bert")).tokenizer
    names = bert.convert_ids_to_tokens(special_ids(bert))
    assert names == ["[PAD]", "[CLS]", "[SEP]"] and bert("zebra")["input_ids"] == [2, bert.unk_token_id, 3]
    qwen = load(tiny_family("qwen2")).tokenizer
    assert qwen.unk_token_id == qwen.pad_token_id and special_ids(qwen) == [qwen.pad_token_id]


def test_what_the_head_reads_does_not_depend_on_the_mode(tiny_family: Family) -> None:
    for name, last in (("bert", False), ("gpt2", True)):
        network = load(tiny_family(name))
        network.model.train()
        assert reads_last(network, rows_of(network, TEXTS)[1](np.arange(3))) is last
        assert network.model.training
