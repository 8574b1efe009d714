"""R3F against the released code's recorded numbers, and against a float64 reference where the paper decides.

``tests/oracles/r3f_sentence.json`` records what fairseq's criterion gave on a small model:
logits = mean_t tanh(e_t W1^T + b1) W2^T + b2, once on e = E[tokens] and once on e + noise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.lookup import build
from ftbench.methods.divergence import symmetric_kl
from ftbench.methods.method import Batch
from ftbench.methods.r3f import R3F
from ftbench.models.backbone import Out

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "r3f_sentence.json").read_text())
SHARED = ORACLE["inputs"]["shared"]
CLASSIFICATION = ("cls3_uniform", "cls3_normal", "cls2_uniform_lambda5", "cls3_uniform_default_eps")
#: the default radius leaves float32 only rounding noise in the divergence; the oracle's notes say atol 1e-6
CLOSE = {"rtol": ORACLE["tolerance"]["rtol"], "atol": ORACLE["tolerance"]["atol"]}


def tensor(recorded: dict[str, Any]) -> Tensor:
    numbers = torch.tensor(
        [float(x) for x in _flat(recorded["data"])],
        dtype=getattr(torch, "float64" if recorded["dtype"] == "int64" else recorded["dtype"]),
    ).reshape(recorded["shape"])
    return numbers.long() if recorded["dtype"] == "int64" else numbers


def _flat(data: Any) -> list[Any]:
    return [x for item in data for x in _flat(item)] if isinstance(data, list) else [data]


class Model:
    """The oracle's model, or the same in another type."""

    def __init__(self, weights: str, dtype: torch.dtype = torch.float32) -> None:
        self.weights = {k: tensor(v).to(dtype).requires_grad_() for k, v in SHARED[weights].items()}
        self.tokens = tensor(SHARED["src_tokens"])

    def embed(self) -> Tensor:
        return self.weights["E"][self.tokens]

    def logits(self, embeddings: Tensor) -> Tensor:
        w = self.weights
        return (embeddings @ w["W1"].T + w["b1"]).tanh().mean(1) @ w["W2"].T + w["b2"]

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss, list(self.weights.values()), allow_unused=True)
        return {
            k: torch.zeros_like(w) if g is None else g for (k, w), g in zip(self.weights.items(), found, strict=True)
        }


