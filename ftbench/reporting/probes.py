"""Probe runs as tables: what is left in each encoder, by task, by layer, and by collapse metric."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ftbench.reporting.probed import PRETRAINED, RANDOM, Probed, group, kept, recipe_text, reference
from ftbench.types import Column, Record, Table

#: shown beside the probe; all of them are in the JSON and in ``collapse``
SHOWN = ("effective_rank", "anisotropy", "cka", "ridge_r2")
LAYERS = 12
NOTES = (
    "score: linear probe on the top layer of the frozen encoder, fitted on rows of the task; mean over seeds.",
    "kept: share of the pretrained encoder's lead over a random one that is left; above 1 where tuning helped, "
    "empty where there is no such lead.",
    "select.: score minus that of probes fitted on shuffled labels. Collapse metrics are of the top layer.",
)
BETWEEN = (
    "means over the pairs of seeds, top layer, validation rows. CKA 1: the same features up to rotation and scale. "
    "disagree: share of rows for which the probes of two seeds say different things."
)


def probe_tables(records: Sequence[Record], tuned: Iterable[Record] = ()) -> dict[str, Table | None]:
    """``probe``: the top layer; ``layers``: the score of every layer; ``collapse``: every metric of every layer.

    tuned: runs that left the encoders, as far as they are known; see ``probed.group``
    """
    sets = group(records, tuned)
    return {"probe": _top(sets), "layers": _by_layer(sets), "collapse": _metrics(sets)}


def _names(one: Probed, beside: Sequence[Probed]) -> dict[str, Any]:
    return {
        "task": one.spec.task,
        "pooling": one.spec.pooling,
        "encoder": one.encoder,
        "method": None if one.is_reference else one.spec.method,
        "recipe": recipe_text(one, beside),
        "style": "reference" if one.is_reference else "",
    }


def _name_columns(sets: Sequence[Sequence[Probed]]) -> tuple[Column, ...]:
    left_out = set()
    if len({one.spec.pooling for found in sets for one in found}) < 2:
        left_out.add("pooling")
    if not any(recipe_text(one, found) for found in sets for one in found):
        left_out.add("recipe")
    keys = {"task": "probed", "pooling": "pooling", "encoder": "tuned on", "method": "method", "recipe": "recipe"}
    return tuple(Column(key, label, numeric=False) for key, label in keys.items() if key not in left_out)


def _top(sets: Sequence[Sequence[Probed]]) -> Table | None:
    rows = []
    for found in sets:
        ends = {name: _score(reference(found, name)) for name in (PRETRAINED, RANDOM)}
        for one in found:
            score, values = _score(one), one.values(one.metric, one.layers)
            control = one.mean(one.metric, one.layers, "control")
            row = {
                **_names(one, found),
                "metric": one.metric,
                "n": len(values),
                "failed": len(one.records) - len(one.ok),
            }
            row |= {"score": score, "sd": statistics.stdev(values) if len(values) > 1 else None}
            row |= {"kept": kept(score, ends[PRETRAINED], ends[RANDOM], one.side)}
            row |= {"selectivity": None if score is None or control is None else one.side * (score - control)}
            row |= {name: one.mean(name, one.layers, "collapse") for name in SHOWN}
            row |= {"perplexity": one.perplexity}
            rows.append(row)
    if not rows:
        return None
    columns = (
        *_name_columns(sets),
        Column("metric", "metric", numeric=False),
        Column("n", "n"),
        *([Column("failed", "fail")] if any(row["failed"] for row in rows) else []),
        Column("score", "score"),
        Column("sd", "sd"),
        Column("kept", "kept"),
        Column("selectivity", "select."),
        Column("effective_rank", "erank"),
        Column("anisotropy", "anis."),
        Column("cka", "CKA"),
        Column("ridge_r2", "R2"),
        *([Column("perplexity", "ppl")] if any(row["perplexity"] is not None for row in rows) else []),
    )
    return Table("What is left in the encoder", columns, tuple(rows), (*NOTES, *_left_out(sets)))


def _left_out(sets: Sequence[Sequence[Probed]]) -> list[str]:
    """A line for each task with too few validation rows for some collapse metric."""
    found = {one.spec.task: one.ok[0].result.facts for some in sets for one in some if one.ok}
    return [
        f"{task}: {', '.join(facts['left_out'])} left out, which need more than its {facts['rows']['validation']} "
        "validation rows, or more width than there is."
        for task, facts in found.items()
        if facts.get("left_out")
    ]


def _score(one: Probed | None) -> float | None:
    return one.mean(one.metric, one.layers) if one else None


def _by_layer(sets: Sequence[Sequence[Probed]]) -> Table | None:
    deepest = max((one.layers for found in sets for one in found), default=0)
    if not deepest:
        return None
    step = max(1, -(-deepest // LAYERS))
    shown = [*range(deepest, 0, -step)][::-1]
    rows = [
        {**_names(one, found), **{f"layer_{layer}": one.mean(one.metric, layer) for layer in shown}}
        for found in sets
        for one in found
    ]
    columns = (*_name_columns(sets), *(Column(f"layer_{layer}", f"L{layer}") for layer in shown))
    return Table("Probe score by layer", columns, tuple(rows))


def _metrics(sets: Sequence[Sequence[Probed]]) -> Table | None:
    """Long: a row for each encoder, layer and metric. For scripts and figures."""
    rows: list[Mapping[str, Any]] = []
    for one, found in ((one, beside) for beside in sets for one in beside if one.ok):
        for layer in range(1, one.layers + 1):
            names = sorted({name for r in one.ok for name in r.result.metrics[f"layer {layer}"].get("collapse", {})})
            rows += [
                {**_names(one, found), "layer": layer, "metric": name, "value": one.mean(name, layer, "collapse")}
                for name in names
            ]
    columns = (*_name_columns(sets), Column("layer", "layer"), Column("metric", "metric", numeric=False))
    return Table("Collapse metrics", (*columns, Column("value", "value")), tuple(rows)) if rows else None


def between_table(records: Sequence[Record], agreement: Callable[[Sequence[Record]], Any]) -> Table | None:
    """A row for each arm with several seeds; ``agreement``: see ``runs.between``, None for an arm without one."""
    sets = group(records)
    rows = [
        {**_names(one, found), **agreed._asdict()} for found in sets for one in found if (agreed := agreement(one.ok))
    ]
    columns = (
        *_name_columns(sets),
        Column("pairs", "pairs"),
        Column("cka", "CKA"),
        Column("disagreement", "disagree"),
    )
    return Table("Between seeds", columns, tuple(rows), (BETWEEN,)) if rows else None
