"""R3F and R-Drop where summaries are written, against the released criteria's recorded numbers; chunked distances.

``tests/oracles/r3f_seq2seq.json`` is of a small encoder-decoder (its formula is in the file), ``rdrop_fairseq.json`` of
given logits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ftbench.lookup import build
from ftbench.methods import divergence
from ftbench.methods.adversary import crossed_kl, kl, stable_kl
from ftbench.methods.divergence import in_chunks, symmetric_kl
from ftbench.methods.method import Batch
from ftbench.methods.r3f import R3F
from ftbench.methods.rdrop import RDrop
from ftbench.models.backbone import Out
from ftbench.training.summaries import smoothed_loss

FOLDER = Path(__file__).parents[1] / "oracles"
CRITERION, FAIRSEQ = (json.loads((FOLDER / f"{name}.json").read_text()) for name in ("r3f_seq2seq", "rdrop_fairseq"))
SHARED = CRITERION["inputs"]["shared"]
CLOSE = {"rtol": CRITERION["tolerance"]["rtol"], "atol": CRITERION["tolerance"]["atol"]}
TRAINING = [case for case, given in CRITERION["inputs"].items() if case != "shared" and given["training"]]


def tensor(recorded: dict[str, Any]) -> Tensor:
    return torch.tensor(recorded["data"], dtype=getattr(torch, recorded["dtype"])).reshape(recorded["shape"])


def batch_of(target: Tensor, pad: int, loss: Any) -> Batch:
    ids = torch.arange(len(target))
    batch = Batch({}, target[target != pad], ids, torch.Generator().manual_seed(0), writes=True)
    batch.task_loss = lambda out: loss(out.logits)
    return batch


def out_of(logits: Tensor, real: Tensor) -> Out:
    """Logits (rows, tokens, words) as ``Seq2Seq`` gives them."""
    return Out(logits[real], padding=logits[~real])


class Recorded(R3F):
    """R3F whose noise is given, not drawn."""

    z: Tensor

    def draw(self, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        return self.z


class Model:
    """The oracle's encoder-decoder."""

    def __init__(self) -> None:
        self.weights = {name: tensor(value).requires_grad_() for name, value in SHARED["weights"].items()}
        self.source, self.read = tensor(SHARED["src_tokens"]), tensor(SHARED["prev_output_tokens"])

    def embed(self) -> Tensor:
        return F.embedding(self.source, self.weights["E"], padding_idx=SHARED["pad_index"])

    def logits(self, embeddings: Tensor) -> Tensor:
        w, real = self.weights, (self.source != SHARED["pad_index"]).float().unsqueeze(-1)
        states = (embeddings @ w["Wenc"].T + w["benc"]).tanh() * real
        context = states.sum(1, keepdim=True) / real.sum(1, keepdim=True)
        return (w["Edec"][self.read] @ w["Wdec"].T + context).tanh() @ w["Wout"].T + w["bout"]


@pytest.mark.parametrize("case", TRAINING)
def test_released_r3f_is_what_the_criterion_computes(case: str) -> None:
    given, expected = CRITERION["inputs"][case], CRITERION["outputs"][case]
    model, target, pad = Model(), tensor(SHARED["target"]), SHARED["pad_index"]
    real = target != pad
    method = Recorded(weight=given["r3f_lambda"], eps=given["eps"], noise=given["noise_type"], variant="released")
    assert method.wants_padding
    method.z = tensor(given["noise"])

    def loss(logits: Tensor) -> Tensor:
        return smoothed_loss(logits, target[real], given["label_smoothing"], "others")

    batch = batch_of(target, pad, loss)
    embeddings = model.embed()
    (view,) = method.views(batch, None)
    assert view.transform is not None and view.decoder is None
    clean, noised = model.logits(embeddings), model.logits(view.transform(embeddings))
    torch.testing.assert_close(noised, tensor(expected["logits_noised"]), **CLOSE)
    term = method.penalty(batch, out_of(clean, real), [out_of(noised, real)])
    assert term is not None and not term.by_row
    torch.testing.assert_close(term.value.item(), expected["symm_kl"], **CLOSE)
    tokens = int(real.sum())
    # the trainer divides by the sample size; with --sentence-avg the sum over tokens is divided by sentences instead
    objective = loss(clean[real]) * tokens / expected["sample_size"] + term.weight * term.value
    torch.testing.assert_close(objective.item(), expected["loss_over_sample_size"], **CLOSE)
    found = torch.autograd.grad(objective * expected["sample_size"], list(model.weights.values()))
    for name, gradient in zip(model.weights, found, strict=True):
        torch.testing.assert_close(gradient, tensor(expected["grad_weights"][name]), rtol=1e-5, atol=2e-5)


