"""Families whose states lie otherwise than (rows, tokens, width): XLNet puts tokens first, Longformer pads inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftbench.errors import FtbenchError
from ftbench.models import backbone as models
from ftbench.models.features import extract
from ftbench.models.language import load_language_model
from ftbench.models.locate import locate
from ftbench.models.pooling import Pooling, reads_last
from ftbench.models.tokenizer import NO_LIMIT
from ftbench.types import Data
from tests.conftest import SIZES, tiny_tokenizer

#: six rows of six tokens: where rows and tokens are as many, no shape tells them apart
SQUARE = ("goal match team of", "bank stock song new", "moon rocket comet team") * 2
TEXTS = ("goal match team of the day", "bank", "the song is new", "zebra moon", "old stock", "a comet a rocket a moon")
POOLINGS: tuple[Pooling, ...] = ("mean", "ordinary", "cls", "last")


def saved(folder: Path, family: str, side: str, limit: int, **fields: Any) -> Path:
    """A random tiny model of ``family`` with a tokenizer that pads on ``side`` and says the ``limit``."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(7)
    usual = {"vocab_size": SIZES["vocab"], "pad_token_id": 0}
    AutoModel.from_config(AutoConfig.for_model(family, **usual, **fields)).save_pretrained(folder)
    tokenizer = tiny_tokenizer("roberta")
    tokenizer.padding_side, tokenizer.model_max_length = side, limit
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def xlnet(tmp_path: Path) -> Path:
    fields = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "initializer_range": SIZES["std"]}
    return saved(tmp_path / "xlnet", "xlnet", "left", 10**30, **fields)


@pytest.fixture
def longformer(tmp_path: Path) -> Path:
    fields = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    fields |= {"max_position_embeddings": 64, "attention_window": [16, 8, 4], "initializer_range": SIZES["std"]}
    return saved(tmp_path / "longformer", "longformer", "right", 60, **fields)


def load(folder: Path, layers: int | None = None) -> models.Backbone:
    source = locate(str(folder))
    return models.load(source, models.load_tokenizer(source), ["a", "b"], regression=False, seed=0, layers=layers)


def tokens(network: models.Backbone, texts: tuple[str, ...]) -> dict[str, Tensor]:
    return dict(network.tokenizer(list(texts), padding=True, return_tensors="pt"))


def features_of(network: models.Backbone, texts: tuple[str, ...]) -> dict[Pooling, np.ndarray[Any, Any]]:
    lengths = np.array([len(ids) for ids in network.tokenizer(list(texts))["input_ids"]])
    found = extract(
        network, lengths, lambda rows: tokens(network, tuple(texts[i] for i in rows)), np.arange(len(texts)), POOLINGS
    )
    return {pooling: of_all.hidden for pooling, of_all in found.items()}


def test_minus_one_position_is_no_limit(xlnet: Path) -> None:
    assert models.load_tokenizer(locate(str(xlnet))).model_max_length == NO_LIMIT


def test_states_with_tokens_first_are_turned(xlnet: Path) -> None:
    network = load(xlnet)
    inputs = tokens(network, SQUARE)
    assert inputs["input_ids"].shape == (6, 6)
    with torch.no_grad():
        expected = network.model(**inputs, output_hidden_states=True).hidden_states[1:]
        found = network.block_outputs(inputs)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs) or torch.equal(ours, theirs.transpose(0, 1))
        assert (ours[0, 0] - ours[1, 0]).abs().max() > 1e-3, "of two texts"
        assert torch.allclose(ours[0], ours[3], atol=1e-6), "of the same text"


@pytest.mark.parametrize("family", ["xlnet", "longformer"])
@pytest.mark.parametrize("texts", [SQUARE, TEXTS], ids=["square", "ragged"])
def test_features_are_those_of_each_row_alone(family: str, texts: tuple[str, ...], request: Any) -> None:
    network = load(request.getfixturevalue(family))
    assert reads_last(network, tokens(network, texts)) is (family == "xlnet")
    found = features_of(network, texts)
    for row, text in enumerate(texts):
        inputs = tokens(network, (text,))
        with torch.no_grad():
            states = [state[0, : inputs["input_ids"].shape[1]].numpy() for state in network.block_outputs(inputs)]
        for layer, state in enumerate(states):
            token = -1 if family == "xlnet" else 0
            expected = {"mean": state.mean(0), "ordinary": state[1:-1].mean(0), "cls": state[token], "last": state[-1]}
            for pooling in POOLINGS:
                np.testing.assert_allclose(found[pooling][layer, row], expected[pooling], rtol=1e-4, atol=2e-6)


