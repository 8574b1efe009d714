"""The classification head: drawn anew, or the checkpoint's own with its outputs in the task's order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ftbench.errors import UsageError
from ftbench.lookup import match_labels


def label_fields(labels: Sequence[str], *, regression: bool) -> dict[str, Any]:
    """What a configuration says of a head with one output a label, or one number in regression."""
    if regression:
        return {"num_labels": 1, "problem_type": "regression"}
    names = dict(enumerate(labels))
    return {
        "num_labels": len(labels),
        "id2label": names,
        "label2id": {name: i for i, name in names.items()},
        "problem_type": "single_label_classification",
    }


def draw_head(model: Any, drawn: set[str], seed: int) -> None:
    """Draws a head that the checkpoint brought along anew: another task trained it, and every seed would share it.

    drawn: names of the weights that are random already.
    """
    from transformers import AutoModelForSequenceClassification

    prefix = f"{model.base_model_prefix}."
    head = {name for name in model.state_dict() if not name.startswith(prefix)}
    if head <= drawn:
        return
    torch.manual_seed(seed)
    fresh = AutoModelForSequenceClassification.from_config(model.config).state_dict()
    model.load_state_dict({name: fresh[name].float() for name in head}, strict=False)


def keep_head(model: Any, drawn: set[str], labels: Sequence[str], name: str, *, regression: bool) -> list[int] | None:
    """For each of the task's labels the head's output that stands for it; None where that is the same order.

    The checkpoint's names decide, whatever their case, with ``-``, ``_`` and space alike. A checkpoint with names
    that say nothing (LABEL_0 ...) has the task's order, and is given the task's names.
    Raises UsageError where the head is not in the checkpoint, has another number of outputs, or other names.
    """
    if drawn:
        missing = ", ".join(sorted(drawn)[:3])
        raise UsageError(
            f"model '{name}' has no trained head to keep: {missing} not in the checkpoint. Use a fresh head"
        )
    own = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
    wanted = 1 if regression else len(labels)
    if len(own) != wanted:
        task = "a regression" if regression else f"{wanted} labels ({', '.join(labels)})"
        raise UsageError(f"the head of model '{name}' has {len(own)} outputs ({', '.join(own)}), the task {task}")
    model.config.problem_type = label_fields(labels, regression=regression)["problem_type"]
    if regression:
        return None
    if own == [f"LABEL_{i}" for i in range(len(own))]:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: i for i, label in enumerate(labels)}
        return None
    return _order(own, labels, name)


def _order(own: Sequence[str], labels: Sequence[str], name: str) -> list[int] | None:
    order = match_labels(own, labels)
    if order is None:
        raise UsageError(
            f"the labels of model '{name}' ({_listed(own)}) are not those of the task ({_listed(labels)}): "
            "a head is kept by its labels' names"
        )
    return None if order == sorted(order) else order


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(labels)
