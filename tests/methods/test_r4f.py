"""R4F's normalised head: against recorded numbers of torch's code, by hand, and in trained and saved models.

``tests/oracles/spectral_norm.json`` records ``parametrizations.spectral_norm`` (torch 2.13) on a 3 x 7 matrix, with
loss = sum((x W_SN^T + b) * target). What the fairseq head does is there too: it normalises its last projection only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ftbench.errors import FtbenchError, UsageError
from ftbench.lookup import build
from ftbench.methods.features import head_linears
from ftbench.methods.method import Start
from ftbench.methods.r4f import R4F, normalise
from ftbench.training.engine import optimizer_step

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "spectral_norm.json").read_text())
GIVEN, EXPECTED = ORACLE["inputs"]["parametrized"], ORACLE["outputs"]["parametrized"]
CLOSE = {"rtol": ORACLE["tolerance"]["rtol"], "atol": ORACLE["tolerance"]["atol"]}

#: family -> its head's matrices, in the order in which they are applied
HEADS = {
    "bert": ("bert.pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "classifier"),
    "electra": ("classifier.dense", "classifier.out_proj"),
    "albert": ("albert.pooler", "classifier"),
    "deberta-v2": ("pooler.dense", "classifier"),
    "bart": ("classification_head.dense", "classification_head.out_proj"),
    "gpt2": ("score",),
}


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"])).reshape(recorded["shape"])


def shared(name: str) -> Tensor:
    return tensor(ORACLE["inputs"]["shared"][name])


def linear_from(u: dict[str, Any], v: dict[str, Any]) -> tuple[nn.Linear, Any]:
    """The oracle's matrix, normalised from recorded singular vectors, and what holds these."""
    linear = nn.Linear(7, 3)
    linear.weight.data, linear.bias.data = shared("W"), shared("b")
    normalise(linear)
    norm = linear.parametrizations["weight"][0]  # type: ignore[index]
    norm._u.copy_(tensor(u))
    norm._v.copy_(tensor(v))
    return linear, norm


def assert_vectors(norm: Any, expected: dict[str, Any]) -> None:
    torch.testing.assert_close(norm._u, tensor(expected["u"]), **CLOSE)
    torch.testing.assert_close(norm._v, tensor(expected["v"]), **CLOSE)


def test_a_copy_is_normalised_by_itself() -> None:
    linear, norm = linear_from(GIVEN["u_after_init"], GIVEN["v_after_init"])
    frozen = copy.deepcopy(linear).eval()
    u = norm._u.clone()
    before = frozen(shared("x"))
    assert torch.equal(norm._u, u), "a pass of the copy leaves the original's vectors"
    with torch.no_grad():
        linear.parametrizations["weight"].original.mul_(torch.tensor([[1.0], [2.0], [3.0]]))  # type: ignore[index]
    linear(shared("x"))
    assert not torch.equal(norm._u, u)
    assert torch.equal(frozen(shared("x")), before)


@pytest.mark.parametrize("other", ["capcort-i", "cka"])
def test_a_frozen_copy_in_a_stack_leaves_the_head_alone(
    other: str, tiny_data: Callable[..., Any], tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    """At weight 0 it is R4F, also where the pretrained vectors come from a copy of the network."""
    alone, both = (
        training_of(tiny_data(), tiny_model, tmp_path, arm) for arm in ("r4f", f"r4f+{other}:cache=off,weight=0")
    )
    for step in range(2):
        for run in (alone, both):
            run.backbone.model.train()
            optimizer_step(run, step)
    theirs = both.backbone.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in alone.backbone.model.state_dict().items())


