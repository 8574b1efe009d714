"""Runs that tuned some layers, together with what was measured of the layers on the same rows.

Nothing here needs to know how the runs were asked for. Runs that differ in their layers and seeds only belong
together; a ``variability`` run on the same rows says where l* lies, and so which of them are l*-down, l*-up, as many
top layers, a random place and the best place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ftbench.reporting.cells import Cell, canonical, to_cells, unique
from ftbench.types import Record, RunSpec
from ftbench.types.layers import LayerRule, Layers, places_of, random_place

Scores = dict[tuple[int, int], float]


@dataclass(frozen=True)
class Tuned:
    """Runs of one way to tune, one recipe and one set of rows, by their layers as text (empty: all).

    measures: data seed -> the run that measured the layers on the rows of that draw
    """

    cells: Mapping[str, Cell]
    measures: Mapping[int, Record]

    @cached_property
    def first(self) -> Cell:
        return next(iter(self.cells.values()))

    @property
    def blocks(self) -> int:
        return int(next(iter(self.measures.values())).result.facts["layers"])

    @cached_property
    def counts(self) -> list[int]:
        """The numbers of layers for which the topmost ones were tuned."""
        return [k for k in range(1, self.blocks) if self.text(places_of(k, self.blocks)[-1]) in self.cells]

    def text(self, layers: Layers | None) -> str:
        """As RunSpec has them."""
        return "" if layers in (None, Layers(1, self.blocks, self.blocks)) else str(layers)

    def placed(self, rule: LayerRule) -> dict[int, Layers]:
        """For each draw the layers that the rule gives, where it gives some."""
        found = {seed: rule.place(record.result.facts["best"], self.blocks) for seed, record in self.measures.items()}
        return {seed: layers for seed, layers in found.items() if layers is not None}

    def scores(self, layers: Mapping[int, Layers | None]) -> Scores:
        """Of the runs with these layers in each draw."""
        found: Scores = {}
        for draw, place in layers.items():
            cell = self.cells.get(self.text(place))
            found |= {key: score for key, score in (cell.scores if cell else {}).items() if key[0] == draw}
        return found

    def same(self, layers: Layers | None) -> dict[int, Layers | None]:
        """These layers in every draw."""
        return dict.fromkeys(self.measures, layers)

    def places(self, count: int) -> list[Layers]:
        """See ``places_of``."""
        return places_of(count, self.blocks)

    def top(self, count: int) -> Scores:
        """Of the runs that tuned so many topmost layers."""
        return self.scores(self.same(places_of(count, self.blocks)[-1]))

    def all(self) -> Scores:
        """Of the runs that tuned everything."""
        return self.scores(self.same(None))

    def random(self, count: int) -> Scores:
        """See ``READING``."""
        places = places_of(count, self.blocks)
        each = [self.scores(self.same(place)) for place in places]
        found: Scores = {}
        for key in sorted({key for scores in each for key in scores}):
            drawn = places.index(random_place(count, self.blocks, key[1]))
            if all(key in scores for scores in each):
                found[key] = float(np.mean([scores[key] for scores in each]))
            elif key in each[drawn]:
                found[key] = each[drawn][key]
        return found

    def best_place(self, count: int) -> Layers | None:
        """The place with the best mean; None unless every place was tuned."""
        places = places_of(count, self.blocks)
        each = [self.scores(self.same(place)) for place in places]
        if not all(each):
            return None
        side = -1.0 if self.first.lower_is_better else 1.0
        return places[int(np.argmax([side * np.mean(list(scores.values())) for scores in each]))]

    def by_layer(self, count: int) -> list[float | None]:
        """The mean score for each layer as the topmost of ``count`` tuned ones with the head on it, lowest first; None
        where it was not tuned, or has fewer layers below it."""
        places = {place.top: self.scores(self.same(place)) for place in places_of(count, self.blocks)}
        scored = (places.get(layer) for layer in range(1, self.blocks + 1))
        return [float(np.mean(list(scores.values()))) if scores else None for scores in scored]


def tuned_layers(records: Sequence[Record], selection: str = "last") -> list[Tuned]:
    """Runs that belong together, with their measures; without those whose rows were not measured."""
    runs = unique(records)
    arms, _ = to_cells(runs, selection)
    measures: dict[str, dict[int, Record]] = {}
    for record in runs.apart:
        spec = record.result.spec
        if spec.kind == "variability" and record.result.status == "ok" and record.result.facts.get("best"):
            measures.setdefault(_rows(spec), {}).setdefault(spec.data_seed, record)
    together: dict[tuple[str, str], dict[str, Cell]] = {}
    whole: dict[str, Cell] = {}
    for cell in (cell for cell in arms if cell.scores):
        arm = {key: value for key, value in cell.spec.arm().items() if key != "layers"}
        if cell.spec.layers:
            together.setdefault((_rows(cell.spec), canonical(arm)), {})[cell.spec.layers] = cell
        else:
            whole[canonical(arm)] = cell
    found = []
    for (rows, alike), cells in together.items():
        # where all is tuned nothing is frozen
        full = whole.get(canonical({k: v for k, v in json.loads(alike).items() if k != "frozen_dropout"}))
        if rows in measures:
            found.append(Tuned(cells | ({"": full} if full else {}), measures[rows]))
    return found


def _rows(spec: RunSpec) -> str:
    """What a run and the measure of its rows share; the measure may be of fewer rows."""
    shared = (
        spec.task, spec.data, spec.weights, spec.train_size, spec.label_noise, spec.imbalance, spec.select_on,
        spec.max_length, spec.encoder,
    )  # fmt: skip
    return canonical(shared)


def measured_by_layer(record: Record, name: str) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """A measure of every layer, lowest first; infinite where nu is null in the store. None where it was not taken."""
    layers = [record.result.metrics[f"layer {n}"]["train"] for n in range(1, record.result.facts["layers"] + 1)]
    if name not in layers[0]:
        return None
    return np.array([np.inf if layer[name] is None else layer[name] for layer in layers], dtype=np.float64)


def spearman(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float | None:
    """Rank correlation of two curves, equal values sharing their rank; without the layers that one of them lacks (NaN).
    None for fewer than three, and for a constant curve."""
    from scipy.stats import rankdata

    both = ~(np.isnan(a) | np.isnan(b))
    ranks, others = rankdata(a[both]), rankdata(b[both])
    if len(ranks) < 3 or np.ptp(ranks) == 0 or np.ptp(others) == 0:
        return None
    return float(np.corrcoef(ranks, others)[0, 1])
