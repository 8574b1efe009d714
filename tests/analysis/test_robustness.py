"""Curves against curves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from ftbench.analysis.robustness import Agreement, agreement, spearman


def test_it_is_spearmans_with_ties_and_infinities() -> None:
    a, b = np.array([3.0, 1, 2, 2, np.inf]), np.array([2.0, 1, 1, 4, 9])
    assert spearman(a, b) == pytest.approx(spearmanr([3, 1, 2, 2, 99], b).statistic)
    assert spearman(np.arange(4.0), -np.arange(4.0)) == pytest.approx(-1)


def test_layers_without_a_value_are_left_out_and_a_constant_has_no_ranks() -> None:
    a = np.array([1.0, 2, 4, np.nan])
    assert spearman(a, np.array([5.0, 6, 7, 0])) == pytest.approx(1)
    assert np.isnan(spearman(a, np.ones(4))) and np.isnan(spearman(np.ones(4), a))
    assert np.isnan(spearman(a[:2], a[:2]))


def test_agreement_counts_layers_upwards() -> None:
    full = np.array([4.0, 1, 2, 3])
    assert agreement(full, full) == Agreement(pytest.approx(1), 0)
    assert agreement(np.array([4.0, 3, 2, 1]), full).drift == 2
    assert agreement(np.array([1.0, 2, 3, 4]), full).drift == -1
