"""The passes of one micro-batch: the clean one, and the views that methods want."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ftbench.methods.method import Batch, Method, Term, View
from ftbench.models.backbone import Backbone, Out
from ftbench.training.optim import mix


def run_passes(
    backbone: Backbone, methods: Sequence[Method], batch: Batch, seed: int, *, joined: bool
) -> tuple[Out, list[list[Out]]]:
    """The clean output, and for each method the outputs of its views in their order.

    Separate: one forward each, so the clean pass draws the same dropout masks as plain fine-tuning.
    Joined: one forward over all copies of the batch, with masks of its own.
    """
    wanted = [method.views(batch) for method in methods]
    flat = [view for views in wanted for view in views]
    outs = (_joined if joined and flat else _separate)(backbone, batch, flat, seed)
    rest = iter(outs[1:])
    return outs[0], [[next(rest) for _ in views] for views in wanted]


def _separate(backbone: Backbone, batch: Batch, views: Sequence[View], seed: int) -> list[Out]:
    torch.manual_seed(seed)
    if not views:
        return [backbone.forward(batch.inputs)]
    with backbone.keeping_embeddings():
        outs = [backbone.forward(batch.inputs)]
        for number, view in enumerate(views):
            torch.manual_seed(seed if view.dropout == "shared" else mix(seed, number))
            backbone.model.train(view.dropout != "off")
            outs.append(backbone.forward(batch.inputs, view.transform, reuse=True))
            backbone.model.train()
    return outs


def _joined(backbone: Backbone, batch: Batch, views: Sequence[View], seed: int) -> list[Out]:
    copies, rows = 1 + len(views), len(batch.labels)

    def transform(embeddings: Tensor) -> Tensor:
        clean, *others = embeddings.split(rows)
        changed = [view.transform(e) if view.transform else e for view, e in zip(views, others, strict=True)]
        return torch.cat([clean, *changed])

    torch.manual_seed(seed)
    inputs = {name: tensor.repeat(copies, 1) for name, tensor in batch.inputs.items()}
    return [Out(logits) for logits in backbone.forward(inputs, transform).logits.split(rows)]


def gradient_ratios(loss: Tensor, terms: Sequence[Term], parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """``<term>_gradient_ratio``: norm of the gradient of weight * term over that of the task loss.

    Extra backward passes that leave ``.grad`` alone, so the run's numbers do not move.
    """
    reference = _gradient_norm(loss, parameters)
    return {f"{t.name}_gradient_ratio": _gradient_norm(t.weight * t.value, parameters) / reference for t in terms}


def _gradient_norm(value: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    if not value.requires_grad:
        return torch.zeros((), device=value.device)
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    norms = [g.float().norm() for g in gradients if g is not None]
    return torch.linalg.vector_norm(torch.stack(norms))
