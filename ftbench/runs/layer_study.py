"""``ftbench variability --study``: does it pay to tune where nu says? In stages, resumable, and no torch here.

    measure  nu and its companions on the training rows, beside the references                       (first stage)
    places   what asks nothing of nu: every block; the topmost k; k blocks at every place, with the
             head on them, among which the best is the oracle                                       (second stage)
    chosen   l*-down and l*-up with k blocks, the head near or on top, and as many top layers where
             fewer than k lie there                                                                  (third stage)

l* = argmin nu, the paper's rule, whatever the verdict on it; the verdict stands beside. Every arm has the same recipe,
rows and seeds, and is tuned by each way that is asked for. ``reporting.layer_study`` reads the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ftbench.errors import UsageError
from ftbench.runs.auto import measure_of, provisional
from ftbench.runs.stages import Point, Request, Stage, plan, points, references
from ftbench.types import Record, RunSpec
from ftbench.types.layers import places_of, random_place, rules


@dataclass(frozen=True)
class LayerStudy:
    """request: rows, models, ways to tune as arms, seeds, recipe; its layers come from the stages.

    budgets: how many blocks are tuned; oracle: at every place, too. Raises UsageError for budgets that a model lacks.
    """

    request: Request
    budgets: Sequence[int]
    oracle: bool = True

    def __post_init__(self) -> None:
        for model in self.request.models:
            for count in self.budgets:
                if not 1 <= count < max(2, model.blocks):
                    raise UsageError(
                        f"--budgets {count}: model '{model.name}' has {model.blocks} blocks; expected 1 to "
                        f"{max(1, model.blocks - 1)}, fewer than all"
                    )

    def stages(self) -> list[Stage]:
        """Raises UsageError for a task that has no classes."""
        parts = [(point, seed) for seed in self.request.data_seeds for point in points(self.request)]
        measures = {(i, seed): self._measure(point, seed) for i, (point, seed) in enumerate(parts)}
        first = [*references(provisional(self.request)), *{spec.id: spec for spec in measures.values()}.values()]

        def chosen(records: Sequence[Record]) -> list[RunSpec]:
            done = {r.result.spec.id: r for r in records if r.result.status == "ok"}
            found = [
                (point, seed, done[measures[i, seed].id].result.facts["best"])
                for i, (point, seed) in enumerate(parts)
                if measures[i, seed].id in done
            ]
            specs = [spec for point, seed, best in found for spec in self._runs(point, seed, self._chosen(point, best))]
            return sorted(specs, key=lambda spec: (spec.data_seed, spec.seed))

        def places(records: Sequence[Record]) -> list[RunSpec]:
            specs = [spec for point, seed in parts for spec in self._runs(point, seed, self._places(point))]
            specs += [spec for point, seed in parts for spec in self._drawn(point, seed)]
            specs = list({spec.id: spec for spec in specs}.values())
            return sorted(specs, key=lambda spec: (spec.data_seed, spec.seed))  # complete pairs, if interrupted

        return [lambda records: first, places, chosen]

    def _measure(self, point: Point, data_seed: int) -> RunSpec:
        """With the probe, which claims are about."""
        return replace(measure_of(self.request, point, data_seed), probe=True)

    def _runs(self, point: Point, data_seed: int, layers: Sequence[str]) -> list[RunSpec]:
        data, model, values = point
        axes = {**{name: [value] for name, value in values.items()}, "layers": list(dict.fromkeys(layers))}
        part = replace(self.request, data=[data], models=[model], axes=axes, data_seeds=[data_seed], references=False)
        return plan(part)[0](())

    def _places(self, point: Point) -> list[str]:
        blocks = point[1].blocks
        tops = [f"top:{count}" for count in self.budgets]
        every = [str(place) for count in self.budgets for place in places_of(count, blocks)] if self.oracle else []
        return ["all", *tops, *every]

    def _drawn(self, point: Point, data_seed: int) -> list[RunSpec]:
        """Each seed's runs at the places that it draws."""
        study = [(seed, replace(self, request=replace(self.request, seeds=[seed]))) for seed in self.request.seeds]
        blocks = point[1].blocks
        places = {seed: [str(random_place(count, blocks, seed)) for count in self.budgets] for seed, _ in study}
        return [spec for seed, one in study for spec in one._runs(point, data_seed, places[seed])]

    def _chosen(self, point: Point, best: int) -> list[str]:
        blocks = point[1].blocks
        found = [rule.place(best, blocks) for count in self.budgets for rule in rules(count)]
        layers = [place for place in found if place is not None]
        return [*map(str, layers), *(f"top:{place.top - place.bottom + 1}" for place in layers)]
