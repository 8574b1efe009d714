"""The passes of one micro-batch: the clean one, and the views that methods want."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ftbench.methods.method import Batch, Method, Term, View
from ftbench.models.backbone import TARGET, Backbone, Out, Transform
from ftbench.training.batches import Tokens
from ftbench.training.evaluate import collate_for
from ftbench.training.optim import mix
from ftbench.training.prefix import Prefix


def batch_of(
    backbone: Backbone,
    tokens: Tokens,
    labels: Any,
    index: Any,
    part: Any,
    seed: int,
    *,
    regression: bool,
    targets: Tokens | None = None,
) -> Batch:
    """The rows at the positions ``part`` (rows,), with random numbers of their own.

    labels, index: (n,) of all rows; see ``Training``. targets: what is to be written, which then are the labels.
    """
    device = backbone.device
    kind = torch.float32 if regression else torch.int64
    inputs = collate_for(backbone, tokens, part)
    found = torch.as_tensor(labels[part], dtype=kind).to(device, non_blocking=True)
    if targets is not None:
        read, found = written(backbone, targets, part)
        inputs |= read
    return Batch(
        inputs=inputs,
        labels=found,
        ids=torch.as_tensor(index[part]).to(device, non_blocking=True),
        generator=torch.Generator(device).manual_seed(seed),
        regression=regression,
        positions=torch.as_tensor(part),
        writes=targets is not None,
    )


def written(backbone: Backbone, targets: Tokens, part: Any) -> tuple[dict[str, Tensor], Tensor]:
    """What a decoder reads of the targets at ``part``, and what it is to write: decoder_input_ids and ``TARGET``
    (rows, tokens), each row moved right behind the start token; and (real tokens,) int64."""
    padded = collate_for(backbone, targets, part)
    ids, mask = padded["input_ids"], padded["attention_mask"]
    begin = ids.new_full((len(ids), 1), backbone.model.generation_config.decoder_start_token_id)
    moved = torch.cat([begin, ids[:, :-1]], dim=1)
    read = moved.masked_fill(mask == 0, backbone.tokenizer.pad_token_id)
    return {"decoder_input_ids": read, TARGET: mask}, ids[mask.bool()]


class Passes:
    """Passes over one micro-batch, each with dropout masks of its own. ``count`` says how many there were, those of
    other networks too; ``graded`` how many of them keep what a backward pass needs.

    The clean pass draws the same masks as plain fine-tuning, whatever the methods do. Passes that leave the embeddings
    as they are begin above the ``prefix``, where there is one.
    """

    def __init__(
        self, backbone: Backbone, batch: Batch, seed: int, *, states: bool, prefix: Prefix | None = None
    ) -> None:
        self.backbone, self.batch, self.seed, self.states, self.prefix = backbone, batch, seed, states, prefix
        self.count = self.graded = self._views = 0
        self._seen: dict[int, Batch] = {}

    def of(self, method: Method) -> Batch:
        """The batch as a method sees it: with notes of its own."""
        if id(method) not in self._seen:
            self._seen[id(method)] = replace(self.batch, notes={})
        return self._seen[id(method)]

    def notes(self, methods: Sequence[Method], taken: Collection[str]) -> dict[str, Tensor]:
        """All notes by name; by ``method.name`` where another method or one of ``taken`` has the name."""
        found = [(method.name, *note) for method in methods for note in self.of(method).notes.items()]
        names = [*taken, *(name for _, name, _ in found)]
        own = {name if names.count(name) == 1 else f"{method}.{name}": value for method, name, value in found}
        return self.batch.notes | own

    def clean(self) -> Out:
        """The batch as it is."""
        torch.manual_seed(self.seed)
        self.add()
        return self._forward(None)

    def view(self, view: View) -> Out:
        """The batch as a method wants it; shares the lookup of the pass before."""
        torch.manual_seed(self.seed if view.dropout == "shared" else mix(self.seed, self._views))
        self._views += 1
        self.add()
        self.backbone.model.train(view.dropout != "off")
        out = self._forward(view.transform, reuse=True, decoder=view.decoder)
        self.backbone.model.train()
        return out

    def elsewhere(self) -> None:
        """Counts a pass over the rows that another network makes, without gradient."""
        self.count += 1

    def add(self, passes: int = 1) -> None:
        """Counts passes of the network itself."""
        self.count += passes
        self.graded += passes * torch.is_grad_enabled()

    def _forward(self, transform: Transform | None, *, reuse: bool = False, decoder: Transform | None = None) -> Out:
        entry = self.prefix.entered(self.batch) if self.prefix and transform is None else None
        return self.backbone.forward(
            self.batch.inputs, transform, reuse=reuse, states=self.states, entry=entry, decoder=decoder
        )


def run_passes(passes: Passes, methods: Sequence[Method], *, joined: bool) -> tuple[Out, list[list[Out]]]:
    """The clean output, and for each method the outputs of its views in their order.

    Separate: one forward each. Joined: one forward over all copies of the batch, with masks of its own.
    """
    if not any(method.has_views for method in methods):
        return passes.clean(), [[] for _ in methods]
    if joined:
        wanted = [method.views(passes.of(method), None) for method in methods]
        outs = iter(_joined(passes, [view for views in wanted for view in views]))
        clean = next(outs)
        return clean, [[next(outs) for _ in views] for views in wanted]
    with passes.backbone.keeping_embeddings():
        clean = passes.clean()
        return clean, [[passes.view(view) for view in method.views(passes.of(method), clean)] for method in methods]


def _joined(passes: Passes, views: Sequence[View]) -> list[Out]:
    copies = 1 + len(views)

    def each(changes: Sequence[Transform | None]) -> Transform | None:
        def transform(embeddings: Tensor) -> Tensor:
            clean, *others = embeddings.chunk(copies)
            changed = [change(e) if change else e for change, e in zip(changes, others, strict=True)]
            return torch.cat([clean, *changed])

        return transform if any(changes) else None

    torch.manual_seed(passes.seed)
    inputs = {name: tensor.repeat(copies, 1) for name, tensor in passes.batch.inputs.items()}
    encoder, decoder = each([view.transform for view in views]), each([view.decoder for view in views])
    whole = passes.backbone.forward(inputs, encoder, states=passes.states, decoder=decoder)
    passes.add(copies)
    states = list(zip(*(state.chunk(copies) for state in whole.states), strict=True)) or [()] * copies
    padding = whole.padding.chunk(copies) if whole.padding is not None else [None] * copies
    outs = zip(whole.logits.chunk(copies), states, padding, strict=True)
    return [Out(logits, list(own), beyond) for logits, own, beyond in outs]


def gradient_ratios(loss: Tensor, terms: dict[str, Term], parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """``<term>_gradient_ratio``: norm of the gradient of weight * term over that of the task loss.

    Extra backward passes that leave ``.grad`` alone, so the run's numbers do not move.
    """
    reference = _gradient_norm(loss, parameters)
    return {
        f"{name}_gradient_ratio": _gradient_norm(t.weight * t.value, parameters) / reference
        for name, t in terms.items()
    }


def _gradient_norm(value: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    if not value.requires_grad:
        return torch.zeros((), device=value.device)
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    norms = [g.float().norm() for g in gradients if g is not None]
    return torch.linalg.vector_norm(torch.stack(norms))
