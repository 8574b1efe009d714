"""SMART, FreeLB and VAT: recorded numbers of the released codes, and float64 references where the paper decides.

The oracles' model: h = mean over real tokens of tanh(e_t W1^T + b1), logits = h W2^T + b2, e = E[ids] + perturbation.
``run`` stands in for the engine's passes; without dropout, so every pass differs by its perturbation only.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftbench.errors import UsageError
from ftbench.lookup import build
from ftbench.methods.adversary import crossed_kl, kl, stable_kl
from ftbench.methods.freelb import FreeLB
from ftbench.methods.method import Batch, Step, View
from ftbench.methods.smart import Smart
from ftbench.methods.vat import VAT
from ftbench.models.backbone import Out
from ftbench.models.modes import holding

FOLDER = Path(__file__).parents[1] / "oracles"
MTDNN, PYTORCH, CRITERIA, LOSSES, FREELB = (
    json.loads((FOLDER / f"{name}.json").read_text())
    for name in (
        "smart_mtdnn_perturbation",
        "smart_pytorch",
        "smart_mtdnn_criteria",
        "smart_pytorch_losses",
        "freelb_hf",
    )
)


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"])).reshape(recorded["shape"])


def close(oracle: dict[str, Any], case: str) -> dict[str, float]:
    tolerance = {**oracle["tolerance"], **oracle["tolerance"].get("overrides", {}).get(case, {})}
    return {"rtol": tolerance["rtol"], "atol": tolerance["atol"]}


class Model:
    """The oracles' model, or the same in another type. ``deltas``: what each pass added to the embeddings."""

    def __init__(self, given: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
        self.weights = {name: tensor(value).to(dtype).requires_grad_() for name, value in given["weights"].items()}
        self.ids, self.mask = tensor(given["input_ids"]), tensor(given["attention_mask"])
        self.deltas: list[Tensor] = []
        self.outs: list[Tensor] = []
        self.dropouts: list[str] = []

    def embed(self) -> Tensor:
        return self.weights["E"][self.ids]

    def logits(self, embeddings: Tensor) -> Tensor:
        w, mask = self.weights, self.mask.to(embeddings.dtype).unsqueeze(-1)
        hidden = (embeddings @ w["W1"].T + w["b1"]).tanh()
        return (hidden * mask).sum(1) / mask.sum(1) @ w["W2"].T + w["b2"]

    def run(self, view: View) -> Out:
        assert view.transform is not None
        embeddings = self.embed()
        changed = view.transform(embeddings)
        self.deltas.append((changed - embeddings).detach())
        self.outs.append(self.logits(changed))
        self.dropouts.append(view.dropout)
        return Out(self.outs[-1])

    def batch(self, labels: Tensor | None = None, *, regression: bool = False) -> Batch:
        labels = torch.zeros(len(self.ids), dtype=torch.int64) if labels is None else labels
        inputs = {"input_ids": self.ids, "attention_mask": self.mask}
        made = Batch(inputs, labels, torch.arange(len(labels)), torch.Generator().manual_seed(0), regression)
        made.run = self.run
        made.task_loss = lambda out: F.cross_entropy(out.logits, labels)
        return made

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss, list(self.weights.values()), allow_unused=True)
        pairs = zip(self.weights.items(), found, strict=True)
        return {name: torch.zeros_like(w) if g is None else g for (name, w), g in pairs}


# ------------------------------------------------------------------------------------------ divergences


@pytest.mark.parametrize("case", ["b4c3", "b3c5", "b4c2_close"])
@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("stable_kl_sum", lambda x, y: stable_kl(x, y).sum()),
        ("stable_kl_mean", lambda x, y: stable_kl(x, y).mean()),
        ("KlCriterion", lambda x, y: kl(y, x).mean()),
        ("SymKlCriterion", lambda x, y: crossed_kl(x, y).mean()),
    ],
)
def test_divergences_of_mtdnn(name: str, divergence: Any, case: str) -> None:
    check_divergence(CRITERIA, case, name, divergence)


