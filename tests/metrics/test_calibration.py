"""Scores of probabilities by hand, against scikit-learn, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from ftbench.metrics import CALIBRATION, LOWER_IS_BETTER, METRICS


def probabilities(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, classes) float32 as a model gives them, and targets drawn from them."""
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.full(classes, 0.7), n)
    return p.astype(np.float32), np.array([generator.choice(classes, p=row / row.sum()) for row in p])


def test_ece_by_hand() -> None:
    # confidences .65 .65 (one right) and .95 .95 (both right), two bins of 15
    p = np.array([[0.65, 0.35], [0.35, 0.65], [0.95, 0.05], [0.05, 0.95]])
    expected = 2 / 4 * abs(0.5 - 0.65) + 2 / 4 * abs(1 - 0.95)
    assert METRICS["ece"](p, np.array([0, 0, 0, 1])) == pytest.approx(expected)


def test_brier_by_hand() -> None:
    p = np.array([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]])
    assert METRICS["brier"](p, np.array([1, 0])) == pytest.approx(((0.25 + 0.49 + 0.04) + 2) / 2)


def test_brier_of_two_classes_is_twice_scikit_learns() -> None:
    p, t = probabilities(200, 2)
    assert METRICS["brier"](p, t) == pytest.approx(2 * sklearn.metrics.brier_score_loss(t, p[:, 1]), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
def test_a_model_that_knows_its_chances_is_calibrated(classes: int) -> None:
    """Targets drawn from the very probabilities: what is left is the noise of 20,000 rows."""
    p, t = probabilities(20_000, classes)
    assert METRICS["ece"](p, t) < 0.02
    sharper = p**3 / (p**3).sum(axis=1, keepdims=True)
    assert METRICS["ece"](sharper, t) > 0.05
    assert METRICS["brier"](sharper, t) > METRICS["brier"](p, t), "a proper score"


def test_certainty() -> None:
    """Confidence 1.0 has a bin; right it is the best there is, wrong the worst."""
    t = np.array([0, 1, 2, 1])
    right, wrong = np.eye(3)[t], np.eye(3)[(t + 1) % 3]
    assert [METRICS[name](right, t) for name in ("ece", "brier")] == [0.0, 0.0]
    assert [METRICS[name](wrong, t) for name in ("ece", "brier")] == [1.0, 2.0]
    assert all(type(METRICS[name](right, t)) is float for name in CALIBRATION)


def test_less_is_better() -> None:
    assert set(CALIBRATION) <= set(METRICS) and set(CALIBRATION) <= LOWER_IS_BETTER
