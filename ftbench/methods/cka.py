"""CKA: keep the similarities among the rows of a batch as the pretrained network had them.

    L = CE(f(x), y) + lambda * (1 - CKA(Z_fin, Z_pre))
    CKA(X, Y) = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)),   HSIC(X, Y) = ||Y^T X||_F^2 with centred columns

Z has a row for each row of the micro-batch (for each real token with ``token=all``): a block's output, see
``capcort-i``. ``estimator=debiased`` takes the unbiased HSIC, without the diagonals of K = X X^T and L = Y Y^T:
[tr(K L) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 sum(K L) / (n - 2)] / (n (n - 3)); it needs 4 rows, the other 2.
A smaller micro-batch, such as the last of an epoch may be, has no term; where all would be smaller, it is refused.

Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited. ICML 2019, arXiv 1905.00414,
as a measure; the unbiased HSIC is that of Song et al. 2012 (JMLR 13). As a term it is ours: TRepLiNa (Nakai et al.
2025, arXiv 2510.06249) has 1 - CKA too, but between two languages. Default: weight 1, ours; nobody has searched it.

Unlike ``capcort-i`` it allows rotation and scaling. With few rows and wide vectors the biased CKA is high for
anything (0.33 for independent vectors, 12 rows of 20), so the micro-batch's size matters: it is not the mean of parts.

Cost: as ``capcort-i``. Where paper and released code differ: resi (mklabunde/resi, commit 24ab9e5) agrees;
pytorch-cka 1.1.3 clamps the debiased form to [0, 1], which has no gradient below 0; ours does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.methods.frozen import AgainstPretrained
from ftbench.methods.method import Batch, Term
from ftbench.models.backbone import Out


@dataclass
class CKA(AgainstPretrained):
    """The fields of ``AgainstPretrained``, and which HSIC."""

    estimator: Literal["biased", "debiased"] = "biased"

    name: ClassVar[str] = "cka"
    family: ClassVar[str] = "representations"
    summary: ClassVar[str] = "linear CKA to the pretrained representation within the batch"
    cite: ClassVar[str] = "Kornblith et al. 2019, arXiv 1905.00414"
    cost: ClassVar[str] = "1 forward, 1 backward; cache=off: 1 forward without gradient more"
    revision: ClassVar[int] = 2  # 1 cut the debiased form off where there are many vectors
    neutral: ClassVar[Mapping[str, Any] | None] = {"weight": 0.0}
    batch_coupled: ClassVar[bool] = True

    @property
    def fewest_rows(self) -> int:
        if not self.weight or self.token == "all":  # a row has several tokens
            return 1
        return 4 if self.estimator == "debiased" else 2

    def penalty(self, batch: Batch, out: Out, views: list[Out]) -> Term | None:
        mask, debiased = batch.inputs["attention_mask"], self.estimator == "debiased"
        with torch.autocast(mask.device.type, enabled=False):
            kept = self.targets.read.shares(mask) > 0
            z, target = self.targets.read(out.states, mask)[kept], self.targets(batch)[kept]
            if len(z) < (4 if debiased else 2):
                return None
            return Term("cka_loss", 1 - linear_cka(z, target, debiased=debiased), self.weight, by_row=True)


def linear_cka(x: Tensor, y: Tensor, *, debiased: bool = False) -> Tensor:
    """Linear CKA () of x (n, k) and y (n, m), whose rows belong together; 0 where one of them is constant."""
    x, y = unit(x - x.mean(0)), unit(y - y.mean(0))
    own = (hsic(x, x, debiased=debiased) * hsic(y, y, debiased=debiased)).clamp_min(1e-12)
    return hsic(x, y, debiased=debiased) * own.rsqrt()


def unit(x: Tensor) -> Tensor:
    """x to norm 1, which CKA does not see, for numbers that float32 can hold."""
    return x / x.detach().norm().clamp_min(1e-12)


def hsic(x: Tensor, y: Tensor, *, debiased: bool) -> Tensor:
    """Of centred columns, up to a factor that CKA does not see."""
    n = len(x)
    # tr(K L), by whichever matrices are smaller
    trace = ((x @ x.T) * (y @ y.T)).sum() if n <= x.shape[1] else (x.T @ y).square().sum()
    if not debiased:
        return trace
    k, m = x.square().sum(1), y.square().sum(1)  # the diagonals; the rows of centred K and L sum to 0 with them
    trace = trace - k @ m
    return trace + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m)
