"""The encoder-decoder that is tuned to write: the face of ``Backbone`` for ``AutoModelForSeq2SeqLM``.

Logits are asked of real target tokens only: what enters the last matrix is picked out by a hook, so the words of the
padding are never computed. The rows of ``Out.logits`` are then target tokens, and a mean over them is a mean over real
tokens, whatever the method.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ftbench.errors import FtbenchError, UsageError
from ftbench.models import anatomy
from ftbench.models.adapters import restore
from ftbench.models.backbone import TARGET, Backbone, Out
from ftbench.models.locate import Checkpoint, require_decoder, weight_files
from ftbench.models.quiet import quiet
from ftbench.models.warm_start import SHARED, share_words, unshared, warm_start
from ftbench.models.words import Lookup, Transform

#: tokens that a model may force; the rest of its own settings for writing gives way to the run's
FORCED = ("forced_bos_token_id", "forced_eos_token_id")


class Seq2Seq(Backbone):
    """An encoder-decoder with its tokenizer.

    ``inputs`` of a pass: input_ids and attention_mask (rows, tokens) of the documents, decoder_input_ids and
    ``TARGET`` (rows, target tokens). keep_padding: give the logits of the padding apart, ``Out.padding``.
    """

    writes = True

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self._read = Lookup()
        self._lookups.append(self._read)
        self._places: Tensor | None = None
        reads: nn.Module = model.get_decoder().get_input_embeddings()
        if reads is not self.embeddings:
            reads.register_forward_hook(self._hook_decoder)
        model.get_output_embeddings().register_forward_pre_hook(self._pack)

    @property
    def start_token(self) -> int:
        """What the decoder reads first."""
        token: int = self.model.generation_config.decoder_start_token_id
        return token

    @property
    def base(self) -> str:
        """As ``Backbone.base``; nothing, where the model is its own base: all of it is pretrained."""
        own = self.model.base_model
        return "" if own is self.model else super().base

    @cached_property
    def encoder_blocks(self) -> tuple[nn.Module, ...]:
        """The encoder's part of ``blocks``."""
        inside = set(self.model.get_encoder().modules())
        return tuple(block for block in self.blocks if block in inside)

    def recording(self) -> contextlib.AbstractContextManager[list[Tensor]]:
        """As ``Backbone.recording``, of the encoder's blocks."""
        return anatomy.recording(self.encoder_blocks)

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
        """As ``Backbone.forward``; ``decoder`` changes the embeddings of the target tokens that the decoder reads."""
        if entry is not None:
            raise FtbenchError("an encoder-decoder cannot be entered above its lower part")
        self._words.begin(transform, inputs["input_ids"], reuse=reuse)
        self._read.begin(decoder, inputs["decoder_input_ids"], reuse=reuse)
        mask = inputs[TARGET].bool()
        given = {name: tensor for name, tensor in inputs.items() if name != TARGET}
        if self.keep_padding:
            given["decoder_attention_mask"] = inputs[TARGET]
        try:
            with self.recording() if states else contextlib.nullcontext([]) as recorded:
                self._places = None if self.keep_padding else mask.flatten().nonzero().squeeze(-1)
                logits = self.model(**given).logits
        finally:
            self._words.transform = self._read.transform = self._places = None
        self._require_noise(transform, self._words)
        self._require_noise(decoder, self._read)
        flat = logits.flatten(0, -2)
        if self.keep_padding:
            real = mask.flatten()
            return Out(flat[real], recorded, flat[~real])
        return Out(flat, recorded)

    def generate(self, inputs: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Tensor:
        """What the model writes, (rows, tokens), padded, the start token first. ``settings``: of ``generate``."""
        from ftbench.models.beams import beam_cache

        beams = settings.get("num_beams", 1) > 1 and not hasattr(self.model, "_reorder_cache")
        cache = {"past_key_values": beam_cache(self.model.config)} if beams else {}
        written: Tensor = self.model.generate(**inputs, **settings, **cache, use_cache=True, do_sample=False)
        return written

    def save(self, folder: Path) -> None:
        """As ``Backbone.save``; a shared matrix of words is written for each stack, see ``warm_start``."""
        state = unshared(self.model) if getattr(self.model.config, SHARED, False) else None
        with quiet():
            self.model.save_pretrained(folder, state_dict=state)
            self.tokenizer.save_pretrained(folder)

    def _hook(self, module: nn.Module, arguments: Any, embeddings: Tensor) -> Tensor:
        # a table that both stacks share is looked up by the encoder first
        lookup = self._read if self._words.met else self._words
        return lookup(embeddings, arguments[0])

    def _hook_decoder(self, module: nn.Module, arguments: Any, embeddings: Tensor) -> Tensor:
        return self._read(embeddings, arguments[0])

    def _pack(self, module: nn.Module, arguments: Any) -> tuple[Tensor, ...] | None:
        if self._places is None:
            return None
        states: Tensor = arguments[0]
        return (states.flatten(0, 1).index_select(0, self._places), *arguments[1:])

    def _tokens(self, *texts: str) -> dict[str, Tensor]:
        found = super()._tokens(*texts)
        return {name: found[name] for name in ("input_ids", "attention_mask")} | {
            "decoder_input_ids": torch.full((len(texts), 2), self.start_token, device=self.device)
        }


def load_seq2seq(checkpoint: Checkpoint, tokenizer: Any, *, seed: int) -> Seq2Seq:
    """The network in float32, on the CPU, in evaluation mode. seed: of what ``bert2bert`` draws.

    Raises UsageError for a model without a decoder, and where transformers cannot make one that writes of the
    checkpoint.
    """
    require_decoder(checkpoint)
    try:
        with quiet():
            warm = checkpoint.decoder == "bert2bert"
            model = warm_start(checkpoint, tokenizer, seed) if warm else _read(checkpoint)
    except (ValueError, OSError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise UsageError(f"model '{checkpoint.name}' cannot be loaded to write summaries: {first}") from error
    return assemble_seq2seq(model, tokenizer, checkpoint.name)


def assemble_seq2seq(model: Any, tokenizer: Any, name: str) -> Seq2Seq:
    """``model`` and ``tokenizer`` made to fit each other. Raises UsageError where no start token is known, FtbenchError
    where the tokenizer has more tokens than the model has embeddings."""
    from transformers import GenerationConfig

    config, own = model.config, model.generation_config
    start = next(
        (token for place in (own, config) if (token := getattr(place, "decoder_start_token_id", None)) is not None),
        getattr(config, "bos_token_id", None),
    )
    if start is None:
        raise UsageError(f"model '{name}' does not say with which token its decoder starts (decoder_start_token_id)")
    end = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        bos_token_id=own.bos_token_id if own.bos_token_id is not None else start,
        eos_token_id=end if end is not None else tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{key: getattr(own, key, None) for key in FORCED},
    )
    config.pad_token_id, config.decoder_start_token_id, config.use_cache = tokenizer.pad_token_id, start, False
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise FtbenchError(f"the tokenizer of model '{name}' has more tokens than the model has embeddings")
    tokenizer.padding_side = "right"
    for module in model.modules():  # what takes part in nothing cannot be tuned
        if "pooler" in dict(module.named_children()) and module.pooler is not None:
            module.pooler.requires_grad_(False)
    return Seq2Seq(model, tokenizer)


def _read(checkpoint: Checkpoint) -> Any:
    """Raises UsageError for weights that the checkpoint lacks."""
    from transformers import AutoModelForSeq2SeqLM

    model, found = AutoModelForSeq2SeqLM.from_pretrained(
        checkpoint.folder,
        output_loading_info=True,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=checkpoint.remote_code,
    )
    if getattr(model.config, SHARED, False):
        share_words(model)
    restore(model, weight_files(checkpoint.folder))
    trained = {name for name, _ in model.named_parameters()}
    missing = sorted(trained & set(found["missing_keys"]))
    if missing:
        raise UsageError(
            f"model '{checkpoint.name}': {len(missing)} weights are not in the checkpoint and would be random "
            f"({', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}). Is it the checkpoint of another model?"
        )
    return model.eval()
