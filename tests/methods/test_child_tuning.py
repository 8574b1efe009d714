"""Child-Tuning against the released code's recorded numbers, and its Fisher information by hand in float64."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ftbench.methods.child_tuning import ChildTuning, largest, squared_gradients
from ftbench.methods.method import Start, Step

ORACLES = Path(__file__).parents[1] / "oracles"
OPTIMIZER = json.loads((ORACLES / "child_tuning_optimizer.json").read_text())
FISHER = json.loads((ORACLES / "child_tuning_fisher.json").read_text())
CLOSE = {"rtol": OPTIMIZER["tolerance"]["rtol"], "atol": OPTIMIZER["tolerance"]["atol"]}


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"]))


def moment(number: int, seed: int = 0) -> Step:
    return Step(number, 4, 0.02, torch.Generator().manual_seed(seed))


class Recorded(ChildTuning):
    """F whose masks are given, not drawn."""

    given: Iterator[Tensor]

    def draw(self, gradient: Tensor, generator: torch.Generator) -> Tensor:
        return next(self.given).to(gradient.dtype) / self.p


def on(parameters: list[Tensor], method: ChildTuning) -> ChildTuning:
    """F's parameters are chosen in ``prepare``; D's masks would be made there, so they are put in place."""
    model = SimpleNamespace(parameters=lambda: iter(parameters))
    backbone: Any = SimpleNamespace(model=model)
    if method.mode == "F":
        method.prepare(Start(backbone, 1, 1, lambda: iter(())))
    else:
        masks = zip(parameters, OPTIMIZER["inputs"]["mask_D"], strict=True)
        method._masked, method._masks = zip(*[(p, tensor(m)) for p, m in masks if m is not None], strict=True)  # type: ignore[assignment]
    return method


@pytest.mark.parametrize("case", ["child_F", "child_F_uncorrected", "child_D"])
def test_the_masked_steps_equal_the_released_code(case: str) -> None:
    given, expected = OPTIMIZER["inputs"], OPTIMIZER["outputs"][case]
    parameters = [tensor(initial).requires_grad_() for initial in given["initial"]]
    mode: Any = case.split("_")[1]
    method = on(parameters, Recorded(mode=mode, p=expected["reserve_p"], variant="released"))
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    (b1, b2), lr, eps = given["betas"], given["lr"], expected["eps"]
    for number, gradients in enumerate(given["gradients"]):
        if mode == "F":
            method.given = iter([tensor(mask) for mask in given["masks_F"][case][number]])  # type: ignore[attr-defined]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = tensor(gradient)
        method.after_backward(None, moment(number))  # type: ignore[arg-type]
        t = number + 1
        rate = lr * math.sqrt(1 - b2**t) / (1 - b1**t) if expected["correct_bias"] else lr
        for i, (p, (m, v)) in enumerate(zip(parameters, moments, strict=True)):
            assert p.grad is not None
            left = tensor(expected["gradient_left_in_parameter_after_step"][number][i])
            torch.testing.assert_close(p.grad, left, **CLOSE)
            with torch.no_grad():  # their Adam: eps on the uncorrected root, weight decay last
                m.mul_(b1).add_((1 - b1) * p.grad), v.mul_(b2).add_((1 - b2) * p.grad**2)
                p.sub_(rate * m / (v.sqrt() + eps))
                p.sub_(lr * given["weight_decay"][i] * p)
            wanted = tensor(expected["parameters_after_step"][number][i])
            torch.testing.assert_close(p.detach(), wanted, **CLOSE)


@pytest.mark.parametrize("case", FISHER["outputs"])
def test_the_fisher_mask_equals_the_released_code(case: str) -> None:
    given, expected, recorded = FISHER["inputs"], FISHER["outputs"][case], FISHER["inputs"]["cases"][case]
    w = {name: tensor(value).requires_grad_() for name, value in given["state"].items()}
    x, labels = tensor(given["x"]), tensor(given["labels"])

    def losses() -> Iterator[Tensor]:
        for rows in recorded["batches"]:
            h = x[rows]
            for layer in ("embed", "layer.0", "layer.1"):
                h = F.linear(h, w[f"{layer}.weight"], w[f"{layer}.bias"]).tanh()
            yield F.cross_entropy(F.linear(h, w["head.weight"], w["head.bias"]), labels[rows])

    masked = [name for name in w if "layer" in name]
    fisher = squared_gradients(losses(), [w[name] for name in masked], given["max_grad_norm"])
    masks = largest(fisher, recorded["reserve_p"])
    for name, values, mask in zip(masked, fisher, masks, strict=True):
        torch.testing.assert_close(values, tensor(expected["fisher_recomputed"][name]), rtol=1e-9, atol=1e-15)
        assert torch.equal(mask, tensor(expected["mask"][name])), name
    unclipped = largest(squared_gradients(losses(), [w[name] for name in masked], math.inf), recorded["reserve_p"])
    assert not all(torch.equal(a, b) for a, b in zip(masks, unclipped, strict=True)), "clipping decides here"


@pytest.mark.parametrize(("norm", "factor"), [(math.inf, 1.0), (1.0, 1.0), (0.1, 0.2)])
def test_small_gradients_are_not_clipped(norm: float, factor: float) -> None:
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    (found,) = squared_gradients([0.3 * w[0] + 0.4 * w[1], 0 * w[0]], [w], norm)
    torch.testing.assert_close(found, torch.tensor([0.09, 0.16]).double() * factor**2 / 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("regression", [False, True])
def test_paper_is_the_mean_of_squared_gradients_of_rows(
    regression: bool,
    tiny_data: Callable[..., Any],
    tiny_model: Path,
    training_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Without dropout, though the model has it, for all of the base model."""
    data = tiny_data(12, 8, 3, regression=regression)
    run = training_of(data, tiny_model, tmp_path, "child-tuning:p=0.2")
    (method,) = run.methods
    model = copy.deepcopy(run.backbone.model).double().eval()
    inside = {name: p for name, p in model.named_parameters() if name.startswith("bert.")}
    fisher = [torch.zeros_like(p) for p in inside.values()]
    rows = data.splits["train"]
    for text, label in zip(rows.texts[0], rows.labels, strict=True):
        logits = model(**run.backbone.tokenizer([text], return_tensors="pt")).logits[0]
        loss = (logits[0] - label) ** 2 if regression else -logits.log_softmax(-1)[label]
        for total, g in zip(fisher, torch.autograd.grad(loss, list(inside.values()), allow_unused=True), strict=True):
            total += 0 if g is None else g**2 / len(rows)
    every = torch.cat([f.flatten() for f in fisher])
    limit = every.quantile(0.8)
    clear = (every / limit - 1).abs() > 1e-3
    mask = torch.cat([m.flatten() for m in method._masks])
    assert torch.equal(mask[clear], every[clear] >= limit) and clear.float().mean() > 0.99
    assert mask.float().mean().item() == pytest.approx(0.2, abs=1e-3)
    assert [id(p) for p in method._masked] == [
        id(p) for name, p in run.backbone.model.named_parameters() if name.startswith("bert.")
    ]


