"""ReInit against the released code: which weights are drawn, to what, and in which order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftbench.errors import UsageError
from ftbench.methods.method import Start
from ftbench.methods.reinit import ReInit
from ftbench.models.anatomy import dissect

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "reinit.json").read_text())


@pytest.fixture
def backbone() -> Any:
    """A BERT of the recorded layout, every parameter moved away from what a fresh one would be."""
    from transformers import BertConfig, BertForSequenceClassification

    given = ORACLE["inputs"]
    sizes: Any = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 10}
    config = BertConfig(
        num_hidden_layers=given["num_hidden_layers"], initializer_range=given["initializer_range"], **sizes
    )
    model = BertForSequenceClassification(config)
    anatomy = dissect(model, {"input_ids": torch.tensor([[1, 2, 3]])})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(3)
    return SimpleNamespace(model=model, blocks=anatomy.blocks, depths=lambda: anatomy.depths)


@pytest.mark.parametrize("case", ORACLE["outputs"])
def test_equals_the_released_code(case: str, backbone: Any) -> None:
    expected = ORACLE["outputs"][case]
    before = {name: p.detach().clone() for name, p in backbone.model.named_parameters()}
    torch.manual_seed(5)
    method = ReInit(layers=expected["reinit_layers"], pooler=expected["reinit_pooler"])
    method.prepare(Start(backbone, 1, 1, lambda: iter(())))
    torch.manual_seed(5)
    deviation = ORACLE["inputs"]["initializer_range"]
    drawn = {name: torch.normal(0.0, deviation, before[name].shape) for name in expected["normal_draw_order"]}
    parameters = dict(backbone.model.named_parameters())
    assert parameters.keys() == expected["parameters"].keys()
    for name, kind in expected["parameters"].items():
        of_kind: Any = {
            "unchanged": lambda: before[name],  # noqa: B023
            "normal": lambda: drawn[name],  # noqa: B023
            "zeros": lambda: torch.zeros_like(before[name]),  # noqa: B023
            "ones": lambda: torch.ones_like(before[name]),  # noqa: B023
        }
        assert torch.equal(parameters[name], of_kind[kind]()), name
        assert parameters[name].requires_grad


def test_more_blocks_than_there_are(backbone: Any) -> None:
    with pytest.raises(UsageError, match="reinit:layers=4: expected at most 3"):
        ReInit(layers=4).prepare(Start(backbone, 1, 1, lambda: iter(())))


@pytest.mark.parametrize("stack", ["lora+reinit:layers=1", "bitfit+reinit:layers=1", "adapter+reinit:layers=1"])
def test_random_weights_that_nothing_trains_are_refused(
    stack: str, tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"reinit:layers=1: expected blocks that are trained, which .* is not"):
        training_of(tiny_data(), tiny_model, tmp_path, stack)


@pytest.mark.parametrize("family", ["roberta", "albert", "deberta-v2", "modernbert", "gpt2", "t5", "bart"])
def test_other_families(
    family: str,
    tiny_data: Callable[..., Any],
    tiny_family: Callable[[str], Path],
    training_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """The topmost block is new, all else of the base model is as it was; norms have weight 1."""
    data, folder = tiny_data(8, 8), tiny_family(family)
    plain = training_of(data, folder, tmp_path).backbone
    ours = training_of(data, folder, tmp_path, "reinit:layers=1,pooler=off").backbone
    top = {id(p) for p in ours.blocks[-1].parameters()}
    old = dict(plain.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        if id(parameter) not in top:
            assert torch.equal(parameter, old[name]), name
        elif parameter.ndim > 1:
            assert 0 < parameter.std() < 0.08 and not torch.equal(parameter, old[name]), name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight")))), name
    assert top
