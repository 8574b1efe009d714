"""Fewer blocks: a configuration cut to the lowest ones, so that those above are never loaded."""

from __future__ import annotations

from typing import Any

from ftbench.errors import UsageError

#: lists of one entry a block whose names do not say so
_LISTS = ("attention_window",)


def truncate(config: Any, layers: int, name: str) -> None:
    """Changes the ``config`` of model ``name`` to its lowest ``layers`` blocks, with every list of one entry a block.

    An encoder-decoder model, whose blocks are its encoder's and then its decoder's, stays whole or is refused: cut in
    its encoder, its decoder would read states that it was never trained on; cut in its decoder, it would still cost
    nearly as much. Raises UsageError for that, for a number below 1 or above that of the blocks, and for ALBERT's
    groups of shared blocks where the cut would regroup them.
    """
    if config.is_encoder_decoder:
        if layers == _both_stacks(config):
            return
        raise UsageError(
            f"layers={layers}: model '{name}' ({config.model_type}) has an encoder and a decoder; "
            "expected a model with one stack of blocks"
        )
    text = config.get_text_config()
    blocks = getattr(text, "num_hidden_layers", None)
    if not isinstance(blocks, int):
        raise UsageError(f"layers={layers}: the configuration of model '{name}' does not say how many blocks it has")
    if not 1 <= layers <= blocks:
        raise UsageError(f"layers={layers}: model '{name}' has {blocks} blocks; expected 1 to {blocks}")
    groups = getattr(text, "num_hidden_groups", 1)
    if groups * layers % blocks and groups > 1:
        step = min(k for k in range(1, blocks + 1) if groups * k % blocks == 0)
        raise UsageError(
            f"layers={layers}: the {blocks} blocks of model '{name}' share weights in {groups} groups; "
            f"expected a multiple of {step}"
        )
    if groups > 1:
        text.num_hidden_groups = groups * layers // blocks
    for field, value in list(vars(text).items()):
        if ("layer" in field or field in _LISTS) and isinstance(value, list | tuple) and len(value) == blocks:
            setattr(text, field, value[:layers])
    text.num_hidden_layers = layers


def _both_stacks(config: Any) -> int:
    names = ("decoder_layers", "num_decoder_layers")
    decoder = next((count for name in names if isinstance(count := getattr(config, name, None), int)), None)
    encoder: int = config.num_hidden_layers
    return encoder + (encoder if decoder is None else decoder)
