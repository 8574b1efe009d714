"""Which parameters move: those of a few blocks, or modules that are added to them."""

from __future__ import annotations

from torch import nn

from ftbench.errors import UsageError
from ftbench.models.backbone import Backbone
from ftbench.models.prefix import Still
from ftbench.types.layers import Layers


def restrict(network: Backbone, layers: Layers, *, frozen_dropout: bool = False) -> None:
    """Freezes all but the blocks ``layers.bottom`` to ``layers.top``, with norms behind them, and the head (poolers
    too). The embeddings are frozen, also under a lowest block that is tuned.

    network:        loaded with ``layers.head`` blocks
    frozen_dropout: whether what runs before the lowest tuned block drops in training; else it is ``Still``

    Raises UsageError where blocks share their weights, so that they cannot be told apart.
    """
    depths, count = network.depths(), len(network.blocks)
    bottom, top = layers.bottom, layers.top
    if count < layers.head:
        if (bottom, top) != (1, layers.head):
            kind, possible = network.model.config.model_type, Layers(1, layers.head, layers.head)
            raise UsageError(f"layers {layers}: the blocks of a {kind} model share their weights; expected {possible}")
        top = count
    for name, parameter in network.model.named_parameters():
        if depths[name] and not bottom <= count + 1 - depths[name] <= top:
            parameter.requires_grad_(False)
    if not frozen_dropout:
        Still(network.model, network.blocks[bottom - 1])


def trained_blocks(network: Backbone) -> list[nn.Module]:
    """The blocks with a parameter that is trained, lowest first. Raises FtbenchError where no blocks are found."""
    return [block for block in network.blocks if any(p.requires_grad for p in block.parameters())]


def freeze_base(network: Backbone) -> None:
    """Leaves the head (poolers too) as it is and freezes all else. Raises FtbenchError where no blocks are found."""
    depths = network.depths()
    for name, parameter in network.model.named_parameters():
        if depths[name] > 0:
            parameter.requires_grad_(False)
