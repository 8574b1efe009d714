"""The perplexity of a tuned encoder under the pretrained head, against transformers' own loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from ftbench.models import adapters, backbone
from ftbench.models.locate import Checkpoint, locate
from ftbench.training.batches import Tokens, tokenize
from ftbench.training.forgetting import perplexity
from ftbench.types import Data

HEADS = {"bert": AutoModelForMaskedLM, "gpt2": AutoModelForCausalLM}


@pytest.fixture
def with_head(tiny_family: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Checkpoint]:
    """A tiny checkpoint of a family, with its language-model head."""

    def make(family: str) -> Checkpoint:
        folder = tiny_family(family)
        torch.manual_seed(3)
        model = HEADS[family].from_pretrained(folder)
        model.save_pretrained(tmp_path / family)
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / family)
        return locate(str(tmp_path / family))

    return make


def load(source: Checkpoint, data: Data) -> tuple[backbone.Backbone, Tokens]:
    tokenizer = backbone.load_tokenizer(source)
    network = backbone.load(source, tokenizer, data.labels, regression=False, seed=0)
    return network, tokenize(data.splits["validation"], tokenizer, 32, key="")


def test_a_causal_model_has_the_loss_of_transformers(with_head: Any, tiny_data: Callable[..., Data]) -> None:
    source = with_head("gpt2")
    data = tiny_data()
    network, tokens = load(source, data)
    model = AutoModelForCausalLM.from_pretrained(source.folder).eval()
    total = count = 0.0
    for text in data.splits["validation"].texts[0]:
        words = network.tokenizer(text, return_tensors="pt", truncation=True, max_length=32)["input_ids"]
        with torch.no_grad():
            loss = model(input_ids=words, labels=words).loss
        total, count = total + float(loss) * (words.shape[1] - 1), count + words.shape[1] - 1
    assert perplexity(source, network, tokens) == pytest.approx(torch.tensor(total / count).exp().item(), rel=1e-4)


@pytest.mark.parametrize("family", list(HEADS))
def test_another_encoder_has_another_perplexity_and_the_same_one_the_same(
    family: str, with_head: Any, tiny_data: Callable[..., Data]
) -> None:
    source = with_head(family)
    network, tokens = load(source, tiny_data())
    before = perplexity(source, network, tokens)
    assert before is not None and before == perplexity(source, network, tokens)
    with torch.no_grad():
        for block in network.blocks:
            for parameter in block.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
    assert perplexity(source, network, tokens) != pytest.approx(before, rel=1e-3)


def test_a_masked_model_sees_no_masked_word(with_head: Any, tiny_data: Callable[..., Data]) -> None:
    source = with_head("bert")
    network, tokens = load(source, tiny_data())
    found = perplexity(source, network, tokens)
    # random weights guess no better than the vocabulary's size allows; words that were seen would be guessed
    assert found is not None and found > 0.5 * network.model.config.vocab_size


@pytest.mark.parametrize("family", ["bert", "bart"])
def test_a_checkpoint_without_a_head_has_none(
    family: str, tiny_family: Callable[[str], Path], tiny_data: Callable[..., Data]
) -> None:
    source = locate(str(tiny_family(family)))
    network, tokens = load(source, tiny_data())
    assert perplexity(source, network, tokens) is None


def test_adapters_are_not_left_out_of_the_body(with_head: Any, tiny_data: Callable[..., Data], tmp_path: Path) -> None:
    """The pretrained head's own body has no place for them: it would have the perplexity of another encoder."""
    source = with_head("bert")
    network, tokens = load(source, tiny_data())
    assert perplexity(source, network, tokens) is not None
    adapters.insert(network.model, adapters.places_in(network.model, network.blocks), 8, deviation=1.0)
    assert perplexity(source, network, tokens) is None
    network.save(tmp_path / "tuned")
    again, tokens = load(locate(str(tmp_path / "tuned")), tiny_data())
    assert perplexity(source, again, tokens) is None
