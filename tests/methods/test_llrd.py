"""LLRD against the released code's table of learning rates and decays, for every parameter of a small BERT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbench.methods.llrd import LLRD
from ftbench.methods.method import Group
from ftbench.models.anatomy import dissect

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "llrd.json").read_text())


@pytest.fixture(scope="module")
def parameters() -> dict[str, tuple[torch.Tensor, int]]:
    """Parameters of the recorded model's layout, and their depths."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes: Any = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 10}
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=ORACLE["inputs"]["num_hidden_layers"], **sizes))
    depths = dissect(model, {"input_ids": torch.tensor([[1, 2, 3]])}).depths
    assert list(depths) == ORACLE["inputs"]["parameter_names"]
    return {name: (p, depths[name]) for name, p in model.named_parameters()}


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("case", ORACLE["outputs"])
def test_equals_the_released_code(case: str, variant: Any, parameters: dict[str, tuple[torch.Tensor, int]]) -> None:
    """``paper`` differs in the head's and the pooler's weight decay alone."""
    expected = ORACLE["outputs"][case]
    lr, decay = expected["learning_rate"], expected["weight_decay"]
    groups = [Group(name, p, decay if p.ndim > 1 else 0.0, depth) for name, (p, depth) in parameters.items()]
    for group in LLRD(decay=expected["layerwise_learning_rate_decay"], variant=variant).groups(groups):
        wanted = expected["parameters"][group.name]
        assert lr * group.lr == pytest.approx(wanted["lr"], rel=1e-12)
        if variant == "paper" and group.depth == 0:
            assert group.decay == (decay if group.parameter.ndim > 1 else 0.0)
        else:
            assert group.decay == wanted["weight_decay"]
    assert len({group.lr for group in groups}) == (1 if "decay1_" in case else 5)