class Recorded(R3F):
    """R3F whose noise is given, not drawn."""

    z: Tensor

    def draw(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        assert self.z.shape == embeddings.shape
        return self.z


def batch_of(labels: Tensor, *, regression: bool = False, seed: int = 0) -> Batch:
    return Batch(
        inputs={},
        labels=labels,
        ids=torch.arange(len(labels)),
        generator=torch.Generator().manual_seed(seed),
        regression=regression,
    )


def task_loss(logits: Tensor, labels: Tensor, regression: bool) -> Tensor:
    return F.mse_loss(logits.squeeze(-1), labels) if regression else F.cross_entropy(logits, labels)


def run(case: str, variant: str, **fields: Any) -> tuple[Model, Tensor, Tensor, Tensor | None, Tensor]:
    """Model, clean logits, noised logits, the term's value and the objective, through the method's own hooks."""
    given = ORACLE["inputs"][case]
    model = Model(given["weights"])
    method = Recorded(
        weight=given["r3f_lambda"], eps=given["eps"], noise=given["noise_type"], variant=variant, **fields
    )
    method.z = tensor(given["noise"])
    labels, regression = tensor(given["target"]), given["regression_target"]
    batch = batch_of(labels, regression=regression)
    embeddings = model.embed()
    clean = model.logits(embeddings)
    (view,) = method.views(batch, None)
    assert view.transform is not None
    noised = model.logits(view.transform(embeddings))
    term = method.penalty(batch, Out(clean), [Out(noised)])
    objective = task_loss(clean, labels, regression)
    if term is not None:
        objective = objective + term.weight * term.value
    return model, clean, noised, None if term is None else term.value, objective


@pytest.mark.parametrize("case", CLASSIFICATION)
def test_released_equals_the_released_code(case: str) -> None:
    expected = ORACLE["outputs"][case]
    model, clean, noised, value, objective = run(case, "released")
    rows = expected["sample_size"]
    torch.testing.assert_close(clean, tensor(expected["logits_clean"]), **CLOSE)
    torch.testing.assert_close(noised, tensor(expected["logits_noised"]), **CLOSE)
    assert value is not None
    tiny = case == "cls3_uniform_default_eps"
    assert value.item() == pytest.approx(expected["symm_kl"], rel=1e-5, abs=1e-6 if tiny else 2e-6)
    assert objective.item() == pytest.approx(expected["loss_over_sample_size"], rel=1e-5)
    # the code's loss is a sum over rows, ours is the mean
    of_logits = torch.autograd.grad(objective * rows, (clean, noised), retain_graph=True)
    torch.testing.assert_close(of_logits[0], tensor(expected["grad_logits_clean"]), **CLOSE)
    torch.testing.assert_close(of_logits[1], tensor(expected["grad_logits_noised"]), **CLOSE)
    for name, gradient in model.gradients(objective * rows).items():
        torch.testing.assert_close(gradient, tensor(expected["grad_weights"][name]), **CLOSE)


def test_released_adds_nothing_in_regression() -> None:
    expected = ORACLE["outputs"]["regression_uniform"]
    model, clean, noised, value, objective = run("regression_uniform", "released")
    assert value is None
    torch.testing.assert_close(clean, tensor(expected["logits_clean"]), **CLOSE)
    torch.testing.assert_close(noised, tensor(expected["logits_noised"]), **CLOSE)
    assert objective.item() == pytest.approx(expected["loss_over_sample_size"], rel=1e-5)
    for name, gradient in model.gradients(objective * expected["sample_size"]).items():
        torch.testing.assert_close(gradient, tensor(expected["grad_weights"][name]), **CLOSE)


def test_evaluation_is_the_plain_loss() -> None:
    """Methods act on training passes only; the engine's ``predict`` calls no hook (see the contracts)."""
    expected, given = ORACLE["outputs"]["cls3_eval_mode"], ORACLE["inputs"]["cls3_eval_mode"]
    model = Model(given["weights"])
    clean = model.logits(model.embed())
    loss = task_loss(clean, tensor(given["target"]), regression=False)
    assert expected["forward_passes"] == 1 and expected["symm_kl"] is None
    assert loss.item() == pytest.approx(expected["loss_over_sample_size"], rel=1e-5)
    for name, gradient in model.gradients(loss * expected["sample_size"]).items():
        torch.testing.assert_close(gradient, tensor(expected["grad_weights"][name]), **CLOSE)


@pytest.mark.parametrize("case", ["symm_kl_only", "symm_kl_wide_gap_finite_then_not"])
def test_the_divergence_alone(case: str) -> None:
    given, expected = ORACLE["inputs"][case], ORACLE["outputs"][case]
    noised, clean = tensor(given["noised_logits"]), tensor(given["input_logits"])
    noised.requires_grad_(), clean.requires_grad_()
    rows = symmetric_kl(clean, noised)
    value = rows.mean()
    of_noised, of_clean = torch.autograd.grad(value, (noised, clean))
    finite = tensor({**expected["grad_is_finite"], "dtype": "float32"}).bool()
    assert of_noised.isfinite().all() and of_clean.isfinite().all()
    assert value.item() == pytest.approx(tensor(expected["symm_kl"]).item(), rel=1e-5, abs=2e-6)
    for ours, name in ((of_noised, "grad_noised_logits"), (of_clean, "grad_input_logits")):
        torch.testing.assert_close(ours[finite], tensor(expected[name])[finite], **CLOSE)


def by_hand(case: str) -> tuple[Tensor, dict[str, Tensor]]:
    """The paper's objective in float64, differentiated through everything."""
    given = ORACLE["inputs"][case]
    model = Model(given["weights"], torch.float64)
    labels = tensor(given["target"])
    clean = model.logits(model.embed())
    noised = model.logits(model.embed() + tensor(given["noise"]).double())
    if given["regression_target"]:
        labels = labels.double()
        objective = ((clean[:, 0] - labels) ** 2).mean()
        objective = objective + given["r3f_lambda"] * ((clean - noised) ** 2).sum(-1).mean()
    else:
        log_p, log_q = clean.log_softmax(-1), noised.log_softmax(-1)
        divergence = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1).mean()
        objective = -log_p[torch.arange(len(labels)), labels].mean() + given["r3f_lambda"] * divergence
    return objective.detach(), model.gradients(objective)


@pytest.mark.parametrize("case", [*CLASSIFICATION, "regression_uniform"])
def test_paper_equals_a_float64_reference(case: str) -> None:
    model, _, _, _, objective = run(case, "paper")
    expected, gradients = by_hand(case)
    assert objective.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, gradient in model.gradients(objective).items():
        torch.testing.assert_close(gradient.double(), gradients[name], rtol=1e-4, atol=2e-6)


def test_the_variants_differ_in_the_gradient_of_the_table_only() -> None:
    paper_model, _, _, paper_value, paper = run("cls3_uniform", "paper")
    model, _, _, value, released = run("cls3_uniform", "released")
    assert torch.equal(paper, released) and torch.equal(paper_value, value)  # type: ignore[arg-type]
    ours, theirs = paper_model.gradients(paper), model.gradients(released)
    assert not torch.allclose(ours.pop("E"), theirs.pop("E"), atol=1e-3)
    for name, gradient in ours.items():
        assert torch.equal(gradient, theirs[name])


