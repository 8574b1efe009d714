"""HyPe, NEFTune and NoisyTune: recorded numbers of the released codes, the paper's forms by hand, and the hooks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftbench.errors import UsageError
from ftbench.lookup import build
from ftbench.methods.hype import HyPe
from ftbench.methods.method import Batch, Start
from ftbench.methods.neftune import NEFTune
from ftbench.methods.noisytune import NoisyTune
from ftbench.models import backbone
from ftbench.models.locate import locate

FOLDER = Path(__file__).parents[1] / "oracles"
HYPE, NEF, NOISY = (json.loads((FOLDER / f"{n}.json").read_text()) for n in ("hype", "neftune", "noisytune_hype"))


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"])).reshape(recorded["shape"])


def close(oracle: dict[str, Any]) -> dict[str, float]:
    return {"rtol": oracle["tolerance"]["rtol"], "atol": oracle["tolerance"]["atol"]}


def batch_of(seed: int = 0) -> Batch:
    return Batch({}, torch.zeros(1), torch.zeros(1), torch.Generator().manual_seed(seed))


def start_of(network: Any) -> Start:
    return Start(network, 1, 1, lambda: iter(()))


def load(folder: Path) -> backbone.Backbone:
    source = locate(str(folder))
    network = backbone.load(source, backbone.load_tokenizer(source), ("a", "b"), regression=False, seed=0)
    network.model.train()
    return network


# ------------------------------------------------------------------------------------------------- HyPe


class Block(nn.Module):
    """The oracle's block: a = tanh(x att^T), y = relu(a inter^T) out^T + a."""

    def __init__(self, weights: dict[str, Any]) -> None:
        super().__init__()
        self.att, self.inter, self.out = (tensor(weights[name]) for name in ("att", "inter", "out"))

    def forward(self, hidden_states: Tensor) -> Tensor:
        attended = (hidden_states @ self.att.T).tanh()
        return (attended @ self.inter.T).relu() @ self.out.T + attended


class Recorded(HyPe):
    """HyPe whose unit draws are given; the scaling is the oracle's."""

    units: list[Tensor]

    def draw(self, hidden: Tensor, generator: torch.Generator) -> Tensor:
        return self.units.pop(0) * self.eps


@pytest.mark.parametrize("by_name", [False, True], ids=["positional", "by name"])
@pytest.mark.parametrize(
    "case", ["roberta_uniform", "roberta_normal", "bert_uniform_default_eps", "roberta_uniform_eval"]
)
def test_hype_noises_what_the_released_code_does(case: str, by_name: bool) -> None:
    given, expected, shared = HYPE["inputs"][case], HYPE["outputs"][case], HYPE["inputs"]["shared"]
    blocks = nn.ModuleList(Block(weights) for weights in shared["layers"]).train(given["training"])
    method = Recorded(eps=given["eps"], noise=given["noise_type"], variant="released")
    method.units = [tensor(unit) for unit in given["unit_draws_in_order"]]
    network: Any = SimpleNamespace(blocks=tuple(blocks))
    method.prepare(start_of(network))
    method.begin(batch_of())
    first = tensor(shared["hidden_in"]).requires_grad_()
    states: list[Tensor] = [first]
    for block in blocks:
        states.append(block(hidden_states=states[-1]) if by_name else block(states[-1]))
    assert method.units == []
    for ours, recorded in zip(states, expected["hidden_states_recorded"], strict=True):
        torch.testing.assert_close(ours, tensor(recorded), **close(HYPE))
    (gradient,) = torch.autograd.grad((states[-1] * tensor(shared["target"])).sum(), first)
    torch.testing.assert_close(gradient, tensor(expected["grad_hidden_in"]), **close(HYPE))
    method.finish(network)
    torch.testing.assert_close(blocks[0](first), Block(shared["layers"][0])(first))


