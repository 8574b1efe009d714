"""A trained classifier, head and all, as ``--save-model`` or plain transformers wrote it."""

from __future__ import annotations

from typing import Any

from ftbench.errors import UsageError
from ftbench.models.backbone import Backbone, assemble, read_classifier
from ftbench.models.locate import Checkpoint


def load_trained(checkpoint: Checkpoint, tokenizer: Any) -> tuple[Backbone, tuple[str, ...]]:
    """The network in evaluation mode, float32, and its class names by id; no names for a regression.

    Raises UsageError where the checkpoint is no whole classifier: a head drawn at random predicts nothing.
    """
    model, drawn = read_classifier(checkpoint)
    if drawn:
        shown = ", ".join(sorted(drawn)[:3]) + (" …" if len(drawn) > 3 else "")
        raise UsageError(
            f"model '{checkpoint.name}' has not been trained as a classifier: it lacks {shown}. "
            "Fine-tune it first, with --save-model best"
        )
    names = tuple(str(model.config.id2label[i]) for i in range(model.config.num_labels))
    return assemble(model, tokenizer, checkpoint.name), names if len(names) > 1 else ()
