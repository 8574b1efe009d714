"""The pretrained language-model head on the body of a tuned encoder."""

from __future__ import annotations

from typing import Any

import torch

from ftbench.models.adapters import FIELD
from ftbench.models.backbone import Backbone
from ftbench.models.locate import Checkpoint
from ftbench.models.quiet import quiet


def load_language_model(pretrained: Checkpoint, encoder: Backbone) -> tuple[Any, bool] | None:
    """The model in evaluation mode on the encoder's device, with the weights of ``encoder`` below the head of
    ``pretrained``, and whether it is a masked one.

    None where there is no such head in the checkpoint, for encoder-decoders, where the two bodies differ (blocks that
    were not loaded, adapters), and where a model that is not masked reads the tokens that it should guess.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    if encoder.model.config.is_encoder_decoder or getattr(encoder.model.config, FIELD, None):
        return None
    local = {"local_files_only": True, "trust_remote_code": pretrained.remote_code, "use_safetensors": True}
    kinds: tuple[tuple[bool, Any], ...] = ((True, AutoModelForMaskedLM), (False, AutoModelForCausalLM))
    for masked, kind in kinds:
        try:
            with quiet():
                model, loaded = kind.from_pretrained(
                    pretrained.folder, output_loading_info=True, dtype=torch.float32, **local
                )
        except (ValueError, KeyError, OSError):  # the family has no such model
            continue
        tuned, own = encoder.model.base_model.state_dict(), model.base_model.state_dict()
        if loaded["missing_keys"] or any(name not in tuned or tuned[name].shape != own[name].shape for name in own):
            return None
        model.base_model.load_state_dict({name: tuned[name] for name in own})
        model = model.eval().to(encoder.device)
        return None if not masked and _reads_ahead(model) else (model, masked)
    return None


def _reads_ahead(model: Any) -> bool:
    """Whether what a model says of the first tokens depends on the last one, which it should guess (XLNet's does)."""
    words = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]], device=model.device)
    with torch.inference_mode():
        one, other = model(input_ids=words).logits[:, :3]
    return not torch.allclose(one, other, rtol=1e-3, atol=1e-5)
