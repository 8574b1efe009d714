"""Adapters: where they go in every family, what is trained, what is saved, and who can load it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftbench.errors import UsageError
from ftbench.methods import parse_stack
from ftbench.models import adapters
from ftbench.models import backbone as models
from ftbench.models.locate import locate
from ftbench.models.trained import load_trained
from ftbench.training.batches import tokenize
from ftbench.training.engine import micro_step
from ftbench.training.evaluate import predict

#: family -> endings of the norms of a block, with that behind the last one; bart's decoder has one more
NORMS = {
    "bert": "attention.output.LayerNorm output.LayerNorm",
    "roberta": "attention.output.LayerNorm output.LayerNorm",
    "xlm-roberta": "attention.output.LayerNorm output.LayerNorm",
    "deberta": "attention.output.LayerNorm output.LayerNorm",
    "deberta-v2": "attention.output.LayerNorm output.LayerNorm",
    "electra": "attention.output.LayerNorm output.LayerNorm",
    "albert": "full_layer_layer_norm attention.LayerNorm",
    "distilbert": "sa_layer_norm output_layer_norm",
    "mpnet": "attention.LayerNorm output.LayerNorm",
    "modernbert": "attn_norm mlp_norm final_norm",
    "bart": "self_attn_layer_norm encoder_attn_layer_norm final_layer_norm",
    "t5": "layer_norm",
    "llama": "input_layernorm post_attention_layernorm model.norm",
    "qwen2": "input_layernorm post_attention_layernorm model.norm",
    "qwen3": "input_layernorm post_attention_layernorm q_norm k_norm model.norm",
    "gpt2": "ln_1 ln_2 ln_f",
}
Training = Callable[..., Any]
Folder = Callable[[str], Path]


def of_adapters(model: Any) -> dict[str, Any]:
    return {name: p for name, p in model.named_parameters() if ".adapter." in name}


def draw(model: Any) -> None:
    """Adapters that do much: as they start they do little."""
    torch.manual_seed(1)
    for parameter in of_adapters(model).values():
        torch.nn.init.normal_(parameter, std=0.5)


@pytest.mark.parametrize("family", NORMS)
def test_every_family(family: str, tiny_data: Any, tiny_family: Folder, training_of: Training, tmp_path: Path) -> None:
    data = tiny_data(8, 8)
    plain = training_of(data, tiny_family(family), tmp_path).backbone
    run = training_of(data, tiny_family(family), tmp_path, "adapter:width=8")
    network, depths = run.backbone, run.backbone.depths()
    added = of_adapters(network.model)
    places = network.model.config.ftbench_adapters["places"]
    assert len(places) == 2 * len(network.blocks) and len(added) == 4 * len(places)
    per_block = [
        sum(depths[f"{place}.adapter.up.bias"] == d for place in places) for d in range(len(network.blocks) + 2)
    ]
    assert per_block == [0, *(2 for _ in network.blocks), 0]
    trained = {name for name, p in network.model.named_parameters() if p.requires_grad}
    head = {name for name, depth in plain.depths().items() if depth == 0}
    norms = {name.rpartition(".")[0] for name in trained - head - added.keys()}
    assert norms and all(name.endswith(tuple(NORMS[family].split())) for name in norms)
    assert {ending for ending in NORMS[family].split() if any(name.endswith(ending) for name in norms)} == set(
        NORMS[family].split()
    )
    assert run.meter.cost.trained_parameters == sum(p.numel() for p in network.model.parameters() if p.requires_grad)
    network.model.train()
    micro_step(run, 0, 0, np.arange(8), 1.0)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in added.values())
    draw(network.model)
    network.save(tmp_path / "saved")
    again, labels = load_trained(locate(str(tmp_path / "saved")), network.tokenizer)
    assert labels == data.labels
    ours, theirs = network.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    tokens = tokenize(data.splits["validation"], network.tokenizer, 32, key="")
    logits = predict(network, tokens)
    np.testing.assert_allclose(predict(again, tokens), logits, rtol=1e-4, atol=1e-6)
    assert np.abs(predict(plain, tokens) - logits).max() > 1e-4


def test_the_output_of_a_block_is_that_of_the_formula(
    tiny_data: Any, tiny_model_without_dropout: Path, training_of: Training, tmp_path: Path
) -> None:
    """RoBERTa's block in the released code, written out: adapters before residual and norm."""
    run = training_of(tiny_data(8, 8), tiny_model_without_dropout, tmp_path, "adapter:width=8")
    draw(run.backbone.model)
    block = run.backbone.blocks[0]

    def bottleneck(module: Any, x: torch.Tensor) -> torch.Tensor:
        down = (x @ module.down.weight.T + module.down.bias).clamp(min=0)
        return x + down @ module.up.weight.T + module.up.bias

    x = torch.randn(2, 5, 32)
    attention, output = block.attention.output, block.output
    context = block.attention.self(x)[0]
    dense = torch.nn.functional.linear(context, attention.dense.weight, attention.dense.bias)
    middle = attention.LayerNorm(bottleneck(attention.dense.adapter, dense) + x)
    expected = output.LayerNorm(bottleneck(output.dropout.adapter, output.dense(block.intermediate(middle))) + middle)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-6)


