"""Multinomial logistic regression with an L2 penalty, for many layers, strengths and targets ("problems") at once.

    min over W, b   sum_i CE(W x_i + b, y_i) + |W|^2 / (2 C)          (scikit-learn's objective divided by C)

for classes 0 to k-1. Of two classes scikit-learn fits one weight vector; here they have two, w and -w, which is the
same problem with C halved, and W[1] - W[0] is scikit-learn's vector.

Solved by L-BFGS (Liu and Nocedal 1989). Where the features are uncorrelated, as in the basis of their singular vectors,
the curvature along one with mean square s is close to a_k s + 1 / (C n), with a_k the mean of p_k (1 - p_k) (Böhning
1992 bounds it so, with a = 1/2): the inverse Hessian starts from that at each step. How far to go takes no product
with x, because the scores of the rows along the direction are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ftbench.analysis.linear import outputs

#: pairs of step and change of the gradient that the inverse Hessian is made of
HISTORY = 10
#: a step is long enough when the slope along it is at most this share of what it was
FLATTER = 0.9
#: least p (1 - p) that curvature is reckoned with
LEAST = 1e-6


@dataclass
class _State:
    """Problems on their way, in axis 1 of every tensor.

    theta:     (layers, problems, classes, width + 1): weights, then the bias; gradient is like it
    scores:    (layers, problems, classes, n) of the rows; residuals are probabilities less targets
    targets:   (1, problems or 1, classes, n), one hot
    decay:     (layers, problems, 1, 1), 1 / (C n)
    pairs:     (step, change of the gradient, 1 / their product)
    """

    theta: Tensor
    gradient: Tensor
    scores: Tensor
    residuals: Tensor
    targets: Tensor
    decay: Tensor
    pairs: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def take(self, keep: Tensor) -> _State:
        """The problems that ``keep`` (problems,) marks."""

        def some(tensor: Tensor) -> Tensor:
            return tensor if tensor.shape[1] == 1 else tensor[:, keep]

        return _State(
            some(self.theta),
            some(self.gradient),
            some(self.scores),
            some(self.residuals),
            some(self.targets),
            some(self.decay),
            [(some(step), some(change), some(inverse)) for step, change, inverse in self.pairs],
        )


@dataclass(frozen=True)
class _Design:
    """x (layers, n, width), and the mean square of each feature, (layers, 1, 1, width)."""

    x: Tensor
    squares: Tensor

    def scores(self, theta: Tensor) -> Tensor:
        """(layers, problems, classes, n)"""
        return outputs(self.x, theta[..., :-1], theta[..., -1:])

    def gradient(self, theta: Tensor, residuals: Tensor, decay: Tensor) -> Tensor:
        """Of mean loss and penalty."""
        loss = residuals.flatten(1, 2) @ self.x / self.x.shape[1]
        weights = loss.unflatten(1, theta.shape[1:3]) + decay * theta[..., :-1]
        return torch.cat([weights, residuals.mean(-1, keepdim=True)], -1)

    def scale(self, state: _State) -> Tensor:
        """Inverse of the curvature along each feature, for each class; like theta."""
        p = state.residuals + state.targets
        spread = (p * (1 - p)).mean(-1, keepdim=True).clamp(min=LEAST)
        scale = torch.cat([1 / (spread * self.squares + state.decay), 1 / spread], -1)
        if not state.pairs:
            return scale
        step, change, _ = state.pairs[-1]
        fit = _dot(step, change) / _dot(change, scale * change)
        return scale * torch.where(fit > 0, fit, 1)


def fit_logistic(
    x: Tensor,
    targets: Tensor,
    strengths: Tensor,
    *,
    tolerance: float = 1e-8,
    most: int = 1000,
) -> tuple[Tensor, Tensor]:
    """Weights (layers, problems, classes, width) and biases (layers, problems, classes, 1).

    x:         (layers, n, width); correlated features take many times the steps
    targets:   (problems or 1, n) class numbers, every class among them
    strengths: C of each problem, (layers, problems)
    tolerance: of g' H^-1 g, about twice what the mean loss still is above its minimum. ``most``: steps
    """
    one_hot = torch.nn.functional.one_hot(targets).mT.unsqueeze(0).to(x)
    classes, n = one_hot.shape[2:]
    decay = (1 / ((strengths / 2 if classes == 2 else strengths) * n))[:, :, None, None].to(x)
    design = _Design(x, x.square().mean(1)[:, None, None])
    theta = x.new_zeros(*strengths.shape, classes, x.shape[2] + 1)
    scores = x.new_zeros(*strengths.shape, classes, n)
    residuals = scores.softmax(2) - one_hot
    gradient = design.gradient(theta, residuals, decay)
    theta = _minimise(design, _State(theta, gradient, scores, residuals, one_hot, decay), tolerance, most)
    return theta[..., :-1], theta[..., -1:]


def _minimise(design: _Design, state: _State, tolerance: float, most: int) -> Tensor:
    """theta of all problems. Once within ``tolerance`` a problem stays as it is, whatever the others do."""
    found, moving = state.theta.clone(), torch.ones_like(state.decay, dtype=torch.bool)
    numbers = torch.arange(found.shape[1], device=found.device)
    for _ in range(most):
        scale = design.scale(state)
        moving = moving & (_dot(state.gradient, scale * state.gradient) > tolerance)
        found[:, numbers] = state.theta
        keep = moving.any(0).flatten()
        if not keep.any():
            return found
        if not keep.all():
            state, numbers, moving, scale = state.take(keep), numbers[keep], moving[:, keep], scale[:, keep]
        _step(design, state, scale, moving)
    found[:, numbers] = state.theta
    return found


def _step(design: _Design, state: _State, scale: Tensor, moving: Tensor) -> None:
    direction = _direction(state, scale) * moving
    slope = _dot(direction, state.gradient)
    direction = torch.where(slope > 0, -scale * state.gradient, direction)
    along = design.scores(direction)
    length, residuals = _length(state, direction, along)
    step, before = length * direction, state.gradient
    state.theta = state.theta + step
    state.scores = state.scores + length * along
    state.residuals = residuals
    state.gradient = design.gradient(state.theta, state.residuals, state.decay)
    change = state.gradient - before
    product = _dot(step, change)
    pair = step, change, torch.where(product > 0, 1 / product, 0)
    state.pairs = [*state.pairs[1 - HISTORY :], pair]


def _direction(state: _State, scale: Tensor) -> Tensor:
    """-H^-1 g by the two-loop recursion, H^-1 starting from ``scale``; like theta."""
    q, parts = state.gradient, []
    for step, change, inverse in reversed(state.pairs):
        parts.append(inverse * _dot(step, q))
        q = q - parts[-1] * change
    r = scale * q
    for (step, change, inverse), part in zip(state.pairs, reversed(parts), strict=True):
        r = r + step * (part - inverse * _dot(change, r))
    return -r


def _length(state: _State, direction: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """How far to go along ``direction``, which gives the rows the scores ``along``, (layers, problems, 1, 1), and the
    residuals there.

    1 where the slope is flatter there, else found by doubling and bisection: the slope of a convex loss only grows.
    """
    linear, square = (_dot(a[..., :-1], direction[..., :-1]) for a in (state.theta, direction))
    slope = _dot(state.residuals, along) / along.shape[-1] + state.decay * linear
    low, length = torch.zeros_like(slope), torch.ones_like(slope)
    high = torch.full_like(slope, torch.inf)
    residuals = (state.scores + along).softmax(2) - state.targets
    for _ in range(20):
        now = _dot(residuals, along) / along.shape[-1] + state.decay * (linear + length * square)
        fine = now.abs() <= FLATTER * slope.abs()
        if fine.all():
            break
        low, high = torch.where(now < 0, length, low), torch.where(now > 0, length, high)
        length = torch.where(fine, length, torch.where(high.isinf(), 2 * length, (low + high) / 2))
        residuals = (state.scores + length * along).softmax(2) - state.targets
    return length, residuals


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each layer's and problem's tensors, (layers, problems, 1, 1)."""
    return (a * b).sum((2, 3), keepdim=True)
