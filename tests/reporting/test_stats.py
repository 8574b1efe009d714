"""ftbench.reporting.stats: numbers known in advance, and the verdict of one run."""

from __future__ import annotations

from typing import Any

import pytest

from ftbench.reporting import stats
from ftbench.types import Result, RunSpec


def result(score: float = 0.8, *, status: Any = "ok", metric: str = "accuracy", **facts: Any) -> Result:
    spec = RunSpec(kind="finetune", task="rte", data="d", weights="w", steps=10)
    return Result(spec=spec, status=status, metrics={"last": {"validation": {metric: score}}}, facts=facts)


def test_summary() -> None:
    mean, sd, median, top = stats.summary([1.0, 2.0, 6.0])
    assert (mean, median, top) == (3.0, 2.0, 6.0)
    assert sd == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2


def test_summary_of_one_score_has_no_sd() -> None:
    assert stats.summary([0.5]) == (0.5, None, 0.5, 0.5)


def test_summary_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no scores"):
        stats.summary([])


def test_t_interval_by_hand() -> None:
    # t(0.975; 4) = 2.776445, the value of every printed table; mean 3, sd sqrt(2.5)
    half = 2.776445105 * (2.5 / 5) ** 0.5
    assert stats.t_interval([1, 2, 3, 4, 5]) == pytest.approx((3 - half, 3 + half))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_t_interval_agrees_with_scipy(level: float) -> None:
    from scipy.stats import ttest_1samp

    values = [0.61, 0.64, 0.59, 0.7, 0.66, 0.655]
    theirs = ttest_1samp(values, 0).confidence_interval(level)
    assert stats.t_interval(values, level) == pytest.approx((theirs.low, theirs.high))


def test_t_interval_needs_two_values() -> None:
    assert stats.t_interval([1.0]) is None
    assert stats.t_interval([1.0, 1.0]) == (1.0, 1.0)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_t_interval_refuses_levels(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        stats.t_interval([1.0, 2.0], level)


def test_paired_difference_uses_shared_keys_only() -> None:
    a = {(0, 0): 0.7, (0, 1): 0.8, (0, 2): 99.0, (1, 0): 0.5}
    b = {(0, 1): 0.6, (0, 0): 0.6, (1, 1): -99.0, (1, 0): 0.5}
    found = stats.paired_difference(a, b)
    assert found is not None
    assert found.n == 3
    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx(stats.t_interval([0.1, 0.2, 0.0]))


def test_paired_difference_of_one_pair_has_no_interval() -> None:
    assert stats.paired_difference({1: 0.7}, {1: 0.5}) == (1, pytest.approx(0.2), None, None)


def test_paired_difference_without_pairs() -> None:
    assert stats.paired_difference({1: 0.7}, {2: 0.5}) is None


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (result(0.8, majority_score=0.5, distinct_predictions=2), False),
        (result(0.8, majority_score=0.5, distinct_predictions=1), True),
        (result(0.5, majority_score=0.5, distinct_predictions=2), True),
        (result(0.4, majority_score=0.5, distinct_predictions=2), True),
        (result(0.8), False),
        (result(0.3, status="diverged", majority_score=0.5, distinct_predictions=1), False),
        # regression: only constant predictions
        (result(0.4, metric="mse", majority_score=0.5, lower_is_better=True, distinct_predictions=90), False),
        (result(0.4, metric="mse", majority_score=0.5, lower_is_better=True, distinct_predictions=1), True),
        (result(-0.1, metric="pearson", majority_score=0.0, kind="regression", distinct_predictions=90), False),
    ],
)
def test_is_degenerate(run: Result, expected: bool) -> None:
    assert stats.is_degenerate(run) is expected


def test_degenerate_reads_the_headline() -> None:
    metrics = {"last": {"validation": {"f1": 0.1, "accuracy": 0.9}}}
    spec = RunSpec(kind="finetune", task="rte", data="d", weights="w", steps=10)
    facts = {"headline": "accuracy", "majority_score": 0.5}
    assert not stats.is_degenerate(Result(spec=spec, status="ok", metrics=metrics, facts=facts))


def test_headline_falls_back_to_the_first_metric() -> None:
    assert stats.headline(result(metric="mcc")) == "mcc"
    assert stats.headline(result(headline="f1")) == "f1"
    assert stats.headline(Result(spec=result().spec, status="failed")) == ""


def test_a_tie_does_not_beat() -> None:
    assert not stats.beats(0.5, 0.5)
    assert not stats.beats(0.5, 0.5, lower_is_better=True)
    assert stats.beats(0.4, 0.5, lower_is_better=True)
