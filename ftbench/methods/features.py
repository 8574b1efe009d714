"""What stands for a row: its vectors in the network's blocks, or what the last layer of the head reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftbench.errors import FtbenchError, UsageError
from ftbench.models.backbone import Backbone
from ftbench.models.modes import evaluating
from ftbench.models.pooling import at_token, mean, reads_last

Token = Literal["cls", "mean", "all"]


@dataclass(frozen=True)
class Reader:
    """Takes a row's vectors out of the blocks' outputs.

    block: which output, from 0
    token: ``cls`` is the token that the head reads, ``mean`` the mean of the real tokens, ``all`` each of these
    last:  whether the head reads a row's last token
    width: of a vector
    """

    block: int
    token: Token
    last: bool
    width: int

    def __call__(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """float32 (rows, 1, width), or (rows, tokens, width) for ``all``, 0 at the padding. mask (rows, tokens)."""
        state = states[self.block].float()
        if self.token == "all":
            return state.masked_fill(mask.unsqueeze(-1) == 0, 0)
        return (mean(state, mask) if self.token == "mean" else at_token(state, mask, last=self.last)).unsqueeze(1)

    def shares(self, mask: Tensor) -> Tensor:
        """What each vector counts in its row's mean, (rows, 1) or (rows, tokens): real tokens alike, padding 0."""
        if self.token == "all":
            return mask.float() / mask.sum(1, keepdim=True)
        return torch.ones(len(mask), 1, device=mask.device)


def reader_of(
    backbone: Backbone, inputs: dict[str, Tensor], layer: int | str, token: Token, method: str = ""
) -> Reader:
    """A Reader of the block ``layer`` (``top`` or a number from 1); ``inputs``: rows of the task.

    Raises UsageError for a block that the network does not have.
    """
    with evaluating(backbone.model), torch.no_grad():
        states = backbone.block_outputs({name: tensor[:1] for name, tensor in inputs.items()})
    blocks, width = len(states), states[-1].shape[-1]
    if isinstance(layer, int) and layer > blocks:
        raise UsageError(f"{method}:layer={layer}: the model has {blocks} blocks")
    return Reader(layer - 1 if isinstance(layer, int) else blocks - 1, token, reads_last(backbone, inputs), width)


def head_linears(backbone: Backbone) -> list[nn.Linear]:
    """The linear layers of the head, the one that gives the logits last. Raises FtbenchError where there is none."""
    depths = backbone.depths()
    linears = [
        module
        for name, module in backbone.model.named_modules()
        if isinstance(module, nn.Linear) and depths.get(f"{name}.weight") == 0
    ]
    if not linears:
        raise FtbenchError(f"a {backbone.model.config.model_type} head has no linear layer")
    return linears


class HeadInput:
    """Keeps what the last layer of the head reads in each pass, before the dropout in front of it.

    taken: (rows, width) a pass; (rows, tokens, width) where the head gives logits for every token
    training: keep that of training passes only
    """

    def __init__(self, backbone: Backbone, *, training: bool = False) -> None:
        self.taken: list[Tensor] = []
        self._dropped: tuple[Tensor, Tensor] | None = None
        self._training = training
        inside = set(backbone.model.base_model.modules())
        dropouts = [m for m in backbone.model.modules() if isinstance(m, nn.Dropout) and m not in inside]
        self._handles = [module.register_forward_hook(self._drop) for module in dropouts]
        self._handles.append(head_linears(backbone)[-1].register_forward_pre_hook(self._take))

    def __deepcopy__(self, memo: dict[int, Any]) -> HeadInput:
        return self  # a copy of the network has nothing to tell

    def _drop(self, module: nn.Module, arguments: Any, output: Tensor) -> None:
        self._dropped = (output, arguments[0])

    def _take(self, module: nn.Module, arguments: Any) -> None:
        read: Tensor = arguments[0]
        if self._dropped is not None and self._dropped[0] is read:
            read = self._dropped[1]
        self._dropped = None
        if module.training or not self._training:
            self.taken.append(read)

    def remove(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()
        self.taken.clear()
