"""What is measured: a name to a function of (predictions (n,), targets (n,)) that gives one float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ftbench.metrics.classification import accuracy, f1, macro_f1, matthews
from ftbench.metrics.regression import mse, pearson, spearman

Metric = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], float]

METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "mse": mse,
    "pearson": pearson,
    "spearman": spearman,
}

#: Of every other metric, more is better.
LOWER_IS_BETTER: frozenset[str] = frozenset({"mse"})
