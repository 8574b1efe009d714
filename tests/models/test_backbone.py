"""The network behind one face: noise at the embeddings, one lookup for two passes, loading and saving."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftbench.errors import FtbenchError, UsageError
from ftbench.models import backbone as models
from ftbench.models.locate import locate

FAMILIES = ("bert", "roberta", "gpt2", "distilbert", "bart", "electra", "albert")
Family = Callable[[str], Path]


def load(folder: Path, seed: int = 0, classes: int = 3, *, regression: bool = False) -> models.Backbone:
    source = locate(str(folder))
    labels = [f"class {i}" for i in range(classes)]
    return models.load(source, models.load_tokenizer(source), labels, regression=regression, seed=seed)


def batch(network: models.Backbone, side: str = "right", *, padded: bool = True) -> dict[str, Tensor]:
    """Three rows of different lengths, or of one where ``padded`` is off."""
    texts = ["goal match team of the day", "bank stock", "the song is new"]
    texts = texts if padded else ["goal match team", "bank stock price", "the song is"]
    network.tokenizer.padding_side = side
    return dict(network.tokenizer(texts, padding=True, return_tensors="pt"))


def noise_of(shape: torch.Size, scale: float = 0.5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)) * scale


def lookup(network: models.Backbone, ids: Tensor) -> Tensor:
    """The word embeddings as the family feeds them on (BART scales them)."""
    model: Any = network.model
    module = (model.get_encoder() if model.config.is_encoder_decoder else model).get_input_embeddings()
    found: Tensor = module(ids)
    return found


def with_inputs_embeds(network: models.Backbone, inputs: dict[str, Tensor], noise: Tensor) -> Tensor:
    """The same noise by transformers' own ``inputs_embeds``, in the cases in which that path is right."""
    ids = inputs["input_ids"]
    rest = {key: value for key, value in inputs.items() if key != "input_ids"}
    embeddings = lookup(network, ids) + noise
    config = network.model.config
    if config.model_type == "roberta":  # it takes positions from the ids, which it does not see here
        real = ids.ne(config.pad_token_id).long()
        rest["position_ids"] = real.cumsum(1) * real + config.pad_token_id
    if config.model_type == "bart":  # its decoder reads the ids, and its head looks for the end token in them
        from transformers.models.bart.modeling_bart import shift_tokens_right

        decoder = shift_tokens_right(ids, config.pad_token_id, config.decoder_start_token_id)
        states = network.model.model(inputs_embeds=embeddings, decoder_input_ids=decoder, **rest)[0]
        ends = ids.eq(config.eos_token_id)
        return network.model.classification_head(states[ends].view(len(ids), -1, states.shape[-1])[:, -1])
    return network.model(inputs_embeds=embeddings, **rest).logits


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_noise_equals_noise_on_inputs_embeds(family: str, side: str, tiny_family: Family) -> None:
    network = load(tiny_family(family))
    network.model.eval()
    # GPT-2's head reads the last real token, which it finds by the ids: without them only left padding is right
    inputs = batch(network, side, padded=not (family == "gpt2" and side == "right"))
    noise = noise_of(lookup(network, inputs["input_ids"]).shape)
    clean = network.forward(inputs).logits
    noised = network.forward(inputs, lambda e: e + noise).logits
    assert not torch.allclose(clean, noised, atol=1e-4)
    torch.testing.assert_close(noised, with_inputs_embeds(network, inputs, noise), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(clean, with_inputs_embeds(network, inputs, 0 * noise), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transform_is_armed_for_one_pass_and_called_once(family: str, tiny_family: Family) -> None:
    network = load(tiny_family(family))
    network.model.eval()
    inputs = batch(network)
    shapes = []

    def transform(embeddings: Tensor) -> Tensor:
        shapes.append(tuple(embeddings.shape[:2]))
        return embeddings * 2

    before = network.forward(inputs).logits
    network.forward(inputs, transform)
    assert torch.equal(network.forward(inputs).logits, before)
    assert shapes == [tuple(inputs["input_ids"].shape)]


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


@pytest.mark.parametrize("family", FAMILIES)
def test_reuse_gives_the_logits_of_a_fresh_lookup_and_the_sum_of_both_gradients(
    family: str, tiny_family: Family
) -> None:
    network = load(tiny_family(family))
    network.model.eval()
    inputs = batch(network)
    noise = noise_of(lookup(network, inputs["input_ids"]).shape)

    def gradients(*losses: Tensor) -> dict[str, Tensor]:
        network.model.zero_grad()
        sum(losses).backward()  # type: ignore[union-attr]
        return {n: p.grad.clone() for n, p in network.model.named_parameters() if p.grad is not None}

    def loss(logits: Tensor) -> Tensor:
        return logits.square().sum()

    clean = gradients(loss(network.forward(inputs).logits))
    fresh = network.forward(inputs, lambda e: e + noise).logits
    alone = gradients(loss(fresh))
    with network.keeping_embeddings():
        first = network.forward(inputs).logits
        reused = network.forward(inputs, lambda e: e + noise, reuse=True).logits
        assert torch.equal(fresh, reused)
        both = gradients(loss(first), loss(reused))
    for name in both:
        torch.testing.assert_close(both[name], clean[name] + alone[name], rtol=1e-4, atol=1e-5)
    assert network._seen is None


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


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_loads_in_plain_transformers(family: str, tiny_family: Family, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = load(tiny_family(family))
    network.model.eval()
    inputs = batch(network)
    network.save(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert plain.config.id2label == {0: "class 0", 1: "class 1", 2: "class 2"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("goal match")["input_ids"] == network.tokenizer("goal match")["input_ids"]
    assert torch.equal(plain(**inputs).logits, network.forward(inputs).logits)


def test_a_half_precision_checkpoint_is_trained_in_float32(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

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


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_that_a_checkpoint_brings_is_not_kept(family: str, tiny_family: Family, tmp_path: Path) -> None:
    """Another task trained it, every seed would share it; the encoder is the checkpoint's all the same."""
    saved = load(tiny_family(family), classes=2, seed=1)
    saved.save(tmp_path)
    one, again, two = (load(tmp_path, classes=2, seed=seed).model for seed in (1, 1, 2))
    encoder = f"{one.base_model_prefix}."
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        if name.startswith(encoder):
            assert torch.equal(weight, saved.model.state_dict()[name])
        elif weight.ndim == 2:
            assert not torch.equal(weight, two.state_dict()[name]), name


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


def test_regression_has_one_output(tiny_model: Path) -> None:
    network = load(tiny_model, regression=True)
    assert network.forward(batch(network)).logits.shape == (3, 1)
    assert network.model.config.problem_type == "regression"


def test_hidden_states_are_of_the_last_layer(tiny_model: Path) -> None:
    network = load(tiny_model)
    network.model.eval()
    inputs = batch(network)
    expected = network.model(**inputs, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(network.hidden(inputs), expected)


def test_a_tokenizer_without_padding_pads_with_its_end_token(tiny_family: Family, tmp_path: Path) -> None:
    import shutil

    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_family("gpt2"), tmp_path / "gpt2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(folder)
    network = load(folder)
    assert network.tokenizer.pad_token == "[SEP]"
    assert network.model.config.pad_token_id is not None


@pytest.mark.parametrize(("family", "limit"), [("bert", 64), ("roberta", 63), ("gpt2", 64), ("bart", 64)])
def test_a_tokenizer_without_a_limit_has_that_of_the_positions(
    family: str, limit: int, tiny_family: Family, tmp_path: Path
) -> None:
    import json
    import shutil

    folder = shutil.copytree(tiny_family(family), tmp_path / family)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    network = load(folder)
    assert network.tokenizer.model_max_length == limit
    inputs = dict(network.tokenizer(["goal " * 100], truncation=True, return_tensors="pt"))
    assert inputs["input_ids"].shape == (1, limit)
    assert network.forward(inputs).logits.isfinite().all()
    assert load(tiny_family(family)).tokenizer.model_max_length == 62, "the smaller of the two holds"


def test_more_words_than_embeddings_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_model, tmp_path / "words")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra", "gnu"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(FtbenchError, match="more tokens than the model has embeddings"):
        load(folder)


def test_a_model_that_is_no_classifier_and_a_broken_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "unknown")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"model_type": "bert"', '"model_type": "clip"'))
    tokenizer = models.load_tokenizer(locate(str(tiny_model)))
    with pytest.raises(UsageError, match="cannot be loaded as a classifier"):
        models.load(locate(str(folder)), tokenizer, ["a", "b"], regression=False, seed=0)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match=r"the tokenizer of model .* cannot be loaded"):
        models.load_tokenizer(locate(str(folder)))
