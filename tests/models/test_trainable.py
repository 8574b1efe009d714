"""Which parameters move under a triple of layers, in every family; what lies above the head is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbench.errors import UsageError
from ftbench.models import backbone as models
from ftbench.models.locate import locate
from ftbench.models.trainable import restrict
from ftbench.types.layers import Layers

#: family -> its blocks, a decoder's last
FAMILIES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "deberta", "deberta-v2", "electra", "distilbert", "mpnet"), 2),
    **dict.fromkeys(("modernbert", "llama", "qwen2", "qwen3", "gpt2", "albert"), 2),
    **dict.fromkeys(("bart", "t5"), 3),
}
Folder = Callable[[str], Path]


def load(folder: Path, layers: str | None = None) -> models.Backbone:
    source, labels = locate(str(folder)), ("sport", "money")
    chosen = Layers.parse(layers) if layers else None
    network = models.load(
        source, models.load_tokenizer(source), labels, regression=False, seed=0, layers=chosen.head if chosen else None
    )
    if chosen:
        restrict(network, chosen)
    return network


def trained(network: models.Backbone) -> set[str]:
    return {name for name, parameter in network.model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_number_of_blocks_is_known_before_anything_is_loaded(family: str, tiny_family: Folder) -> None:
    assert locate(str(tiny_family(family))).blocks == FAMILIES[family]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "albert"])
def test_blocks_norms_behind_them_and_head_move(family: str, tiny_family: Folder) -> None:
    folder, count = tiny_family(family), FAMILIES[family]
    depths = load(folder).depths()
    head = {name for name, depth in depths.items() if depth == 0}
    for bottom, top in ((1, 1), (2, 2), (1, 2), (count, count)):
        network = load(folder, f"{bottom}:{top}:{count}")
        inside = {name for name, depth in depths.items() if bottom <= count + 1 - depth <= top}
        assert trained(network) == head | inside
        assert not any(p.requires_grad for p in network.model.get_input_embeddings().parameters())
        blocks = [any(p.requires_grad for p in block.parameters()) for block in network.blocks]
        assert blocks == [bottom <= number <= top for number in range(1, count + 1)]


@pytest.mark.parametrize("family", [family for family, count in FAMILIES.items() if count == 2])
def test_blocks_above_the_head_are_not_loaded(family: str, tiny_family: Folder) -> None:
    whole, part = load(tiny_family(family)), load(tiny_family(family), "1:1:1")
    inputs = dict(part.tokenizer(["goal match team of the day", "bank stock"], padding=True, return_tensors="pt"))
    (state,) = part.block_outputs(inputs)
    assert torch.equal(state, whole.block_outputs(inputs)[0])
    part.model.train()
    part.forward(inputs).logits.sum().backward()
    moved = {name for name, p in part.model.named_parameters() if p.grad is not None}
    assert moved == trained(part)
    assert {name for name in moved if part.depths()[name] > 1} == set()


def test_an_encoder_decoder_model_stays_whole(tiny_family: Folder) -> None:
    for family in ("bart", "t5"):
        assert len(load(tiny_family(family), "2:3:3").blocks) == 3
        with pytest.raises(UsageError, match=r"layers=2: .*has an encoder and a decoder"):
            load(tiny_family(family), "1:2:2")


def test_shared_blocks_are_all_tuned_or_refused(tiny_family: Folder) -> None:
    network = load(tiny_family("albert"), "1:1:1")
    assert trained(network) == {name for name, depth in network.depths().items() if depth < 2}
    with pytest.raises(
        UsageError, match="layers 2:2:2: the blocks of a albert model share their weights; expected 1:2:2"
    ):
        load(tiny_family("albert"), "2:2:2")


@pytest.mark.parametrize(
    ("arm", "mark"), [("lora:rank=2", ".lora_"), ("adapter:width=4", ".adapter."), ("bitfit", ".bias")]
)
def test_other_ways_to_tune_stay_inside_the_layers(
    arm: str,
    mark: str,
    tiny_data: Any,
    tiny_model: Path,
    training_of: Callable[..., Any],
    finetune_tiny: Callable[..., Any],
    tmp_path: Path,
) -> None:
    data = tiny_data(16, 8)
    run = training_of(data, tiny_model, tmp_path, arm, layers="2:2:2")
    inside = {name for name in trained(run.backbone) if name.startswith("bert.") and "pooler" not in name}
    assert inside and all(name.startswith("bert.encoder.layer.1.") for name in inside)
    assert all(mark in name or "LayerNorm" in name for name in inside)
    assert (
        run.meter.cost.trained_parameters < training_of(data, tiny_model, tmp_path, arm).meter.cost.trained_parameters
    )
    before = {name: value.clone() for name, value in run.backbone.model.state_dict().items()}
    after = finetune_tiny(data, tiny_model, tmp_path / "run", arm, steps=2, layers="2:2:2").backbone.model.state_dict()
    low = [name for name in before if name.startswith(("bert.embeddings", "bert.encoder.layer.0."))]
    assert low and all(torch.equal(before[name], after[name]) for name in low)


def test_a_run_under_a_low_head_is_a_small_model(
    tiny_data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    outcome = finetune_tiny(tiny_data(16, 8), tiny_model, tmp_path, steps=2, layers="1:1:1")
    outcome.backbone.save(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert again.config.num_hidden_layers == 1
    ours = outcome.backbone.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in again.state_dict().items())
