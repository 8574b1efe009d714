"""A trained classifier, head and all, as ``--save-model`` or plain transformers wrote it."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError

from ftbench.errors import UsageError
from ftbench.models.backbone import Backbone
from ftbench.models.locate import Checkpoint
from ftbench.models.quiet import quiet


def load_trained(checkpoint: Checkpoint, tokenizer: Any) -> tuple[Backbone, tuple[str, ...]]:
    """The network in evaluation mode, float32, and its class names by id; no names for a regression.

    Raises UsageError where the checkpoint is no whole classifier: a head drawn at random predicts nothing.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        with quiet():
            model, loaded = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.folder,
                output_loading_info=True,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except (ValueError, OSError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise UsageError(f"model '{checkpoint.name}' cannot be loaded as a classifier: {first}") from error
    missing = sorted(loaded["missing_keys"])
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise UsageError(
            f"model '{checkpoint.name}' has not been trained as a classifier: it lacks {shown}. "
            "Fine-tune it first, with --save-model best"
        )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    model.eval()
    names = tuple(str(model.config.id2label[i]) for i in range(model.config.num_labels))
    return Backbone(model, tokenizer), names if len(names) > 1 else ()
