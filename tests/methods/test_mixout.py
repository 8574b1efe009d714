"""Mixout against the released code's recorded numbers; which layers are mixed; where the masks come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftbench.errors import FtbenchError
from ftbench.methods.method import Batch, Group, Start
from ftbench.methods.mixout import Mixout
from ftbench.models.anatomy import dissect

ORACLES = Path(__file__).parents[1] / "oracles"
ORACLE = json.loads((ORACLES / "mixout.json").read_text())
WRAPPING = json.loads((ORACLES / "mixout_wrapping.json").read_text())
GIVEN, EXPECTED = ORACLE["inputs"], ORACLE["outputs"]
CLOSE = {"rtol": ORACLE["tolerance"]["rtol"], "atol": ORACLE["tolerance"]["atol"]}
#: p = 1 is refused here, and evaluation mode is the layer's business (below)
TENSORS = tuple(case for case in GIVEN if case not in ("p_one", "eval_mode", "mixlinear"))


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"]))


def batch_of(seed: int = 0) -> Batch:
    empty = torch.empty(0)
    return Batch(inputs={}, labels=empty, ids=empty, generator=torch.Generator().manual_seed(seed))


class Recorded(Mixout):
    """Mixout whose masks are given, not drawn."""

    kept: Tensor

    def draw(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        assert torch.broadcast_shapes(self.kept.shape, weight.shape) == weight.shape
        return self.kept


def prepared(method: Mixout, **modules: nn.Module) -> Any:
    """The method on a model of these modules, ``base`` being its base model."""
    model = nn.ModuleDict(modules).eval()
    model.base_model_prefix, model.config = "base", SimpleNamespace(model_type="made-up")  # type: ignore[assignment]
    model.base_model = model["base"]
    backbone: Any = SimpleNamespace(model=model, base="base.", depths=dict)
    method.prepare(Start(backbone, 1, 1, lambda: iter(())))
    return backbone


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("case", TENSORS)
def test_a_mixed_weight_equals_the_released_code(case: str, variant: Any) -> None:
    """``paper`` is the recorded true derivative, from finite differences."""
    given, expected = GIVEN[case], EXPECTED[case]
    method = Recorded(p=given["p"], variant=variant)
    method.kept = tensor(given["mask"])
    method.begin(batch_of())
    weight = tensor(given["weight"]).requires_grad_()
    start = torch.zeros_like(weight) if given["pretrained"] is None else tensor(given["pretrained"])
    mixed = method.mix(weight, start)
    torch.testing.assert_close(mixed.detach(), tensor(expected["mixed"]), **CLOSE)
    mixed.backward(tensor(given["upstream_gradient"]))
    assert weight.grad is not None
    if variant == "released":
        torch.testing.assert_close(weight.grad, tensor(expected["grad_weight_official"]), **CLOSE)
    else:
        wanted = tensor(expected["grad_weight_true_finite_difference"])
        torch.testing.assert_close(weight.grad, wanted, rtol=0, atol=ORACLE["tolerance"]["finite_difference_atol"])


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_linear_layer_equals_the_released_code(variant: Any) -> None:
    given, expected = GIVEN["mixlinear"], EXPECTED["mixlinear"]
    linear = nn.Linear(6, 4, dtype=torch.float64)
    linear.weight.data, linear.bias.data = tensor(given["pretrained"]), tensor(given["bias"])
    method = Recorded(p=given["p"], variant=variant)
    method.kept = tensor(given["mask"])
    backbone = prepared(method, base=nn.Sequential(linear))
    trained = dict(linear.named_parameters())["parametrizations.weight.original"]
    trained.data = tensor(given["weight"])
    x = tensor(given["x"]).requires_grad_()
    method.begin(batch_of())
    torch.testing.assert_close(linear(x).detach(), tensor(expected["output_eval"]), **CLOSE)
    backbone.model.train()
    output = linear(x)
    torch.testing.assert_close(output.detach(), tensor(expected["output"]), **CLOSE)
    output.backward(tensor(given["upstream_gradient"]))
    of_weight = "grad_weight_official" if variant == "released" else "grad_weight_true"
    torch.testing.assert_close(trained.grad, tensor(expected[of_weight]), **CLOSE)
    torch.testing.assert_close(linear.bias.grad, tensor(expected["grad_bias"]), **CLOSE)
    torch.testing.assert_close(x.grad, tensor(expected["grad_x"]), **CLOSE)
    method.finish(backbone)
    assert {name for name, _ in linear.named_parameters()} == {"weight", "bias"}
    assert torch.equal(linear.weight, tensor(given["weight"]))


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_layers_of_the_released_code(variant: Any) -> None:
    """``paper``: those of the base model, whose dropout alone is switched off."""
    from transformers import BertConfig, BertForSequenceClassification

    given, expected = WRAPPING["inputs"], WRAPPING["outputs"]
    sizes: Any = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 10}
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=given["num_hidden_layers"], **sizes)).eval()
    assert [name for name, module in model.named_modules() if isinstance(module, nn.Linear)] == given["linear_modules"]
    depths = dissect(model, {"input_ids": torch.tensor([[1, 2, 3]])}).depths
    method = Mixout(p=given["mixout"], variant=variant)
    method.prepare(Start(SimpleNamespace(model=model, base="bert.", depths=lambda: depths), 1, 1, lambda: iter(())))  # type: ignore[arg-type]
    mixed = [name for name, module in model.named_modules() if hasattr(module, "parametrizations")]
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    if variant == "released":
        assert mixed == expected["replaced"] and rates == expected["dropout_p"]
    else:
        assert mixed == [name for name in expected["replaced"] if name != "classifier"]
        assert rates == expected["dropout_p"] | {"dropout": 0.1}
    assert all(".start" not in name for name in model.state_dict())


def test_every_pass_has_a_mask_of_its_own_from_the_batch() -> None:
    linear = nn.Linear(50, 3)
    method = Mixout(p=0.5)
    backbone = prepared(method, base=nn.Sequential(linear))
    start = linear.weight.detach().clone()
    backbone.model.train()
    with torch.no_grad():
        linear.parametrizations.weight.original.add_(1.0)  # type: ignore[union-attr, operator]
        assert torch.equal(linear.weight, start + 1), "not before the first batch: passes of other methods"
        method.begin(batch_of(seed=3))
        state = torch.get_rng_state()
        first, second = linear.weight - start, linear.weight - start
        method.begin(batch_of(seed=3))
        assert torch.equal(linear.weight - start, first) and not torch.equal(first, second)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.allclose(first, first[:1].expand_as(first), atol=1e-6), "one draw for each input"
    assert {round(x) for x in first.flatten().tolist()} == {0, 2}


@pytest.mark.parametrize(("unit", "shape"), [("neuron", (1, 2000)), ("weight", (40, 2000))])
@pytest.mark.parametrize("p", [0.1, 0.9])
def test_the_draw(unit: Any, shape: tuple[int, int], p: float) -> None:
    kept = Mixout(p=p, unit=unit).draw(torch.zeros(40, 2000), torch.Generator().manual_seed(0))
    assert kept.shape == shape and set(kept.flatten().tolist()) == {0.0, 1.0}
    assert kept.mean().item() == pytest.approx(1 - p, abs=0.03)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_nothing_to_mix(variant: Any) -> None:
    with pytest.raises(FtbenchError, match="mixout: a made-up model has no linear layers to mix"):
        prepared(Mixout(variant=variant), base=nn.Sequential(nn.LayerNorm(3)), head=nn.Linear(3, 3))


def test_depths_are_known_before_names_change(
    tiny_data: Callable[..., Any], tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    """R4F behind it in a stack finds the head's matrices by their plain names."""
    run = training_of(tiny_data(8, 8), tiny_model, tmp_path, "mixout:p=0.5+r4f")
    pooler = run.backbone.model.bert.pooler.dense
    assert len(pooler.parametrizations.weight) == 2


def test_depths_of_mixed_weights(
    tiny_data: Callable[..., Any], tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    """Methods that tell layers apart see them behind Mixout too."""
    from ftbench.training.optim import parameter_groups

    class Look(Mixout):
        def groups(self, groups: list[Group]) -> list[Group]:
            self.seen = {id(group.parameter): group.depth for group in groups}
            return groups

    run = training_of(tiny_data(8, 8), tiny_model, tmp_path, "mixout:p=0.5")
    look = Look()
    parameter_groups(run.backbone, [look], 0.0)
    lowest = run.backbone.blocks[0]
    assert {look.seen[id(p)] for p in lowest.parameters()} == {2}
