"""The network behind one face: what goes wrong, and what is the same in every family.

What each family keeps is in ``tests/contracts/test_models.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftbench.errors import FtbenchError, UsageError
from ftbench.models import backbone as models
from ftbench.models.locate import locate

Family = Callable[[str], Path]


def load(folder: Path, seed: int = 0, classes: int = 3, *, regression: bool = False) -> models.Backbone:
    source = locate(str(folder))
    labels = [f"class {i}" for i in range(classes)]
    return models.load(source, models.load_tokenizer(source), labels, regression=regression, seed=seed)


def batch(network: models.Backbone) -> dict[str, Tensor]:
    """Three rows of different lengths."""
    texts = ["goal match team of the day", "bank stock", "the song is new"]
    return dict(network.tokenizer(texts, padding=True, return_tensors="pt"))


def test_a_transform_is_disarmed_after_an_error(tiny_model: Path) -> None:
    network = load(tiny_model)
    network.model.eval()
    inputs = batch(network)
    before = network.forward(inputs).logits

    def broken(embeddings: Tensor) -> Tensor:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        network.forward(inputs, broken)
    assert torch.equal(network.forward(inputs).logits, before)


def test_a_transform_that_meets_no_embeddings_is_refused(tiny_model: Path) -> None:
    network = load(tiny_model)
    embeddings = network.model.base_model.embeddings
    embeddings.word_embeddings._forward_hooks.clear()
    with pytest.raises(FtbenchError, match="a bert model does not look its words up where noise can be added"):
        network.forward(batch(network), lambda e: e)


def test_reuse_takes_the_lookup_of_the_pass_before(tiny_model: Path) -> None:
    network = load(tiny_model)
    inputs = batch(network)
    looked_up, given = [], []
    table = network.model.get_input_embeddings()
    table.register_forward_hook(lambda _, __, found: looked_up.append(found), prepend=True)

    def transform(embeddings: Tensor) -> Tensor:
        given.append(embeddings)
        return embeddings

    with network.keeping_embeddings():
        network.forward(inputs)
        network.forward(inputs, transform, reuse=True)
        network.forward(inputs, transform, reuse=True)
        network.forward(inputs, transform)
    assert [tensor is looked_up[0] for tensor in given] == [True, True, False]


def test_a_half_precision_checkpoint_is_trained_in_float32(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "half")
    weights = load_file(folder / "model.safetensors")
    half = {name: value.bfloat16() for name, value in weights.items()}
    save_file(half, folder / "model.safetensors", {"format": "pt"})
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"float32"', '"bfloat16"'))
    network = load(folder)
    assert {p.dtype for p in network.model.parameters()} == {torch.float32}
    table = network.model.get_input_embeddings().weight
    assert torch.equal(table, half["embeddings.word_embeddings.weight"].float())


def test_the_head_depends_on_the_seed_and_on_nothing_drawn_before(tiny_model: Path) -> None:
    first = load(tiny_model, seed=5).model.classifier.weight
    torch.randn(17)
    again = load(tiny_model, seed=5).model.classifier.weight
    other = load(tiny_model, seed=6).model.classifier.weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_head_of_a_checkpoint_with_other_classes_is_drawn_anew(tiny_model: Path, tmp_path: Path) -> None:
    load(tiny_model, classes=4).save(tmp_path)
    network = load(tmp_path, seed=5, classes=2)
    assert network.forward(batch(network)).logits.shape == (3, 2)
    assert torch.equal(network.model.classifier.weight, load(tmp_path, seed=5, classes=2).model.classifier.weight)


def test_a_checkpoint_without_part_of_its_encoder_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Else the numbers would be those of a model that nobody pretrained."""
    folder = tmp_path / "holes"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layer.1." not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"weights of the encoder are not in the checkpoint.*layer\.1"):
        load(folder)


def test_a_tokenizer_without_padding_pads_with_its_end_token(tiny_family: Family, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_family("gpt2"), tmp_path / "gpt2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(folder)
    network = load(folder)
    assert network.tokenizer.pad_token == "[SEP]"
    assert network.model.config.pad_token_id == network.tokenizer.pad_token_id == 3, "the configuration said 0"


def test_more_words_than_embeddings_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_model, tmp_path / "words")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra", "gnu"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(FtbenchError, match="more tokens than the model has embeddings"):
        load(folder)


def test_a_model_that_is_no_classifier_and_a_broken_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "unknown")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"model_type": "bert"', '"model_type": "clip"'))
    tokenizer = models.load_tokenizer(locate(str(tiny_model)))
    with pytest.raises(UsageError, match="cannot be loaded as a classifier"):
        models.load(locate(str(folder)), tokenizer, ["a", "b"], regression=False, seed=0)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match=r"the tokenizer of model .* cannot be loaded"):
        models.load_tokenizer(locate(str(folder)))
