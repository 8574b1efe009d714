"""The cache of a beam search that leaves in place what the beams of one document share."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache


class Shared(DynamicCache):
    """Keys and values of the documents (documents x beams, heads, tokens, size): equal for all beams of a document, and
    a beam goes on from one of its own document, so that reordering them changes nothing. ``generate`` copies them at
    every token that it writes."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Nothing: see above."""


def beam_cache(config: Any) -> EncoderDecoderCache:
    """An empty cache for a decoder of ``config``, as ``generate`` makes it but for ``Shared``."""
    decoder = config.get_text_config(decoder=True)
    return EncoderDecoderCache(DynamicCache(config=decoder), Shared(config=decoder))
