"""What became of wrong training labels: learned by heart, or seen through."""

from __future__ import annotations

import numpy as np

from ftbench.training.engine import Training
from ftbench.training.evaluate import decide, predict
from ftbench.types import Rows


def memorised(run: Training, clean: Rows) -> dict[str, int]:
    """Of the flipped training labels, how many the trained model gives back and for how many it says the true one.

    clean: the task's train rows before any label was flipped. Empty without flipped labels.
    """
    if not run.spec.label_noise:
        return {}
    truth = dict(zip(clean.index.tolist(), clean.labels.tolist(), strict=True))
    true = np.array([truth[i] for i in run.index.tolist()])
    flipped = np.flatnonzero(true != run.labels)
    if run.regression or not len(flipped):
        return {}
    said = decide(predict(run.backbone, run.tokens.take(flipped), run.spec.precision), regression=False)
    return {
        "flipped": len(flipped),
        "flipped_fitted": int((said == run.labels[flipped]).sum()),
        "flipped_recovered": int((said == true[flipped]).sum()),
    }
