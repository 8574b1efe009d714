"""Scores against values worked out by hand, and at the edges where a library gives NaN."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest

from ftbench.metrics import LOWER_IS_BETTER, METRICS

T = np.array([0, 0, 0, 1, 1, 2])
P = np.array([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(("name", "expected"), [
    ("accuracy", 4 / 6),
    # class 0: 2 TP, 1 FN = 4/5; class 1: 1 TP, 1 FP, 1 FN = 1/2; class 2: 1 TP, 1 FP = 2/3
    ("macro_f1", (4 / 5 + 1 / 2 + 2 / 3) / 3),
    # R_K = (c s - sum t_k p_k) / sqrt((s^2 - sum p_k^2)(s^2 - sum t_k^2)), c = 4, s = 6
    ("matthews", (4 * 6 - (3 * 2 + 2 * 2 + 1 * 2)) / math.sqrt((36 - 12) * (36 - 14))),
])  # fmt: skip
def test_classification(name: str, expected: float) -> None:
    assert METRICS[name](P, T) == pytest.approx(expected, abs=1e-12)


def test_matthews_of_two_classes() -> None:
    t, p = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 0, 1])  # TP 2, FN 1, TN 1, FP 1
    assert METRICS["matthews"](p, t) == pytest.approx((2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2))
    assert METRICS["matthews"](1 - t, t) == pytest.approx(-1)


def test_macro_f1_counts_a_class_that_is_never_predicted() -> None:
    assert METRICS["macro_f1"](np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])) == pytest.approx((6 / 7 + 0) / 2)


@pytest.mark.parametrize(("name", "expected"), [
    # deviations (-1.5 -.5 .5 1.5) and (-3.5 -2.5 -.5 6.5): 16 / sqrt(5 * 61)
    ("pearson", 16 / math.sqrt(5 * 61)),
    ("spearman", 1.0),
    ("mse", (0 + 0 + 1 + 49) / 4),
])  # fmt: skip
def test_regression(name: str, expected: float) -> None:
    assert METRICS[name](np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 11])) == pytest.approx(expected, abs=1e-12)


def test_spearman_shares_ranks_among_ties() -> None:
    # ranks 1.5 1.5 3 4 and 1 2 3 4: 4.5 / sqrt(4.5 * 5)
    assert METRICS["spearman"](np.array([5.0, 5, 6, 7]), np.array([1.0, 2, 3, 4])) == pytest.approx(
        4.5 / math.sqrt(4.5 * 5)
    )


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
@pytest.mark.parametrize(("p", "t"), [([1, 1, 1], [0, 1, 2]), ([0, 1, 2], [1, 1, 1]), ([1, 1], [1, 1]), ([1], [1])])
def test_constant_is_zero_and_says_nothing(name: str, p: list[int], t: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METRICS[name](np.array(p), np.array(t)) == 0.0


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_perfect_prediction_is_the_best_and_a_plain_float(name: str) -> None:
    best = METRICS[name](T, T)
    assert type(best) is float
    assert best == pytest.approx(0.0 if name in LOWER_IS_BETTER else 1.0)
    worse = METRICS[name](P, T)
    assert worse > best if name in LOWER_IS_BETTER else worse < best


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_float32_predictions(name: str) -> None:
    p = np.linspace(0, 5, 50, dtype=np.float32)
    assert METRICS[name](p, p.astype(np.float64) * 2 + 1) == pytest.approx(1.0)


def test_lower_is_better_names_metrics() -> None:
    assert set(METRICS) >= LOWER_IS_BETTER


def test_importing_loads_neither_scikit_learn_nor_scipy() -> None:
    code = "import sys, ftbench.metrics; assert not {'sklearn', 'scipy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
