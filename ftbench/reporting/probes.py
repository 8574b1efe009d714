"""Probe runs as tables: what is left in each encoder, by task, by layer, and by collapse metric."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ftbench.reporting.cells import LABELS, RECIPE_AXES, ROW_AXES, VERSIONS, canonical
from ftbench.reporting.select import field_of
from ftbench.runs.store import beside
from ftbench.types import Column, Record, RunSpec, Table

PRETRAINED, RANDOM = "pretrained", "random"
#: shown beside the probe; all of them are in the JSON and in ``collapse``
SHOWN = ("effective_rank", "anisotropy", "cka", "ridge_r2")
LAYERS = 12
#: how an encoder was tuned; a column each where encoders of one name differ in it
TUNED = tuple(key for key in (*ROW_AXES, *RECIPE_AXES, *VERSIONS) if key not in ("model", "encoder"))
NOTES = (
    "score: linear probe on the top layer of the frozen encoder, fitted on rows of the task; mean over seeds.",
    "kept: share of the pretrained encoder's lead over a random one that is left; above 100 % where tuning helped.",
    "select.: score minus that of probes fitted on shuffled labels. Collapse metrics are of the top layer.",
)
BETWEEN = (
    "means over the pairs of seeds, top layer, validation rows. CKA 1: the same features up to rotation and scale. "
    "disagree: share of rows for which the probes of two seeds say different things."
)


@dataclass(frozen=True)
class Probed:
    """Probe runs of one encoder's arm on one task: they differ in nothing but the seed.

    tuning: the runs that made the encoder of the first of them, the last one first, as far as they are known
    """

    records: tuple[Record, ...]
    tuning: tuple[Record, ...] = ()

    @property
    def spec(self) -> RunSpec:
        return self.records[0].result.spec

    @cached_property
    def ok(self) -> tuple[Record, ...]:
        """The finished runs."""
        return tuple(record for record in self.records if record.result.status == "ok")

    @property
    def layers(self) -> int:
        return max((record.result.facts["layers"] for record in self.ok), default=0)

    @property
    def metric(self) -> str:
        return str(self.ok[0].result.facts["headline"]) if self.ok else ""

    @property
    def encoder(self) -> str:
        """What the encoder was tuned on, ``random`` or ``pretrained``."""
        return self.spec.encoder or PRETRAINED

    @property
    def is_reference(self) -> bool:
        return not self.spec.parents

    def tuned(self, key: str) -> str:
        """A setting that the encoder was tuned with; in the order of the tasks where it changed on the way."""
        found = [field_of(record, key) for record in reversed(self.tuning)]
        values = ["all" if value is None else str(value) for value in found]
        return values[0] if len(set(values)) == 1 else ">".join(values)

    @property
    def perplexity(self) -> float | None:
        """Of the texts, where the checkpoint has a language-model head; mean over the runs."""
        found = [record.result.score("perplexity", split="language") for record in self.ok]
        values = [value for value in found if value is not None]
        return statistics.fmean(values) if values else None

    def values(self, metric: str, layer: int, split: str = "validation") -> list[float]:
        """One number of each run, at a layer from 1."""
        found = [record.result.score(metric, f"layer {layer}", split) for record in self.ok]
        return [value for value in found if value is not None]

    def mean(self, metric: str, layer: int, split: str = "validation") -> float | None:
        """Over the runs; None without any."""
        values = self.values(metric, layer, split)
        return statistics.fmean(values) if values else None


def group(records: Sequence[Record]) -> list[list[Probed]]:
    """Probes of the same rows, model and settings together: the random encoder, the pretrained one, then the others.

    Probes are averaged where their encoders were tuned alike: the runs that tuned them are looked for among
    ``records`` and beside them in the store. Where they are gone, encoders are told apart by tasks and methods alone.
    """
    known: dict[str, Record | None] = {record.result.spec.id: record for record in records}
    arms: dict[str, list[tuple[Record, tuple[Record, ...]]]] = {}
    for record in (record for record in records if record.result.spec.kind == "probe"):
        tuning = _tuning(record, known)
        alike = canonical([one.result.spec.arm() for one in (record, *tuning)])
        arms.setdefault(alike, []).append((record, tuning))
    sets: dict[tuple[Any, ...], list[Probed]] = {}
    for runs in arms.values():
        probed = Probed(tuple(record for record, _ in runs), runs[0][1])
        key = (*probed.spec.rows_key()[:-1], probed.spec.pooling, probed.spec.repeats)
        sets.setdefault(key, []).append(probed)
    order = {RANDOM: 0, PRETRAINED: 1}
    return [
        sorted(found, key=lambda one: (order.get(one.encoder, 2) if one.is_reference else 2, one.encoder.count(">")))
        for found in sets.values()
    ]


def _tuning(record: Record, known: dict[str, Record | None]) -> tuple[Record, ...]:
    """The runs that an encoder went through, the last one first, as far as they are there; ``known`` is added to."""
    for parent in record.result.spec.parents:
        if parent not in known:
            known[parent] = beside(record, parent)
        if found := known[parent]:
            return (found, *_tuning(found, known))
    return ()


def differing(sets: Sequence[Sequence[Probed]]) -> list[str]:
    """Of ``TUNED``, what tells encoders apart that were tuned on the same tasks with the same method."""
    found: set[str] = set()
    for probed in sets:
        alike: dict[tuple[str, str], list[Probed]] = {}
        for one in (one for one in probed if one.tuning):
            alike.setdefault((one.encoder, one.spec.method), []).append(one)
        found |= {key for some in alike.values() for key in TUNED if len({one.tuned(key) for one in some}) > 1}
    return [key for key in TUNED if key in found]


def probe_tables(records: Sequence[Record]) -> dict[str, Table | None]:
    """``probe``: the top layer; ``layers``: the score of every layer; ``collapse``: every metric of every layer."""
    sets = group(records)
    return {"probe": _top(sets), "layers": _by_layer(sets), "collapse": _metrics(sets)}


def kept(score: float | None, pretrained: float | None, random: float | None) -> float | None:
    """(score - random) / (pretrained - random); None where the pretrained encoder leads by nothing."""
    if score is None or pretrained is None or random is None or pretrained == random:
        return None
    return (score - random) / (pretrained - random)


def reference(found: Sequence[Probed], name: str) -> Probed | None:
    """The random or the pretrained encoder of a set."""
    return next((one for one in found if one.is_reference and one.encoder == name), None)


def _names(one: Probed) -> dict[str, Any]:
    return {
        "task": one.spec.task,
        "pooling": one.spec.pooling,
        "encoder": one.encoder,
        "method": None if one.is_reference else one.spec.method,
        **{f"tuned_{key}": one.tuned(key) for key in (TUNED if one.tuning else ())},
        "style": "reference" if one.is_reference else "",
    }


def _name_columns(sets: Sequence[Sequence[Probed]]) -> tuple[Column, ...]:
    poolings = {one.spec.pooling for found in sets for one in found}
    keys = {"task": "probed", "pooling": "pooling", "encoder": "tuned on", "method": "method"}
    keys |= {f"tuned_{key}": LABELS[key] for key in differing(sets)}
    return tuple(
        Column(key, label, numeric=False) for key, label in keys.items() if key != "pooling" or len(poolings) > 1
    )


def _top(sets: Sequence[Sequence[Probed]]) -> Table | None:
    rows = []
    for found in sets:
        ends = {name: _score(reference(found, name)) for name in (PRETRAINED, RANDOM)}
        for one in found:
            score, values = _score(one), one.values(one.metric, one.layers)
            control = one.mean(one.metric, one.layers, "control")
            row = {**_names(one), "metric": one.metric, "n": len(values), "failed": len(one.records) - len(one.ok)}
            row |= {"score": score, "sd": statistics.stdev(values) if len(values) > 1 else None}
            row |= {"kept": kept(score, ends[PRETRAINED], ends[RANDOM])}
            row |= {"selectivity": None if score is None or control is None else score - control}
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
        {**_names(one), **{f"layer_{layer}": one.mean(one.metric, layer) for layer in shown}}
        for found in sets
        for one in found
    ]
    columns = (*_name_columns(sets), *(Column(f"layer_{layer}", f"L{layer}") for layer in shown))
    return Table("Probe score by layer", columns, tuple(rows))


def _metrics(sets: Sequence[Sequence[Probed]]) -> Table | None:
    """Long: a row for each encoder, layer and metric. For scripts and figures."""
    rows: list[Mapping[str, Any]] = []
    for one in (one for found in sets for one in found if one.ok):
        for layer in range(1, one.layers + 1):
            names = sorted({name for r in one.ok for name in r.result.metrics[f"layer {layer}"].get("collapse", {})})
            rows += [
                {**_names(one), "layer": layer, "metric": name, "value": one.mean(name, layer, "collapse")}
                for name in names
            ]
    columns = (*_name_columns(sets), Column("layer", "layer"), Column("metric", "metric", numeric=False))
    return Table("Collapse metrics", (*columns, Column("value", "value")), tuple(rows)) if rows else None


def between_table(records: Sequence[Record], agreement: Callable[[Sequence[Record]], Any]) -> Table | None:
    """A row for each arm with several seeds; ``agreement``: see ``runs.between``."""
    arms = [one for found in group(records) for one in found if len(one.ok) > 1]
    rows = [{**_names(one), **agreement(one.ok)._asdict()} for one in arms]
    columns = (
        *_name_columns([arms]),
        Column("pairs", "pairs"),
        Column("cka", "CKA"),
        Column("disagreement", "disagree"),
    )
    return Table("Between seeds", columns, tuple(rows), (BETWEEN,)) if rows else None