@pytest.mark.parametrize(
    ("fields", "low", "high", "mean", "deviation"),
    [
        ({"variant": "released"}, 0.0, 1.0, 0.5, 12**-0.5),
        ({}, -1.0, 1.0, 0.0, 3**-0.5),
        ({"noise": "normal"}, -9.0, 9.0, 0.0, 1.0),
    ],
)
def test_hype_draws(fields: dict[str, Any], low: float, high: float, mean: float, deviation: float) -> None:
    eps = 0.25
    z = HyPe(eps=eps, **fields).draw(torch.zeros(64, 32, 64), torch.Generator().manual_seed(0))
    assert z.min() >= low * eps and z.max() <= high * eps
    assert z.mean().item() == pytest.approx(mean * eps, abs=8e-3 * eps)
    assert z.std().item() == pytest.approx(deviation * eps, rel=0.01)


@pytest.mark.parametrize("family", ["bert", "albert", "bart", "t5", "gpt2", "deberta-v2", "modernbert", "qwen3"])
def test_hype_and_neftune_find_their_places(
    family: str, tiny_family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draw for every run of a block, one for the input's words; in training only; nothing is left behind."""
    network = load(tiny_family(family))
    inputs = network._tokens("the old bank", "a film of the new week")
    network.model.eval()
    with network.recording() as runs:
        plain = network.forward(inputs).logits
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.model.modules())
    drawn: list[str] = []
    monkeypatch.setattr(HyPe, "draw", lambda _, h, g: drawn.append("hype") or torch.zeros(h.shape))
    monkeypatch.setattr(NEFTune, "noised", lambda _, e, m, g: drawn.append("neftune") or e)
    methods = [HyPe(), NEFTune()]
    for method in methods:
        method.prepare(start_of(network))
        method.begin(batch_of())
    assert torch.equal(network.forward(inputs).logits, plain) and drawn == []
    network.model.train()
    network.forward(inputs)
    assert drawn == ["neftune", *["hype"] * len(runs)] and len(runs) >= 2
    for method in methods:
        method.finish(network)
    network.forward(inputs)
    assert len(drawn) == 1 + len(runs)
    assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.model.modules())


# ---------------------------------------------------------------------------------------------- NEFTune