@pytest.mark.parametrize("case", ["b4c3", "b3c5"])
@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("kl_loss_batchmean", lambda x, y: kl(y, x).mean()),
        ("sym_kl_loss_default_sum", lambda x, y: crossed_kl(x, y).sum()),
        ("sym_kl_loss_batchmean", lambda x, y: crossed_kl(x, y).mean()),
    ],
)
def test_divergences_of_smart_pytorch(name: str, divergence: Any, case: str) -> None:
    check_divergence(LOSSES, case, name, divergence)


def check_divergence(oracle: dict[str, Any], case: str, name: str, divergence: Any) -> None:
    given, expected = oracle["inputs"][case], oracle["outputs"][case][name]
    x, y = (tensor(given[side]).requires_grad_() for side in ("input", "target"))
    value = divergence(x, y)
    torch.testing.assert_close(value, tensor(expected["value"]), **close(oracle, case))
    found = torch.autograd.grad(value, (x, y), allow_unused=True)
    for ours, side in zip(found, ("grad_input", "grad_target"), strict=True):
        wanted = torch.zeros_like(x) if expected[side] is None else tensor(expected[side])
        torch.testing.assert_close(torch.zeros_like(x) if ours is None else ours, wanted, **close(oracle, case))


# ------------------------------------------------------------------------------------------------ SMART


class Given(Smart):
    """SMART whose first noise is given, not drawn."""

    noise: Tensor

    def draw(self, embeddings: Tensor, batch: Batch) -> Tensor:
        assert self.noise.shape == embeddings.shape
        return self.noise


def smart(
    oracle: dict[str, Any], case: str, dtype: torch.dtype = torch.float32, **fields: Any
) -> tuple[Model, Tensor, Tensor, Tensor]:
    """The model with its passes, clean logits, perturbed logits, the term's value: through the method's own hooks."""
    given = oracle["inputs"][case]
    model = Model(oracle["inputs"]["shared"][given["model"]], dtype)
    method = Given(steps=given.get("k", given.get("num_steps")), step_size=given["step_size"], **fields)
    method.noise = tensor(given["initial_noise"]).to(dtype)
    batch = model.batch(regression=given["model"] == "model_1_outputs")
    clean = model.logits(model.embed())
    (view,) = method.views(batch, Out(clean))
    perturbed = model.run(view).logits
    term = method.penalty(batch, Out(clean), [Out(perturbed)])
    assert term is not None and term.weight == 1
    return model, clean, perturbed, term.value


def same_perturbations(oracle: dict[str, Any], case: str, model: Model, clean: Tensor, perturbed: Tensor) -> None:
    expected = oracle["outputs"][case]
    tolerance = close(oracle, case)
    torch.testing.assert_close(clean, tensor(expected["clean_logits"]).reshape(clean.shape), **tolerance)
    assert len(model.deltas) == len(expected["perturbation_after_step"]) + 1
    for ours, recorded in zip(model.deltas[1:], expected["perturbation_after_step"], strict=True):
        torch.testing.assert_close(ours, tensor(recorded), **tolerance)
    torch.testing.assert_close(perturbed, tensor(expected["adv_logits"]).reshape(perturbed.shape), **tolerance)


@pytest.mark.parametrize(
    "case",
    [
        "cls_class_defaults",
        "cls_train_script_defaults",
        "cls_gradient_dominates",
        "cls_3_steps",
        "cls_ns_sym_kl",
        "cls_js",
    ],
)
def test_released_equals_mtdnn(case: str) -> None:
    expected, tolerance = MTDNN["outputs"][case], close(MTDNN, case)
    model, clean, perturbed, value = smart(MTDNN, case, variant="released")
    same_perturbations(MTDNN, case, model, clean, perturbed)
    if MTDNN["inputs"][case]["final_loss"] != "SymKlCriterion":  # the ascent is the same before any final loss
        return
    torch.testing.assert_close(value, tensor(expected["adv_loss"]), **tolerance)
    of_clean, of_perturbed = torch.autograd.grad(value, (clean, perturbed), retain_graph=True)
    torch.testing.assert_close(of_clean, tensor(expected["grad_clean_logits"]), **tolerance)
    torch.testing.assert_close(of_perturbed, tensor(expected["grad_adv_logits"]), **tolerance)
    for name, gradient in model.gradients(value).items():
        torch.testing.assert_close(gradient, tensor(expected["grad_weights"][name]), **tolerance)