# ------------------------------------------------------------------------------------- recorded numbers


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_training_passes_equal_the_recorded_ones(passes: int) -> None:
    linear, norm = linear_from(GIVEN["u_after_init"], GIVEN["v_after_init"])
    for _ in range(passes):
        linear.zero_grad()
        output = linear(shared("x"))
        (output * shared("target")).sum().backward()
    expected = EXPECTED[f"after_{passes}_train_forwards"]
    assert_vectors(norm, expected)
    original = linear.parametrizations["weight"].original  # type: ignore[index]
    sigma = norm._u @ original @ norm._v
    assert sigma.item() == pytest.approx(expected["sigma"], rel=CLOSE["rtol"])
    torch.testing.assert_close(output, tensor(expected["output"]), **CLOSE)
    torch.testing.assert_close(original.grad, tensor(expected["grad_weight_original"]), **CLOSE)


def test_evaluation_leaves_the_vectors_alone() -> None:
    linear, norm = linear_from(EXPECTED["after_5_train_forwards"]["u"], EXPECTED["after_5_train_forwards"]["v"])
    _ = linear.weight  # one more read in training, as recorded before the evaluation
    assert_vectors(norm, EXPECTED["after_one_more_attribute_read_in_train_mode"])
    linear.eval()
    for _ in range(3):
        torch.testing.assert_close(linear(shared("x")), tensor(EXPECTED["eval"]["output"]), **CLOSE)
        torch.testing.assert_close(linear.weight, tensor(EXPECTED["eval"]["weight"]), **CLOSE)
    assert_vectors(norm, EXPECTED["after_one_more_attribute_read_in_train_mode"])


def test_sixteen_iterations_come_before_training() -> None:
    linear, norm = linear_from(GIVEN["random_u_before_init"], GIVEN["random_v_before_init"])
    for _ in range(GIVEN["init_iterations"]):
        _ = linear.weight
    assert_vectors(norm, {"u": GIVEN["u_after_init"], "v": GIVEN["v_after_init"]})
    torch.manual_seed(0)
    fresh = nn.Linear(7, 3)
    fresh.weight.data = shared("W")
    normalise(fresh)
    start = fresh.parametrizations["weight"][0]  # type: ignore[index]
    largest = ORACLE["outputs"]["true_singular_values"]["data"][0]
    assert (start._u @ shared("W") @ start._v).item() == pytest.approx(largest, rel=1e-3), "from any random start"


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_from_one_start_the_order_is_u_then_v(passes: int) -> None:
    """The old hook, which the released code uses, goes the other way round: its first iterates differ."""
    recorded = ORACLE["outputs"]["same_start"][f"after_{passes}"]
    given = ORACLE["inputs"]["same_start"]
    linear, norm = linear_from(given["u0"], given["v0"])
    for _ in range(passes):
        weight = linear.weight
    assert_vectors(norm, recorded["parametrized"])
    torch.testing.assert_close(weight, tensor(recorded["parametrized"]["weight"]), **CLOSE)
    assert not torch.allclose(weight, tensor(recorded["legacy"]["weight"]), atol=1e-3)


def test_small_matrices_are_stretched_as_released() -> None:
    """The norm becomes 1, also where it was smaller."""
    linear = nn.Linear(7, 3)
    linear.weight.data = shared("W") * 1e-3
    normalise(linear)
    assert torch.linalg.matrix_norm(linear.weight, 2).item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_under_autocast_the_division_stays_in_float32(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU autocast gives the power iteration's dot product operands of two types, which torch refuses."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    (plain, _), (half, norm) = (linear_from(GIVEN["u_after_init"], GIVEN["v_after_init"]) for _ in range(2))
    plain, half, x = plain.to(device), half.to(device), shared("x").to(device)
    iterate, seen = norm._power_method, []

    def watched(weight: Tensor, times: int) -> None:
        seen.append(torch.is_autocast_enabled(device))
        iterate(weight, times)

    monkeypatch.setattr(norm, "_power_method", watched)
    with torch.autocast(device, dtype=torch.bfloat16):
        weight = half.weight
        output = half(x)
        assert torch.is_autocast_enabled(device)
    assert seen == [False, False]
    assert weight.dtype == torch.float32 and torch.equal(weight, plain.weight)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), plain(x), rtol=0.05, atol=0.05)


