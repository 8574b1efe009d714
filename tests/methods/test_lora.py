"""LoRA: what is trained, the product that is added, and that a plain model remains, in every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ftbench.errors import UsageError
from ftbench.methods import parse_stack
from ftbench.methods.lora import LoRA
from ftbench.training.batches import tokenize
from ftbench.training.engine import micro_step
from ftbench.training.evaluate import predict, probabilities

FAMILIES = {
    "bert": "query value",
    "roberta": "query value",
    "xlm-roberta": "query value",
    "deberta": "in_proj",
    "deberta-v2": "query_proj value_proj",
    "electra": "query value",
    "albert": "query value",
    "distilbert": "q_lin v_lin",
    "mpnet": "q v",
    "modernbert": "Wqkv",
    "bart": "q_proj v_proj",
    "t5": "q v",
    "llama": "q_proj v_proj",
    "qwen2": "q_proj v_proj",
    "qwen3": "q_proj v_proj",
    "gpt2": "c_attn",
}
Training = Callable[..., Any]


def lora_weights(model: Any) -> dict[str, Any]:
    return {name: p for name, p in model.named_parameters() if ".lora_" in name}


def draw_b(model: Any) -> None:
    """B away from 0, where it starts."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in lora_weights(model).items():
            if ".lora_B." in name:
                parameter.normal_(0, 0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(
    family: str, tiny_data: Any, tiny_family: Callable[[str], Path], training_of: Training, tmp_path: Path
) -> None:
    data = tiny_data(8, 8)
    plain = training_of(data, tiny_family(family), tmp_path).backbone
    run = training_of(data, tiny_family(family), tmp_path, "lora:rank=2")
    model, depths = run.backbone.model, run.backbone.depths()
    added = lora_weights(model)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in added} == set(FAMILIES[family].split())
    assert {depths[name] for name in added} == set(range(1, len(run.backbone.blocks) + 1))
    head = {name for name, depth in plain.depths().items() if depth == 0}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == head | added.keys()
    assert run.meter.cost.trained_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    tokens = tokenize(data.splits["validation"], plain.tokenizer, 32, key="")
    np.testing.assert_allclose(predict(run.backbone, tokens), predict(plain, tokens), rtol=1e-5, atol=1e-6)
    draw_b(model)
    micro_step(run, 0, 0, np.arange(8), 1.0)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in added.values())
    before = predict(run.backbone, tokens)
    assert np.abs(before - predict(plain, tokens)).max() > 1e-4
    run.methods[0].finish(run.backbone)
    assert list(model.state_dict()) == list(plain.model.state_dict())
    np.testing.assert_allclose(predict(run.backbone, tokens), before, rtol=1e-4, atol=1e-5)


def test_the_product_is_that_of_the_formula(
    tiny_data: Any, tiny_model: Path, training_of: Training, tmp_path: Path
) -> None:
    run = training_of(tiny_data(8, 8), tiny_model, tmp_path, "lora:rank=3,alpha=12")
    draw_b(run.backbone.model)
    query = run.backbone.blocks[1].attention.self.query
    weight, bias = query.base_layer.weight.double(), query.base_layer.bias.double()
    a, b = (matrix["default"].weight.double() for matrix in (query.lora_A, query.lora_B))
    assert a.shape == (3, 32) and b.shape == (32, 3)
    x = torch.randn(2, 5, 32)
    expected = F.linear(x.double(), weight + 12 / 3 * b @ a, bias)
    torch.testing.assert_close(query(x).double(), expected, rtol=1e-5, atol=1e-6)
    run.methods[0].finish(run.backbone)
    merged = run.backbone.blocks[1].attention.self.query.weight.double()
    torch.testing.assert_close(merged, weight + 12 / 3 * b @ a, rtol=1e-5, atol=1e-6)