def test_turned_states_have_the_gradient_of_the_pass(xlnet: Path) -> None:
    network = load(xlnet)
    out = network.forward(tokens(network, TEXTS), states=True)
    (gradient,) = torch.autograd.grad(out.logits.sum(), out.states[0])
    assert gradient.shape == out.states[0].shape and gradient.abs().sum() > 0


def test_a_head_that_reads_what_it_should_guess_has_no_perplexity(xlnet: Path) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    AutoModelForCausalLM.from_pretrained(xlnet).save_pretrained(xlnet)
    assert load_language_model(locate(str(xlnet)), load(xlnet)) is None


@pytest.mark.parametrize("methods", ["std", "cka"])
def test_tokens_first_is_fine_tuned(
    methods: str, xlnet: Path, tiny_data: Callable[..., Data], finetune_tiny: Any, tmp_path: Path
) -> None:
    outcome = finetune_tiny(tiny_data(), xlnet, tmp_path / "run", methods, steps=2)
    assert outcome.result.status == "ok"


@pytest.mark.parametrize("texts", [SQUARE, TEXTS])
@pytest.mark.parametrize("family", ["xlnet", "longformer"])
def test_noise_is_given_rows_of_tokens(family: str, texts: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    """What is done to one row changes that row's logits and no other's, also where rows and tokens are as many."""
    network = load(request.getfixturevalue(family))
    network.model.eval()
    inputs = tokens(network, texts)
    shape = inputs["input_ids"].shape
    assert (shape[0] == shape[1]) is (texts is SQUARE)
    real = inputs["attention_mask"].unsqueeze(-1)
    seen: list[Tensor] = []

    def louder(embeddings: Tensor) -> Tensor:
        seen.append(embeddings)
        chosen = torch.zeros(len(texts), 1, 1)
        chosen[2] = 1
        return embeddings + chosen * real * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(3))

    with torch.no_grad():
        plain = network.forward(inputs).logits
        noised = network.forward(inputs, louder).logits
    assert seen[0].shape[:2] == shape
    table = network.embeddings.weight
    assert torch.equal(seen[0], table[inputs["input_ids"]])
    moved = (noised - plain).abs().amax(dim=-1) > 1e-6
    assert moved.tolist() == [row == 2 for row in range(len(texts))]


@pytest.mark.parametrize("methods", ["neftune", "freelb", "smart", "vat", "r3f", "hype"])
@pytest.mark.parametrize("family", ["xlnet", "longformer"])
def test_noise_methods_run(
    family: str, methods: str, tiny_data: Callable[..., Data], finetune_tiny: Any, request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:  # fmt: skip
    outcome = finetune_tiny(tiny_data(), request.getfixturevalue(family), tmp_path / "run", methods, steps=2)
    assert outcome.result.status == "ok"


@pytest.mark.parametrize("family", ["xlnet", "longformer"])
def test_tuned_top_blocks_are_trained_without_a_prefix_cache(
    family: str, tiny_data: Callable[..., Data], finetune_tiny: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(family)
    outcome = finetune_tiny(tiny_data(), folder, tmp_path / "run", "std", steps=2, layers="2:2:2")
    assert outcome.result.status == "ok"


def test_states_that_no_token_is_known_for_are_refused(longformer: Path) -> None:
    network = load(longformer)
    network.tokenizer.padding_side = "left"
    with pytest.raises(FtbenchError, match="a block of a longformer model gives 16 states for 8 tokens"):
        features_of(network, TEXTS)


def test_windows_are_cut_with_the_blocks(longformer: Path) -> None:
    whole, part = load(longformer), load(longformer, layers=2)
    assert part.model.config.attention_window == [16, 8] and len(part.blocks) == 2
    inputs = tokens(part, TEXTS)
    for ours, theirs in zip(part.block_outputs(inputs), whole.block_outputs(inputs), strict=False):
        assert torch.allclose(ours[:, :8], theirs[:, :8], atol=1e-6)