def test_how_an_adapter_starts() -> None:
    torch.manual_seed(0)
    module = adapters.Bottleneck(384, 256, 0.0, 0.02)
    for linear in (module.down, module.up):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02) and not linear.bias.any()
    assert sum(p.numel() for p in module.parameters()) == 2 * 384 * 256 + 384 + 256


@pytest.mark.parametrize(
    ("family", "rate"), [("bert", 0.1), ("gpt2", 0.1), ("t5", 0.1), ("distilbert", 0.1), ("llama", 0.0)]
)
def test_dropout_is_the_models_own_unless_given(
    family: str, rate: float, tiny_data: Any, tiny_family: Folder, training_of: Training, tmp_path: Path
) -> None:
    for text, expected in (("adapter", rate), ("adapter:dropout=0.3", 0.3)):
        model = training_of(tiny_data(8, 8), tiny_family(family), tmp_path, text).backbone.model
        assert {m.dropout.p for m in model.modules() if isinstance(m, adapters.Bottleneck)} == {expected}


def test_trained_parameters_are_counted(
    tiny_data: Any, tiny_model: Path, training_of: Training, tmp_path: Path
) -> None:
    run = training_of(tiny_data(8, 8), tiny_model, tmp_path, "adapter:width=8")
    per_block = 2 * (2 * 32 * 8 + 32 + 8) + 2 * 2 * 32
    assert run.meter.cost.trained_parameters == 2 * per_block + (32 * 32 + 32) + (2 * 32 + 2)


def test_blocks_that_are_frozen_get_none(
    tiny_data: Any, tiny_model: Path, training_of: Training, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load = models.load

    def half_frozen(*arguments: Any, **fields: Any) -> Any:
        network = load(*arguments, **fields)
        network.blocks[0].requires_grad_(False)
        return network

    monkeypatch.setattr(models, "load", half_frozen)
    for arm, mark in (("adapter:width=4", ".adapter."), ("lora", ".lora_")):
        model = training_of(tiny_data(8, 8), tiny_model, tmp_path, arm).backbone.model
        assert {name.partition(mark)[0].split(".")[3] for name in model.state_dict() if mark in name} == {"1"}
        assert not any(p.requires_grad for p in model.bert.encoder.layer[0].parameters())


def test_plain_transformers_loads_the_rest_and_says_so(
    tiny_data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    network = finetune_tiny(tiny_data(16, 8), tiny_model, tmp_path, "adapter:width=4", steps=2).backbone
    network.save(tmp_path / "saved")
    plain, loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert set(loaded["unexpected_keys"]) == of_adapters(network.model).keys() and not loaded["missing_keys"]
    ours = network.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in plain.state_dict().items())


def test_fine_tuning_goes_on_with_the_adapters_as_part_of_the_network(
    tiny_data: Any, tiny_model: Path, training_of: Training, tmp_path: Path
) -> None:
    data = tiny_data(8, 8)
    network = training_of(data, tiny_model, tmp_path, "adapter:width=4").backbone
    network.save(tmp_path / "saved")
    again = training_of(data, tmp_path / "saved", tmp_path, seed=1)
    ours, theirs = of_adapters(network.model), of_adapters(again.backbone.model)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(p.requires_grad for p in again.backbone.model.parameters())
    with pytest.raises(UsageError, match="the model has adapters already"):
        training_of(data, tmp_path / "saved", tmp_path, "adapter")
    low = models.load(
        locate(str(tmp_path / "saved")), network.tokenizer, data.labels, regression=False, seed=0, layers=1
    )
    assert set(of_adapters(low.model)) == {name for name in ours if ".layer.0." in name}


def test_weights_that_are_lost_are_named(
    tiny_data: Any, tiny_model: Path, training_of: Training, tmp_path: Path
) -> None:
    network = training_of(tiny_data(8, 8), tiny_model, tmp_path).backbone
    network.save(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    place = "bert.encoder.layer.0.output.dropout"
    recipe = {"places": [place], "bottleneck": 4, "dropout": 0.0}
    path.write_text(json.dumps(json.loads(path.read_text()) | {adapters.FIELD: recipe}))
    with pytest.raises(UsageError, match=f"tells of adapters, but {place}.adapter.down.bias is not in its weights"):
        load_trained(locate(str(tmp_path / "saved")), network.tokenizer)


def test_a_family_that_is_not_known(tiny_family: Folder, tiny_data: Any, training_of: Training, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"where adapters go in a megatron-bert model is not known\. Known: albert, bart"
    ):
        training_of(tiny_data(8, 8), tiny_family("megatron-bert"), tmp_path, "adapter")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adapter:width=0", "adapter:width=0: expected 1 or more"),
        ("adapter:dropout=1", "adapter:dropout=1: expected 0 or more, below 1"),
        ("adapter:lr=-1", "adapter:lr=-1: expected more than 0"),
        ("adapter+lora", "adapter and lora do not stack"),
        ("ema+adapter", r"so it comes first: adapter\+ema"),
    ],
)
def test_wrong_fields_and_stacks(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_stack(text)
