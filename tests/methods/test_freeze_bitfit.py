"""What Freeze and BitFit train, and that the rest does not move by a bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbench.errors import FtbenchError, UsageError

EMBEDDINGS, LOW, HIGH = "bert.embeddings.", "bert.encoder.layer.0.", "bert.encoder.layer.1."


def is_bias_or_head(name: str) -> bool:
    return name.endswith(".bias") or not name.startswith("bert.")


@pytest.mark.parametrize(
    ("arm", "trained"),
    [
        ("freeze:layers=1", lambda name: not name.startswith((EMBEDDINGS, LOW))),
        ("freeze:layers=1,embeddings=off", lambda name: not name.startswith(LOW)),
        ("freeze:layers=2", lambda name: not name.startswith((EMBEDDINGS, LOW, HIGH))),
        ("freeze:layers=0", lambda name: not name.startswith(EMBEDDINGS)),
        ("bitfit", is_bias_or_head),
    ],
)
def test_what_is_trained(
    arm: str,
    trained: Callable[[str], bool],
    tiny_data: Callable[..., Any],
    tiny_model: Path,
    training_of: Callable[..., Any],
    finetune_tiny: Callable[..., Any],
    tmp_path: Path,
) -> None:
    data = tiny_data(16, 8)
    start = training_of(data, tiny_model, tmp_path).backbone.model.state_dict()
    run = training_of(data, tiny_model, tmp_path, arm)
    expected = {name for name in start if trained(name)}
    assert {name for name, p in run.backbone.model.named_parameters() if p.requires_grad} == expected
    assert {group["scale"] for group in run.optimizer.param_groups} == {10.0 if arm == "bitfit" else 1.0}
    outcome = finetune_tiny(data, tiny_model, tmp_path / "run", arm, steps=3)
    assert outcome.cost.trained_parameters == sum(start[name].numel() for name in expected)
    for name, value in outcome.backbone.model.state_dict().items():
        assert torch.equal(value, start[name]) != (name in expected), name


def test_more_blocks_than_there_are(
    tiny_data: Callable[..., Any], tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="freeze:layers=3: expected at most 2"):
        training_of(tiny_data(8, 8), tiny_model, tmp_path, "freeze:layers=3")


@pytest.mark.parametrize("family", ["roberta", "albert", "modernbert", "gpt2", "bart", "llama", "t5"])
def test_other_families(
    family: str,
    tiny_data: Callable[..., Any],
    tiny_family: Callable[[str], Path],
    training_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    data, folder = tiny_data(8, 8), tiny_family(family)
    network = training_of(data, folder, tmp_path, "freeze:layers=1").backbone
    frozen = {id(p) for p in network.model.parameters() if not p.requires_grad}
    assert {id(p) for p in network.blocks[0].parameters()} <= frozen
    assert id(network.model.get_input_embeddings().weight) in frozen
    assert frozen.isdisjoint(id(p) for block in network.blocks[1:] for p in block.parameters())
    if family in ("llama", "t5", "modernbert"):
        with pytest.raises(FtbenchError, match="model has no biases to train"):
            training_of(data, folder, tmp_path, "bitfit")
        return
    network = training_of(data, folder, tmp_path, "bitfit").backbone
    base = f"{network.model.base_model_prefix}."
    inside = {n: p.requires_grad for n, p in network.model.named_parameters() if n.startswith(base)}
    assert inside == {name: name.endswith("bias") for name in inside} and any(inside.values())
    assert all(p.requires_grad for n, p in network.model.named_parameters() if not n.startswith(base))
