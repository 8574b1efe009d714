"""AdamW with bias correction, a linear schedule, and common random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ftbench.errors import FtbenchError
from ftbench.methods.method import Group, Method
from ftbench.models.backbone import Backbone

BETAS = (0.9, 0.999)
#: Mosbach et al. 2021 (arXiv 2006.04884) and R3F's GLUE table use 1e-6
EPSILON = 1e-6


def parameter_groups(backbone: Backbone, methods: Sequence[Method], weight_decay: float) -> list[Group]:
    """Every trained parameter in the model's order, then those of the methods; no decay on vectors (biases, norms)."""
    trainable = [(name, p) for name, p in backbone.model.named_parameters() if p.requires_grad]
    changes = any(type(method).groups is not Method.groups for method in methods)
    depths = backbone.depths() if changes else {}
    groups = [Group(name, p, weight_decay if p.ndim >= 2 else 0.0, depths.get(name, 0)) for name, p in trainable]
    for method in methods:
        groups = method.groups(groups)
    return groups


def make_optimizer(groups: Sequence[Group], lr: float) -> torch.optim.AdamW:
    """AdamW, fused where torch has it. A group's ``scale`` is its multiple of the learning rate.

    Raises FtbenchError when nothing is trained.
    """
    if not groups:
        raise FtbenchError("no parameter is left to train: the methods froze all of them")
    kinds: dict[tuple[float, float], list[Tensor]] = {}
    for group in sorted(groups, key=lambda g: g.parameter.ndim < 2):
        kinds.setdefault((group.lr, group.decay), []).append(group.parameter)
    packed = [{"params": p, "weight_decay": decay, "scale": scale} for (scale, decay), p in kinds.items()]
    fused = all(group.parameter.device.type in ("cpu", "cuda") for group in groups)
    return torch.optim.AdamW(packed, lr=lr, betas=BETAS, eps=EPSILON, fused=fused)


def trained(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[Tensor]:
    """What the optimizer trains: the model's parameters in its order, then others."""
    held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    own = [p for p in model.parameters() if id(p) in held]
    return [*own, *(p for key, p in held.items() if key not in {id(p) for p in own})]


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
