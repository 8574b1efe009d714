"""ftbench.reporting.sensitivity: the spread of a method over its settings, worked out by hand."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from ftbench.reporting.render import FORMS, render
from ftbench.reporting.sensitivity import RULE, UNEQUAL, sensitivity_table
from ftbench.types import MethodSpec, Record, Table
from tests.reporting.conftest import R3F, REFS, STD, STD_PLUS, keys, references, row, run

LRS = (1e-5, 5e-5, 1e-4)


def sensitivity(*records: Record, **options: Any) -> Table:
    table = sensitivity_table(records, **options)
    assert table is not None
    return table


def sweep(*means: float, methods: tuple[MethodSpec, ...] = STD, **more: Any) -> list[Record]:
    """One run for each learning rate of LRS."""
    return [run(mean, 0, methods, lr=lr, **more) for mean, lr in zip(means, LRS, strict=False)]


# ---------------------------------------------------------------------------------- when there is a table


@pytest.mark.parametrize(
    "records",
    [
        [],
        [run(0.7, 0), run(0.8, 1)],
        [run(0.7), run(0.8, 0, R3F), references(scores=REFS)],
        [run(0.7), run(0.8, label_noise=0.2), run(0.9, train_size=50), run(0.6, max_length=64)],
        [run(0.7, lr=1e-5), run(0.8, 0, R3F, lr=1e-4)],
        [run(0.7), run(0.8, 0, STD_PLUS, steps=190)],
        [run(0.7, lr=1e-5), run(0.8, lr=1e-4, engine_revision=2)],
        [run(0.7, lr=1e-5), run(0.8, lr=1e-4, data="d2")],
        [run(0.7, 0, R3F, lr=1e-5), run(0.7, 0, (MethodSpec("r3f", fields={"weight": 5.0}),), lr=1e-4)],
    ],
    ids=[
        "no runs", "seeds", "methods", "other rows", "one setting of each method", "std++ stretches the steps",
        "another engine", "other data", "fields of a method",
    ],
)  # fmt: skip
def test_one_setting_of_a_method_is_no_sensitivity(records: list[Record]) -> None:
    assert sensitivity_table(records) is None


# ------------------------------------------------------------------------------------------ the numbers


def test_spread_and_share_by_hand() -> None:
    table = sensitivity(*sweep(0.70, 0.80, 0.795), *sweep(0.79, 0.80, 0.795, methods=R3F))
    std, r3f = row(table, "std"), row(table, "r3f")
    assert (std["settings"], std["metric"], std["bad"]) == (3, "accuracy", 0)
    assert (std["best"], std["best_at"]) == (0.80, "lr 5e-05")
    assert (std["worst"], std["worst_at"]) == (0.70, "lr 1e-05")
    assert std["spread"] == pytest.approx(0.10) and std["within_point"] == pytest.approx(2 / 3)
    assert r3f["spread"] == pytest.approx(0.01) and r3f["within_point"] == 1.0, "0.01 is still within"
    assert std["seed_sd"] is None, "one seed has no spread"
    assert table.title == "Sensitivity to lr" and table.notes == (RULE,)
    assert keys(table)[:3] == ["task", "method", "metric"] and "lr" not in keys(table)


def test_a_setting_stands_by_its_mean_over_seeds() -> None:
    low = [run(s, i, lr=1e-5) for i, s in enumerate((0.60, 0.80))]
    high = [run(s, i, lr=1e-4) for i, s in enumerate((0.75, 0.75, 0.75))]
    std = row(sensitivity(*low, *high), "std")
    assert (std["best"], std["worst"]) == (pytest.approx(0.75), pytest.approx(0.70))
    assert std["seed_sd"] == pytest.approx((0.02**0.5 + 0) / 2)
    assert std["settings"] == 2


def test_where_lower_is_better() -> None:
    lower = {"metric": "mse", "facts": {"lower_is_better": True}}
    std = row(sensitivity(*sweep(0.50, 0.505, 0.90, **lower)), "std")
    assert (std["best"], std["best_at"]) == (0.50, "lr 1e-05")
    assert (std["worst"], std["worst_at"]) == (0.90, "lr 0.0001")
    assert std["spread"] == pytest.approx(0.40) and std["within_point"] == pytest.approx(2 / 3)


def test_a_setting_without_a_finished_run_is_not_within() -> None:
    records = [*sweep(0.80, 0.80), run(None, 0, lr=1e-3, status="diverged", error="nan")]
    std = row(sensitivity(*records), "std")
    assert (std["settings"], std["bad"]) == (3, 1)
    assert std["within_point"] == pytest.approx(2 / 3) and std["spread"] == 0
    assert "lr 0.001" not in (std["best_at"], std["worst_at"])


def test_failed_runs_are_counted_and_not_averaged() -> None:
    bad = [run(0.1, 1, lr=1e-5, status="diverged"), run(None, 2, lr=1e-5, status="failed")]
    std = row(sensitivity(*sweep(0.70, 0.80), *bad), "std")
    assert (std["worst"], std["bad"]) == (0.70, 2)


def test_degenerate_runs_are_counted_and_averaged() -> None:
    constant = {"facts": {"distinct_predictions": 1}}
    std = row(sensitivity(*sweep(0.70, 0.80), run(0.5, 1, lr=1e-5, **constant), run(0.5, 2, lr=1e-5)), "std")
    assert std["bad"] == 2, "one prediction for all, and the majority's score"
    assert std["worst"] == pytest.approx((0.70 + 0.5 + 0.5) / 3)


def test_a_method_whose_runs_all_failed_has_a_row_without_numbers() -> None:
    failed = [run(None, 0, R3F, lr=lr, status="failed", error="boom") for lr in LRS]
    table = sensitivity(*sweep(0.7, 0.8, 0.8), *failed)
    r3f = row(table, "r3f")
    assert (r3f["settings"], r3f["bad"], r3f.get("best"), r3f.get("within_point")) == (3, 3, None, None)
    for form in FORMS:
        text = render(table, form)
        assert "r3f" in text and "nan" not in text.lower() and "None" not in text


def test_the_selection_decides_which_scores_count() -> None:
    assert row(sensitivity(*sweep(0.7, 0.8), selection="best"), "std").get("best") is None


def test_a_run_found_twice_counts_once() -> None:
    failed = run(None, 1, lr=1e-5, status="failed")
    std = row(sensitivity(*sweep(0.7, 0.8), failed, *sweep(0.7, 0.8), failed), "std")
    assert (std["settings"], std["bad"], std["seed_sd"]) == (2, 1, None)


# -------------------------------------------------------------------------------------- several settings


def test_all_settings_of_the_recipe_count_and_are_named() -> None:
    points = {(1e-5, 8, 50): 0.6, (1e-5, 16, 50): 0.7, (5e-5, 8, 200): 0.9, (5e-5, 16, 200): 0.8}
    table = sensitivity(*(run(s, lr=lr, batch_size=b, steps=n) for (lr, b, n), s in points.items()))
    std = row(table, "std")
    assert table.title == "Sensitivity to lr, steps, batch"
    assert std["best_at"] == "lr 5e-05, steps 200, batch 8" and std["worst_at"] == "lr 1e-05, steps 50, batch 8"
    assert (std["settings"], std["spread"]) == (4, pytest.approx(0.3))


def test_a_setting_that_a_method_does_not_vary_is_not_named() -> None:
    records = [run(0.7, lr=1e-5), run(0.8, lr=1e-4), run(0.7, 0, R3F, lr=1e-5, warmup=0.2)]
    records.append(run(0.8, 0, R3F, lr=1e-4, warmup=0.2))
    assert row(sensitivity(*records), "r3f")["best_at"] == "lr 0.0001"


def test_the_title_names_what_is_varied_and_not_what_tells_methods_apart() -> None:
    """std++ takes more steps than std by construction; nobody asked how it depends on steps."""
    records = [*sweep(0.7, 0.8), *sweep(0.7, 0.8, methods=STD_PLUS, steps=190)]
    assert sensitivity(*records).title == "Sensitivity to lr"


def test_std_plus_whose_steps_follow_the_cost_at_each_setting() -> None:
    plus = [run(0.75, 0, STD_PLUS, lr=1e-5, steps=190), run(0.85, 0, STD_PLUS, lr=5e-5, steps=200)]
    table = sensitivity(*sweep(0.70, 0.80), *plus)
    found = row(table, "std++")
    assert (found["settings"], found["spread"]) == (2, pytest.approx(0.10))
    assert found["best_at"] == "lr 5e-05, steps 200" and row(table, "std")["best_at"] == "lr 5e-05"
    assert UNEQUAL not in table.notes


def test_unequal_numbers_of_settings_are_flagged() -> None:
    assert UNEQUAL in sensitivity(*sweep(0.7, 0.8, 0.8), *sweep(0.7, 0.8, methods=R3F)).notes


def test_tasks_may_have_grids_of_their_own() -> None:
    """What is compared are the methods of one task: these were run at equally many settings."""
    cola = {"task": "cola", "data": "d2"}
    records = [*sweep(0.7, 0.8, 0.8), *sweep(0.7, 0.8, 0.8, methods=R3F)]
    records += [*sweep(0.5, 0.6, **cola), *sweep(0.5, 0.6, methods=R3F, **cola)]
    assert UNEQUAL not in sensitivity(*records).notes


def test_several_tasks_have_a_row_each() -> None:
    table = sensitivity(*sweep(0.7, 0.8), *sweep(0.3, 0.6, task="cola", data="d2", metric="matthews"))
    assert row(table, "std", task="rte")["spread"] == pytest.approx(0.1)
    assert row(table, "std", task="cola")["spread"] == pytest.approx(0.3)
    assert {r["metric"] for r in table.rows} == {"accuracy", "matthews"}


def test_other_rows_of_one_task_have_a_row_each() -> None:
    table = sensitivity(*sweep(0.7, 0.8), *sweep(0.5, 0.7, label_noise=0.2))
    assert row(table, "std", label_noise=0.0)["spread"] == pytest.approx(0.1)
    assert row(table, "std", label_noise=0.2)["spread"] == pytest.approx(0.2)


def test_versions_of_a_method_have_a_row_each() -> None:
    newer = (MethodSpec("r3f", revision=2),)
    table = sensitivity(*sweep(0.7, 0.8, methods=R3F), *sweep(0.6, 0.8, methods=newer))
    assert [(r["method_revision"], round(r["spread"], 3)) for r in table.rows] == [("1", 0.1), ("2", 0.2)]


def test_only_numbers_are_columns_of_numbers() -> None:
    table = sensitivity(*sweep(0.7, 0.8), *sweep(0.7, 0.8, model="other", weights="w2", label_noise=0.1))
    numeric = {column.key for column in table.columns if column.numeric}
    assert numeric == {"label_noise", "settings", "best", "worst", "spread", "seed_sd", "within_point", "bad"}


# ------------------------------------------------------------------------------------------ rendering


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_holds_the_numbers(form: str) -> None:
    table = sensitivity(*sweep(0.70, 0.80, 0.795), run(0.72, 1, lr=1e-5))
    text = render(table, form)
    if form == "csv":
        (read,) = csv.DictReader(io.StringIO(text))
        assert (read["best"], read["best_at"], read["worst_at"]) == ("0.8", "lr 5e-05", "lr 1e-05")
        assert float(read["within_point"]) == pytest.approx(2 / 3)
    elif form == "json":
        document = json.loads(text)
        assert document["rows"][0]["spread"] == pytest.approx(0.09) and document["notes"] == [RULE]
    else:
        text = text.replace("\\%", "%")
        assert all(part in text for part in ("0.800", "0.710", "0.090", "0.014", "67%", "lr 5e-05", "lr 1e-05"))
        assert "within 1 point" in text.replace("\n", " ") and "Sensitivity to lr" in text