@pytest.fixture
def seen_in(
    tiny_data: Callable[..., Any], tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> Callable[..., tuple[list[tuple[int, bool]], Any]]:
    """``seen_in(method, rows)``: the rows of each pass of ``prepare`` and whether dropout was on, and the network."""

    def look(method: ChildTuning, n: int) -> tuple[list[tuple[int, bool]], Any]:
        from ftbench.training.start import start_of

        seen: list[tuple[int, bool]] = []
        run = training_of(tiny_data(n, 8), tiny_model, tmp_path)
        network, rows = run.backbone, tiny_data(n, 8).splits["train"]
        assert network.blocks, "looked for by a pass of its own"
        network.model.eval().register_forward_pre_hook(
            lambda module, _, inputs: seen.append((len(inputs["input_ids"]), module.training)), with_kwargs=True
        )
        method.prepare(start_of(run.spec, network, run.tokens, rows, None, original=lambda: network, regression=False))
        return seen, network

    return look


def test_released_masks_the_blocks_from_batches_with_dropout(seen_in: Callable[..., Any]) -> None:
    method = ChildTuning(variant="released")
    seen, network = seen_in(method, 40)
    assert seen == [(16, True), (16, True), (8, True)] and not network.model.training
    assert {id(p) for p in method._masked} == {id(p) for block in network.blocks for p in block.parameters()}


@pytest.mark.parametrize(
    ("rows", "n", "passes"),
    [(13, 40, [1] * 10), (1, 130, [1]), (0, 70, [1] * 70)],
    ids=["every fourth", "none of the second 64", "all"],
)
def test_rows_are_spread_over_train(rows: int, n: int, passes: list[int], seen_in: Callable[..., Any]) -> None:
    assert seen_in(ChildTuning(rows=rows), n)[0] == [(size, False) for size in passes]


def test_released_batches_are_full_when_some_rows_are_left_out(seen_in: Callable[..., Any]) -> None:
    """29 rows, about 9 of each 64 of train."""
    seen, _ = seen_in(ChildTuning(rows=32, variant="released"), 200)
    assert seen == [(16, True), (13, True)]


@pytest.mark.parametrize("fields", ["", ":variant=released", ":mode=F"])
def test_with_nothing_of_the_base_trained_it_does_nothing(
    fields: str, tiny_data: Callable[..., Any], tiny_family: Any, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    data, model = tiny_data(16, 8), tiny_family("roberta")
    plain = finetune_tiny(data, model, tmp_path / "a", "freeze:layers=2", steps=2)
    ours = finetune_tiny(data, model, tmp_path / "b", f"freeze:layers=2+child-tuning{fields}", steps=2)
    assert ours.result.metrics == plain.result.metrics and ours.history == plain.history


def test_the_draw() -> None:
    mask = ChildTuning(mode="F", p=0.25).draw(torch.zeros(200, 200), torch.Generator().manual_seed(0))
    assert set(mask.flatten().tolist()) == {0.0, 4.0}
    assert mask.mean().item() == pytest.approx(1, abs=0.03)


def test_masks_of_f_come_from_the_step_and_are_new_each_time() -> None:
    parameter = torch.zeros(50, requires_grad=True)
    method = on([parameter], ChildTuning(mode="F", variant="released"))
    state = torch.get_rng_state()

    def masked(seed: int) -> Tensor:
        parameter.grad = torch.ones(50)
        method.after_backward(None, moment(0, seed))  # type: ignore[arg-type]
        return parameter.grad

    assert torch.equal(masked(1), masked(1)) and not torch.equal(masked(1), masked(2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("share", "kept"), [(0.3, 3), (0.1, 1), (1.0, 10), (0.01, 1)])
def test_largest_is_the_quantile_over_all_tensors(share: float, kept: int) -> None:
    values = [torch.arange(10.0)[[3, 9, 0]], torch.arange(10.0)[[1, 2, 4, 5, 6, 7, 8]].reshape(1, 7)]
    masks = largest(values, share)
    limit = torch.arange(10.0).quantile(1 - share)
    assert sum(int(mask.sum()) for mask in masks) == kept
    for value, mask in zip(values, masks, strict=True):
        assert torch.equal(mask, value >= limit)
