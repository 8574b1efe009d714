"""What ``ftbench choose`` promises, held against made-up races whose truth is known (``races.WORLDS``).

The gate runs a short form that only a large error fails; ``FTBENCH_DEEP=1`` (see ``.ci/deep``) has 500 races a world.
``python tests/runs/test_race_simulated.py [RACES]`` prints the table of docs/choose.md.
"""

from __future__ import annotations

import os
import sys
from functools import cache

import numpy as np
import pytest

from tests.runs.races import WORLDS, Outcome, run

DEEP = bool(os.environ.get("FTBENCH_DEEP"))
RACES = 500 if DEEP else 10
BUDGET = 1200.0
#: without DEEP: the truth that is dearest to hold, and one of each other kind
SHOWN = list(WORLDS) if DEEP else ["nothing differs", "one is better by 8 points", "dear candidates"]


@cache
def races(world: str) -> list[Outcome]:
    """The same ones for all tests."""
    return [run(WORLDS[world], seed, BUDGET) for seed in range(RACES)]


@pytest.mark.parametrize("world", SHOWN)
def test_a_choice_worse_than_std_by_over_a_point_is_rare(world: str) -> None:
    assert np.mean([one.loss > 0.01 + 1e-9 for one in races(world)]) <= (0.05 if DEEP else 0.2)


@pytest.mark.parametrize("world", SHOWN)
def test_the_test_score_s_interval_covers(world: str) -> None:
    covered = np.mean([one.covered for one in races(world)])
    assert 0.93 <= covered <= 0.975 if DEEP else covered >= 0.7


@pytest.mark.skipif(not DEEP, reason="thousands of races: .ci/deep runs it")
def test_the_test_score_s_interval_covers_over_all_truths() -> None:
    assert 0.93 <= np.mean([one.covered for world in WORLDS for one in races(world)]) <= 0.97


@pytest.mark.parametrize("world", SHOWN)
def test_the_budget_is_kept(world: str) -> None:
    assert max(one.spent for one in races(world)) <= 1.1


@pytest.mark.parametrize("budget", [150.0, 400.0])
def test_small_budgets_are_kept_too(budget: float) -> None:
    assert max(run(WORLDS["dear candidates"], seed, budget).spent for seed in range(RACES)) <= 1.1


@pytest.mark.parametrize("jobs", [2, 4])
def test_with_runs_side_by_side_too(jobs: int) -> None:
    assert max(run(WORLDS["nothing differs"], seed, 600.0, jobs).spent for seed in range(min(RACES, 50))) <= 1.1


def test_what_is_much_better_is_found() -> None:
    found = [one.choice == "m0" for one in races("one is better by 8 points")]
    assert np.mean(found) >= 0.6


if __name__ == "__main__":
    RACES = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print("| truth | worse than std by over a point | best found | std kept | regret | covered | budget used, most |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in WORLDS:
        found = races(name)
        cells = (
            f"{np.mean([o.loss > 0.01 + 1e-9 for o in found]):.1%}", f"{np.mean([o.regret < 1e-9 for o in found]):.0%}",
            f"{np.mean([o.choice == 'std' for o in found]):.0%}", f"{100 * np.mean([o.regret for o in found]):.1f}",
            f"{np.mean([o.covered for o in found]):.1%}", f"{max(o.spent for o in found):.0%}",
        )  # fmt: skip
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
