"""Distances between predictions: values, gradients, and where float32 runs out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ftbench.methods.divergence import squared_error, symmetric_kl


def exact(a: Tensor, b: Tensor) -> Tensor:
    """KL(p||q) + KL(q||p) = sum (p - q)(log p - log q), in float64."""
    log_p, log_q = a.double().log_softmax(-1), b.double().log_softmax(-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 6, 4, generator=generator) * 2
    return a.requires_grad_(), b.requires_grad_()


def test_value_and_gradients_equal_the_float64_formula(logits: tuple[Tensor, Tensor]) -> None:
    a, b = logits
    found, expected = symmetric_kl(a, b), exact(a, b)
    assert found.shape == (6,) and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
    weights = torch.arange(1.0, 7.0)
    for ours, right in zip(
        torch.autograd.grad((found * weights).sum(), (a, b)),
        torch.autograd.grad((expected * weights).sum(), (a, b)),
        strict=True,
    ):
        assert ours.abs().max() > 0.1
        torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Input #. requires gradient and is not a double")
def test_gradients_agree_with_differences(logits: tuple[Tensor, Tensor]) -> None:
    assert torch.autograd.gradcheck(symmetric_kl, logits, eps=1e-2, atol=1e-2, rtol=1e-2)
    assert torch.autograd.gradcheck(squared_error, logits, eps=1e-2, atol=1e-2, rtol=1e-2)


def test_symmetric_zero_at_itself_and_a_sum_not_an_average(logits: tuple[Tensor, Tensor]) -> None:
    a, b = logits
    torch.testing.assert_close(symmetric_kl(a, b), symmetric_kl(b, a))
    assert torch.equal(symmetric_kl(a, a), torch.zeros(6))
    p, q = a.softmax(-1), b.softmax(-1)
    one_way = torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(-1)
    other = torch.nn.functional.kl_div(p.log(), q, reduction="none").sum(-1)
    torch.testing.assert_close(symmetric_kl(a, b), one_way + other)


@pytest.mark.parametrize("scale", [1e-7, 1e-5, 1e-3, 0.1])
def test_never_negative_however_near(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(1000, 3, generator=generator)
    assert (symmetric_kl(a, a + scale * torch.randn(1000, 3, generator=generator)) >= 0).all()


@pytest.mark.parametrize("gap", [50.0, 104.0, 200.0])
def test_finite_where_a_probability_underflows(gap: float) -> None:
    a = torch.tensor([[gap, 0.0, -gap]], requires_grad=True)
    b = torch.tensor([[gap - 0.5, 0.1, -gap]], requires_grad=True)
    value = symmetric_kl(a, b).sum()
    value.backward()
    assert value.isfinite() and value >= 0
    assert a.grad is not None and a.grad.isfinite().all() and b.grad is not None and b.grad.isfinite().all()
    torch.testing.assert_close(value.double(), exact(a, b).sum(), rtol=1e-3, atol=1e-12)


def test_half_precision_logits_are_compared_in_float32() -> None:
    a = torch.tensor([[0.5, -1.0]], dtype=torch.bfloat16)
    b = torch.tensor([[0.75, -1.5]], dtype=torch.bfloat16)
    torch.testing.assert_close(symmetric_kl(a, b).double(), exact(a, b), rtol=1e-5, atol=1e-8)


def test_squared_error_sums_over_outputs() -> None:
    a, b = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 3.0]])
    assert squared_error(a, b).tolist() == [5.0, 9.0]