@pytest.mark.parametrize("case", ["alpha5_b3t5", "alpha15_b2t9", "alpha5_padded"])
def test_neftune_released_equals_transformers(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, expected = NEF["inputs"][case], NEF["outputs"][case]
    table, ids, noise = tensor(NEF["inputs"]["E"]).requires_grad_(), tensor(given["input_ids"]), tensor(given["noise"])
    low, high = expected["uniform_bounds"]
    assert noise.min() >= low and noise.max() <= high and noise.abs().max() > 0.9 * high
    monkeypatch.setattr(torch, "rand", lambda *_, **__: (noise / high + 1) / 2)  # the recorded draw, in [0, 1)
    method = NEFTune(alpha=given["neftune_noise_alpha"], variant="released")
    ours = method.noised(table[ids], torch.ones(ids.shape), torch.Generator())
    torch.testing.assert_close(ours, tensor(expected["embeddings"]), **close(NEF))
    (gradient,) = torch.autograd.grad(ours.square().sum(), table)
    torch.testing.assert_close(gradient, tensor(expected["grad_E_of_sum_of_squares"]), **close(NEF))


def test_neftune_paper_knows_each_rows_length() -> None:
    embeddings, width = torch.zeros(200, 10, 16), 16
    lengths = torch.arange(200) % 9 + 2
    mask = torch.arange(10) < lengths[:, None]
    z = NEFTune(alpha=3.0).noised(embeddings, mask.long(), torch.Generator().manual_seed(0))
    assert (z[~mask] == 0).all()
    for length in range(2, 11):
        own, bound = z[lengths == length][:, :length], 3.0 / (length * width) ** 0.5
        assert 0.98 * bound < own.abs().max() <= bound
    norms = z.norm(dim=(1, 2))
    assert norms.mean().item() == pytest.approx(3**0.5, rel=0.01)  # alpha / sqrt(3), whatever the length


def test_neftune_noise_is_the_batchs_and_the_rows_own(tiny_family: Callable[[str], Path]) -> None:
    network = load(tiny_family("bert"))
    method = NEFTune(alpha=3.0)
    method.prepare(start_of(network))
    seen: list[Tensor] = []
    short, both = network._tokens("the bank"), network._tokens("the bank", "a film of the new week and the old song")

    def noise(inputs: dict[str, Tensor], seed: int) -> Tensor:
        method.begin(batch_of(seed))
        seen.clear()
        handle = network.model.get_input_embeddings().register_forward_hook(lambda _, __, out: seen.append(out))
        network.forward(inputs)
        handle.remove()
        return seen[0] - network.model.get_input_embeddings().weight[inputs["input_ids"]]

    first = noise(both, 0)
    torch.manual_seed(7)
    assert torch.equal(first, noise(both, 0)) and not torch.equal(first, noise(both, 1))
    tokens = short["input_ids"].shape[1]
    alone = torch.stack([noise(short, seed)[0].abs().max() for seed in range(50)]).max()
    beside = torch.stack([noise(both, seed)[0, :tokens].abs().max() for seed in range(50)]).max()
    assert alone.item() == pytest.approx(beside.item(), rel=0.05)


def test_neftune_noises_the_first_lookup_of_a_pass_only(tiny_family: Callable[[str], Path]) -> None:
    """A decoder that shares the encoder's table looks up again."""
    network = load(tiny_family("bert"))
    method = NEFTune(alpha=3.0)
    method.prepare(start_of(network))
    method.begin(batch_of())
    inputs, table = network._tokens("the bank"), network.model.get_input_embeddings()
    looked_up: list[Tensor] = []
    table.register_forward_hook(lambda _, __, out: looked_up.append(out))

    def look_up_again(*_: Any) -> None:
        table(inputs["input_ids"])

    network.model.classifier.register_forward_pre_hook(look_up_again)
    network.forward(inputs)
    first, second = looked_up
    assert not torch.equal(first, second) and torch.equal(second, table.weight[inputs["input_ids"]])


# -------------------------------------------------------------------------------------------- NoisyTune


def test_noisytune_equals_the_copy_in_hype(monkeypatch: pytest.MonkeyPatch) -> None:
    given, tolerance = NOISY["inputs"], close(NOISY)
    weights = {name: tensor(value) for name, value in given["before"].items()}
    method = NoisyTune(intensity=given["noise_lambda"])
    for name, weight in weights.items():
        monkeypatch.setattr(NoisyTune, "draw", lambda _, w, n=name: tensor(given["unit_draws"][n]))
        method.perturb(weight)
        torch.testing.assert_close(weight, tensor(NOISY["outputs"]["after"][name]), **tolerance)
    assert not torch.equal(weights["W"], tensor(given["before"]["W"]))


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_noisytune_perturbs_the_pretrained_model_and_as_released_the_head(
    variant: Any, tiny_family: Callable[[str], Path]
) -> None:
    network, plain = load(tiny_family("bert")), load(tiny_family("bert"))
    torch.manual_seed(0)
    NoisyTune(variant=variant).prepare(start_of(network))
    before = plain.model.state_dict()
    head = network.model.classifier.weight
    assert torch.equal(head, before["classifier.weight"]) == (variant == "paper")
    for name, weight in network.model.base_model.named_parameters():
        old = before[f"bert.{name}"]
        moved = (weight - old).abs().max()
        assert moved <= 0.075 * old.std() + 1e-7
        assert bool(moved > 0.05 * old.std()) == bool(old.std() > 0), name
        assert weight.requires_grad


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (HyPe, {"eps": "-1"}, "hype:eps=-1: expected 0 or more"),
        (HyPe, {"noise": "gaussian"}, "expected uniform or normal"),
        (NEFTune, {"alpha": "-5"}, "neftune:alpha=-5: expected 0 or more"),
        (NEFTune, {"alpha": "inf"}, "neftune:alpha=inf"),
        (NoisyTune, {"intensity": "nan"}, "noisytune:intensity=nan"),
    ],
)
def test_wrong_fields_are_refused(cls: Any, fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(cls, fields, cls.name)
