"""A trained classifier, head and all, as ``--save-model`` or plain transformers wrote it; or a linear model on a frozen
encoder."""

from __future__ import annotations

from typing import Any

from ftbench.errors import UsageError
from ftbench.models.backbone import Backbone, assemble, read_classifier
from ftbench.models.linear import LinearOnFrozen, read_linear
from ftbench.models.locate import Checkpoint


def load_trained(checkpoint: Checkpoint, tokenizer: Any) -> tuple[Backbone, tuple[str, ...]]:
    """The network in evaluation mode, float32, and its class names by id; no names for a regression.

    Raises UsageError where the checkpoint is no whole classifier: a head drawn at random predicts nothing.
    """
    model, drawn = read_classifier(checkpoint)
    linear = read_linear(checkpoint.folder)
    if drawn and linear is None:
        shown = ", ".join(sorted(drawn)[:3]) + (" …" if len(drawn) > 3 else "")
        raise UsageError(
            f"model '{checkpoint.name}' has not been trained as a classifier: it lacks {shown}. "
            "Fine-tune it first, with --save-model best"
        )
    names = tuple(str(model.config.id2label[i]) for i in range(model.config.num_labels))
    if linear is not None:
        network = assemble(model, tokenizer, checkpoint.name)
        return LinearOnFrozen(model, network.tokenizer, *linear), names if len(names) > 1 else ()
    return assemble(model, tokenizer, checkpoint.name), names if len(names) > 1 else ()