@pytest.mark.parametrize("detach", ["none", "clean", "noised", "embeddings"])
def test_detach_cuts_the_gradient_it_names_and_no_other(detach: str) -> None:
    given = ORACLE["inputs"]["cls3_uniform"]
    model = Model(given["weights"])
    method = Recorded(detach=detach)  # type: ignore[arg-type]
    method.z = tensor(given["noise"])
    batch = batch_of(tensor(given["target"]))
    embeddings, again = model.embed(), model.embed()
    clean = model.logits(embeddings)
    (view,) = method.views(batch, None)
    assert view.transform is not None
    seen = view.transform(again)
    noised = model.logits(seen)
    term = method.penalty(batch, Out(clean), [Out(noised)])
    assert term is not None
    found = torch.autograd.grad(term.value, (clean, noised, embeddings, again), allow_unused=True)
    alive = [gradient is not None and bool(gradient.abs().sum() > 0) for gradient in found]
    assert (
        alive
        == {
            "none": [True, True, True, True],
            "clean": [False, True, False, True],
            "noised": [True, False, True, False],
            "embeddings": [True, True, True, False],
        }[detach]
    )


@pytest.mark.parametrize(("variant", "detach"), [("paper", "none"), ("released", "embeddings")])
def test_auto_detaches_as_the_variant_has_it(variant: str, detach: str) -> None:
    model, _, _, _, auto = run("cls3_uniform", variant)
    other, _, _, _, said = run("cls3_uniform", "paper", detach=detach)
    assert torch.equal(model.gradients(auto)["E"], other.gradients(said)["E"])


@pytest.mark.parametrize(("noise", "deviation"), [("uniform", 3**-0.5), ("normal", 1.0)])
def test_noise_has_the_radius_it_says(noise: Any, deviation: float) -> None:
    eps = 0.25
    z = R3F(eps=eps, noise=noise).draw(torch.zeros(64, 32, 64), torch.Generator().manual_seed(0))
    assert z.dtype == torch.float32
    assert z.std().item() == pytest.approx(eps * deviation, rel=0.01)
    assert abs(z.mean().item()) < 0.003 * eps * 2
    assert (z.abs().max() <= eps) == (noise == "uniform")
    if noise == "uniform":
        assert z.max() > 0.999 * eps and z.min() < -0.999 * eps


def test_noise_comes_from_the_batch_and_from_nowhere_else() -> None:
    embeddings = torch.zeros(2, 3, 4)
    torch.manual_seed(1)
    first = R3F(eps=1.0).add_noise(embeddings, batch_of(torch.zeros(2)))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = R3F(eps=1.0).add_noise(embeddings, batch_of(torch.zeros(2)))
    assert torch.equal(first, again) and torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, R3F(eps=1.0).add_noise(embeddings, batch_of(torch.zeros(2), seed=1)))


def alive(embeddings: Tensor, **fields: Any) -> float:
    batch = batch_of(torch.zeros(len(embeddings)))
    batch.diagnose = True
    R3F(**fields).add_noise(embeddings, batch)
    return batch.notes["noise_alive"].item()


def test_noise_survives_in_float32_and_not_in_the_compute_type() -> None:
    """The embeddings of a pretrained model have a deviation of about 0.05; bfloat16 keeps 8 bits of each."""
    embeddings = torch.randn(8, 16, 64, generator=torch.Generator().manual_seed(0)) * 0.05
    assert alive(embeddings, noise_dtype="compute") > 0.99  # no autocast: the compute type is float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert alive(embeddings) > 0.99
        assert alive(embeddings, noise_dtype="compute") < 0.1
        assert R3F().add_noise(embeddings, batch_of(torch.zeros(8))).dtype == torch.float32


def test_nothing_is_measured_between_diagnoses() -> None:
    batch = batch_of(torch.zeros(2))
    R3F().add_noise(torch.zeros(2, 3, 4), batch)
    assert batch.notes == {}


@pytest.mark.parametrize("dropout", ["independent", "shared", "off"])
def test_the_view_asks_for_the_dropout_of_the_field(dropout: Any) -> None:
    (view,) = R3F(dropout=dropout).views(batch_of(torch.zeros(2)), None)
    assert view.dropout == dropout


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eps": "-1e-5"}, r"r3f:eps=-1e-05: expected 0 or more"),
        ({"weight": "-1"}, r"r3f:weight=-1: expected 0 or more"),
        ({"weight": "nan"}, r"r3f:weight=nan"),
        ({"eps": "inf"}, r"r3f:eps=inf"),
        ({"noise": "gaussian"}, r"r3f:noise=gaussian: expected uniform or normal"),
        ({"dropout": "none"}, r"r3f:dropout=none: expected independent or shared or off"),
        ({"variant": "paperr"}, r"expected paper or released\. Did you mean 'paper'\?"),
        ({"weight": "much"}, r"r3f:weight=much: expected a number"),
        ({"wieght": "1"}, r"r3f has no field 'wieght'\. Did you mean 'weight'\? Known: .*eps, noise, .*weight"),
    ],
)
def test_wrong_fields_are_refused_with_the_known_ones(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(R3F, fields, "r3f")
