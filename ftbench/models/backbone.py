"""The network that is tuned: the only file that knows transformers' models.

Noise at the embeddings goes in by a forward hook on the word-embedding module, armed for one pass:
so positions, token types, scaling and layer norms stay each family's own business.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ftbench.errors import FtbenchError, UsageError
from ftbench.models.locate import Checkpoint

#: embeddings (rows, tokens, width) -> embeddings of the same shape
Transform = Callable[[Tensor], Tensor]


@dataclass
class Out:
    """What one pass gives: logits (rows, classes), float32 or the autocast type; (rows, 1) in regression."""

    logits: Tensor


class Backbone:
    """A sequence classifier with its tokenizer.

    ``model`` is what ``AutoModelForSequenceClassification`` made, float32 whatever the checkpoint's type.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._transform: Transform | None = None
        self._seen: Tensor | None = None
        self._keep = self._embedded = False
        _word_embeddings(model).register_forward_hook(self._hook)

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def forward(self, inputs: dict[str, Tensor], transform: Transform | None = None, *, reuse: bool = False) -> Out:
        """One pass. ``inputs``: input_ids and attention_mask (rows, tokens), token_type_ids where the model has them.

        transform: changes the word embeddings of this pass only.
        reuse: feed ``transform`` the embeddings of the pass before, so that both passes share one
            lookup and the table gets one gradient, not two (the table is the largest matrix there is).

        Raises FtbenchError where ``transform`` has met no embeddings: a pass without noise is not what was asked.
        """
        if not reuse:
            self._seen = None
        self._transform, self._embedded = transform, False
        try:
            out = Out(self.model(**inputs).logits)
        finally:
            self._transform = None
        if transform is not None and not self._embedded:
            kind = self.model.config.model_type
            raise FtbenchError(f"a {kind} model does not look its words up where noise can be added; use std")
        return out

    @contextlib.contextmanager
    def keeping_embeddings(self) -> Iterator[None]:
        """Within: each pass keeps its embeddings for a ``reuse`` pass; freed on leaving."""
        self._keep = True
        try:
            yield
        finally:
            self._keep, self._seen = False, None

    def _hook(self, module: nn.Module, arguments: Any, embeddings: Tensor) -> Tensor:
        if self._embedded:  # a table that the decoder shares is looked up again
            return embeddings
        self._embedded = True
        if self._seen is not None:
            embeddings = self._seen
        elif self._keep:
            self._seen = embeddings
        return embeddings if self._transform is None else self._transform(embeddings)

    def hidden(self, inputs: dict[str, Tensor]) -> Tensor:
        """Last hidden states without the head, (rows, tokens, width); of the decoder where there is one."""
        states: Tensor = self.model.base_model(**inputs)[0]
        return states

    def save(self, folder: Path) -> None:
        """Writes weights and tokenizer so that plain ``from_pretrained(folder)`` loads them."""
        with _quiet():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def _word_embeddings(model: Any) -> nn.Module:
    """The module that looks the input's words up: the encoder's own where there is a decoder too."""
    module: nn.Module = (model.get_encoder() if model.config.is_encoder_decoder else model).get_input_embeddings()
    return module


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's tokenizer. Raises UsageError when the files cannot be read."""
    from transformers import AutoTokenizer

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, ImportError and the like
        raise UsageError(f"the tokenizer of model '{checkpoint.name}' cannot be loaded: {error}") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UsageError(f"the tokenizer of model '{checkpoint.name}' has neither a pad nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = min(tokenizer.model_max_length, _positions(checkpoint.folder))
    return tokenizer


def _positions(folder: Path) -> int:
    """Tokens that the model has positions for: not every tokenizer names the limit. A huge number stands for none."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError):  # ``load`` says what is wrong with it
        return 10**9
    positions = getattr(config, "max_position_embeddings", None) or 10**9
    counts_after_padding = "roberta" in config.model_type or config.model_type in ("camembert", "mpnet", "longformer")
    return int(positions) - (config.pad_token_id + 1 if counts_after_padding else 0)


def load(checkpoint: Checkpoint, tokenizer: Any, labels: Sequence[str], *, regression: bool, seed: int) -> Backbone:
    """The network with a fresh head, in float32, on the CPU.

    The head is drawn after ``torch.manual_seed(seed)``, so it depends on the seed and on nothing
    before. labels: class names by id; ignored in regression, whose head has one output.
    Raises UsageError where transformers cannot make a classifier of the checkpoint.
    """
    from transformers import AutoModelForSequenceClassification

    named: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
    if not regression:
        names = dict(enumerate(labels))
        named = {"num_labels": len(labels), "id2label": names, "label2id": {n: i for i, n in names.items()}}
        named["problem_type"] = "single_label_classification"
    torch.manual_seed(seed)
    try:
        with _quiet():
            model, loaded = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.folder,
                output_loading_info=True,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                **named,
            )
    except (ValueError, OSError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise UsageError(f"model '{checkpoint.name}' cannot be loaded as a classifier: {first}") from error
    other_shape = [key[0] if isinstance(key, tuple) else key for key in loaded["mismatched_keys"]]
    drawn = {*loaded["missing_keys"], *other_shape}
    _require_encoder(model, drawn, checkpoint.name)
    _draw_head(model, drawn, seed)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise FtbenchError(f"the tokenizer of model '{checkpoint.name}' has more tokens than the model has embeddings")
    return Backbone(model, tokenizer)


def _draw_head(model: Any, drawn: set[str], seed: int) -> None:
    """Draws a head that the checkpoint brought along anew: another task trained it, and every seed would share it."""
    from transformers import AutoModelForSequenceClassification

    prefix = f"{model.base_model_prefix}."
    head = {name for name in model.state_dict() if not name.startswith(prefix)}
    if head <= drawn:
        return
    torch.manual_seed(seed)
    fresh = AutoModelForSequenceClassification.from_config(model.config).state_dict()
    model.load_state_dict({name: fresh[name].float() for name in head}, strict=False)


def _require_encoder(model: Any, missing: Iterable[str], name: str) -> None:
    """A fresh head is wanted, a fresh encoder is not: a pooler counts as head. Raises UsageError."""
    prefix = f"{model.base_model_prefix}."
    random = sorted(key for key in missing if key.startswith(prefix) and ".pooler." not in key)
    if random:
        raise UsageError(
            f"model '{name}': {len(random)} weights of the encoder are not in the checkpoint, or in another "
            f"shape, and would be random ({', '.join(random[:3])}{' …' if len(random) > 3 else ''}). "
            "Is it the checkpoint of another model?"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers' loading bars and reports off: a fresh head is not news here."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
