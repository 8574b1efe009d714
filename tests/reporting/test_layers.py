"""Tables and the picture of measured layers, from results made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import StoreError, UsageError
from ftbench.reporting.layer_figure import draw_layers
from ftbench.reporting.layers import layer_tables, layers_table, subsets_table
from ftbench.reporting.pictures import check_name
from ftbench.reporting.render import render
from ftbench.types import Cost, Record, Result, RunSpec


def record(nu: list[float], *, layer: int | None = 2, **facts: Any) -> Record:
    spec = RunSpec(
        kind="variability", task="sst2", data="d", weights="w", model="minilm", pooling="ordinary",
        permutations=20, resamples=100, **facts.pop("spec", {}),
    )  # fmt: skip
    about: dict[str, Any] = {
        "headline": "nu", "layers": len(nu), "width": 384, "rows": {"train": 4000}, "truncated": {"train": 7},
        "verdict": "recommended" if layer else "open", "reason": "layer 2: because" if layer else "the choice is open",
        "layer": layer, "best": 2, "best_ratio": 3, "low": 2, "high": 3, "p_value": 0.05,
        "classes": {"bad": 1900, "good": 2099}, "dropped": ["odd"],
        "probe": "accuracy", "spearman": {"nu": 0.5, "vci": None},
    }  # fmt: skip
    metrics = {
        f"layer {n}": {
            "train": {
                "nu": value, "floor": 10.0, "floor_sd": 1.0, "ratio": value / 10, "participation": 50.0, "rank": 1.0,
                "condition": 1.0, "chosen_share": 1 / len(nu), "signal": 1.0, "vci": 0.5, "logme": -0.5, "probe": 0.8,
                "cka_next": float("nan"),
            }
        }
        for n, value in enumerate(nu, start=1)
    }  # fmt: skip
    result = Result(spec=spec, status="ok", metrics=metrics, facts=about | facts)
    return Record(Path("x"), result, Cost(wall_seconds=12.34, evaluate_seconds=2.0))


def shown(*records: Record) -> str:
    return "\n".join(render(table, "rich") for table in layer_tables(records))


def test_a_bar_a_layer_the_verdict_and_what_it_cost() -> None:
    text = shown(record([4.0, 1.0, 2.0]))
    lines = text.splitlines()
    assert "sst2, minilm, 4,000 rows: hidden-state variability nu" in text
    assert [line.count("█") for line in lines if line.lstrip()[:1] in "123" and "%" in line] == [12, 3, 6]
    assert "recommended" in next(line for line in lines if line.strip().startswith("2 "))
    for words in ("recommended: layer 2: because", "bad 1,900, good 2,099; they weigh equally", "a single row: odd",
                  "mean of the ordinary tokens", "the pass 12.3 s, all measures 2.0 s", "from 2 to 3"):  # fmt: skip
        assert words in text
    assert "s1/sr" not in text  # two classes have one direction


def test_without_a_recommendation_both_rules_are_marked() -> None:
    text = shown(record([4.0, 1.0, 2.0], layer=None))
    assert "no layer is recommended: the choice is open" in text
    assert "lowest nu" in text and "lowest ratio" in text
    assert "lowest of both" in shown(record([4.0, 1.0, 2.0], layer=None, best_ratio=2))


def test_companions_end_with_their_correlation_with_the_probe() -> None:
    table = layer_tables([record([4.0, 1.0, 2.0])])[1]
    assert [column.key for column in table.columns] == ["layer", "probe", "nu", "ratio", "vci", "logme"]
    assert table.rows[-1]["layer"] == "Spearman" and table.rows[-1]["nu"] == 0.5
    assert not any("say little" in note for note in table.notes)
    few = layer_tables([record([4.0, 1.0], rows={"train": 300})])[1]
    assert any("no more rows than states are wide (384)" in note for note in few.notes)


def test_infinite_nu_has_a_full_bar_and_no_number() -> None:
    rows = layers_table([record([float("inf"), 1.0, 2.0])]).rows
    assert [row["nu_bar"] for row in rows] == [1.0, 0.5, 1.0] and rows[0]["nu"] is None
    assert shown(record([float("inf"), 1.0, 2.0]))


def test_scripts_get_every_layer_of_every_run_in_one_table() -> None:
    table = layers_table([record([4.0, 1.0, 2.0]), record([3.0, 1.0], spec={"label_noise": 0.1})])
    rows = json.loads(render(table, "json"))["rows"]
    assert [(row["label_noise"], row["layer"]) for row in rows] == [(0, 1), (0, 2), (0, 3), (0.1, 1), (0.1, 2)]
    assert [row["recommended"] for row in rows] == [False, True, False, False, True]
    header = render(table, "csv").splitlines()[0].split(",")
    assert {"task", "model", "limit", "layer", "nu", "floor", "ratio", "signal", "probe", "verdict"} <= set(header)


def test_a_regression_without_bins_has_companions_only() -> None:
    found = record([4.0, 1.0], headline="logme", verdict="none", layer=None)
    assert [table.title for table in layer_tables([found])] == ["sst2, minilm, 4,000 rows: companions of nu"]


def test_subsets_show_the_axes_that_vary() -> None:
    row = {
        "task": "sst2", "model": "minilm", "train_size": 10, "imbalance": None, "label_noise": 0.0, "data_seed": 0,
        "rows": 10, "spearman": 0.9, "best": 3, "drift": -1, "best_ratio": 4, "p_value": 0.048, "outcome": "open",
    }  # fmt: skip
    text = render(subsets_table([row, {**row, "label_noise": 0.2}]), "rich")  # type: ignore[arg-type]
    assert "noise" in text and "imbal." not in text and "-1" in text and "open" in text
    assert subsets_table([]) is None


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_picture_has_a_column_a_run_and_a_row_a_measure(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"layers.{suffix}"
    draw_layers([record([4.0, 1.0, 2.0]).result, record([float("inf"), 1.0], layer=None).result], path)
    assert path.stat().st_size > 5000
    if suffix == "svg":
        assert path.read_text().count('<g id="axes_') == 8  # three rows, two columns, two axes for the shares


def test_pictures_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'x.gif': expected a name that ends in .png, .pdf, .svg"):
        check_name(Path("x.gif"))
    with pytest.raises(UsageError, match="no run has nu"):
        draw_layers([record([1.0, 2.0], headline="logme").result], tmp_path / "x.png")
    with pytest.raises(StoreError, match="cannot write"):
        draw_layers([record([1.0, 2.0]).result], tmp_path / "missing" / "x.png")
