"""Runs of chosen, topmost, random and all layers, read beside nu, and verdicts on claims 8 to 11: runs made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftbench.reporting.claims import CONTRADICTED, SUPPORTED, UNDECIDED
from ftbench.reporting.judging import judge
from ftbench.reporting.layer_runs import spearman, tuned_layers
from ftbench.reporting.layer_study import layer_study_tables
from ftbench.reporting.layer_study_figure import draw_layer_study
from ftbench.reporting.reports import make
from ftbench.reporting.study import Study
from ftbench.types import Cost, Record, Result, RunSpec
from tests.reporting.conftest import R3F, references, run

ROWS = {"task": "rte", "data": "d1", "weights": "w1"}
#: nu of six layers; l* = 4
NU = (0.9, 0.8, 0.6, 0.3, 0.5, 0.7)


def measure(nu: Sequence[float | None] = NU, *, verdict: str = "recommended", facts: Any = None, **spec: Any) -> Record:
    """A measure of layers with these nu."""
    finite = [9.0 if value is None else value for value in nu]
    best = finite.index(min(finite)) + 1
    rows = spec.get("train_size") or 2000
    about = {
        "headline": "nu", "lower_is_better": True, "layers": len(nu), "best": best, "verdict": verdict,
        "layer": best if verdict == "recommended" else None, "reason": "why", "rows": {"train": rows},
    }  # fmt: skip
    metrics = {f"layer {i}": {"train": {"nu": value, "logme": -i}} for i, value in enumerate(nu, start=1)}
    asked = RunSpec(kind="variability", permutations=20, resamples=100, **{**ROWS, **spec})
    return Record(
        Path("measure"), Result(spec=asked, status="ok", metrics=metrics, facts=about | (facts or {})), Cost()
    )


def tune(layers: str, scores: Sequence[float], methods: Any = (), **spec: Any) -> list[Record]:
    """A run for each score, seeds 0, 1, 2 ..."""
    tuned = Cost(process_seconds=5.0 if layers else 10.0, flops=60 if layers else 100, trained_parameters=10, steps=1)
    return [run(s, i, methods, layers=layers, cost=tuned, **{**ROWS, **spec}) for i, s in enumerate(scores)]


def around(mean: float, spread: float = 0.001) -> list[float]:
    """Five scores, each seed with its own offset, so that pairs differ by ``spread`` at most."""
    return [mean + 0.01 * seed + spread * (seed % 2) for seed in range(5)]


def study(chosen: float = 0.80, top: float = 0.70, whole: float = 0.80, **spec: Any) -> list[Record]:
    """Two layers: l*-down is 3:4:4, l*-up the topmost two."""
    found = [measure(**spec), *tune("3:4:4", around(chosen), **spec), *tune("3:4:6", around(chosen - 0.001), **spec)]
    return [*found, *tune("5:6:6", around(top, 0.0), **spec), *tune("", around(whole, 0.002), **spec)]


def verdict(number: int, records: Sequence[Record]) -> str:
    return judge(Study(records), str(number)).verdict


def arms(records: Sequence[Record]) -> dict[tuple[int, str], Mapping[str, Any]]:
    (table,) = layer_study_tables(records)["tuned"]
    return {(row["count"], row["arm"]): row for row in table.rows}


def test_a_rule_finds_its_runs_and_is_compared_with_as_many_top_layers() -> None:
    found = arms(study())
    assert [arm for _, arm in found] == ["l*-down", "l*-down, head on top", "l*-up", "top", "random", "all"]
    down, up, top = (found[2, arm] for arm in ("l*-down", "l*-up", "top"))
    assert (down["placed"], up["placed"], top["placed"]) == ("3:4:4", "5:6:6", "5:6:6")
    assert down["vs_top"] == pytest.approx(0.1, abs=0.002) and down["vs_top_low"] > 0.09 and down["vs_top_n"] == 5
    assert down["vs_all"] == pytest.approx(0, abs=0.002) and found[6, "all"]["vs_all"] is None
    assert up["vs_top"] is None, "these are the topmost layers"
    assert (down["time_share"], down["flops_share"]) == (0.5, 0.6)
    assert down["model_share"] == pytest.approx((4 + 2 + 2) / 18)


def sweep(best: int, methods: Any = (), **spec: Any) -> list[Record]:
    """Two layers at every place; the one whose topmost layer is ``best`` scores 0.9."""
    places = ["1:2:2", "2:3:3", "3:4:4", "4:5:5", "5:6:6"]
    scores = {place: 0.9 if place.endswith(str(best)) else 0.5 + 0.01 * i for i, place in enumerate(places)}
    return [record for place, mean in scores.items() for record in tune(place, around(mean, 0), methods, **spec)]


def test_the_best_place_a_random_one_and_what_is_lost() -> None:
    found = arms([measure(), *sweep(3), *tune("", around(0.8))])
    assert found[2, "best place"]["placed"] == "2:3:3" and found[2, "best place"]["regret"] == pytest.approx(0)
    assert found[2, "l*-down"]["regret"] == pytest.approx(0.9 - 0.52)
    mean = (0.5 + 0.9 + 0.52 + 0.53 + 0.54) / 5
    assert found[2, "random"]["mean"] == pytest.approx(mean + 0.02)
    (ranked,) = layer_study_tables([measure(), *sweep(4)])["ranked"]
    assert ranked.rows[0]["layers_compared"] == 5
    # places 2 to 6 score 0.5, 0.51, 0.9, 0.53, 0.54; nu falls 0.8, 0.6, 0.3, 0.5, 0.7
    assert ranked.rows[0]["rank_nu"] == pytest.approx(0.7)


def test_other_rows_other_methods_and_other_recipes_are_kept_apart() -> None:
    both = study() + study(0.6, 0.9, train_size=100) + tune("3:4:4", around(0.1), R3F) + tune("3:4:4", [0.2], steps=7)
    found = tuned_layers(both)
    assert len(found) == 4 and sum(len(one.counts) for one in found) == 2
    assert tuned_layers([r for r in both if r.result.spec.kind != "variability"]) == []
    (table,) = layer_study_tables(both)["tuned"]
    assert {row["train_size"] for row in table.rows} == {100, None}


def test_each_draw_has_its_own_layer() -> None:
    second = (0.9, 0.2, 0.6, 0.3, 0.5, 0.7)  # l* = 2
    runs = [measure(train_size=50), measure(second, train_size=50, data_seed=1)]
    for layers, score in (("3:4:4", 0.7), ("1:2:2", 0.8), ("5:6:6", 0.5)):
        runs += [*tune(layers, [score], train_size=50), *tune(layers, [score + 0.1], train_size=50, data_seed=1)]
    (tuned,) = tuned_layers(runs)
    rows = {row["arm"]: row for row in layer_study_tables(runs)["tuned"][0].rows}
    assert tuned.scores(tuned.same(None)) == {} and tuned.counts == [2]
    assert rows["l*-down"]["placed"] == "3:4:4, 1:2:2" and rows["l*-down"]["mean"] == pytest.approx((0.7 + 0.9) / 2)


@pytest.mark.parametrize(
    ("chosen", "top", "says"), [(0.8, 0.7, SUPPORTED), (0.6, 0.7, CONTRADICTED), (0.7, 0.7, CONTRADICTED)]
)
def test_claim_8_chosen_layers_beat_as_many_top_ones(chosen: float, top: float, says: str) -> None:
    assert verdict(8, study(chosen, top)) == says
    rows = judge(Study(study(chosen, top)), "8").rows
    assert [row["basis"] for row in rows].count("as many top ones") == 1, "l*-up is the topmost two: the same runs"


def test_claim_8_needs_seeds_learning_and_most_tasks() -> None:
    few = [r for r in study() if r.result.spec.seed < 4]
    assert verdict(8, few) == UNDECIDED and "fewer than 5 pairs" in judge(Study(few), "8").why
    refs = references(scores={"linear": 0.95}, **ROWS)
    assert verdict(8, [*study(), refs]) == UNDECIDED
    assert "did not beat the reference rows" in judge(Study([*study(), refs]), "8").why
    others = study(0.6, 0.7, task="cola") + study(0.6, 0.7, task="sst2")
    assert verdict(8, study() + others) == CONTRADICTED
    assert verdict(8, study() + study(0.6, 0.7, task="cola")) == UNDECIDED
    assert verdict(8, [measure()]) == UNDECIDED


@pytest.mark.parametrize(("chosen", "says"), [(0.8, SUPPORTED), (0.795, SUPPORTED), (0.7, CONTRADICTED)])
def test_claim_9_chosen_layers_match_all(chosen: float, says: str) -> None:
    assert verdict(9, study(chosen, chosen)) == says


def test_claim_9_a_wide_interval_decides_nothing() -> None:
    wide = [measure(), *tune("3:4:4", [0.6, 0.9, 0.7, 0.95, 0.8]), *tune("", around(0.78))]
    wide += tune("5:6:6", [0.9, 0.6, 0.7, 0.95, 0.8])
    assert verdict(9, wide) == UNDECIDED


def test_claim_10_subsets_keep_the_curve() -> None:
    alike, other = (0.8, 0.7, 0.55, 0.2, 0.4, 0.6), (0.1, 0.7, 0.55, 0.2, 0.9, 0.6)
    small = [measure(alike, train_size=n, data_seed=1) for n in (50, 100)]
    assert verdict(10, [measure(), *small]) == SUPPORTED
    assert verdict(10, [measure(), *small, measure(other, imbalance=0.1)]) == SUPPORTED
    moved = [measure(other, train_size=n) for n in (60, 70, 80)]
    assert verdict(10, [measure(), *small, *moved]) == CONTRADICTED
    assert verdict(10, [measure(verdict="floor"), *small]) == UNDECIDED
    noisy = [measure(other, label_noise=0.2), measure(other, label_noise=0.2, train_size=50)]
    assert verdict(10, [measure(), *noisy]) == UNDECIDED, "the claim is not about wrong labels"
    assert verdict(10, [measure(alike, train_size=50)]) == UNDECIDED


def test_claim_11_nu_ranks_layers_as_a_probe_does() -> None:
    def probed(nu: float, others: float, **spec: Any) -> Record:
        return measure(facts={"spearman": {"nu": nu, "ratio": 0.1, "logme": others, "h_score": None}}, **spec)

    assert verdict(11, [probed(0.9, 0.8), probed(0.7, 0.7, task="cola")]) == SUPPORTED
    assert verdict(11, [probed(0.9, 0.8), probed(0.6, 0.7, task="cola")]) == UNDECIDED
    assert verdict(11, [probed(0.6, 0.8), probed(0.6, 0.7, task="cola")]) == CONTRADICTED
    assert verdict(11, [probed(0.9, 0.8), probed(0.1, 0.8, train_size=20)]) == SUPPORTED, "the most rows count"
    assert verdict(11, [measure()]) == UNDECIDED


def test_a_verdict_names_model_and_size_and_is_printed() -> None:
    table = make(Study(study()), "claim:8")
    assert table is not None and table.notes[0].startswith("SUPPORTED: 1 of 1 tasks support it")
    assert {"method", "than", "difference", "p_holm", "verdict"} <= {c.key for c in table.columns}


def test_infinite_nu_ranks_last_and_ties_share() -> None:
    (tuned,) = tuned_layers([measure((None, 0.8, 0.6, 0.3, 0.5, 0.7)), *sweep(4)])
    assert tuned.placed.__self__ is tuned and tuned.first.metric == "accuracy"
    import numpy as np

    assert spearman(np.array([1.0, 2.0, np.inf]), np.array([1.0, 2.0, 3.0])) == pytest.approx(1)
    assert spearman(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])) is None
    assert spearman(np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.0, 3.0])) is None


def test_the_picture_has_a_column_for_each_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("ftbench.reporting.layer_study_figure.write", lambda figure, path: drawn.append(figure))
    draw_layer_study([measure(), *sweep(4), *sweep(3, R3F), *tune("", around(0.8))], tmp_path / "a.png")
    titles = [axes.get_title() for axes in drawn[0].axes[:2]]
    assert titles == ["rte\nfull, k = 2", "rte\nr3f, k = 2"]
    line = max(drawn[0].axes[0].lines, key=lambda line: line.get_linewidth() * len(line.get_xdata()))
    assert list(line.get_ydata())[1:] == pytest.approx([0.52, 0.53, 0.92, 0.55, 0.56])
