"""Distances between two predictions of the same rows, in float32 whatever the logits are.

A row is an example, or a target token where a network writes. Over a vocabulary the logits are the largest tensors of a
step; what a distance computes on the way is as large, several times. So it is computed for a few rows at a time, and
again when the gradient is wanted: besides the two sides and their gradients nothing of that size is ever held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: (rows, classes) and what belongs to the rows -> (rows,), each row by itself
Distance = Callable[[Tensor, Tensor], Tensor]
#: outputs of a row from which on rows are taken a few at a time
WIDE = 2048
#: entries of a tensor that are computed at a time: a core's cache holds fewer than a GPU needs to be busy
CHUNK = {"cpu": 1 << 17, "cuda": 1 << 21}


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(p||q) + KL(q||p) for p = softmax(a), q = softmax(b); a, b (rows, classes), result (rows,).

    A sum, not an average of the two. Both arguments keep their gradient: detach before calling.
    Log-probabilities on both sides (``log_target``): a softmax target gives NaN gradients once a
    probability underflows, at a logit gap of about 104.
    """
    return in_chunks(_symmetric_kl, a, b)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """(a - b)^2 summed over outputs; a, b (rows, outputs), result (rows,)."""
    return (a.float() - b.float()).square().sum(dim=-1)


def in_chunks(distance: Distance, a: Tensor, b: Tensor) -> Tensor:
    """``distance(a, b)``, a few rows at a time where a row is wide; the same number for every row.

    a (rows, classes); b alike, or (rows,) numbers without a gradient. A gradient of the gradient is not to be had.
    """
    if a.shape[-1] < WIDE:
        return distance(a, b)
    result: Tensor = _InChunks.apply(distance, a, b)
    return result


def _symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    log_p, log_q = F.log_softmax(a.float(), dim=-1), F.log_softmax(b.float(), dim=-1)
    forward = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    backward = F.kl_div(log_p, log_q, reduction="none", log_target=True)
    return (forward + backward).sum(dim=-1)


class _InChunks(torch.autograd.Function):
    """See ``in_chunks``."""

    @staticmethod
    def forward(ctx: Any, distance: Distance, a: Tensor, b: Tensor) -> Tensor:
        ctx.distance, ctx.rows = distance, max(1, CHUNK.get(a.device.type, CHUNK["cuda"]) // a.shape[-1])
        ctx.save_for_backward(a, b)
        pieces = zip(a.split(ctx.rows), b.split(ctx.rows), strict=True)
        return torch.cat([distance(x, y) for x, y in pieces])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        sides = ctx.saved_tensors
        whole = [torch.empty_like(side) if needs else None for side, needs in zip(sides, wanted, strict=True)]
        for start in range(0, len(gradient), ctx.rows):
            piece = slice(start, start + ctx.rows)
            with torch.enable_grad():
                own = [side[piece].detach().requires_grad_(needs) for side, needs in zip(sides, wanted, strict=True)]
                value = ctx.distance(*own)
            asked = [side for side in own if side.requires_grad]
            found = iter(torch.autograd.grad(value, asked, gradient[piece], materialize_grads=True))
            for side in whole:
                if side is not None:
                    side[piece] = next(found)
        return None, *whole
