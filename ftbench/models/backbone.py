"""The network that is tuned, behind one face for every family of ``AutoModelForSequenceClassification``.

Noise at the embeddings goes in by a forward hook on the word-embedding module, armed for one pass:
so positions, token types, scaling and layer norms stay each family's own business.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ftbench.errors import FtbenchError, UsageError
from ftbench.models import anatomy
from ftbench.models.adapters import restore
from ftbench.models.head import draw_head, keep_head, label_fields
from ftbench.models.locate import Checkpoint, weight_files
from ftbench.models.quiet import quiet
from ftbench.models.tokenizer import first_position, load_tokenizer
from ftbench.models.truncate import truncate
from ftbench.models.words import Lookup, Transform

__all__ = ["Backbone", "Out", "Transform", "assemble", "load", "load_tokenizer", "read_classifier"]

#: in ``inputs`` where summaries are written: which of ``decoder_input_ids`` stand before a token that is to be written
TARGET = "target_mask"


@dataclass
class Out:
    """What one pass gives.

    logits:  (rows, classes), float32 or the autocast type; (rows, 1) in regression; of an encoder-decoder that writes,
             (target tokens, words): one after the other, padding left out
    states:  the output of every block, (rows, tokens, width) each, where they were asked for; of an encoder-decoder
             that writes, its encoder's
    padding: (padding of the targets, words): logits where nothing is to be written, where they were asked for
    """

    logits: Tensor
    states: list[Tensor] = field(default_factory=list)
    padding: Tensor | None = None


class Backbone:
    """A sequence classifier with its tokenizer.

    ``model`` is what ``AutoModelForSequenceClassification`` made, float32 whatever the checkpoint's type.
    order: for each class the output of ``model`` that stands for it, where a kept head has another order.
    """

    #: whether the rows of ``Out.logits`` are target tokens; see ``Seq2Seq``, whose ``keep_padding`` this is, too
    writes = False
    keep_padding = False

    def __init__(self, model: Any, tokenizer: Any, order: Sequence[int] | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.order = None if order is None else torch.tensor(order)
        self._words = Lookup()
        self._lookups = [self._words]
        takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._counts_from_edge = takes_positions and first_position(model) is None
        self.embeddings.register_forward_hook(self._hook)

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def embeddings(self) -> nn.Module:
        """The module that looks the input's words up: the encoder's own where there is a decoder too."""
        encoder = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model
        module: nn.Module = encoder.get_input_embeddings()
        return module

    @cached_property
    def _anatomy(self) -> anatomy.Anatomy:
        before = [lookup.met for lookup in self._lookups]
        for lookup in self._lookups:  # a pass that is under way keeps its transforms and its lookups
            lookup.met = True
        try:
            return anatomy.dissect(self.model, self._tokens("some words"))
        finally:
            for lookup, met in zip(self._lookups, before, strict=True):
                lookup.met = met

    @property
    def base(self) -> str:
        """What the names of all parameters below the head begin with."""
        return f"{self.model.base_model_prefix}."

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The transformer layers, lowest first; see ``anatomy.Anatomy``. Raises FtbenchError where none are found."""
        return self._anatomy.blocks

    def depths(self) -> dict[str, int]:
        """Name of every parameter -> depth: 0 in the head, 1 in the topmost block, ``len(blocks) + 1`` in the
        embeddings; see ``anatomy.Anatomy``. What was added or renamed later (adapters, a parametrized weight) lies
        where the module does that it was added to; its name then stands beside the old one.

        Raises FtbenchError where no blocks are found.
        """
        known = self._anatomy.depths
        names = (name for name, _ in self.model.named_parameters())
        return known | {name: anatomy.depth_around(known, name) for name in names if name not in known}

    def recording(self) -> contextlib.AbstractContextManager[list[Tensor]]:
        """Within: a list that every pass appends the outputs of its blocks to, (rows, tokens, width) each, in the
        order in which they ran; a shared block once a run. A decoder's last is before its final norm."""
        return anatomy.recording(self.blocks)

    def block_outputs(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        """The outputs of all blocks in one pass, as in ``recording``."""
        with self.recording() as states:
            self.forward(inputs)
        return states

    def forward(
        self,
        inputs: dict[str, Tensor],
        transform: Transform | None = None,
        *,
        reuse: bool = False,
        states: bool = False,
        entry: contextlib.AbstractContextManager[None] | None = None,
        decoder: Transform | None = None,
    ) -> Out:
        """One pass. ``inputs``: input_ids and attention_mask (rows, tokens), token_type_ids where the model has them.

        transform: changes the word embeddings of this pass only.
        reuse: feed ``transform`` the embeddings of the pass before, so that both passes share one
            lookup and the table gets one gradient, not two (the table is the largest matrix there is).
        states: record the blocks' outputs.
        entry: where the pass begins, if not at the embeddings; see ``entry.Entry.entered``.
        decoder: as ``transform``, of the words that a decoder reads; see ``seq2seq.Seq2Seq``.

        Raises FtbenchError where ``transform`` has met no embeddings: a pass without noise is not what was asked.
        """
        if decoder is not None:
            raise FtbenchError("a classifier has no decoder that reads what it should write: no noise can be put there")
        skipped = entry is not None  # what is passed over is no lookup
        self._words.begin(transform, inputs["input_ids"], reuse=reuse, skipped=skipped)
        inputs = self.with_positions(inputs)
        try:
            with entry or contextlib.nullcontext(), self.recording() if states else _nothing() as recorded:
                logits = self.model(**inputs).logits
        finally:
            self._words.transform = None
        self._require_noise(transform, self._words)
        if self.order is not None:
            if self.order.device != logits.device:
                with torch.inference_mode(False):  # else training after a first evaluation could not use it
                    self.order = self.order.to(logits.device)
            logits = logits.index_select(-1, self.order)
        return Out(logits, recorded)

    def _require_noise(self, transform: Transform | None, words: Lookup) -> None:
        if transform is not None and not words.met:
            kind = self.model.config.model_type
            raise FtbenchError(f"a {kind} model does not look its words up where noise can be added; use std")

    def with_positions(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """``inputs`` with position ids where the model would count padding on the left as positions."""
        if not self._counts_from_edge or self.tokenizer.padding_side != "left":
            return inputs
        return inputs | {"position_ids": (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)}

    @contextlib.contextmanager
    def keeping_embeddings(self, *, decoder: bool = True) -> Iterator[None]:
        """Within: each pass keeps its embeddings for a ``reuse`` pass, a decoder's unless told; freed on leaving."""
        for lookup in self._lookups if decoder else self._lookups[:1]:
            lookup.keep = True
        try:
            yield
        finally:
            for lookup in self._lookups:
                lookup.release()

    def _hook(self, module: nn.Module, arguments: Any, embeddings: Tensor) -> Tensor:
        return self._words(embeddings, arguments[0])

    def hidden(self, inputs: dict[str, Tensor]) -> Tensor:
        """Last hidden states without the head, (rows, tokens, width); of the decoder where there is one."""
        with anatomy.recording([self.model.base_model]) as states:
            self.forward(inputs)
        return states[0]

    def randomise(self, seed: int) -> None:
        """Draws every weight anew, as the family does before pretraining."""
        torch.manual_seed(seed)
        self.model.load_state_dict(type(self.model)(self.model.config).state_dict())

    def save(self, folder: Path) -> None:
        """Writes weights and tokenizer so that plain ``from_pretrained(folder)`` loads them."""
        with quiet():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def _tokens(self, *texts: str) -> dict[str, Tensor]:
        encoded = self.tokenizer(list(texts), padding=True, return_tensors="pt")
        return {name: tensor.to(self.device) for name, tensor in encoded.items()}

    @torch.no_grad()
    def _bears_padding_left(self) -> bool:
        """Whether a row's logits are the same beside a longer row, when the tokenizer pads left; up to rounding."""
        short, long = "words", "many more words of a longer text"
        alone, beside = (self.forward(self._tokens(*texts)).logits[0] for texts in ([short], [short, long]))
        return torch.allclose(alone, beside, rtol=1e-3, atol=1e-5)


def _nothing() -> contextlib.AbstractContextManager[list[Tensor]]:
    return contextlib.nullcontext([])


def load(
    checkpoint: Checkpoint,
    tokenizer: Any,
    labels: Sequence[str],
    *,
    regression: bool,
    seed: int,
    layers: int | None = None,
    head: Literal["fresh", "kept"] = "fresh",
) -> Backbone:
    """The network in float32, on the CPU, in evaluation mode.

    labels: class names by id; ignored in regression, whose head has one output.
    seed:   a fresh head is drawn after ``torch.manual_seed(seed)``, so it depends on the seed and on nothing before.
    layers: load only so many of the lowest blocks; all where None. See ``truncate``.
    head:   ``fresh`` is drawn even where the checkpoint has one; ``kept`` is the checkpoint's own, see ``keep_head``.

    A tokenizer that pads left is set to pad right where the model would read padding (one that reads its first token,
    one with a decoder of its own). Raises UsageError where transformers cannot make a classifier of the
    checkpoint, and for ``layers`` and ``head`` that it does not have.
    """
    torch.manual_seed(seed)
    fields = label_fields(labels, regression=regression) if head == "fresh" else {}
    model, drawn = read_classifier(checkpoint, fields, layers)
    _require_encoder(model, drawn, checkpoint.name)
    order = None
    if head == "fresh":
        draw_head(model, drawn, seed)
    else:
        order = keep_head(model, drawn, labels, checkpoint.name, regression=regression)
    return assemble(model, tokenizer, checkpoint.name, order)


def assemble(model: Any, tokenizer: Any, name: str, order: Sequence[int] | None = None) -> Backbone:
    """``model`` and ``tokenizer`` made to fit each other; see ``Backbone`` for ``order``, ``load`` for padding.

    Raises FtbenchError where the tokenizer has more tokens than the model has embeddings.
    """
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # decoders find a row's last token by it
    model.config.use_cache = False
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise FtbenchError(f"the tokenizer of model '{name}' has more tokens than the model has embeddings")
    network = Backbone(model, tokenizer, order)
    if tokenizer.padding_side == "left" and not network._bears_padding_left():
        tokenizer.padding_side = "right"
    return network


def read_classifier(
    checkpoint: Checkpoint, fields: Mapping[str, Any] | None = None, layers: int | None = None
) -> tuple[Any, set[str]]:
    """The classifier of transformers in evaluation mode, and the names of its weights that are random: missing in the
    checkpoint or of another shape there.

    fields: of the configuration, in place of the checkpoint's. Raises UsageError as ``load`` does.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    local = {"local_files_only": True, "trust_remote_code": checkpoint.remote_code}
    try:
        with quiet():
            config = AutoConfig.from_pretrained(checkpoint.folder, **local, **(fields or {}))
            if layers is not None:
                truncate(config, layers, checkpoint.name)
            model, loaded = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.folder,
                config=config,
                output_loading_info=True,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                **local,
            )
    except (ValueError, OSError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise UsageError(f"model '{checkpoint.name}' cannot be loaded as a classifier: {first}") from error
    restore(model, weight_files(checkpoint.folder))
    other_shape = [key[0] if isinstance(key, tuple) else key for key in loaded["mismatched_keys"]]
    return model, {*loaded["missing_keys"], *other_shape}


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
