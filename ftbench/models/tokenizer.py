"""A checkpoint's tokenizer: with a pad token, and with the limit that the model has."""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from torch import nn

from ftbench.errors import UsageError
from ftbench.models.locate import Checkpoint
from ftbench.models.quiet import quiet

NO_LIMIT = 10**9


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's tokenizer. One without a pad token pads with its end token.

    Raises UsageError when the files cannot be read, and when there is neither a pad nor an end token.
    """
    from transformers import AutoTokenizer

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                checkpoint.folder, local_files_only=True, trust_remote_code=checkpoint.remote_code
            )
    except Exception as error:  # transformers raises OSError, ValueError, ImportError and the like
        raise UsageError(f"the tokenizer of model '{checkpoint.name}' cannot be loaded: {error}") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UsageError(f"the tokenizer of model '{checkpoint.name}' has neither a pad nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = min(tokenizer.model_max_length, _positions(checkpoint))
    return tokenizer


def first_position(model: nn.Module) -> int | None:
    """Position of a row's first token where the model counts only real tokens (RoBERTa, MPNet); None where it counts
    from the left edge, or has no table of positions.

    Such a model keeps the row of the pad token's id in its table for padding, and begins behind it.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name and module.padding_idx is not None:
            return module.padding_idx + 1
    return None


@functools.lru_cache(maxsize=8)
def _positions(checkpoint: Checkpoint) -> int:
    """Tokens that the model has positions for: not every tokenizer names the limit. ``NO_LIMIT`` stands for none."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        trust = checkpoint.remote_code
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=trust)
        with torch.device("meta"), quiet():
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=trust)
    except Exception:  # ``backbone.load`` says what is wrong with it
        return NO_LIMIT
    positions = int(getattr(config.get_text_config(), "max_position_embeddings", None) or 0)
    if positions <= 0:  # XLNet says -1
        return NO_LIMIT
    return positions - (first_position(model) or 0)
