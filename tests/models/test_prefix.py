"""What runs before the lowest tuned block: still in training, whatever the family keeps its dropout in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ftbench.models import backbone as models
from ftbench.models.locate import locate
from ftbench.models.modes import evaluating
from ftbench.models.trainable import restrict
from ftbench.types.layers import Layers

#: families, with the blocks of those that have a decoder too
FAMILIES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "deberta", "deberta-v2", "electra", "distilbert", "mpnet"), 2),
    **dict.fromkeys(("modernbert", "llama", "qwen2", "qwen3", "gpt2"), 2),
    **dict.fromkeys(("bart", "t5"), 3),
}
#: the tiny ones that have no dropout, or only inside a block
WITHOUT = ("modernbert", "llama", "qwen2", "qwen3")
Folder = Callable[[str], Path]


def load(folder: Path, layers: str, *, frozen_dropout: bool = False) -> models.Backbone:
    source = locate(str(folder))
    network = models.load(source, models.load_tokenizer(source), ("sport", "money"), regression=False, seed=0)
    restrict(network, Layers.parse(layers), frozen_dropout=frozen_dropout)
    return network


def batch(network: models.Backbone) -> dict[str, Tensor]:
    return dict(network.tokenizer(["goal match team of the day", "bank stock"], padding=True, return_tensors="pt"))


def states(network: models.Backbone, seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    return network.block_outputs(batch(network))


@pytest.mark.parametrize("family", FAMILIES)
def test_below_nothing_drops_and_above_everything_does(family: str, tiny_family: Folder) -> None:
    count = FAMILIES[family]
    network = load(tiny_family(family), f"2:2:{count}")
    calm = states(network)
    network.model.train()
    first, again = states(network, 0), states(network, 1)
    assert torch.equal(first[0], calm[0]) and torch.equal(again[0], calm[0])
    if family not in WITHOUT:
        assert not torch.equal(first[1], calm[1]) and not torch.equal(first[1], again[1])
    assert all(module.training for module in network.model.modules())


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in WITHOUT])
def test_with_frozen_dropout_all_of_it_drops(family: str, tiny_family: Folder) -> None:
    network = load(tiny_family(family), f"2:2:{FAMILIES[family]}", frozen_dropout=True)
    calm = states(network)
    network.model.train()
    assert not torch.equal(states(network)[0], calm[0])


def test_under_the_first_block_lie_the_embeddings(tiny_model: Path) -> None:
    network = load(tiny_model, "1:2:2")
    seen: list[Tensor] = []
    network.model.bert.embeddings.register_forward_hook(lambda module, arguments, output: seen.append(output))
    states(network)
    network.model.train()
    states(network)
    assert torch.equal(*seen)


def test_a_view_without_dropout_and_a_failed_pass_leave_the_modes_as_they_were(tiny_model: Path) -> None:
    network = load(tiny_model, "2:2:2")
    network.model.train()
    with evaluating(network.model):
        states(network)
        assert not any(module.training for module in network.model.modules())
    inputs = batch(network)
    with pytest.raises(IndexError):
        network.forward({**inputs, "input_ids": inputs["input_ids"] + 10**6})
    assert all(module.training for module in network.model.modules())


def test_masks_above_do_not_depend_on_dropout_below(
    tiny_data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """The first loss differs by what the lower masks do; without layers nothing changes."""
    losses = {}
    for name, fields in {
        "still": {"layers": "2:2:2"},
        "frozen dropout": {"layers": "2:2:2", "frozen_dropout": True},
        "plain": {},
    }.items():
        outcome = finetune_tiny(tiny_data(16, 8), tiny_model, tmp_path / name, steps=1, **fields)
        losses[name] = outcome.history[0]["loss"]
    assert losses["frozen dropout"] == losses["plain"] != losses["still"]
