"""LP-FT: the head first, then everything, so that a random head does not distort the encoder.

    probe=steps:   for the first ``share`` of the steps only the head is trained, then all weights
    probe=fitted:  the last layer starts at the minimum of  C * sum over rows of CE + ||W||^2 / 2,  then all weights

Kumar, Raghunathan, Jones, Ma, Liang: Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution. ICLR 2022, arXiv 2202.10054. Defaults: share = 0.2, ours; c = 1, scikit-learn's.

``steps`` keeps the run's optimizer and schedule: at a learning rate for fine-tuning a fresh head moves little in its
first stage. ``fitted`` is the probe of the released code. The head is what the run counts as head, with BERT's
pooler; ``fitted`` changes its last layer only, so before it RoBERTa's hidden layer stays random.

Cost: plain fine-tuning's (the first stage computes gradients of the encoder and leaves them); ``fitted``: a pass over
the training rows and a logistic regression on them in float64 before training.

Where paper and released code differ (AnanyaKumar/transfer_learning, commit 13c3e2b), and what ``fitted`` takes over:
- features are normalised by one mean and one standard deviation over all their entries, folded back into W and b
- two classes are one logistic regression, w = W_1 - W_0 with W_0 = -W_1
- a class without rows gets W = 0 and b = 0, so it wins where all other logits are negative
- the code tries 100 values of C on validation rows, which a method does not see: ``c`` is a field
- regression is ours: squared errors halved in place of CE, over features and labels as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrize

from ftbench.methods.features import HeadInput, head_linears, reader_of
from ftbench.methods.method import Method, Start, Step
from ftbench.models.backbone import Backbone
from ftbench.models.modes import evaluating
from ftbench.models.pooling import at_token


@dataclass
class LPFT(Method):
    """share: of the steps, for the head alone (``steps``). c: the weight of the rows' losses (``fitted``)."""

    share: float = 0.2
    probe: Literal["steps", "fitted"] = "steps"
    c: float = 1.0

    name: ClassVar[str] = "lp-ft"
    family: ClassVar[str] = "trajectory"
    summary: ClassVar[str] = "the head first, then everything"
    cite: ClassVar[str] = "Kumar et al. 2022, arXiv 2202.10054"
    revision: ClassVar[int] = 2  # 1 trained what mixout mixes in the first stage
    neutral: ClassVar[Mapping[str, Any] | None] = {"share": 0.0}
    no_writing: ClassVar[str] = "there is no new head to train first: the matrix that gives words is pretrained"

    def __post_init__(self) -> None:
        self.require("share", 0 <= self.share <= 1, "0 to 1")
        self.require("c", 0 < self.c < float("inf"), "more than 0")

    def prepare(self, start: Start) -> None:
        """Raises UsageError where ``fitted`` finds a head whose matrix another method computes from others."""
        start.backbone.depths()  # looked up now, while parameters have their own names
        if self.probe == "fitted":
            linear = head_linears(start.backbone)[-1]
            self.require("probe", not parametrize.is_parametrized(linear), "a head of its own: put lp-ft first")
            features, labels = head_features(start)
            weight, bias = fit(features, labels, self.c, linear.out_features, shifted=linear.bias is not None)
            set_head(start.backbone, weight, bias)

    def after_backward(self, backbone: Backbone, step: Step) -> None:
        if self.probe == "steps" and step.number < round(self.share * step.steps):
            depths = backbone.depths()
            for name, parameter in backbone.model.named_parameters():
                if depths[name] > 0:
                    parameter.grad = None


@torch.no_grad()
def head_features(start: Start) -> tuple[Tensor, Tensor]:
    """What the head's last layer reads (rows, width), and the labels (rows,): float64 and int64, or both float64."""
    backbone, features, labels = start.backbone, [], []
    last = reader_of(backbone, next(start.batches()).inputs, "top", "cls").last
    head = HeadInput(backbone)
    with evaluating(backbone.model):
        for batch in start.batches():
            backbone.forward(batch.inputs)
            read = head.taken.pop()
            features.append(at_token(read, batch.inputs["attention_mask"], last=last) if read.ndim == 3 else read)
            labels.append(batch.labels.double() if batch.regression else batch.labels)
    head.remove()
    return torch.cat(features).cpu().double(), torch.cat(labels).cpu()


def fit(features: Tensor, labels: Tensor, c: float, outputs: int, *, shifted: bool) -> tuple[Tensor, Tensor]:
    """W (outputs, width) and b (outputs,) for features as they are; b is 0 unless ``shifted``."""
    if labels.is_floating_point():
        return solve(features, labels, c, 1, shifted=shifted)
    mean, deviation = features.mean() if shifted else features.new_zeros(()), features.std(correction=0)
    present, classes = labels.unique(return_inverse=True)
    found, shift = solve((features - mean) / deviation, classes, c, len(present), shifted=shifted)
    weight, bias = found.new_zeros(outputs, found.shape[1]), found.new_zeros(outputs)
    weight[present], bias[present] = fold(found, shift, mean, deviation)
    return weight, bias


def solve(x: Tensor, y: Tensor, c: float, outputs: int, *, shifted: bool = True) -> tuple[Tensor, Tensor]:
    """The minimum of the objective: W (outputs, width), b (outputs,). y (rows,): classes from 0, or numbers."""
    weight = x.new_zeros(outputs, x.shape[1], requires_grad=True)
    bias = x.new_zeros(outputs, requires_grad=shifted)
    factor = 2.0 if outputs == 2 else 1.0  # ||W||^2 is half of ||w||^2, w = W_1 - W_0
    descent = torch.optim.LBFGS(
        [weight, bias] if shifted else [weight],
        max_iter=1000,
        tolerance_grad=1e-8,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        descent.zero_grad()
        logits = x @ weight.T + bias
        numbers = y.is_floating_point()
        rows = (logits[:, 0] - y).square() / 2 if numbers else F.cross_entropy(logits, y, reduction="none")
        value = c * rows.sum() + factor * weight.square().sum() / 2
        value.backward()
        return value

    descent.step(loss)
    return weight.detach(), bias.detach()


def fold(weight: Tensor, bias: Tensor, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """W and b for raw features, from those for (features - mean) / deviation."""
    return weight / deviation, bias - mean / deviation * weight.sum(1)


@torch.no_grad()
def set_head(backbone: Backbone, weight: Tensor, bias: Tensor) -> None:
    """Puts W and b, in the order of the classes, into the last layer."""
    linear = head_linears(backbone)[-1]
    outputs = torch.arange(len(weight)) if backbone.order is None else backbone.order.cpu()
    linear.weight[outputs] = weight.to(linear.weight)
    if linear.bias is not None:
        linear.bias[outputs] = bias.to(linear.bias)
