"""Scores of class predictions: (predictions (n,), targets (n,)), both class ids. Higher is better."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def accuracy(predictions: Array, targets: Array) -> float:
    """Share of rows whose prediction is the target, 0 to 1."""
    return float(np.mean(np.asarray(predictions) == np.asarray(targets)))


def balanced_accuracy(predictions: Array, targets: Array) -> float:
    """Mean over the classes among the targets of the share of their rows that is predicted right, 0 to 1."""
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    return float(np.mean([np.mean(predictions[targets == label] == label) for label in np.unique(targets)]))


def f1(predictions: Array, targets: Array) -> float:
    """F1 = 2 TP / (2 TP + FP + FN) of class 1, of two; 0 to 1, 0 where no row is or is said to be of class 1.

    The metric of MRPC and QQP in GLUE (Wang et al., 2018), whose class 1 is "the two mean the same".
    """
    from sklearn.metrics import f1_score

    return float(f1_score(np.asarray(targets) == 1, np.asarray(predictions) == 1, zero_division=0.0))


def macro_f1(predictions: Array, targets: Array) -> float:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), 0 to 1; a class never predicted right counts 0.

    Classes are those among targets or predictions, as in scikit-learn's ``f1_score(average="macro")``.
    """
    from sklearn.metrics import f1_score

    return float(f1_score(targets, predictions, average="macro", zero_division=0.0))


def matthews(predictions: Array, targets: Array) -> float:
    """Matthews correlation, -1 to 1; 0 when predictions or targets are constant.

    (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) for two classes (Matthews, 1975), the R_K of
    Gorodkin (2004) for more. CoLA's metric in GLUE (Wang et al., 2018).
    """
    from sklearn.metrics import matthews_corrcoef

    if len(np.unique(predictions)) < 2 or len(np.unique(targets)) < 2:
        return 0.0
    return float(matthews_corrcoef(targets, predictions))