def test_paper_r3f_is_a_mean_over_real_tokens() -> None:
    """T times weaker for one lambda, without the padding."""
    given, target, pad = CRITERION["inputs"][TRAINING[0]], tensor(SHARED["target"]), SHARED["pad_index"]
    model, real = Model(), target != pad
    method = Recorded(weight=1.0, eps=0.3, noise="normal")
    method.z = tensor(given["noise"])
    batch, embeddings = batch_of(target, pad, lambda logits: logits.sum()), model.embed()
    assert not method.wants_padding
    clean, noised = model.logits(embeddings), model.logits(embeddings + method.z)
    term = method.penalty(batch, Out(clean[real]), [Out(noised[real])])
    assert term is not None
    p, q = clean.double().softmax(-1), noised.double().softmax(-1)
    by_hand = ((p - q) * (p.log() - q.log())).sum(-1)[real].mean()
    torch.testing.assert_close(term.value.double(), by_hand, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("where", "encoder", "decoder"), [
    ("encoder", True, False), ("decoder", False, True), ("both", True, True),
])  # fmt: skip
def test_noise_goes_where_it_is_told(where: str, encoder: bool, decoder: bool) -> None:
    method: R3F = build(R3F, {"where": where, "eps": "0.1"}, "r3f")
    (view,) = method.views(batch_of(torch.zeros(1, 1), 1, None), None)
    assert (view.transform is not None, view.decoder is not None) == (encoder, decoder)
    assert method.unfit(writes=True) == ""
    assert ("no decoder" in method.unfit(writes=False)) == decoder


@pytest.mark.parametrize("case", [case for case in FAIRSEQ["inputs"] if case.startswith("seq2seq")])
def test_rdrop_is_what_the_sequence_criterion_computes(case: str) -> None:
    given, expected = FAIRSEQ["inputs"][case], FAIRSEQ["outputs"][case]
    first, second = (tensor(given[f"logits{n}"]).requires_grad_() for n in (1, 2))
    target, pad = tensor(given["target"]), given["pad_index"]
    real = target != pad

    def loss(logits: Tensor) -> Tensor:
        return smoothed_loss(logits, target[real], given["label_smoothing"], "all")

    batch = batch_of(target, pad, loss)
    term = RDrop(weight=given["reg_alpha"]).penalty(batch, Out(first[real]), [Out(second[real])])
    assert term is not None
    objective = loss(first[real]) + term.weight * term.value
    close = {"rtol": FAIRSEQ["tolerance"]["rtol"], "atol": 2 * FAIRSEQ["tolerance"]["atol"]}
    torch.testing.assert_close(objective.item(), expected["loss_over_sample_size"], **close)
    for ours, name in zip(torch.autograd.grad(objective * expected["sample_size"], (first, second)), "12", strict=True):
        torch.testing.assert_close(ours, tensor(expected[f"grad_logits{name}"]), **close)


def test_smoothing_over_all_is_that_of_torch() -> None:
    logits, labels = torch.randn(7, 11), torch.randint(11, (7,))
    theirs = F.cross_entropy(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(smoothed_loss(logits, labels, 0.2, "all"), theirs)
    right = smoothed_loss(logits, labels, 0.2, "others") - 0.8 * F.cross_entropy(logits, labels)
    logs = logits.log_softmax(-1)
    others = -(logs.sum(-1) - logs.gather(1, labels[:, None])[:, 0]) * 0.2 / 10
    torch.testing.assert_close(right, others.mean())


@pytest.mark.parametrize("distance", [symmetric_kl, kl, crossed_kl, stable_kl])
def test_in_chunks_is_the_same_number_and_gradient(distance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(9, 40, generator=generator, requires_grad=True) for _ in range(2))
    weights = torch.rand(9, generator=generator)
    whole = distance(a, b)
    expected = torch.autograd.grad((whole * weights).sum(), (a, b), materialize_grads=True)
    monkeypatch.setattr(divergence, "WIDE", 10)
    monkeypatch.setitem(divergence.CHUNK, "cpu", 160)  # 4 rows at a time, the last chunk is one
    cut = distance(a, b)
    torch.testing.assert_close(cut, whole)
    found = torch.autograd.grad((cut * weights).sum(), (a, b))
    torch.testing.assert_close(found, expected)
    monkeypatch.setitem(divergence.CHUNK, "cpu", 80)
    again = distance(a, b)
    assert torch.equal(again, cut)
    for one, other in zip(torch.autograd.grad((again * weights).sum(), (a, b)), found, strict=True):
        assert torch.equal(one, other), "how many at a time is no part of the numbers"


def test_in_chunks_leaves_out_what_needs_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "WIDE", 10)
    a, b = torch.randn(5, 40, requires_grad=True), torch.randn(5, 40)
    symmetric_kl(a, b).sum().backward()
    assert a.grad is not None and b.grad is None
    labels = torch.randint(40, (5,))
    value = in_chunks(lambda x, y: F.cross_entropy(x, y, reduction="none"), a, labels).mean()
    (found,) = torch.autograd.grad(value, a)
    (expected,) = torch.autograd.grad(F.cross_entropy(a, labels), a)
    torch.testing.assert_close(found, expected)


def test_a_wide_divergence_holds_no_copies() -> None:
    """Between passes only the logits are kept: what autograd saves for the distance are its two sides."""
    a, b = (torch.randn(64, divergence.WIDE, requires_grad=True) for _ in range(2))
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.numel()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        symmetric_kl(a, b).mean()
    assert sum(kept.values()) <= a.numel() + b.numel() + 64
