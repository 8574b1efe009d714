"""Runs of ``ftbench variability`` as tables: nu by layer with its floor, its companions, and what subsets do to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ftbench.types import Column, Record, Result, Table

_NU = {
    "nu": "nu", "nu_bar": "", "floor": "shuffled", "floor_sd": "s.d.", "ratio": "nu/shuf.", "participation": "PR",
    "rank": "rank", "condition": "s1/sr", "chosen_share": "chosen",
}  # fmt: skip
_COMPANIONS = {
    "probe": "probe", "nu": "nu", "ratio": "nu/shuf.", "vci": "VCI", "cdnv": "CDNV", "h_score": "H-score",
    "logme": "LogME", "effective_rank": "eff. rank", "anisotropy": "anisotr.", "cka_next": "CKA next",
}  # fmt: skip
_SETTINGS = (
    "task", "model", "train_size", "imbalance", "label_noise", "limit", "pooling", "bins", "weighting", "dtype",
    "max_length", "data_seed", "seed", "data", "weights",
)  # fmt: skip
_SUBSETS = {
    "rows": "rows", "imbalance": "imbal.", "label_noise": "noise", "data_seed": "draw", "spearman": "Spearman",
    "best": "l*", "drift": "drift", "best_ratio": "l* ratio", "p_value": "p",
}  # fmt: skip
#: what the poolings are called
_TOKENS = {
    "ordinary": "mean of the ordinary tokens", "mean": "mean of all tokens, special ones too",
    "cls": "the token that the head reads", "last": "the last token",
}  # fmt: skip
READING = (
    "lower nu: the layer separates the classes better, if it lies below nu of shuffled labels; 'chosen' is the share "
    "of resamples in which the layer has the lowest nu"
)


def layer_tables(records: Sequence[Record]) -> list[Table]:
    """For people: two tables for each finished run, nu with its floor, and its companions."""
    tables = []
    for record in records:
        result = record.result
        rows = _rows(result)
        if result.facts["headline"] == "nu":
            best = result.facts["layer"]
            shown = [{**row, "mark": _mark(row["layer"], result.facts)} for row in rows]
            several = any(row["rank"] > 1 for row in rows)  # two classes: one direction
            names = {k: label for k, label in _NU.items() if several or k not in ("rank", "condition")}
            columns = (*_columns({"layer": "layer", **names}, rows), Column("mark", "", numeric=False))
            styled = tuple({**row, "style": "best"} if row["layer"] == best else row for row in shown)
            tables.append(Table(_title(result), columns, styled, tuple(_notes(record))))
        tables.append(_companions(result, rows))
    return tables


def layers_table(records: Sequence[Record]) -> Table:
    """For scripts: a row for each run and layer, with every setting and every measure."""
    settings = tuple(Column(name, name, numeric=False) for name in _SETTINGS)
    every = [{**_settings(r.result), **row} for r in records for row in _rows(r.result)]
    names = {"layer": "layer", **_NU, **_COMPANIONS, "signal": "signal"}
    found = {key: label for key, label in names.items() if any(row.get(key) is not None for row in every)}
    verdict = (Column("verdict", "verdict", numeric=False), Column("recommended", "recommended"))
    return Table("Measures by layer", settings + _columns(found, every) + verdict, tuple(every))


def subsets_table(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """What fewer, less balanced or noisier rows do to the curve; None without subsets."""
    if not rows:
        return None
    names = ["task", *(["model"] if len({row["model"] for row in rows}) > 1 else [])]
    axes = ("imbalance", "label_noise", "data_seed")
    varying = {k: label for k, label in _SUBSETS.items() if k not in axes or len({row[k] for row in rows}) > 1}
    columns = (
        *(Column(name, name, numeric=False) for name in names),
        *_columns(varying, rows),
        Column("outcome", "verdict", numeric=False),
    )
    notes = (
        "Spearman: of nu by layer with the curve of the full set; drift: layers from the full set's l* up to this "
        "one's; l* ratio: lowest nu over nu of shuffled labels; p: of the floor, see the verdict",
    )
    return Table("Subsets against the full set", columns, tuple(rows), notes)


def _rows(result: Result) -> list[dict[str, Any]]:
    """A row for each layer, from 1."""
    layers = [
        {name: value if value is not None and math.isfinite(value) else None for name, value in found["train"].items()}
        for found in (result.metrics[f"layer {n}"] for n in range(1, result.facts["layers"] + 1))
    ]
    largest = max((value for found in layers if (value := found.get("nu")) is not None), default=None)
    rows = []
    for number, measured in enumerate(layers, start=1):
        row: dict[str, Any] = {"layer": number, **measured}
        if "nu" in measured:  # infinite (None): a full bar
            row["nu_bar"] = 1.0 if measured["nu"] is None or not largest else measured["nu"] / largest
            row["rank"] = int(measured["rank"] or 0)
        row |= {"verdict": result.facts["verdict"], "recommended": result.facts.get("layer") == number}
        rows.append(row)
    return rows


def _columns(names: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Those of the columns that some row has a value for."""
    return tuple(
        Column(k, label, numeric=k != "nu_bar")
        for k, label in names.items()
        if any(row.get(k) is not None for row in rows)
    )


