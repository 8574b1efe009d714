"""One vector a text: which of a block's outputs, (rows, tokens, width), stand for a row.

mean      of the real tokens, special ones among them
ordinary  mean of the real tokens that are not special (no [CLS], </s> and the like; unknown and mask tokens stay)
cls       the token that the head reads: the first in an encoder, the last where there is a decoder
last      the last real token

Padding may lie on either side.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ftbench.models.backbone import Backbone
from ftbench.models.modes import evaluating

Pooling = Literal["mean", "ordinary", "cls", "last"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def mean(state: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that ``mask`` (rows, tokens) marks, float32 (rows, width); NaN for a row without any."""
    marked = state.float().masked_fill(mask.unsqueeze(-1) == 0, 0)
    return marked.sum(1) / mask.sum(1, keepdim=True)


def at_token(state: Tensor, mask: Tensor, *, last: bool) -> Tensor:
    """The first or last token of each row that ``mask`` (rows, tokens) marks, (rows, width)."""
    real = mask.bool().int()
    at = mask.shape[1] - 1 - real.flip(1).argmax(1) if last else real.argmax(1)
    return state[torch.arange(len(state), device=state.device), at]


def special_ids(tokenizer: Any) -> list[int]:
    """Ids of the tokens that frame a text, sorted. Those for unknown and masked words stand in one, so they are not
    among these, except where one id has both roles (GPT-2's end of text)."""
    framing = {getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "cls", "sep", "pad")}
    others = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id, tokenizer.mask_token_id}
    return sorted((framing | others) - {None})


def reads_last(backbone: Backbone, inputs: dict[str, Tensor]) -> bool:
    """Whether the head reads a row's last token rather than its first. ``inputs``: any rows of the task.

    Where summaries are written a decoder reads every token of the encoder: the first stands for a row, as in BERT.
    """
    if backbone.writes:
        return False
    mask = inputs["attention_mask"].bool()
    longest = int(mask.sum(1).argmax())
    row = {name: tensor[longest][mask[longest]].unsqueeze(0) for name, tensor in inputs.items()}
    with evaluating(backbone.model), torch.enable_grad():
        out = backbone.forward(row, lambda embeddings: embeddings.detach().requires_grad_(), states=True)
        (gradient,) = torch.autograd.grad(out.logits[0, 0], out.states[-1])
    last = row["input_ids"].shape[1] - 1  # the states of families that pad inside go on
    return bool((gradient[0, 0] == 0).all() and (gradient[0, last] != 0).any())