def test_released_regression_compares_each_row_with_itself() -> None:
    """Theirs compares all pairs: the same ascent, and their number from our logits."""
    expected = MTDNN["outputs"]["regression_mse"]
    model, clean, perturbed, value = smart(MTDNN, "regression_mse", variant="released")
    same_perturbations(MTDNN, "regression_mse", model, clean, perturbed)
    torch.testing.assert_close((clean[:, 0] - perturbed).square().mean(), tensor(expected["adv_loss"]))
    torch.testing.assert_close(value, (clean - perturbed).square().mean())


@pytest.mark.parametrize(
    "case", ["readme_roberta_defaults", "gradient_dominates", "three_steps", "zero_steps", "regression_mse"]
)
def test_inner_kl_equals_smart_pytorch(case: str) -> None:
    """Theirs: the ascent follows a batch mean; the final divergence is a batch sum, in regression a mean."""
    expected, tolerance = PYTORCH["outputs"][case], close(PYTORCH, case)
    rows = len(tensor(expected["clean_logits"]))
    given = PYTORCH["inputs"][case]
    scaled = {**PYTORCH, "inputs": {**PYTORCH["inputs"], case: {**given, "step_size": given["step_size"] / rows}}}
    model, clean, perturbed, value = smart(scaled, case, variant="released", inner="kl")
    same_perturbations(PYTORCH, case, model, clean, perturbed)
    value = value if case == "regression_mse" else value * rows
    torch.testing.assert_close(value, tensor(expected["loss"]), **tolerance)
    for name, gradient in model.gradients(value).items():
        torch.testing.assert_close(gradient, tensor(expected["grad_weights"][name]), **tolerance)


def symmetric(a: Tensor, b: Tensor) -> Tensor:
    p, q = a.softmax(-1), b.softmax(-1)
    return ((p - q) * (p.log() - q.log())).sum(-1)


@pytest.mark.parametrize("eps", [0.02, 0.3, 9.0])
@pytest.mark.parametrize("case", ["cls_3_steps", "regression_mse"])
def test_paper_equals_a_float64_reference(case: str, eps: float) -> None:
    """The model is float64 on both sides. A divergence is float32 by design, so its direction near the clean pass has
    fewer digits than its value: steps of 0.5 end within 1e-5."""
    given = MTDNN["inputs"][case]
    model, _, _, value = smart(MTDNN, case, torch.float64, eps=eps)
    reference = Model(MTDNN["inputs"]["shared"][given["model"]], torch.float64)
    apart = symmetric if "cls" in case else lambda a, b: ((a - b) ** 2).sum(-1)
    clean = reference.logits(reference.embed())
    delta = tensor(given["initial_noise"]).double()
    for _ in range(given["k"]):
        delta.requires_grad_()
        inner = apart(clean.detach(), reference.logits(reference.embed().detach() + delta)).sum()
        (g,) = torch.autograd.grad(inner, delta)
        delta = delta.detach() + given["step_size"] * g / g.abs().amax((1, 2), keepdim=True)
        delta = torch.where(delta.abs() > eps, eps * delta.sign(), delta)
    expected = apart(clean, reference.logits(reference.embed() + delta)).mean()
    assert model.deltas[-1].abs().max() <= eps * (1 + 1e-5) + 1e-7
    torch.testing.assert_close(model.deltas[-1], delta, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-7)
    wanted = reference.gradients(expected)
    for name, gradient in model.gradients(value).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-6)


