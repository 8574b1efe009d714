"""What a script can demand, and when a comparison with earlier runs is a regression."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftbench.errors import UsageError
from ftbench.reporting import gate
from ftbench.reporting.render import render
from ftbench.reporting.study import Study
from ftbench.types import MethodSpec, Record
from tests.reporting.conftest import R3F, arms, run, study_on_disk

STUDY = Study(
    [
        *arms([0.70, 0.72, 0.74, 0.71, 0.73, 0.72], [0.75, 0.76, 0.79, 0.76, 0.78, 0.77]),
        run(None, 6, R3F, status="failed"),
    ]
)


@pytest.mark.parametrize(
    ("text", "met"),
    [("task=rte method=r3f metric>=0.76", True), ("method=r3f metric>=0.78", False), ("metric>=0.71", True),
     ("method=r3f low>=0.74", True), ("method=r3f low>=0.76", False), ("method=std failed=0", True),
     ("method=r3f difference_low>0 verdict=better", True), ("method=std difference>0", False),
     ("failed=0", False), ("accuracy>=0.7", True), ("n>=6", True), ("task=mrpc metric>=0", False)],
)  # fmt: skip
def test_require(text: str, met: bool) -> None:
    found = gate.require(STUDY, text)
    assert found.met is met and found.line.startswith("met: " if met else "not met: ") and "\n" not in found.line


def test_a_failure_names_the_arm_and_its_number() -> None:
    assert "rte r3f (accuracy, n 6) has metric 0.7683" in gate.require(STUDY, "method=r3f metric>=0.8").line
    assert "no runs match" in gate.require(STUDY, "task=mrpc metric>=0.8").line
    assert "rte std (accuracy, n 6) has no difference" in gate.require(STUDY, "difference>0").line


@pytest.mark.parametrize(
    ("text", "said"),
    [("task=rte", "demands nothing"), ("metrik>=0.5", "Did you mean 'metric'"), ("metric", "expected")],
)
def test_wrong_demands_are_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        gate.require(STUDY, text)


def test_the_interval_of_the_mean_is_of_all_scores() -> None:
    """Runs that predict nothing stay in the mean, and in what is demanded of its interval."""
    facts = {"headline": "accuracy", "majority_score": 0.5, "kind": "classification"}
    runs = [run(0.91 if seed < 5 else 0.5, seed, R3F, facts=facts) for seed in range(10)]
    assert not gate.require(Study(runs), "method=r3f low>=0.85").met
    assert gate.require(Study(runs), "method=r3f degenerate=5 low>=0.5").met


@pytest.mark.parametrize("clause", ["seed=0", "status=ok", "data_seed=0"])
def test_a_demand_on_some_runs_of_an_arm_is_refused(clause: str) -> None:
    with pytest.raises(UsageError, match=f"--where '{clause}'"):
        gate.require(STUDY, f"{clause} metric>=0.5")


def moved(by: float, **spec: object) -> list[Record]:
    return [run(s + by, i, R3F, **spec) for i, s in enumerate((0.70, 0.72, 0.74, 0.71, 0.73, 0.72))]


def against(now: list[Record], before: list[Record]) -> gate.Comparison:
    return gate.against(Study(now), before)


def test_a_regression_is_a_test_not_a_point_estimate() -> None:
    now = [run(s, i, R3F) for i, s in enumerate((0.65, 0.66, 0.69, 0.67, 0.66, 0.68))]
    found = against(now, moved(0))
    assert not found.verdict().met and found.verdict().line.startswith("regression: rte r3f")
    (change,) = found.regressions
    assert change.headline and change.headline.mean == pytest.approx(-0.0517, abs=1e-4)
    noisy = [run(s, i, R3F) for i, s in enumerate((0.60, 0.80, 0.65, 0.79, 0.66, 0.77))]
    assert against(noisy, moved(0)).verdict().met
    assert against(moved(0.05), moved(0)).verdict().met, "better is no regression"


def test_revisions_of_code_may_differ_rows_and_weights_may_not() -> None:
    newer = (MethodSpec("r3f", 2),)
    now = [run(0.7, i, newer, engine_revision=2) for i in range(3)]
    assert len(against(now, moved(0)).changes) == 1
    for key in ("data", "weights"):
        found = against(moved(-0.3, **{key: "other"}), moved(0))
        assert found.changes == () and not found.verdict().met
        assert f"{key} differ from the baseline's" in found.refused[0]
        assert found.refused[0] in render(found.table(), "markdown")


def test_runs_that_fail_now_are_a_regression() -> None:
    def failing(seeds: set[int]) -> list[Record]:
        return [run(None, r.result.spec.seed, R3F, status="diverged") if r.result.spec.seed in seeds else r
                for r in moved(0)]  # fmt: skip

    for seeds in (set(range(6)), {4}):
        found = against(failing(seeds), moved(0))
        assert not found.verdict().met and not found.regressions
        assert f"{len(seeds)} of 6 runs that the baseline finished failed here" in found.verdict().line
        assert found.verdict().line.removeprefix("regression: ") in render(found.table(), "markdown")
    assert against(moved(0), failing({4})).verdict().met, "what failed there too is none"


def test_what_is_not_in_the_baseline_is_said() -> None:
    found = against(moved(0), [*moved(0), run(0.9)])
    assert found.verdict().met and "rte std (accuracy, n 1): in the baseline only" in found.verdict().line
    found = against([*moved(0), run(0.9)], moved(0))
    assert found.verdict().met and "rte std (accuracy, n 1): not there" in found.refused[0]
    assert "no seed that both finished" in against([run(0.7, 9, R3F)], moved(0)).refused[0]


def test_a_gate_that_can_not_see_does_not_pass() -> None:
    """By hand: three changes by one number have p 2 / 2^3, six have 2 / 2^6."""
    one = against([run(0.5, 0, R3F)], [run(0.7, 0, R3F)])
    assert one.verdict() == gate.Verdict(
        False,
        "no regression could have been shown: 1 arm without a test: rte r3f (accuracy, n 1) changed by -0.2000 in one "
        "pair of seeds",
    )
    three = against(moved(-0.2)[:3], moved(0)[:3])
    assert (
        not three.verdict().met and "-0.2000 in each of 3 pairs of seeds, of which p is 0.25 at" in three.verdict().line
    )
    assert three.table().rows[0]["verdict"] == "no test" and "No test: rte r3f" in render(three.table(), "markdown")
    assert against(moved(-0.2), moved(0)).verdict().line.startswith("regression: ")
    assert against(moved(0)[:1], moved(0)[:1]).verdict().line == "no regression shown in 1 arm", "nothing changed"


def test_holm_may_leave_an_arm_without_a_test() -> None:
    def both(by: float) -> list[Record]:
        return [*moved(by), *moved(by, lr=1e-3)]

    assert "in each of 6 pairs of seeds, of which p is 0.0625" in against(both(-0.2), both(0)).verdict().line


def test_arms_without_a_test_are_named_beside_those_that_have_one() -> None:
    found = against([*moved(0), run(0.5, 0)], [*moved(0), run(0.7, 0)])
    assert found.verdict().met
    assert found.verdict().line.startswith(
        "no regression shown in 1 arm; 1 arm without a test: rte std (accuracy, n 1)"
    )


def test_seeds_of_the_baseline_that_were_not_run_are_named() -> None:
    found = against(moved(0)[:2], moved(0))
    wanted = "rte r3f (accuracy, n 2): 4 of 6 runs of the baseline were not run here (seed 2, 3, 4, 5)"
    assert found.verdict().line == f"no regression shown in 1 arm; 1 not compared: {wanted}"
    assert f"Not compared: {wanted}." in render(found.table(), "markdown")
    assert against(moved(0), moved(0)[:2]).refused == ()
    drawn = [run(0.7, s, R3F, data_seed=d) for d in range(3) for s in range(4)]
    (text,) = against(drawn[:1], drawn).refused
    assert "11 of 12" in text and "(seed 1, 2, 3, 0 of data seed 1, 1 of data seed 1," in text and "...)" in text


def test_a_finished_run_without_a_finite_score_counts_as_failed() -> None:
    found = against([*moved(0)[:5], run(float("nan"), 5, R3F)], moved(0))
    assert "1 of 6 runs that the baseline finished failed here" in found.verdict().line and not found.verdict().met


def test_predictions_of_both_sides_are_used(tmp_path: Path) -> None:
    before, now = study_on_disk(tmp_path / "a"), study_on_disk(tmp_path / "b", gain=-0.2)
    found = against(now, before)
    assert {change.basis for change in found.changes} == {"seeds x examples"}
    assert [change.cell.method for change in found.regressions] == ["r3f"]
    assert {change.verdict for change in found.changes} == {"worse", "equal"}


def test_the_summary_is_markdown() -> None:
    text = gate.step_summary([gate.Verdict(True, "met: x"), gate.Verdict(False, "not met: y")], ["| a |"])
    assert "- PASS: met: x" in text and "- FAIL: not met: y" in text and text.endswith("| a |\n")