def test_the_first_pass_is_that_of_plain_fine_tuning(
    tiny_data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    losses = [
        finetune_tiny(tiny_data(16, 8), tiny_model, tmp_path / arm[:4], arm, steps=1).history[0]["loss"]
        for arm in ("std", "lora", "lora:dropout=0.5")
    ]
    assert losses[0] == losses[1], "B is 0, and no dropout mask has moved"
    assert losses[0] != losses[2]


@pytest.mark.parametrize(
    ("arm", "count"),
    [("lora", 8 * (32 + 32) * 4), ("lora:rank=2,targets=all", 2 * 2 * (5 * 64 + 96) + 2 * 2 * 96 - 2 * 2 * 64)],
)
def test_trained_parameters_are_counted(
    arm: str, count: int, tiny_data: Any, tiny_model: Path, training_of: Training, tmp_path: Path
) -> None:
    """Two blocks of four matrices 32 x 32 and two 32 x 64, each rank * (inputs + outputs); pooler and classifier."""
    run = training_of(tiny_data(8, 8), tiny_model, tmp_path, arm)
    assert run.meter.cost.trained_parameters == count + (32 * 32 + 32) + (2 * 32 + 2)


@pytest.mark.parametrize("stack", ["r3f", "r4f", "mixout", "capcort-i:cache=off", "freeze:layers=1", "ema", "wise-ft"])
def test_in_a_stack_a_plain_model_remains(
    stack: str,
    tiny_data: Any,
    tiny_model: Path,
    training_of: Training,
    finetune_tiny: Callable[..., Any],
    tmp_path: Path,
) -> None:
    data = tiny_data(16, 8)
    plain = training_of(data, tiny_model, tmp_path / "std").backbone.model.state_dict()
    outcome = finetune_tiny(data, tiny_model, tmp_path / "run", f"lora+{stack}", steps=3, lr=1e-3)
    ours = outcome.backbone.model.state_dict()
    assert ours.keys() == plain.keys()
    tokens = tokenize(data.splits["validation"], outcome.backbone.tokenizer, 32, key="")
    scored = probabilities(predict(outcome.backbone, tokens))
    np.testing.assert_allclose(scored, outcome.predictions["probabilities"], rtol=1e-4, atol=1e-5)
    moved = [name for name in ours if name.startswith("bert.encoder") and not torch.equal(ours[name], plain[name])]
    blocks = (1,) if "freeze" in stack else (0, 1)
    expected = {f"bert.encoder.layer.{i}.attention.self.{which}.weight" for i in blocks for which in ("query", "value")}
    assert set(moved) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora:rank=0", "lora:rank=0: expected 1 or more"),
        ("lora:alpha=0", "lora:alpha=0: expected 1 or more"),
        ("lora:dropout=1", "lora:dropout=1: expected 0 or more, below 1"),
        ("lora:lr=0", "lora:lr=0: expected more than 0"),
        ("lora:target=all", "lora has no field 'target'. Did you mean 'targets'"),
        ("lora:targets=every", "lora:targets=every: expected attention or all"),
        ("r3f+lora", r"'r3f\+lora': lora chooses which parameters are tuned, so it comes first: lora\+r3f"),
        ("lora+bitfit", r"lora and bitfit do not stack: each chooses which parameters are tuned"),
        ("reinit+bitfit", r"so it comes first: bitfit\+reinit"),
    ],
)
def test_wrong_fields_and_stacks(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_stack(text)


def test_a_family_that_is_not_known(
    tiny_family: Callable[[str], Path], tiny_data: Any, training_of: Training, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="queries and values lie in a megatron-bert model is not known; use lora:tar"):
        training_of(tiny_data(8, 8), tiny_family("megatron-bert"), tmp_path, "lora")
    run = training_of(tiny_data(8, 8), tiny_family("megatron-bert"), tmp_path, "lora:targets=all")
    assert len(lora_weights(run.backbone.model)) == 2 * 2 * 6


def test_the_learning_rate_is_a_multiple(
    tiny_data: Any, tiny_model: Path, training_of: Training, tmp_path: Path
) -> None:
    for text, scale in (("lora", 10.0), ("lora:lr=3", 3.0)):
        run = training_of(tiny_data(8, 8), tiny_model, tmp_path, text)
        assert {group["scale"] for group in run.optimizer.param_groups} == {scale}
    assert LoRA().lr == 10.0
