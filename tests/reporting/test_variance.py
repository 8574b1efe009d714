"""Where the spread comes from, against sums by hand and against made-up effects."""

from __future__ import annotations

import numpy as np
import pytest

from ftbench.reporting.variance import components, variance_table
from tests.reporting.conftest import run


def test_only_draws_differ() -> None:
    found = components({(d, s): float(d) for d in range(3) for s in range(4)})
    assert found is not None and found.draws == 3 and found.seeds == 4
    assert found.draw == pytest.approx(1.0) and found.seed == found.rest == 0.0


def test_only_seeds_differ() -> None:
    found = components({(d, s): 2.0 * s for d in range(2) for s in range(3)})
    assert found is not None and (found.draw, found.seed, found.rest) == pytest.approx((0.0, 2.0, 0.0))


def test_made_up_effects_are_found_again() -> None:
    random = np.random.default_rng(0)
    draws, seeds = random.normal(0, 0.03, 80), random.normal(0, 0.01, 80)
    scores = {(d, s): 0.8 + draws[d] + seeds[s] + random.normal(0, 0.02) for d in range(80) for s in range(80)}
    found = components(scores)
    assert found is not None
    assert found.draw == pytest.approx(0.03, rel=0.25) and found.seed == pytest.approx(0.01, rel=0.3)
    assert found.rest == pytest.approx(0.02, rel=0.05)


def test_a_hole_takes_its_seed_out_and_one_level_gives_nothing() -> None:
    grid = {(d, s): float(d + s) for d in range(2) for s in range(3)}
    del grid[1, 2]
    found = components(grid)
    assert found is not None and (found.draws, found.seeds) == (2, 2)
    assert components({(0, s): 1.0 for s in range(5)}) is None
    assert components({(d, 0): 1.0 for d in range(5)}) is None


def test_the_table_has_a_row_for_each_arm_with_a_grid() -> None:
    records = [run(0.5 + 0.1 * d + 0.01 * s, s, data_seed=d, train_size=100) for d in range(3) for s in range(2)]
    table = variance_table(records)
    assert table is not None
    (row,) = table.rows
    assert row["method"] == "std" and row["draws"] == 3 and row["sd_draw"] == pytest.approx(0.1)
    assert variance_table(records[:1]) is None


def test_names_are_texts_and_numbers_numbers() -> None:
    found = [run(0.5, s, data_seed=d, model=m, weights=m) for m in ("a", "b") for d in (0, 1) for s in (0, 1)]
    table = variance_table([*found, *(run(0.5, s, data_seed=d, lr=1e-3) for d in (0, 1) for s in (0, 1))])
    assert table is not None
    assert {c.key: c.numeric for c in table.columns if c.key in ("task", "model", "lr")} == {
        "task": False, "model": False, "lr": True,
    }  # fmt: skip
