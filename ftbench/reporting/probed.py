"""Probe runs as they are averaged: one encoder's arm on one task, beside the others on the same rows."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ftbench.reporting.cells import RECIPE_AXES, canonical
from ftbench.types import Record, RunSpec

PRETRAINED, RANDOM = "pretrained", "random"
#: stands between the tasks that an encoder was tuned on
THEN = ">"
#: of the run that tuned an encoder: a probe's own spec has neither
_TUNING = {"train_size": "train", "label_noise": "noise", **RECIPE_AXES}


@dataclass(frozen=True)
class Probed:
    """Probe runs of one encoder's arm on one task: they differ in nothing but the seed.

    recipe: settings of the run that tuned the encoder, where that run is known
    """

    records: tuple[Record, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)

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

    @property
    def side(self) -> float:
        """1 where a higher score is better, else -1."""
        return -1.0 if any(record.result.facts.get("lower_is_better") for record in self.ok) else 1.0

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


def group(records: Sequence[Record], tuned: Iterable[Record] = ()) -> list[list[Probed]]:
    """Probes of the same rows, model and settings together: the random encoder, the pretrained one, then the others.

    tuned: runs among which those are found that left the encoders. A probe's spec says of its encoder the tasks, the
    method and the run, but not the recipe: encoders of several recipes stand apart.
    """
    recipes = {record.result.spec.id: _recipe(record.result.spec) for record in tuned}
    sets: dict[tuple[Any, ...], list[Probed]] = {}
    for runs, recipe in _arms(records, recipes):
        spec = runs[0].result.spec
        sets.setdefault((*replace(spec, encoder="").rows_key(), spec.pooling, spec.repeats), []).append(
            Probed(tuple(runs), recipe)
        )
    order = {RANDOM: 0, PRETRAINED: 1}
    return [
        sorted(found, key=lambda one: (order.get(one.encoder, 2) if one.is_reference else 2, one.encoder.count(THEN)))
        for found in sets.values()
    ]


def _recipe(spec: RunSpec) -> dict[str, Any]:
    return {key: getattr(spec, key) for key in _TUNING}


def _arms(
    records: Sequence[Record], recipes: Mapping[str, Mapping[str, Any]]
) -> Iterable[tuple[list[Record], Mapping[str, Any]]]:
    """Runs that are averaged, and their recipe. Of two encoders with one seed and no known recipe each is its own."""
    arms: dict[str, list[Record]] = {}
    for record in records:
        spec = record.result.spec
        known = [recipes.get(parent) for parent in spec.parents]
        arms.setdefault(canonical([spec.arm(), spec.method, known]), []).append(record)
    for runs in arms.values():
        parents = runs[0].result.spec.parents
        recipe = recipes.get(parents[0], {}) if parents else {}
        if not parents or len({(r.result.spec.seed, r.result.spec.data_seed) for r in runs}) == len(runs):
            yield runs, recipe
            continue
        for run in runs:
            yield [run], {**recipe, "run": run.result.spec.parents[0][:6]}


def recipe_text(one: Probed, beside: Iterable[Probed]) -> str:
    """``lr 5e-05``: what tells its recipe from those of the others; empty where nothing does."""
    others = [other.recipe for other in beside if other.recipe]
    keys = [key for key in ("run", *_TUNING) if len({other.get(key) for other in others}) > 1]
    values = ((_TUNING.get(key, key), one.recipe.get(key)) for key in keys if one.recipe)
    return ", ".join(f"{label} {v:g}" if isinstance(v, float) else f"{label} {'all' if v is None else v}"
                     for label, v in values)  # fmt: skip


def kept(score: float | None, pretrained: float | None, random: float | None, side: float = 1.0) -> float | None:
    """(score - random) / (pretrained - random); None where the pretrained encoder has no lead of which to keep a share.

    side: -1 where a lower score is better
    """
    if score is None or pretrained is None or random is None or side * (pretrained - random) <= 0:
        return None
    return (score - random) / (pretrained - random)


def reference(found: Sequence[Probed], name: str) -> Probed | None:
    """The random or the pretrained encoder of a set."""
    return next((one for one in found if one.is_reference and one.encoder == name), None)
