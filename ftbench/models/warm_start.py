"""BERT2BERT: an encoder-decoder made of one encoder (Rothe, Narayan, Severyn 2020, arXiv 1907.12461, "BERTSHARE" but
for the blocks).

Both stacks begin with the encoder's weights. What the checkpoint lacks begins so that it passes on what it is given:
each block's attention to the encoder as a copy of its attention to its own stack, a square matrix in the head that
predicts words as the identity. The paper draws both at random, which a few hundred documents do not mend: the decoder
then writes the same for every document (docs/decisions/0022). The rest is drawn by the seed as BERT draws it:
N(0, s^2), biases 0, norms (1, 0). Word embeddings are one matrix for encoder, decoder and head; the paper's BERT2BERT
shares those of the two stacks, too. The blocks are apart. The decoder begins with [CLS] and ends with [SEP].

Saved, a folder has the matrix twice, so that plain ``from_pretrained`` loads it exactly (there encoder and decoder then
have a copy each); ``config.json`` says ``ftbench_shared_words``, and ftbench shares it again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.models.locate import Checkpoint

#: in the configuration: encoder, decoder and head have one matrix of words
SHARED = "ftbench_shared_words"
#: families whose encoder transformers can run as a decoder too
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


def warm_start(checkpoint: Checkpoint, tokenizer: Any, seed: int) -> Any:
    """The model, float32, in evaluation mode. ``tokenizer``: the encoder's.

    Raises UsageError for a family that cannot decode, and for a tokenizer without marks for beginning and end.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, EncoderDecoderModel

    kind = checkpoint.kind
    if kind not in FAMILIES:
        raise UsageError(
            f"model '{checkpoint.name}': a {kind or 'nameless'} model cannot be made into a decoder; expected one of "
            f"{', '.join(FAMILIES)}"
        )
    begin, end = _marks(tokenizer, checkpoint.name)
    local = {"local_files_only": True, "trust_remote_code": False}
    loading = {**local, "dtype": torch.float32, "use_safetensors": True}
    encoder = AutoModel.from_pretrained(checkpoint.folder, **loading)
    fields = {"is_decoder": True, "add_cross_attention": True, "tie_word_embeddings": True}
    config = AutoConfig.from_pretrained(checkpoint.folder, **local, **fields)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, config=config, output_loading_info=True, **loading
    )
    decoder, found = loaded
    _begin(decoder, found["missing_keys"], seed)
    model: Any = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    share_words(model)
    setattr(model.config, SHARED, True)
    model.config.vocab_size = model.config.decoder.vocab_size
    for place in (model.config, model.generation_config):
        place.decoder_start_token_id, place.eos_token_id, place.bos_token_id = begin, end, begin
        place.pad_token_id = tokenizer.pad_token_id
    return model.eval()


def share_words(model: Any) -> None:
    """Encoder, decoder and head have the encoder's matrix, from now on."""
    words = model.encoder.get_input_embeddings()
    model.decoder.set_input_embeddings(words)
    model.decoder.get_output_embeddings().weight = words.weight


def unshared(model: Any) -> dict[str, Tensor]:
    """The weights with a matrix of its own for the decoder, whose head transformers ties to that."""
    words = model.decoder.get_input_embeddings()
    names = {f"decoder.{name}.weight" for name, module in model.decoder.named_modules() if module is words}
    head = model.decoder.get_output_embeddings()
    tied = {f"decoder.{name}.weight" for name, module in model.decoder.named_modules() if module is head}
    state = model.state_dict()
    return {name: tensor.clone() if name in names else tensor for name, tensor in state.items() if name not in tied}


def _marks(tokenizer: Any, name: str) -> tuple[int, int]:
    begin = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if begin is None or end is None:
        raise UsageError(f"the tokenizer of model '{name}' has no tokens that begin and end a text")
    return begin, end


@torch.no_grad()
def _begin(decoder: Any, missing: set[str], seed: int) -> None:
    """What the checkpoint lacks: copied, the identity, or drawn, in the order of the names."""
    generator = torch.Generator().manual_seed(seed)
    deviation = decoder.config.initializer_range
    named = dict(decoder.named_parameters())
    for name in sorted(named.keys() & missing):
        parameter, own = named[name], named.get(name.replace(".crossattention.", ".attention."))
        if own is not None and own is not parameter:
            parameter.copy_(own)
        elif parameter.ndim == 2 and parameter.shape[0] == parameter.shape[1]:
            torch.nn.init.eye_(parameter)
        elif parameter.ndim >= 2:
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, deviation, generator=generator))
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
