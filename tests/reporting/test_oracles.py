"""Run statistics against recorded outputs of public implementations, which ``tests/oracles`` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.reporting import across, agreement, budget, intervals, pairs

FOLDER = Path(__file__).parents[1] / "oracles"


def oracle(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def array(value: Any) -> Any:
    return np.array(value["data"]) if isinstance(value, dict) else np.array(value)


RLIABLE, NEMENYI, ASO, HOLM = oracle("rliable"), oracle("nemenyi"), oracle("aso"), oracle("multiple_testing")
BEST, KAPPA, BCA = oracle("expected_max"), oracle("fleiss_kappa"), oracle("bca_interval")


@pytest.mark.parametrize("case", [c for c in RLIABLE["inputs"] if c != "identical"])
def test_aggregates_over_tasks(case: str) -> None:
    given, wanted = RLIABLE["inputs"][case], RLIABLE["outputs"][case]
    x, y, taus = (array(given[key]) for key in ("scores_x", "scores_y", "taus"))
    assert across.iqm(x) == pytest.approx(wanted["iqm"], abs=1e-12)
    for gamma, gap in wanted["optimality_gap"].items():
        assert across.optimality_gap(x, float(gamma)) == pytest.approx(gap, abs=1e-12)
    assert across.performance_profile(x, taus) == pytest.approx(array(wanted["performance_profile"]), abs=1e-12)
    assert across.mean_improvement(list(x.T), list(y.T)) == pytest.approx(wanted["probability_of_improvement"])
    reverse = across.mean_improvement(list(y.T), list(x.T))
    assert reverse == pytest.approx(wanted["probability_of_improvement_reverse"])


def test_improvement_over_itself_is_a_half() -> None:
    x = array(RLIABLE["inputs"]["identical"]["scores_x"])
    assert (
        across.mean_improvement(list(x.T), list(x.T)) == RLIABLE["outputs"]["identical"]["probability_of_improvement"]
    )


@pytest.mark.parametrize("case", NEMENYI["inputs"])
def test_ranks_friedman_and_critical_difference(case: str) -> None:
    wanted = NEMENYI["outputs"][case]
    for alpha in ("0.05", "0.1"):
        found = across.friedman(array(NEMENYI["inputs"][case]["scores"]), float(alpha))
        assert found.critical_difference == pytest.approx(wanted["critical_difference"][alpha], rel=1e-6)
    assert found.mean_ranks == pytest.approx(array(wanted["mean_rank_1_is_best"]))
    assert (found.statistic, found.p) == pytest.approx((wanted["friedman_statistic"], wanted["friedman_p"]))


def test_critical_values_equal_demsars_printed_table() -> None:
    table = NEMENYI["outputs"]["q_alpha_0.05_table"]
    for k, printed in zip(table["k"], table["demsar_2006_printed"], strict=True):
        found = across.friedman(np.arange(2.0 * k).reshape(2, k)).critical_difference
        assert found / np.sqrt(k * (k + 1) / 12) == pytest.approx(printed, abs=1e-3)


@pytest.mark.parametrize("case", ASO["inputs"])
def test_almost_stochastic_order(case: str) -> None:
    given, wanted = ASO["inputs"][case], ASO["outputs"][case]
    a, b = array(given["scores_a"]), array(given["scores_b"])
    found = pairs.almost_stochastic_order(a, b, np.random.default_rng(0))
    assert found is not None
    assert found.violation == pytest.approx(wanted["violation_ratio"], abs=ASO["tolerance"]["violation_ratio"]["atol"])
    assert found.eps == pytest.approx(wanted["eps_min"], abs=ASO["tolerance"]["eps_min_other_generator"]["atol"])


def test_stochastic_order_needs_five_scores_a_side() -> None:
    assert pairs.almost_stochastic_order([8.0], [5, 5, 8, 7, 8], np.random.default_rng(0)) is None


@pytest.mark.parametrize("case", HOLM["inputs"])
def test_holm(case: str) -> None:
    wanted = HOLM["outputs"][case]["holm"]
    found = pairs.holm(array(HOLM["inputs"][case]["p"]))
    assert found == pytest.approx(array(wanted["adjusted"]), abs=1e-12)
    assert [p <= 0.05 for p in found] == array(wanted["reject"]).tolist()


@pytest.mark.parametrize("case", BEST["inputs"])
def test_expected_best(case: str) -> None:
    scores, wanted = array(BEST["inputs"][case]["scores"]), BEST["outputs"][case]
    assert budget.expected_best(scores) == pytest.approx(wanted["tang_unbiased"], abs=1e-9)
    assert budget.expected_best(scores, 2) == pytest.approx(wanted["tang_unbiased"][:2], abs=1e-9)
    assert budget.expected_best_plugin(scores) == pytest.approx(wanted["dodge_with_replacement"], abs=1e-9)


@pytest.mark.parametrize("case", ["agree", "chance", "four_classes"])
def test_fleiss_kappa(case: str) -> None:
    ratings = array(KAPPA["inputs"][case]["ratings"])
    assert agreement.fleiss_kappa(ratings.T) == pytest.approx(KAPPA["outputs"][case]["fleiss_kappa"], abs=1e-12)


def test_kappa_of_one_class_everywhere_is_none() -> None:
    assert agreement.fleiss_kappa(np.zeros((4, 3), dtype=int)) is None


@pytest.mark.parametrize("level", ["0.95", "0.9"])
@pytest.mark.parametrize("case", BCA["inputs"])
def test_bca(case: str, level: str) -> None:
    statistic = {"mean_skewed": np.mean, "std_ddof1": lambda v: np.std(v, ddof=1), "median_ties": np.median}[case]
    data, drawn = (array(BCA["inputs"][case][key]) for key in ("data", "bootstrap_distribution"))
    left_out = np.array([statistic(np.delete(data, i)) for i in range(len(data))])
    found = intervals.bca(float(statistic(data)), drawn, left_out, float(level))
    assert found == pytest.approx(BCA["outputs"][case][level]["bca"], abs=1e-10)
    assert intervals.percentile_interval(drawn, float(level)) == pytest.approx(
        BCA["outputs"][case][level]["percentile"], abs=1e-10
    )
