"""Runs that tuned some layers, read in the light of nu: did it pay to tune where nu says?

Which runs these are: ``layer_runs``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ftbench.reporting import stats
from ftbench.reporting.cells import setting_columns, varying
from ftbench.reporting.costs import mean_of
from ftbench.reporting.layer_runs import Scores, Tuned, measured_by_layer, spearman, tuned_layers
from ftbench.types import Column, Record, Table
from ftbench.types.layers import LayerRule, Layers, cost_share, places_of, rules

#: numbers of those claims that such runs can test
LAYER_CLAIMS = (8, 9, 10, 11)
READING = (
    "l* = argmin nu on the same rows, recommended or not. top: as many topmost layers. random: the mean over every "
    "place where all were tuned, else the place that the seed draws. best place: the best mean of all places, chosen "
    "on these scores, so it flatters itself. regret: its mean less the arm's. Intervals: paired by seed, Student's t, "
    "95 %."
)
COSTS = (
    "time, FLOPs: of a run, over those of tuning all (training only; what lies below is computed once where the prefix "
    "cache was used). model: counting forward passes and gradients of blocks, without that cache."
)
_COLUMNS = (
    Column("method", "tuned", numeric=False), Column("count", "k"), Column("arm", "where", numeric=False),
    Column("placed", "layers", numeric=False), Column("metric", "metric", numeric=False), Column("n", "n"),
    Column("mean", "mean"), Column("sd", "sd"), Column("vs_top", "vs top"), Column("vs_top_low", "low"),
    Column("vs_top_high", "high"), Column("vs_top_n", "pairs"), Column("vs_all", "vs all"),
    Column("vs_all_low", "low"), Column("vs_all_high", "high"), Column("vs_all_n", "pairs"),
    Column("regret", "regret"), Column("time_share", "time"), Column("flops_share", "FLOPs"),
    Column("model_share", "model"), Column("parameters", "params"),
)  # fmt: skip


def layer_study_tables(records: Sequence[Record], selection: str = "last") -> dict[str, list[Table]]:
    """``tuned``: an arm a row; ``ranked``: how the measures rank the layers compared with tuning at them."""
    found = [tuned for tuned in tuned_layers(records, selection) if tuned.counts]
    if not found:
        return {"tuned": [], "ranked": []}
    settings = varying([tuned.first for tuned in found])
    settings = [key for key in settings if key != "layers"]
    rows = [row for tuned in found for row in _arm_rows(tuned, settings)]
    verdicts = dict.fromkeys(_verdict(record) for tuned in found for record in tuned.measures.values())
    table = Table(
        "Where layers are tuned", setting_columns(settings) + _COLUMNS, tuple(rows), (READING, COSTS, *verdicts)
    )
    ranked = ranked_table(found, settings)
    return {"tuned": [table], "ranked": [ranked] if ranked else []}


def _verdict(record: Record) -> str:
    facts, spec = record.result.facts, record.result.spec
    verdict = "recommended" if facts["layer"] else "not recommended"
    return f"{spec.task}, {facts['rows']['train']:,} rows: l* = {facts['best']}, {verdict}: {facts['reason']}"


def _arm_rows(tuned: Tuned, settings: Sequence[str]) -> list[dict[str, Any]]:
    about = {key: tuned.first.setting(key) for key in settings} | {"method": tuned.first.method}
    rows = []
    for count in tuned.counts:
        oracle = tuned.best_place(count)
        best = tuned.scores(tuned.same(oracle)) if oracle else {}
        arms: list[tuple[str, Mapping[int, Layers | None], Scores]] = []
        for rule in rules(count):
            placed: Mapping[int, Layers | None] = dict(tuned.placed(rule))
            if placed not in [known for _, known, _ in arms]:  # under the topmost layer both heads are one
                arms.append((arm_name(rule), placed, tuned.scores(placed)))
        arms.append(("top", tuned.same(places_of(count, tuned.blocks)[-1]), tuned.top(count)))
        arms.append(("random", {}, tuned.random(count)))
        if oracle:
            arms.append(("best place", tuned.same(oracle), best))
        rows += [about | {"count": count} | _row(tuned, *arm, best, count) for arm in arms if arm[2]]
    if scores := tuned.all():
        rows.append(about | {"count": tuned.blocks} | _row(tuned, "all", tuned.same(None), scores, {}, tuned.blocks))
    return rows


def arm_name(rule: LayerRule) -> str:
    """``l*-down``, or with a head that stays on top."""
    return f"l*-{rule.way}" + (", head on top" if rule.head == "top" else "")


def _row(
    tuned: Tuned, arm: str, placed: Mapping[int, Layers | None], scores: Scores, best: Scores, count: int
) -> dict[str, Any]:
    row: dict[str, Any] = {column.key: None for column in _COLUMNS if column.key not in ("method", "count")}
    row |= {"arm": arm, "metric": tuned.first.metric, "n": len(scores)}
    row |= {k: v for k, v in stats.summary(list(scores.values()))._asdict().items() if k in ("mean", "sd")}
    row["placed"] = ", ".join(dict.fromkeys(str(place or "all") for place in placed.values())) or None
    sizes = {place.top - place.bottom + 1 for place in placed.values() if place}
    topmost = {place.top == tuned.blocks for place in placed.values() if place} == {True}
    tops = {} if topmost or arm == "all" else tuned.top(sizes.pop() if len(sizes) == 1 else count)
    for key, other in (("vs_top", tops), ("vs_all", tuned.all() if arm != "all" else {})):
        pairs = stats.paired_difference(scores, other)
        if pairs:
            row |= {key: pairs.mean, f"{key}_low": pairs.low, f"{key}_high": pairs.high, f"{key}_n": pairs.n}
    if regret := stats.paired_difference(best, scores):
        row["regret"] = regret.mean * (-1.0 if tuned.first.lower_is_better else 1.0)
    return row | _costs(tuned, placed)


def _costs(tuned: Tuned, placed: Mapping[int, Layers | None]) -> dict[str, Any]:
    """Of the arm over those of tuning all; for people and for front pages."""
    every = tuned.cells.get("")
    cells = [cell for place in placed.values() if (cell := tuned.cells.get(tuned.text(place)))]
    if not cells:
        return {}
    costs = [record.cost for cell in cells for record in cell.ok]
    whole = [record.cost for record in every.ok] if every else []

    def share(name: str) -> float | None:
        own, all_ = (mean_of([float(getattr(cost, name)) for cost in side]) for side in (costs, whole))
        return own / all_ if own and all_ else None

    weights = not tuned.first.spec.tuning
    places = [place or Layers(1, tuned.blocks, tuned.blocks) for place in placed.values()]
    model = float(np.mean([cost_share(place, tuned.blocks, weights=weights) for place in places]))
    full = cost_share(Layers(1, tuned.blocks, tuned.blocks), tuned.blocks, weights=weights)
    return {
        "time_share": share("training_seconds"),
        "flops_share": share("flops"),
        "model_share": model / full,
        "parameters": mean_of([float(cost.trained_parameters) for cost in costs]),
    }


#: measures by layer -> whether lower is better
_MEASURES = {"nu": True, "ratio": True, "logme": False, "h_score": False, "vci": True, "cdnv": True, "probe": False}


def ranked_table(found: Sequence[Tuned], settings: Sequence[str]) -> Table | None:
    """Spearman of each measure with the score of tuning up to each layer; None where no layer was swept."""
    rows = []
    for tuned in found:
        for count in tuned.counts:
            scores = [np.nan if score is None else score for score in tuned.by_layer(count)]
            if np.isfinite(scores).sum() < 3:
                continue
            side = -1.0 if tuned.first.lower_is_better else 1.0
            record = next(iter(tuned.measures.values()))
            row = {key: tuned.first.setting(key) for key in settings}
            row |= {"method": tuned.first.method, "count": count, "layers_compared": int(np.isfinite(scores).sum())}
            for name, lower in _MEASURES.items():
                values = measured_by_layer(record, name)
                if values is not None:
                    row[f"rank_{name}"] = spearman((-1.0 if lower else 1.0) * values, side * np.array(scores))
            rows.append(row)
    if not rows:
        return None
    labels = {"nu": "nu", "ratio": "nu/shuf.", "logme": "LogME", "h_score": "H-score", "vci": "VCI", "cdnv": "CDNV"}
    columns = (
        Column("method", "tuned", numeric=False), Column("count", "k"), Column("layers_compared", "places"),
        *(Column(f"rank_{name}", label) for name, label in (labels | {"probe": "probe"}).items()),
    )  # fmt: skip
    note = (
        "Spearman: rank correlation, over places, of a measure (better is higher) with the mean score of tuning k "
        "layers up to that one with the head on it. Of five places chance gives 0.9 or more in 1 of 24 cases, of six "
        "0.83 or more in 1 of 60."
    )
    return Table("Do measures rank the places?", setting_columns(settings) + columns, tuple(rows), (note,))