def test_its_defaults_are_an_adversary() -> None:
    """The noise alone moves the prediction far less than the end of one ascent, in a ball of the same size."""
    model = Model(MTDNN["inputs"]["shared"]["model_3_outputs"], torch.float64)
    clean = model.logits(model.embed()).detach()
    found = {}
    for steps in (0, 1):
        (view,) = Smart(steps=steps).views(model.batch(), Out(clean))
        found[steps] = symmetric(clean, model.run(view).logits).mean().item()
    assert found[1] > 3 * found[0]


def test_a_prediction_that_does_not_move_gives_no_direction() -> None:
    assert torch.equal(Smart().direction(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_an_ascent_goes_up_and_its_noise_is_the_batchs() -> None:
    model = Model(MTDNN["inputs"]["shared"]["model_3_outputs"])
    clean = model.logits(model.embed()).detach()
    found = {}
    for steps in (0, 1, 5):
        method = Smart(steps=steps, step_size=1.0, eps=0.3, sigma=0.05)
        (view,) = method.views(model.batch(), Out(clean))
        found[steps] = symmetric(clean, model.run(view).logits).mean().item()
    assert found[0] < found[1] < found[5]
    first, again = (Smart(sigma=0.5).draw(torch.zeros(64, 8, 32), model.batch()) for _ in range(2))
    assert torch.equal(first, again) and first.std().item() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("dropout", ["independent", "shared", "off"])
def test_every_pass_has_the_dropout_of_the_field(dropout: Any) -> None:
    model = Model(MTDNN["inputs"]["shared"]["model_3_outputs"])
    for method in (Smart(dropout=dropout, steps=2), VAT(dropout=dropout, steps=2)):
        (view,) = method.views(model.batch(), Out(model.logits(model.embed())))
        assert [*model.dropouts, view.dropout] == [dropout] * 3
        model.dropouts.clear()


def test_holding_uses_other_weights_and_puts_the_own_ones_back() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].bias = model[0].bias  # tied, cut to size by nobody: only looked at
    x = torch.ones(1, 3)
    own = model[0](x)
    parameters = dict(model.named_parameters())
    with holding(model, {"0.weight": torch.zeros(3, 3), "0.bias": torch.full((3,), 7.0)}):
        assert model[0](x).tolist() == [[7.0] * 3] and model[1].bias.tolist() == [7.0] * 3
    assert torch.equal(model[0](x), own)
    assert all(value is parameters[name] for name, value in model.named_parameters())
    own.sum().backward()
    assert parameters["0.weight"].grad is not None


def test_past_weights_follow_with_their_momentum() -> None:
    """theta~ <- (1 - beta) theta + beta theta~, beta 0.9 in the first tenth of 20 steps, 0.5 after."""
    network = nn.Linear(2, 1, bias=False)
    backbone: Any = type("Stub", (), {"model": network, "device": torch.device("cpu")})()
    method = Smart(proximal=1.0, beta=0.9, beta_late=0.5)
    method._backbone = backbone
    nn.init.zeros_(network.weight)
    method.begin(Model(MTDNN["inputs"]["shared"]["model_3_outputs"]).batch())
    expected = 0.0
    for number in range(4):
        nn.init.constant_(network.weight, number + 1.0)
        method.after_step(backbone, Step(number, 20, 1e-3, torch.Generator()))
        beta = 0.9 if number < 2 else 0.5
        expected = (1 - beta) * (number + 1) + beta * expected
        torch.testing.assert_close(method.state_dict()["weight"], torch.full((1, 2), expected))


# ----------------------------------------------------------------------------------------------- FreeLB

FREELB_CASES = sorted(set(FREELB["inputs"]) - {"shared"})


def freelb(case: str, scale: float = 1.0) -> tuple[Model, Tensor, list[Tensor]]:
    """The model with its passes and gradients in ``.grad``, the logged loss, and the losses that were scaled."""
    given = FREELB["inputs"][case]
    model = Model(FREELB["inputs"]["shared"])
    method = FreeLB(
        steps=given["adv_steps"],
        step_size=given["adv_lr"],
        init=given["adv_init_mag"],
        eps=given["adv_max_norm"],
        norm=given["norm_type"],
    )
    batch = model.batch(tensor(FREELB["inputs"]["shared"]["labels"]))
    losses: list[Tensor] = []

    def scaled(loss: Tensor) -> None:
        losses.append(loss.detach())
        (loss * scale).backward()

    return model, method.backward(batch, scaled), losses


def unit_draw(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """``torch.rand`` gives the recorded draw, brought to [0, 1)."""
    given = FREELB["inputs"][case]
    if "uniform_draw" in given:
        width = given["uniform_range"][1]
        monkeypatch.setattr(torch, "rand", lambda *_, **__: (tensor(given["uniform_draw"]) / width + 1) / 2)


@pytest.mark.parametrize("case", FREELB_CASES)
def test_freelb_equals_the_released_code(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, tolerance = FREELB["outputs"][case], close(FREELB, case)
    unit_draw(monkeypatch, case)
    model, logged, losses = freelb(case)
    assert len(model.deltas) == FREELB["inputs"][case]["adv_steps"] and set(model.dropouts) == {"shared"}
    for number, delta in enumerate(model.deltas):
        torch.testing.assert_close(delta, tensor(expected["delta_at_pass"][number]), **tolerance)
        torch.testing.assert_close(model.outs[number], tensor(expected["logits_at_pass"][number]), **tolerance)
    recorded = torch.stack([tensor(loss) for loss in expected["loss_at_pass"]])
    torch.testing.assert_close(torch.stack(losses) * len(losses), recorded, **tolerance)
    torch.testing.assert_close(logged, recorded.mean(), **tolerance)
    for name, weight in model.weights.items():
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, tensor(expected["accumulated_gradient"][name]), **tolerance)


def test_freelb_does_not_depend_on_the_scale_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A micro-batch's share and the loss scale of fp16: the perturbations stay, the gradients are scaled."""
    unit_draw(monkeypatch, "l2_projection_active")
    model, _, _ = freelb("l2_projection_active")
    other, _, _ = freelb("l2_projection_active", scale=64.0)
    for ours, theirs in zip(model.deltas, other.deltas, strict=True):
        torch.testing.assert_close(ours, theirs)
    for name, weight in model.weights.items():
        assert weight.grad is not None
        torch.testing.assert_close(other.weights[name].grad, weight.grad * 64)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_freelb_leaves_a_row_whose_gradient_overflowed(norm: Any, broken: float) -> None:
    method = FreeLB(norm=norm)
    delta, gradient = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 0.1
    expected = method.advance(delta, gradient)
    gradient[1, 2, 3] = broken
    found = method.advance(delta, gradient)
    assert torch.equal(found[1], delta[1]) and torch.equal(found[[0, 2]], expected[[0, 2]])
    assert not torch.equal(expected[1], delta[1])


def test_freelb_outlives_an_overflow_of_the_loss_scale(
    tiny_data: Any, tiny_model: Path, finetune_tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In fp16 the first steps are left out, until the scale has fallen."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**25)
    monkeypatch.setattr("ftbench.training.engine.make_scaler", lambda *_: scaler)
    outcome = finetune_tiny(tiny_data(16, 8), tiny_model, tmp_path, "freelb", steps=12, precision="fp16")
    assert outcome.result.status == "ok", outcome.result.error
    left_out = [not math.isfinite(record["grad_norm"]) for record in outcome.history if "grad_norm" in record]
    assert left_out[0] and not left_out[-1]


# -------------------------------------------------------------------------------------------------- VAT


class Direction(VAT):
    """VAT whose first direction is given."""

    first: Tensor

    def draw(self, embeddings: Tensor, batch: Batch) -> Tensor:
        return self.first


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("outputs", [3, 1])
def test_vat_equals_a_float64_reference(outputs: int, steps: int) -> None:
    shared = MTDNN["inputs"]["shared"][f"model_{outputs}_outputs"]
    model, reference = Model(shared), Model(shared, torch.float64)
    method = Direction(eps=0.8, xi=0.3, steps=steps)
    method.first = VAT().draw(model.embed(), model.batch())
    batch = model.batch(regression=outputs == 1)
    clean = model.logits(model.embed())
    (view,) = method.views(batch, Out(clean))
    term = method.penalty(batch, Out(clean), [model.run(view)])
    assert term is not None

    def unit(x: Tensor) -> Tensor:
        return x / (x**2).sum((1, 2)).sqrt()[:, None, None]

    target = reference.logits(reference.embed()).detach()

    def apart(logits: Tensor) -> Tensor:
        if outputs == 1:
            return ((target - logits) ** 2).sum(-1)
        return (target.softmax(-1) * (target.log_softmax(-1) - logits.log_softmax(-1))).sum(-1)

    direction = unit(method.first.double())
    for _ in range(steps):
        step = (0.3 * direction).requires_grad_()
        inner = apart(reference.logits(reference.embed().detach() + step)).sum()
        direction = unit(torch.autograd.grad(inner, step)[0])
    expected = apart(reference.logits(reference.embed() + 0.8 * direction)).mean()
    torch.testing.assert_close(model.deltas[-1].double(), 0.8 * direction, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(term.value.double(), expected, rtol=1e-4, atol=1e-6)
    wanted = reference.gradients(expected)
    for name, gradient in model.gradients(term.value).items():
        torch.testing.assert_close(gradient.double(), wanted[name], rtol=1e-3, atol=1e-5)


def test_vat_leaves_padding_alone_and_finds_a_bad_direction() -> None:
    model = Model(MTDNN["inputs"]["shared"]["model_3_outputs"])
    assert (model.mask == 0).any()
    clean = model.logits(model.embed()).detach()
    method = VAT(eps=0.5)
    (view,) = method.views(model.batch(), Out(clean))
    adversarial = kl(clean, model.run(view).logits).mean()
    assert (model.deltas[0][model.mask == 0] == 0).all() and (model.deltas[-1][model.mask == 0] == 0).all()
    torch.testing.assert_close(model.deltas[-1].norm(dim=(1, 2)), torch.full((len(model.ids),), 0.5))
    for seed in range(20):
        noise = torch.randn(model.embed().shape, generator=torch.Generator().manual_seed(seed))
        noise = noise * model.mask.unsqueeze(-1)
        random = model.logits(model.embed() + 0.5 * noise / noise.norm(dim=(1, 2), keepdim=True))
        assert kl(clean, random).mean() < adversarial


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (Smart, {"eps": "-1"}, "smart:eps=-1: expected 0 or more"),
        (Smart, {"weight": "inf"}, "smart:weight=inf"),
        (Smart, {"steps": "-1"}, "smart:steps=-1"),
        (Smart, {"beta": "1.5"}, "smart:beta=1.5: expected 0 to 1"),
        (Smart, {"proximal": "nan"}, "smart:proximal=nan"),
        (Smart, {"inner": "js"}, "expected auto or symmetric or kl or stable"),
        (VAT, {"xi": "0"}, "vat:xi=0: expected more than 0"),
        (VAT, {"steps": "0"}, "vat:steps=0: expected 1 or more"),
        (VAT, {"eps": "nan"}, "vat:eps=nan"),
        (FreeLB, {"steps": "0"}, "freelb:steps=0: expected 1 or more"),
        (FreeLB, {"init": "-0.1"}, "freelb:init=-0.1: expected 0 or more"),
        (FreeLB, {"norm": "l1"}, "expected l2 or linf"),
    ],
)
def test_wrong_fields_are_refused(cls: Any, fields: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(cls, fields, cls.name)
