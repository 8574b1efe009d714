"""Scores against values worked out by hand, and at the edges where a library gives NaN."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from ftbench.metrics import CALIBRATION, LOWER_IS_BETTER, METRICS, ROUGE

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


F1_BY_HAND: dict[str, tuple[list[int], list[int], float]] = {
    "2 TP, 1 FP, 1 FN, 1 TN": ([1, 1, 0, 0, 1], [1, 1, 1, 0, 0], 4 / 6),
    "class 1 counts, not class 0": ([0, 0, 0, 1], [0, 0, 0, 0], 0.0),
    "always yes": ([1, 1, 1, 1], [1, 1, 0, 0], 4 / 6),
    "always no": ([0, 0, 0, 0], [1, 1, 0, 0], 0.0),
    "nothing to find and nothing found": ([0, 0], [0, 0], 0.0),
    "all to find and all found": ([1, 1], [1, 1], 1.0),
}


@pytest.mark.parametrize("case", F1_BY_HAND)
def test_f1_is_that_of_class_one(case: str) -> None:
    p, t, expected = F1_BY_HAND[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METRICS["f1"](np.array(p), np.array(t)) == pytest.approx(expected, abs=1e-12)


BITS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60).map(np.array)


@given(BITS)
def test_f1_and_its_likes_are_scikit_learns(pairs: np.ndarray) -> None:
    p, t = pairs.T
    assert METRICS["f1"](p, t) == sklearn.metrics.f1_score(t, p, pos_label=1, zero_division=0.0)
    assert METRICS["macro_f1"](p, t) == sklearn.metrics.f1_score(t, p, average="macro", zero_division=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of classes that only one side has
        balanced, matthews = sklearn.metrics.balanced_accuracy_score(t, p), sklearn.metrics.matthews_corrcoef(t, p)
    assert METRICS["balanced_accuracy"](p, t) == pytest.approx(balanced, abs=1e-12)
    assert METRICS["matthews"](p, t) == pytest.approx(matthews, abs=1e-12)


def test_predictions_come_first() -> None:
    """What is not symmetric tells the order of the arguments."""
    p, t = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert METRICS["balanced_accuracy"](p, t) == pytest.approx((1 + 1 / 2) / 2)
    assert METRICS["balanced_accuracy"](t, p) == pytest.approx((2 / 3 + 1) / 2)


def test_f1_of_mrpc_when_the_answer_is_always_yes() -> None:
    """279 of 408 validation rows are equivalent: why accuracy is the headline."""
    t = np.arange(408) < 279
    assert METRICS["f1"](np.ones(408, dtype=int), t.astype(int)) == pytest.approx(2 * 279 / (2 * 279 + 129))


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


@pytest.mark.parametrize("name", sorted(set(METRICS) - set(CALIBRATION) - set(ROUGE)))
def test_a_perfect_prediction_is_the_best_and_a_plain_float(name: str) -> None:
    targets = np.minimum(T, 1) if name == "f1" else T
    best = METRICS[name](targets, targets)
    assert type(best) is float
    assert best == pytest.approx(0.0 if name in LOWER_IS_BETTER else 1.0)
    worse = METRICS[name](np.minimum(P, targets.max()), targets)
    assert worse > best if name in LOWER_IS_BETTER else worse < best


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_float32_predictions(name: str) -> None:
    p = np.linspace(0, 5, 50, dtype=np.float32)
    assert METRICS[name](p, p.astype(np.float64) * 2 + 1) == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "theirs"), [("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)])
def test_correlations_are_scipys(name: str, theirs: Any) -> None:
    generator = np.random.default_rng(0)
    t = np.round(generator.uniform(0, 5, 300), 1)  # with ties, as STS-B's scores
    p = t + generator.normal(0, 1, 300)
    assert METRICS[name](p, t) == pytest.approx(theirs(p, t).statistic, abs=1e-12)
    assert METRICS[name](-p, t) == pytest.approx(-METRICS[name](p, t), abs=1e-12)
    assert METRICS[name](3 * p + 7, t) == pytest.approx(METRICS[name](p, t), abs=1e-12)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("constant", [0.0, 2.364, 1e-30, 3.8])
def test_a_regression_that_always_says_the_same(name: str, constant: float) -> None:
    """A degenerate run: exactly 0, and no warning for the terminal."""
    t = np.linspace(0, 5, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in (np.float32, np.float64):
            assert METRICS[name](np.full(40, constant, dtype=kind), t) == 0.0
            assert METRICS[name](t, np.full(40, constant, dtype=kind)) == 0.0


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_regression_that_says_almost_the_same(name: str) -> None:
    """Predictions that differ by rounding alone: some score from -1 to 1, and no warning for the terminal."""
    t = np.linspace(0, 5, 40)
    p = np.full(40, 2.5, dtype=np.float32)  # as a model gives them
    p[::7] = np.nextafter(p[0], np.float32(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert -1 <= METRICS[name](p, t) <= 1


def test_lower_is_better_names_metrics() -> None:
    assert set(METRICS) >= LOWER_IS_BETTER


def test_importing_loads_neither_scikit_learn_nor_scipy() -> None:
    code = "import sys, ftbench.metrics; assert not {'sklearn', 'scipy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
