"""What is measured: a name to a function of (predictions (n,), targets (n,)) that gives one float.

The metrics of ``CALIBRATION`` take probabilities (n, classes) in the place of predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ftbench.metrics.calibration import brier, ece
from ftbench.metrics.classification import accuracy, balanced_accuracy, f1, macro_f1, matthews
from ftbench.metrics.regression import mse, pearson, spearman

Metric = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], float]

METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "brier": brier,
    "ece": ece,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "mse": mse,
    "pearson": pearson,
    "spearman": spearman,
}

#: Of every other metric, more is better.
LOWER_IS_BETTER: frozenset[str] = frozenset({"mse", "ece", "brier"})

#: scores of probabilities, taken of every classification beside its task's metrics
CALIBRATION: tuple[str, ...] = ("ece", "brier")
