"""Which parameters move: those of a few blocks, or modules that are added to them."""

from __future__ import annotations

from torch import nn

from ftbench.models.backbone import Backbone


def trained_blocks(network: Backbone) -> list[nn.Module]:
    """The blocks with a parameter that is trained, lowest first. Raises FtbenchError where no blocks are found."""
    return [block for block in network.blocks if any(p.requires_grad for p in block.parameters())]


def freeze_base(network: Backbone) -> None:
    """Leaves the head (poolers too) as it is and freezes all else. Raises FtbenchError where no blocks are found."""
    depths = network.depths()
    for name, parameter in network.model.named_parameters():
        if depths[name] > 0:
            parameter.requires_grad_(False)