def _companions(result: Result, rows: Sequence[dict[str, Any]]) -> Table:
    columns = (Column("layer", "layer", numeric=False), *_columns(_COMPANIONS, rows))
    correlation = result.facts.get("spearman")
    notes = ["better: VCI, CDNV low, H-score, LogME high; effective rank, anisotropy and CKA have no better side"]
    if result.facts["rows"]["train"] <= result.facts["width"]:
        notes.append(f"no more rows than states are wide ({result.facts['width']}): VCI and LogME say little")
    shown: list[dict[str, Any]] = list(rows)
    if correlation:
        rounded = {name: None if value is None else round(value, 2) for name, value in correlation.items()}
        shown.append({"layer": "Spearman", **rounded, "style": "reference"})
        notes.append(
            f"probe: {result.facts['probe']}, linear, mean over five held-out fifths of the rows; Spearman: rank "
            "correlation with it, 1 where a measure ranks layers as the probe does"
        )
    return Table(f"{_about(result)}: companions of nu", columns, tuple(shown), tuple(notes))


def _settings(result: Result) -> dict[str, Any]:
    return {name: getattr(result.spec, name) for name in _SETTINGS}


def _title(result: Result) -> str:
    return f"{_about(result)}: hidden-state variability nu"


def _about(result: Result) -> str:
    """``sst2, minilm, 4,000 rows``, and what was done to the rows."""
    spec = result.spec
    done = [
        *([f"imbalance {spec.imbalance:g}"] if spec.imbalance is not None else []),
        *([f"label noise {spec.label_noise:g}"] if spec.label_noise else []),
        *([f"draw {spec.data_seed}"] if spec.data_seed else []),
    ]
    return ", ".join([spec.task, spec.model, f"{result.facts['rows']['train']:,} rows", *done])


def _mark(layer: int, facts: Mapping[str, Any]) -> str:
    if facts["layer"] == layer:
        return "recommended"
    both = facts["best"] == facts["best_ratio"]
    marks = {facts["best_ratio"]: "lowest ratio", facts["best"]: "lowest of both" if both else "lowest nu"}
    return marks.get(layer, "")


def _notes(record: Record) -> list[str]:
    spec, facts, cost = record.result.spec, record.result.facts, record.cost
    verdict = "recommended" if facts["verdict"] == "recommended" else "no layer is recommended"
    notes = [f"{verdict}: {facts['reason']}", READING]
    sizes = ", ".join(f"{name} {n:,}" for name, n in list(facts["classes"].items())[:10])
    more = f" and {len(facts['classes']) - 10} more" if len(facts["classes"]) > 10 else ""
    notes.append(f"classes: {sizes}{more}; they weigh {'equally' if spec.weighting == 'class' else 'by their rows'}")
    if facts["dropped"]:
        notes.append(f"left out, a single row: {', '.join(facts['dropped'][:10])}")
    if spec.bins:
        notes.append(f"{len(facts['classes'])} classes made from quantiles of the numbers: ours, not the paper's")
    notes.append(
        f"a text is the {_TOKENS[spec.pooling]}; texts cut at {spec.max_length}: {facts['truncated']['train']:,}"
    )
    notes.append(
        f"l* = {facts['best']}, the middle 95 % of {spec.resamples} resamples from {facts['low']} to {facts['high']}; "
        f"floor from {spec.permutations} permutations"
    )
    notes.append(f"cost: the pass {cost.wall_seconds:.1f} s, all measures {cost.evaluate_seconds:.1f} s")
    return notes
