"""What is measured: a name to a function of (predictions (n,), targets (n,)) that gives one float.

The metrics of ``CALIBRATION`` take probabilities (n, classes) in the place of predictions, those of ``ROUGE`` n texts,
and n references or n lists of several.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftbench.metrics.calibration import brier, ece
from ftbench.metrics.classification import accuracy, balanced_accuracy, f1, macro_f1, matthews
from ftbench.metrics.regression import mse, pearson, spearman
from ftbench.metrics.rouge import ROUGE, rouge1, rouge2, rouge_l, rouge_l_sum

#: arrays (n,); of ROUGE sequences of n texts
Metric = Callable[[Any, Any], float]

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
    "rouge1": rouge1,
    "rouge2": rouge2,
    "rougeL": rouge_l,
    "rougeLsum": rouge_l_sum,
    "spearman": spearman,
}

#: Of every other metric, more is better.
LOWER_IS_BETTER: frozenset[str] = frozenset({"mse", "ece", "brier"})

#: scores of probabilities, taken of every classification beside its task's metrics
CALIBRATION: tuple[str, ...] = ("ece", "brier")

#: what a task of each sort can name; calibration comes by itself
NAMED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("classification", "regression"), tuple(n for n in METRICS if n not in (*CALIBRATION, *ROUGE))),
    "summarization": ROUGE,
}
