"""Blocks and depths where a model is unusual, fewer blocks, and what looking at them leaves behind: nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftbench.errors import FtbenchError, UsageError
from ftbench.models import backbone as models
from ftbench.models.locate import locate

Family = Callable[[str], Path]


def load(folder: Path, layers: int | None = None) -> models.Backbone:
    source = locate(str(folder))
    return models.load(source, models.load_tokenizer(source), ["a", "b"], regression=False, seed=0, layers=layers)


def remade(folder: Path, copy: Path, **changes: Any) -> Path:
    """A random model with the tokenizer of ``folder`` and other fields of the configuration."""
    from transformers import AutoConfig, AutoModel

    shutil.copytree(folder, copy)
    config = AutoConfig.from_pretrained(folder)
    config.update(changes)
    AutoModel.from_config(config).save_pretrained(copy)
    return copy


def tokens(network: models.Backbone, *texts: str) -> dict[str, Tensor]:
    return dict(network.tokenizer(list(texts or ("goal match", "the song")), padding=True, return_tensors="pt"))


def test_a_convolution_behind_the_first_block_is_as_deep_as_it(tiny_family: Family, tmp_path: Path) -> None:
    network = load(remade(tiny_family("deberta-v2"), tmp_path / "model", conv_kernel_size=3, conv_act="gelu"))
    depths = network.depths()
    assert depths["deberta.encoder.conv.conv.weight"] == depths["deberta.encoder.layer.0.output.dense.weight"] == 2
    assert depths["deberta.encoder.LayerNorm.weight"] == depths["deberta.encoder.rel_embeddings.weight"] == 3
    assert depths["pooler.dense.weight"] == depths["classifier.weight"] == 0


def test_blocks_in_groups_that_share_weights(tiny_family: Family, tmp_path: Path) -> None:
    folder = remade(tiny_family("albert"), tmp_path / "model", num_hidden_layers=4, num_hidden_groups=2)
    whole = load(folder)
    inputs = tokens(whole)
    assert len(whole.blocks) == 2 and len(whole.block_outputs(inputs)) == 4
    for block, depth in zip(whole.blocks, (2, 1), strict=True):
        own = {id(p) for p in block.parameters()}
        assert {whole.depths()[name] for name, p in whole.model.named_parameters() if id(p) in own} == {depth}
    part = load(folder, layers=2)
    assert torch.equal(part.block_outputs(inputs)[-1], whole.block_outputs(inputs)[1])
    with pytest.raises(UsageError, match=r"layers=3: the 4 blocks .* share weights in 2 groups; .* multiple of 2"):
        load(folder, layers=3)


def test_lists_of_one_entry_a_block_are_cut_too(tiny_family: Family, tmp_path: Path) -> None:
    types = ["full_attention", "sliding_attention", "sliding_attention"]
    window = {"use_sliding_window": True, "sliding_window": 2}
    folder = remade(tiny_family("qwen3"), tmp_path / "model", num_hidden_layers=3, layer_types=types, **window)
    whole, part = load(folder), load(folder, layers=2)
    part.save(tmp_path / "part")
    config = json.loads((tmp_path / "part" / "config.json").read_text())
    assert config["layer_types"] == types[:2] and config["num_hidden_layers"] == 2
    inputs = tokens(whole, "the old day of the new moon", "goal")
    for ours, theirs in zip(part.block_outputs(inputs), whole.block_outputs(inputs), strict=False):
        assert torch.equal(ours, theirs)


def test_a_configuration_without_a_number_of_blocks_cannot_be_cut() -> None:
    from types import SimpleNamespace

    from ftbench.models.truncate import truncate

    config = SimpleNamespace(is_encoder_decoder=False, get_text_config=SimpleNamespace)
    with pytest.raises(UsageError, match="'odd' does not say how many blocks it has"):
        truncate(config, 2, "odd")


def test_looking_changes_neither_modes_nor_random_numbers_nor_gradients(tiny_model: Path) -> None:
    network = load(tiny_model)
    network.model.train()
    frozen = network.model.base_model.embeddings
    frozen.eval()
    state = torch.get_rng_state()
    network.depths()
    assert torch.equal(torch.get_rng_state(), state)
    assert network.model.training and network.model.base_model.encoder.training and not frozen.training
    assert all(p.grad is None for p in network.model.parameters())
    changed = network.depths()
    changed.clear()
    assert network.depths(), "each caller has a dict of its own"


def test_an_error_while_looking_leaves_no_hooks(tiny_model: Path) -> None:
    network = load(tiny_model)
    network.model.train()

    def broken(*_: Any) -> None:
        raise ArithmeticError

    handle = network.blocks[1].register_forward_pre_hook(broken)
    del network.__dict__["_anatomy"]
    with pytest.raises(ArithmeticError):
        network.depths()
    handle.remove()
    assert network.model.training
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in network.model.modules()]
    assert sum(len(after) + len(before) for after, before in hooks) == 1, "the one at the embeddings"
    assert len(network.depths()) == len(list(network.model.parameters()))


def test_recorded_outputs_carry_gradients_and_belong_to_any_pass(tiny_model: Path) -> None:
    network = load(tiny_model)
    inputs = tokens(network)
    with network.recording() as states:
        network.forward(inputs)
        network.forward(inputs, lambda embeddings: embeddings * 2)
    assert len(states) == 4 and not torch.equal(states[1], states[3])
    network.forward(inputs)
    assert len(states) == 4
    states[0].square().mean().backward()
    by_depth = {depth: name for name, depth in network.depths().items()}
    gradients = {name: p.grad for name, p in network.model.named_parameters()}
    assert gradients[by_depth[2]] is not None and gradients[by_depth[1]] is None


def test_a_model_without_one_list_of_blocks_is_refused(tiny_model: Path) -> None:
    network = load(tiny_model)
    encoder = network.model.base_model.encoder
    encoder.others = nn.ModuleList([encoder.layer[0].attention])
    with pytest.raises(FtbenchError, match=r"a bert model has several lists .* \(bert.encoder.layer, bert.encoder.oth"):
        network.depths()
    del encoder.others
    encoder.layer = nn.ModuleList()
    with pytest.raises(FtbenchError, match="a bert model has no list of blocks"):
        network.depths()


def test_looking_in_the_midst_of_a_pass_changes_nothing(tiny_model: Path) -> None:
    """The first look runs a pass of its own, with other embeddings; under autocast it must leave no casts behind."""
    network = load(tiny_model)
    inputs = tokens(network)

    def double(embeddings: Tensor) -> Tensor:
        assert embeddings.shape[:2] == inputs["input_ids"].shape, "not those of the pass that looks"
        return embeddings * 2

    clean, expected = network.forward(inputs).logits, network.forward(inputs, double).logits
    with torch.autocast("cpu", torch.bfloat16):
        network.forward(inputs, states=True).logits.float().square().sum().backward()
    assert all(p.grad is not None for p in network.model.parameters())
    del network.__dict__["_anatomy"]
    assert torch.equal(network.forward(inputs, double, states=True).logits, expected)
    del network.__dict__["_anatomy"]
    with network.keeping_embeddings():
        assert torch.equal(network.forward(inputs, states=True).logits, clean)
        assert torch.equal(network.forward(inputs, double, reuse=True).logits, expected)
