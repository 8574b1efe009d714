"""Distances between two predictions of the same rows, in float32 whatever the logits are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(p||q) + KL(q||p) for p = softmax(a), q = softmax(b); a, b (rows, classes), result (rows,).

    A sum, not an average of the two. Both arguments keep their gradient: detach before calling.
    Log-probabilities on both sides (``log_target``): a softmax target gives NaN gradients once a
    probability underflows, at a logit gap of about 104.
    """
    log_p, log_q = F.log_softmax(a.float(), dim=-1), F.log_softmax(b.float(), dim=-1)
    forward = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    backward = F.kl_div(log_p, log_q, reduction="none", log_target=True)
    return (forward + backward).sum(dim=-1)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """(a - b)^2 summed over outputs; a, b (rows, outputs), result (rows,)."""
    return (a.float() - b.float()).square().sum(dim=-1)
