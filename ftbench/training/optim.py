"""AdamW with bias correction, a linear schedule, and common random numbers."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

BETAS = (0.9, 0.999)
#: Mosbach et al. 2021 (arXiv 2006.04884) and R3F's GLUE table use 1e-6
EPSILON = 1e-6


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, fused where torch has it; no decay on vectors (biases, layer norms)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda") for p in trained)
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=BETAS, eps=EPSILON, fused=fused)


def lr_at(step: int, steps: int, lr: float, warmup: float) -> float:
    """Learning rate of the optimizer step ``step`` (0 is the first): linear up, then linear down to 0 at the end.

    A pure function, so there is no schedule to save. The first step already moves: (step + 1) / warm-up steps.
    """
    rising = round(steps * warmup)
    if step < rising:
        return lr * (step + 1) / rising
    return lr * (steps - step) / max(1, steps - rising)


def mix(*parts: int | str) -> int:
    """A 63-bit seed from its parts: any change in one gives an unrelated stream."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