# ------------------------------------------------------------------------------ which matrices of a head


def normalised(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, module in model.named_modules() if parametrize.is_parametrized(module))


@pytest.mark.parametrize("family", HEADS)
def test_the_matrices_of_a_head(
    family: str, tiny_data: Any, tiny_family: Any, training_of: Any, tmp_path: Path
) -> None:
    """The paper scales all of g; the released code the one that gives the logits."""
    model = tiny_family(family)

    def prepared(arm: str) -> tuple[str, ...]:
        return normalised(training_of(tiny_data(), model, tmp_path, arm).backbone.model)

    assert prepared("r4f") == prepared("r4f:variant=released,heads=all") == HEADS[family]
    assert prepared("r4f:variant=released") == prepared("r4f:heads=last") == HEADS[family][-1:]
    assert prepared("r3f") == ()


def test_the_released_head_normalises_what_fairseq_s_does() -> None:
    recorded = ORACLE["outputs"]["fairseq_head"]
    assert [f"classifier.{name}" for name in recorded["normalised_submodules"]] == [HEADS["roberta"][-1]]
    assert recorded["has_hook"] == {"dense": False, "out_proj": True}


def test_the_network_s_head_in_the_order_of_its_use(
    tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    backbone = training_of(tiny_data(classes=3), tiny_model, tmp_path).backbone
    assert [linear.out_features for linear in head_linears(backbone)] == [32, 3]


def test_a_head_without_a_linear_layer_is_refused(
    tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = training_of(tiny_data(), tiny_model, tmp_path).backbone
    monkeypatch.setattr(backbone, "depths", dict)
    with pytest.raises(FtbenchError, match="a bert head has no linear layer"):
        R4F().prepare(Start(backbone, 1, 1, lambda: iter(())))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": "first"}, "r4f:heads=first: expected auto or all or last"),
        ({"weight": "-1"}, "r4f:weight=-1: expected 0 or more"),
        ({"head": "all"}, "r4f has no field 'head'. Did you mean 'heads'?"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build(R4F, fields, "r4f")
    assert message in str(error.value)


# --------------------------------------------------------------------------------------- the objective


def test_the_logits_are_those_of_the_divided_matrices(
    tiny_data: Any, tiny_model_without_dropout: Path, training_of: Any, tmp_path: Path
) -> None:
    """g f(x) by hand: (W2 / s2) tanh((W1 / s1) h + b1) + b2, with h of the plain model."""
    plain = training_of(tiny_data(), tiny_model_without_dropout, tmp_path).backbone
    ours = training_of(tiny_data(), tiny_model_without_dropout, tmp_path, "r4f").backbone
    first, second = head_linears(plain)
    tokens = plain.tokenizer(["goal bank", "the market"], padding=True, return_tensors="pt")
    for backbone in (plain, ours):
        backbone.model.eval()
    with torch.no_grad():
        states = plain.hidden(dict(tokens))[:, 0].double()
        (w1, b1), (w2, b2) = ((x.weight.double(), x.bias.double()) for x in (first, second))
        s1, s2 = (torch.linalg.matrix_norm(w, 2) for w in (w1, w2))
        expected = (states @ w1.T / s1 + b1).tanh() @ w2.T / s2 + b2
        found = ours.forward(dict(tokens)).logits.double()
        assert not torch.allclose(plain.forward(dict(tokens)).logits.double(), expected, atol=1e-2)
    # sixteen iterations leave the larger matrix, whose singular values lie close together, some per cent short
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.02)


def test_the_term_is_r3f_s_on_the_normalised_head(
    tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    """One step: the noise, the masks and the weight are R3F's, so with the head divided the terms agree."""
    r3f = training_of(tiny_data(), tiny_model, tmp_path, "r3f:eps=0.1,weight=5")
    r4f = training_of(tiny_data(), tiny_model, tmp_path, "r4f:eps=0.1,weight=5")
    with torch.no_grad():
        for linear in head_linears(r3f.backbone):
            linear.weight /= torch.linalg.matrix_norm(linear.weight, 2)
    for run in (r3f, r4f):
        run.backbone.model.train()
    ours, theirs = optimizer_step(r4f, 0), optimizer_step(r3f, 0)
    assert ours["loss"].item() == pytest.approx(theirs["loss"].item(), rel=0.02)
    assert ours["kl"].item() == pytest.approx(theirs["kl"].item(), rel=0.2) and ours["kl"] > 1e-6


# ------------------------------------------------------------------------------- trained and saved models


def head_norms(folder: Path) -> dict[str, float]:
    """Largest singular value of every matrix of a saved model, by name."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    return {k.removesuffix(".weight"): torch.linalg.matrix_norm(w, 2).item() for k, w in weights.items() if w.ndim == 2}


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_trained_head_has_norm_one(
    family: str, variant: str, tiny_data: Any, tiny_family: Any, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """One iteration a pass follows weights that move slowly."""
    outcome = finetune_tiny(tiny_data(), tiny_family(family), tmp_path, f"r4f:variant={variant}", steps=60, lr=1e-3)
    outcome.backbone.save(tmp_path / "model")
    norms = head_norms(tmp_path / "model")
    divided = HEADS[family] if variant == "paper" else HEADS[family][-1:]
    assert {name: norms[name] for name in divided} == pytest.approx(dict.fromkeys(divided, 1.0), abs=0.02)
    others = [value for name, value in norms.items() if name not in divided]
    assert others and all(abs(value - 1) > 1e-3 for value in others), "nothing else is touched"


def test_the_saved_model_is_a_plain_one_with_the_run_s_predictions(
    tiny_data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    data = tiny_data()
    outcome = finetune_tiny(data, tiny_model, tmp_path / "r4f", "r4f")
    plain = finetune_tiny(data, tiny_model, tmp_path / "std")
    assert outcome.backbone.model.state_dict().keys() == plain.backbone.model.state_dict().keys()
    assert normalised(outcome.backbone.model) == ()
    outcome.backbone.save(tmp_path / "model")
    loaded, said = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"]
    texts = list(data.splits["validation"].texts[0])
    with torch.no_grad():
        tokens = outcome.backbone.tokenizer(texts, padding=True, return_tensors="pt")
        logits = loaded.eval()(**tokens).logits
    np.testing.assert_allclose(logits.softmax(-1).numpy(), outcome.predictions["probabilities"], rtol=1e-4)
    assert np.ptp(outcome.predictions["probabilities"]) > 1e-3


def test_finishing_keeps_the_logits(tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path) -> None:
    run = training_of(tiny_data(), tiny_model, tmp_path, "r4f")
    run.backbone.model.train()
    for step in range(3):
        optimizer_step(run, step)
    run.backbone.model.eval()
    tokens = dict(run.backbone.tokenizer(["goal bank", "the market"], padding=True, return_tensors="pt"))
    with torch.no_grad():
        before = run.backbone.forward(tokens).logits
        run.methods[0].finish(run.backbone)
        after = run.backbone.forward(tokens).logits
    assert torch.equal(before, after) and normalised(run.backbone.model) == ()


def test_the_control_is_the_normalised_head_alone(
    tiny_data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """Its noise decides nothing, and it is not plain fine-tuning."""
    arms = ("r4f:weight=0", "r4f:weight=0,eps=0.5,noise=normal", "r4f", "std")
    runs = [finetune_tiny(tiny_data(), tiny_model, tmp_path / str(i), arm) for i, arm in enumerate(arms)]
    control, louder, full, std = (outcome.predictions["probabilities"] for outcome in runs)
    assert np.array_equal(control, louder)
    assert not np.array_equal(control, full) and not np.array_equal(control, std)
