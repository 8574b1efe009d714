"""Run statistics against scipy, against sums by hand and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from ftbench.metrics import METRICS, ROUGE
from ftbench.reporting import across, agreement, budget, crossed, intervals, pairs, resample


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize(("bad", "n"), [(0, 10), (3, 10), (10, 10), (1, 250)])
def test_wilson_is_scipys(bad: int, n: int) -> None:
    wanted = reference.binomtest(bad, n).proportion_ci(method="wilson")
    assert intervals.wilson(bad, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize(("bad", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_of_no_rate(bad: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        intervals.wilson(bad, n)


def test_interval_of_the_mean_changes_its_kind_at_twenty() -> None:
    scores = random().exponential(1.0, 20).tolist()
    few, many = intervals.mean_interval(scores[:19], random()), intervals.mean_interval(scores, random())
    assert few is not None and many is not None and (few.kind, many.kind) == ("t", "BCa")
    half = reference.t.ppf(0.975, 18) * np.std(scores[:19], ddof=1) / math.sqrt(19)
    assert few.high - few.low == pytest.approx(2 * half)
    wanted = reference.bootstrap((scores,), np.mean, method="BCa", n_resamples=20_000, rng=random(1))
    assert many[:2] == pytest.approx(wanted.confidence_interval, rel=0.05)
    assert intervals.mean_interval([0.5], random()) is None


def test_equal_scores_have_an_interval_of_no_width() -> None:
    assert intervals.mean_interval([0.7] * 25, random()) == (0.7, 0.7, "BCa")


def test_bca_refuses_one_sided_resamples() -> None:
    with pytest.raises(ValueError, match="one side"):
        intervals.bca(1.0, np.full(10, 0.5), np.array([1.0, 0.9]))


# ----------------------------------------------------------------------------------------------- pairs


def test_paired_t_is_scipys() -> None:
    differences = random().normal(0.3, 1, 9)
    assert pairs.paired_t(differences) == pytest.approx(reference.ttest_1samp(differences, 0).pvalue)
    assert pairs.paired_t([0.1]) is None
    assert pairs.paired_t([0.0, 0.0]) == 1.0
    assert pairs.paired_t([0.1] * 2) == 0.5 and pairs.paired_t([0.1] * 6) == 2**-5, "without spread: the sign flip's"


@pytest.mark.parametrize("n", [1, 2, 5, 11])
def test_sign_flip_is_scipys_exact_test(n: int) -> None:
    differences = random(n).normal(0.4, 1, n).round(1)
    wanted = 1.0
    if n > 1:
        wanted = reference.permutation_test(
            (differences, np.zeros(n)), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples",
            vectorized=True, n_resamples=10**6,
        ).pvalue  # fmt: skip
    assert pairs.sign_flip(differences, random()) == pytest.approx(wanted, abs=1e-12)


def test_sign_flip_of_many_pairs_is_near_the_t_test() -> None:
    differences = random(3).normal(0.35, 1, 40)
    assert pairs.sign_flip(differences, random()) == pytest.approx(pairs.paired_t(differences), abs=0.01)
    assert pairs.sign_flip([], random()) is None


@pytest.mark.parametrize(("n", "p"), [(1, 1.0), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)])
def test_smallest_p_is_reached_and_not_beaten(n: int, p: float) -> None:
    assert pairs.smallest_p(n) == p == pairs.sign_flip([1.0] * n, random())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_falls_below_p_and_keeps_the_order(p: list[float]) -> None:
    found = pairs.holm(p)
    assert all(0 <= raw <= adjusted <= 1 for raw, adjusted in zip(p, found, strict=True))
    by_p = [adjusted for _, adjusted in sorted(zip(p, found, strict=True))]
    assert by_p == sorted(by_p)


@pytest.mark.parametrize(("n", "sd"), [(5, 0.02), (10, 1.0), (34, 2.0)])
def test_detectable_difference_has_the_power_it_says(n: int, sd: float) -> None:
    se = sd / math.sqrt(n)
    found = pairs.detectable(se, n - 1)
    bar = reference.t.ppf(0.975, n - 1)
    power = reference.nct.sf(bar, n - 1, found / se) + reference.nct.cdf(-bar, n - 1, found / se)
    assert power == pytest.approx(0.8, abs=1e-4)


def test_detectable_difference_of_very_many() -> None:
    assert pairs.detectable(1.0, 1e6) == pytest.approx(2.8016, abs=1e-3) == pairs.detectable(1.0, 99_999)


def test_correlation_needs_three_pairs_and_spread() -> None:
    assert pairs.correlation([1, 2, 3], [2, 4, 7]) == pytest.approx(np.corrcoef([1, 2, 3], [2, 4, 7])[0, 1])
    assert pairs.correlation([1, 2], [1, 2]) is None and pairs.correlation([1, 1, 1], [1, 2, 3]) is None


def test_improvement_interval_holds_its_estimate() -> None:
    a, b = random(1).normal(0.5, 1, 12), random(2).normal(0, 1, 9)
    found = pairs.improvement_interval(a, b, random())
    assert found is not None and found[0] < pairs.improvement(a, b) < found[1]
    assert pairs.improvement_interval([1.0], b, random()) is None


def test_order_of_equal_samples_is_no_order() -> None:
    assert pairs.almost_stochastic_order([0.5] * 6, [0.5] * 6, random()) == (1.0, 1.0)


# --------------------------------------------------------------------------------------------- crossed


def of_accuracy(right_a: np.ndarray, right_b: np.ndarray) -> tuple[crossed.Estimate, float]:
    """The estimate from resamples, and the variance by the closed form that the mean has."""
    gap = right_a.astype(float) - right_b
    seeds, rows = gap.shape
    labels = np.ones(rows, dtype=int)
    both = resample.resampled("accuracy", np.concatenate([right_a, right_b]).astype(int), labels, random(), 8000)
    found = crossed.crossed(gap.mean(axis=1), both[:seeds] - both[seeds:], rows)
    covariance = np.cov(gap, ddof=0) / rows
    shared = (covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1))
    of_seeds = gap.mean(axis=1).var(ddof=1) / seeds
    return found, max(of_seeds + max(0.0, shared), covariance.mean())


def test_crossed_variance_is_the_closed_form_for_a_mean() -> None:
    skill = random(1).normal(0, 1, 200)
    right = (skill + random(2).normal(0, 1, (12, 200)) > -0.5).reshape(2, 6, 200)
    found, variance = of_accuracy(*right)
    assert found.se == pytest.approx(math.sqrt(variance), rel=0.03)
    assert found.mean == pytest.approx(right[0].mean() - right[1].mean())


def test_crossed_is_the_t_interval_where_examples_do_not_matter() -> None:
    seeds = random().normal(0.01, 0.02, 8)
    found, alone = crossed.crossed(seeds, np.tile(seeds[:, None], 50), 277), crossed.seeds_only(seeds)
    assert found == pytest.approx(alone)
    wanted = reference.t.interval(0.95, 7, seeds.mean(), reference.sem(seeds))
    assert (alone.low, alone.high) == pytest.approx(wanted)
    assert alone.p == pytest.approx(reference.ttest_1samp(seeds, 0).pvalue)


def test_crossed_is_never_narrower_than_the_examples_allow() -> None:
    """Seeds that agree exactly do not make 50 examples many."""
    wrong = random(4).random(50) < 0.3
    right_b = np.tile(~wrong, (6, 1))
    right_a = np.tile(~np.roll(wrong, 1), (6, 1))
    found, _ = of_accuracy(right_a, right_b)
    assert found.se == pytest.approx((right_a[0].astype(float) - right_b[0]).std() / math.sqrt(50), rel=0.05)


def test_two_seeds_fall_back_to_the_wider_interval() -> None:
    seeds = np.array([0.01, 0.03])
    found = crossed.crossed(seeds, seeds[:, None] + random().normal(0, 1e-4, (2, 400)), 1000)
    assert (found.low, found.high) == pytest.approx(crossed.seeds_only(seeds)[3:5])


def test_equal_methods_have_p_one_and_no_width() -> None:
    assert crossed.crossed(np.zeros(5), np.zeros((5, 10)), 100)[:6] == (0, 0, pytest.approx(4), 0, 0, 1)


def test_one_seed_says_nothing_of_others() -> None:
    found = crossed.examples_only(0.02, random().normal(0.02, 0.01, 500), 277)
    assert found.se == pytest.approx(0.01, rel=0.1) and found.df == 276


# -------------------------------------------------------------------------------------------- resample

CASES = {
    "accuracy": (3, False), "balanced_accuracy": (3, False), "macro_f1": (3, False), "matthews": (3, False),
    "f1": (2, False), "mse": (0, True), "pearson": (0, True), "spearman": (0, True),
}  # fmt: skip


def made_up(classes: int, regression: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = random(5)
    if regression:
        labels = generator.normal(2, 1, 40).round(1)
        return labels + generator.normal(0, 1, (3, 40)).round(1), labels
    labels = generator.integers(0, classes, 40)
    noise = generator.integers(0, classes, (3, 40))
    return np.where(generator.random((3, 40)) < 0.6, labels, noise), labels


def test_every_resampled_metric_is_tested() -> None:
    assert set(CASES) == set(resample.WEIGHTED) - set(ROUGE)


@pytest.mark.parametrize("metric", ROUGE)
def test_means_of_rows_are_resampled_as_means(metric: str) -> None:
    rows = random().uniform(size=(3, 40))
    found = resample.resampled(metric, rows, np.zeros(40), random(), 5)
    drawn = random().integers(0, 40, (5, 40))
    assert found == pytest.approx(np.stack([rows[:, places].mean(axis=1) for places in drawn], axis=1))


@pytest.mark.parametrize("metric", CASES)
def test_resampled_metrics_equal_the_metrics_on_the_drawn_examples(metric: str) -> None:
    predictions, labels = made_up(*CASES[metric])
    found = resample.resampled(metric, predictions, labels, random(), 5)
    again = random().integers(0, 40, (5, 40))
    wanted = [[METRICS[metric](run[drawn], labels[drawn]) for drawn in again] for run in predictions]
    assert found == pytest.approx(np.array(wanted), abs=1e-12)


@pytest.mark.parametrize("metric", CASES)
def test_constant_predictions_give_no_warning(metric: str) -> None:
    _, labels = made_up(*CASES[metric])
    constant = np.full((1, 40), labels[0])
    assert resample.resampled(metric, constant, labels, random(), 3)[0, 0] == pytest.approx(
        METRICS[metric](constant[0][(d := random().integers(0, 40, (3, 40)))[0]], labels[d[0]])
    )


def test_resamples_do_not_depend_on_how_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, labels = made_up(3, False)
    whole = resample.resampled("accuracy", predictions, labels, random(), 20)
    monkeypatch.setattr(resample, "AT_ONCE", 120)
    assert np.array_equal(whole, resample.resampled("accuracy", predictions, labels, random(), 20))


# ---------------------------------------------------------------------------- across tasks, budget, agreement


def test_stratified_interval_of_one_task_is_the_percentile_bootstrap() -> None:
    scores = random(7).normal(0, 1, 30)
    found = across.stratified_interval([scores], lambda c: c[0].mean(axis=-1), random(), resamples=4000)
    wanted = reference.bootstrap((scores,), np.mean, method="percentile", n_resamples=4000, rng=random(1))
    assert found == pytest.approx(wanted.confidence_interval, abs=0.02)


def test_a_task_counts_once_however_many_runs_it_has() -> None:
    easy, hard = np.full(20, 0.9), np.full(5, 0.6)
    assert across.iqm_of([easy, hard]) == pytest.approx(0.75)
    assert across.iqm_of([easy[:5], hard]) == pytest.approx(across.iqm(np.stack([easy[:5], hard])))
    assert across.profile_of([easy, hard], np.array([0.5, 0.7, 0.95])) == pytest.approx([1, 0.5, 0])


def test_iqm_of_unequal_runs_is_that_of_as_many_copies() -> None:
    """Copied until both tasks have sixty scores; one of five is cut at each end, so 24 of 120."""
    two, three = random(1).normal(size=2), random(2).normal(size=3)
    copies = np.sort([*np.repeat(two, 30), *np.repeat(three, 20)])
    found = across.iqm_of([np.stack([two, two + 1]), np.stack([three, three + 1])])
    assert found == pytest.approx([copies[24:-24].mean(), copies[24:-24].mean() + 1])


def test_ranks_need_two_methods() -> None:
    with pytest.raises(ValueError, match="two methods"):
        across.friedman(np.ones((5, 1)))


def test_friedman_of_nothing_but_ties() -> None:
    found = across.friedman(np.ones((5, 3)))
    assert found.mean_ranks == (2, 2, 2) and (found.statistic, found.p) == (0, 1)


def test_pareto_front() -> None:
    assert budget.pareto([1, 2, 3, 2], [0.7, 0.8, 0.75, 0.8]) == [True, True, False, True]
    assert budget.pareto([1.0], [0.5]) == [True] and budget.pareto([], []) == []


def test_expected_best_of_many_runs_is_quick_and_finite() -> None:
    found = budget.expected_best(random().normal(0, 1, 10_000).tolist(), 100)
    assert len(found) == 100 and np.all(np.diff(found) > 0)


def test_disagreement_by_hand() -> None:
    assert agreement.disagreement(np.array([[0, 0, 1], [0, 1, 1], [0, 1, 2]])) == pytest.approx((0 + 2 / 3 + 2 / 3) / 3)


def test_jsd_by_hand() -> None:
    certain = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert agreement.mean_jsd(certain) == pytest.approx(1.0)
    assert agreement.mean_jsd(np.repeat(certain[:1], 3, axis=0)) == 0.0
    p, q = np.array([0.7, 0.3]), np.array([0.2, 0.8])
    from scipy.spatial.distance import jensenshannon

    assert agreement.mean_jsd(np.array([[p], [q]])) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
