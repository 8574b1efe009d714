"""What became of flipped labels: counted by hand on a run that learned them, nothing on a run without any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ftbench.tasks.perturb import perturb

Finetune = Callable[..., Any]


def test_flipped_labels_are_counted(
    tiny_data: Callable[..., Any], tiny_model: Path, finetune_tiny: Finetune, tmp_path: Path
) -> None:
    data = tiny_data(48, 24, 3)
    outcome = finetune_tiny(data, tiny_model, tmp_path, label_noise=0.25, steps=30)
    facts = outcome.result.facts
    assert facts["flipped"] == 12 and facts["flipped_fitted"] + facts["flipped_recovered"] <= 12
    noisy = perturb(data, label_noise=0.25).splits["train"]
    flipped = np.flatnonzero(noisy.labels != data.splits["train"].labels)
    assert len(flipped) == 12
    model, tokenizer = outcome.backbone.model.eval(), outcome.backbone.tokenizer
    texts = [noisy.texts[0][i] for i in flipped]
    said = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.argmax(-1).numpy()
    assert facts["flipped_fitted"] == int((said == noisy.labels[flipped]).sum())
    assert facts["flipped_recovered"] == int((said == data.splits["train"].labels[flipped]).sum())


def test_without_noise_there_is_nothing_to_count(
    tiny_data: Callable[..., Any], tiny_model: Path, finetune_tiny: Finetune, tmp_path: Path
) -> None:
    assert "flipped" not in finetune_tiny(tiny_data(24, 12, 2), tiny_model, tmp_path, steps=2).result.facts
