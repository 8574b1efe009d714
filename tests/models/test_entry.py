"""The way in above the lowest blocks: the same logits and gradients, and what lies below is not run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ftbench.errors import FtbenchError
from ftbench.models import backbone as models
from ftbench.models.entry import Entry
from ftbench.models.locate import locate
from ftbench.models.trainable import restrict
from ftbench.types.layers import Layers

#: family -> blocks that can be entered, from 1; a block above T5's first reads the relative positions of that one
WAYS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "deberta", "deberta-v2", "electra", "distilbert"), (1, 2)),
    **dict.fromkeys(("mpnet", "modernbert", "llama", "qwen2", "qwen3", "gpt2", "bart"), (1, 2)),
    "albert": (1,),
    "t5": (1,),
}
PAIRS = [(family, number) for family, numbers in WAYS.items() for number in numbers]
TEXTS = ("goal match team of the day", "bank stock", "the song is new")
Folder = Callable[[str], Path]


def load(folder: Path, layers: str = "") -> models.Backbone:
    source = locate(str(folder))
    network = models.load(source, models.load_tokenizer(source), ("a", "b"), regression=False, seed=0)
    if layers:
        restrict(network, Layers.parse(layers))
    return network


def batch(network: models.Backbone, *texts: str) -> dict[str, Tensor]:
    return dict(network.tokenizer(list(texts or TEXTS), padding=True, return_tensors="pt"))


def gradients(network: models.Backbone, logits: Tensor) -> dict[str, Tensor]:
    network.model.zero_grad()
    logits.square().sum().backward()
    return {name: p.grad.clone() for name, p in network.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("family", "number"), PAIRS)
def test_it_is_the_whole_network_from_there_on(family: str, number: int, tiny_family: Folder) -> None:
    blocks = 3 if family in ("bart", "t5") else 2
    network = load(tiny_family(family), f"{number}:{blocks}:{blocks}")
    inputs, block = batch(network), network.blocks[number - 1]
    entry = Entry(network, block, batch(network, "the day", "moon orbit rocket planet"))
    network.model.train()
    with torch.no_grad():
        states = entry.reach(inputs) * inputs["attention_mask"].unsqueeze(-1)
    torch.manual_seed(0)
    whole = network.forward(inputs).logits
    expected = gradients(network, whole)
    run: list[torch.nn.Module] = []
    below = {*network.blocks[: number - 1], network.embeddings}
    handles = [m.register_forward_hook(lambda m, a, o: run.append(m)) for low in below for m in low.modules()]
    torch.manual_seed(0)
    found = network.forward(inputs, entry=entry.entered(states)).logits
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)
    inner = [module for module in run if module not in network.blocks and module is not network.embeddings]
    assert inner == [], "nothing inside what is passed over has run"
    ours = gradients(network, found)
    assert ours.keys() == expected.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    again = network.forward(inputs)
    assert again.logits.shape == whole.shape
    network.model.eval()
    assert torch.equal(network.forward(inputs).logits, load(tiny_family(family)).forward(inputs).logits)


def test_other_states_give_other_logits(tiny_model: Path) -> None:
    network = load(tiny_model)
    inputs = batch(network)
    entry = Entry(network, network.blocks[1], inputs)
    states = entry.reach(inputs)
    same, other = (network.forward(inputs, entry=entry.entered(s)).logits for s in (states, states * 2))
    assert torch.equal(same, network.forward(inputs).logits) and not torch.equal(other, same)


def test_a_pass_with_noise_goes_through_everything(tiny_model: Path) -> None:
    network = load(tiny_model)
    inputs = batch(network)
    expected = network.forward(inputs, lambda e: e * 2).logits
    entry = Entry(network, network.blocks[1], inputs)
    with network.keeping_embeddings():
        network.forward(inputs, entry=entry.entered(entry.reach(inputs)))
        assert torch.equal(network.forward(inputs, lambda e: e * 2, reuse=True).logits, expected)


@pytest.mark.parametrize(
    ("family", "number", "message"),
    [
        ("t5", 2, "a t5 model reads more of its lowest 1 blocks than what the last one gives"),
        ("t5", 3, "a t5 model reads more of its lowest 2 blocks"),
        ("bart", 3, "a bart model reads more of its lowest 2 blocks"),
    ],
)
def test_what_cannot_be_entered(family: str, number: int, message: str, tiny_family: Folder) -> None:
    network = load(tiny_family(family))
    with pytest.raises(FtbenchError, match=message):
        Entry(network, network.blocks[number - 1], batch(network))
    inputs = batch(network)
    assert torch.equal(network.forward(inputs).logits, load(tiny_family(family)).forward(inputs).logits)
