"""How well a tuned encoder still does what it was pretrained for: the perplexity of its texts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ftbench.models.backbone import Backbone
from ftbench.models.language import load_language_model
from ftbench.models.locate import Checkpoint
from ftbench.models.pooling import special_ids
from ftbench.training.batches import Tokens, share
from ftbench.training.evaluate import EVAL_BATCH, collate_for

#: share of the ordinary tokens that a masked language model has to guess, as in BERT's pretraining
MASKED = 0.15
SEED = 0


def perplexity(pretrained: Checkpoint, encoder: Backbone, tokens: Tokens) -> float | None:
    """exp of the mean cross-entropy (nats) of the tokens that are predicted, by the pretrained language-model head on
    the body of ``encoder``; None where the checkpoint has no such head.

    A masked model guesses 15 % of the ordinary tokens, drawn with a fixed seed and all replaced by the mask token
    (a pseudo-perplexity: comparable between encoders, not with a causal model's). A causal one guesses each real token
    from those before it. Where the head's matrix is the word embeddings, it is the tuned ones'.
    """
    language = load_language_model(pretrained, encoder)
    if language is None:
        return None
    model, masked = language
    guess = _masked if masked else _causal
    total, count = 0.0, 0
    generator = torch.Generator().manual_seed(SEED)
    with torch.inference_mode():
        for part in share(range(len(tokens.lengths)), EVAL_BATCH):
            inputs = encoder.with_positions(collate_for(encoder, tokens, part))
            losses = guess(model, encoder, inputs, generator)
            total, count = total + float(losses.double().sum()), count + len(losses)
    return float(torch.tensor(total / count, dtype=torch.float64).exp()) if count else None


def _masked(model: Any, encoder: Backbone, inputs: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Cross-entropy of each masked token, (masked,)."""
    words = inputs["input_ids"]
    special = torch.tensor(special_ids(encoder.tokenizer), device=words.device)
    ordinary = inputs["attention_mask"].bool() & ~torch.isin(words, special)
    hidden = ordinary & (torch.rand(words.shape, generator=generator) < MASKED).to(words.device)
    logits = model(**{**inputs, "input_ids": words.masked_fill(hidden, encoder.tokenizer.mask_token_id)}).logits
    return F.cross_entropy(logits[hidden].float(), words[hidden], reduction="none")


def _causal(model: Any, encoder: Backbone, inputs: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Cross-entropy of each real token that has a real one before it, (predicted,)."""
    real = inputs["attention_mask"].bool()
    predicted = real[:, 1:] & real[:, :-1]
    logits = model(**inputs).logits[:, :-1][predicted]
    return F.cross_entropy(logits.float(), inputs["input_ids"][:, 1:][predicted], reduction="none")
