"""``--layers auto``: measure which layer a task needs, then tune what lies around it. Two stages, and no torch here.

    measure  nu on the training rows that the runs will have: their subset, their noise, their draw       (first stage)
    tune     the runs, with the triple that the rule gives in their id; so a run has one id however its
             layers were found                                                               (second stage, and further)

Where the measure recommends no layer, every block is tuned, which is plain fine-tuning, and that is said: a curve that
chance explains, or that is flat, is no reason to leave blocks out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftbench.errors import UsageError
from ftbench.models.locate import Checkpoint
from ftbench.runs.stages import DRAWN, Point, Request, Stage, draw, identity, plan, points, references, train_rows
from ftbench.runs.variability import REVISION
from ftbench.types import Data, Record, RunSpec
from ftbench.types.layers import LayerRule, Layers

#: rows that nu is taken of: more say no more
MOST = 4000
PERMUTATIONS, RESAMPLES = 20, 100
#: what decides the measured rows and their states, as the runs have it
_SHARED = (*DRAWN, "max_length", "precision")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """Layers of a model with so many blocks, or None where all are to be tuned; ``reason`` is a sentence."""

    layers: Layers | None
    reason: str
    blocks: int

    @property
    def text(self) -> str:
        """As RunSpec has it: empty where every block is tuned under a head on the topmost."""
        whole = Layers(1, self.blocks, self.blocks)
        return "" if self.layers in (None, whole) else str(self.layers)


def choose_layers(record: Record, rule: LayerRule) -> Chosen:
    """What ``rule`` gives for a finished run of kind ``variability``."""
    facts = record.result.facts
    blocks, best = facts["layers"], facts.get("layer")
    if best is None:
        return Chosen(None, f"no layer is recommended ({facts['reason']}), so all are tuned", blocks)
    layers = rule.place(best, blocks)
    if layers is None:
        return Chosen(None, f"l* = {best} is the topmost layer, so none lies above it and all are tuned", blocks)
    return Chosen(layers, facts["reason"], blocks)


def rules_of(request: Request) -> list[LayerRule]:
    """The rules among the values of ``--layers``."""
    return [rule for text in request.axes.get("layers", ()) if (rule := LayerRule.parse(text))]


def provisional(request: Request) -> Request:
    """The request with all blocks tuned in place of rules: to see whether its arms can run, and for its references."""
    words = request.axes.get("layers", ())
    axes = {**request.axes, "layers": list(dict.fromkeys("all" if LayerRule.parse(w) else w for w in words))}
    return replace(request, axes=axes if words else request.axes)


def stages(request: Request) -> list[Stage]:
    """The stages of a study with rules. Raises UsageError for a task that has no classes."""
    parts = [(point, data_seed) for data_seed in request.data_seeds for point in points(request)]
    measures = [measure_of(request, point, seed) for point, seed in parts if LayerRule.parse(point[2]["layers"])]
    first = [*references(provisional(request)), *_once(measures)]
    later = len(plan(provisional(request)))

    def stage(number: int, records: Sequence[Record]) -> list[RunSpec]:
        plans = [plan(part) for part in resolved(request, records)]
        specs = [spec for part in plans for spec in part[number](records)]
        return _once(sorted(specs, key=lambda spec: (spec.data_seed, spec.seed)))  # complete pairs, if interrupted

    return [lambda records: first, *((lambda records, n=n: stage(n, records)) for n in range(later))]


def resolved(request: Request, records: Sequence[Record]) -> list[Request]:
    """A request for each point and data seed, with the layers that were chosen there; without those whose measure
    failed."""
    done = {record.result.spec.id: record for record in records if record.result.status == "ok"}
    parts = []
    for data_seed in request.data_seeds:
        for point in points(request):
            data, model, values = point
            rule = LayerRule.parse(values["layers"])
            if rule:
                record = done.get(measure_of(request, point, data_seed).id)
                if record is None:
                    log.warning("layers %s of %s: they were not measured, so nothing is tuned", rule, data.task.name)
                    continue
                values = {**values, "layers": choose_layers(record, rule).text}
            axes = {name: [value] for name, value in values.items()}
            parts.append(
                replace(request, data=[data], models=[model], axes=axes, data_seeds=[data_seed], references=False)
            )
    return parts


def answers(request: Request, records: Sequence[Record]) -> list[str]:
    """A line for each rule and measure: what was chosen, and why."""
    measured = [r for r in records if r.result.spec.kind == "variability" and r.result.status == "ok"]
    return [describe(record, rule) for record in measured for rule in rules_of(request)]


def describe(record: Record, rule: LayerRule) -> str:
    """``layers l*-down of sst2, 1,000 rows: 1:4:4 (layer 4: ...)``."""
    spec, facts, found = record.result.spec, record.result.facts, choose_layers(record, rule)
    rows = f"{spec.task}, {facts['rows']['train']:,} rows" + (f", draw {spec.data_seed}" if spec.data_seed else "")
    return f"layers {rule} of {rows}: {found.text or 'all'} ({found.reason})"


def measure_of(request: Request, point: Point, data_seed: int) -> RunSpec:
    """The run that measures the layers of a point, on the rows that its runs have: at most ``MOST`` of them.

    Raises UsageError for a regression.
    """
    data, model, values = point
    if data.task.kind != "classification":
        asked = f"layers '{values['layers']}': " if "layers" in values else ""
        raise UsageError(
            f"{asked}task '{data.task.name}' is a regression, and nu compares classes. Measure "
            "it with `ftbench variability --bins 5`, then give the layers as numbers, such as --layers 2:4:4"
        )
    fields = {"train_size": data.task.default_train_size, **request.fixed, **values}
    return measure(data, model, {name: fields[name] for name in _SHARED if name in fields}, data_seed)


def measure(
    data: Data, model: Checkpoint, fields: Mapping[str, Any], data_seed: int, *, probe: bool = False
) -> RunSpec:
    """The run that measures the layers of ``model`` on the rows of ``fields``, as ``ftbench variability`` would."""
    fields = {name: value for name, value in fields.items() if value is not None}
    data_seed = draw(fields, data_seed)  # before the limit: the runs have none, so that nothing is drawn for them
    if train_rows(data, fields) > MOST:
        fields["limit"] = min(MOST, fields.get("limit", MOST))
    about = {**identity(data, model), "engine_revision": REVISION, **fields, "data_seed": data_seed}
    return RunSpec(
        kind="variability", **about, pooling="ordinary", permutations=PERMUTATIONS, resamples=RESAMPLES, probe=probe
    )


def _once(specs: Sequence[RunSpec]) -> list[RunSpec]:
    return list({spec.id: spec for spec in specs}.values())
