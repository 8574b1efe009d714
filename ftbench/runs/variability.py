"""``ftbench variability`` as runs: a spec for each task, model, subset and seed, and how a subset's curve compares.

No torch here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ftbench.errors import UsageError
from ftbench.runs.stages import Request, draw, identity, points, train_rows
from ftbench.types import Data, Record, RunSpec

#: raised whenever a change in the measures can move a number
REVISION = 2  # 1 put a frequent lowest number into one bin with others, and took rounding for spread
#: fields of RunSpec that make a subset, and what they are for the full set
FULL: dict[str, Any] = {"train_size": None, "imbalance": None, "label_noise": 0.0}


def layer_specs(request: Request) -> list[RunSpec]:
    """One run for each task, model, value of the axes, and seed; the full set is always among them.

    ``request.fixed`` holds the settings of the measure (pooling, bins, permutations ...); ``bins`` is for regressions.
    Raises UsageError for a regression without bins, and for subsets that a task cannot give.
    """
    axes = {name: [*(v for v in values if v != FULL[name]), FULL[name]] for name, values in request.axes.items()}
    request = replace(request, axes=axes)
    specs = []
    # labels vary fastest: other labels of the same rows take no second pass
    for data_seed, seed in itertools.product(request.data_seeds, request.seeds):
        for data, model, chosen in points(request):
            fields = {**request.fixed, **chosen, "bins": _bins(data, request.fixed.get("bins"))}
            about = {**identity(data, model), "engine_revision": REVISION}
            drawn = draw(_effective(data, fields), data_seed)
            specs.append(RunSpec(kind="variability", **about, **fields, seed=seed, data_seed=drawn))
    return list({spec.id: spec for spec in specs}.values())


def _effective(data: Data, fields: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` without a limit that leaves no row out. Raises UsageError for subsets that the task cannot give."""
    rows = train_rows(data, {**fields, "limit": None})
    return {name: value for name, value in fields.items() if name != "limit" or value is None or value < rows}


def _bins(data: Data, bins: int | None) -> int | None:
    if data.task.kind == "classification":
        return None
    if bins is None:
        raise UsageError(
            f"task '{data.task.name}' is a regression, and nu compares classes. Try --bins 5, which makes classes of "
            "its quantiles (ours, not the paper's), or --bins 0, which leaves nu out and shows LogME of the numbers"
        )
    return bins


def compare_subsets(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row for each subset whose full set is there too: nu's rank correlation with the full curve, and how many layers
    its lowest nu lies above the full set's."""
    import numpy as np

    from ftbench.analysis.robustness import agreement

    found = {r.result.spec.id: r for r in records if r.result.spec.kind == "variability" and r.result.status == "ok"}
    rows = []
    for record in found.values():
        spec, result = record.result.spec, record.result
        full = _full(spec, found)
        if full is None or full is record or "best" not in result.facts:
            continue
        curves = [np.array([_nu(r, n) for n in range(1, r.result.facts["layers"] + 1)]) for r in (record, full)]
        compared = agreement(*curves)
        rows.append(
            {
                "id": spec.id,
                **{name: getattr(spec, name) for name in ("task", "model", *FULL, "data_seed", "seed")},
                "rows": result.facts["rows"]["train"],
                "spearman": compared.spearman,
                "best": result.facts["best"],
                "drift": compared.drift,
                "best_ratio": result.facts["best_ratio"],
                "p_value": result.facts["p_value"],
                "outcome": result.facts["verdict"],
            }
        )
    return rows


def _full(spec: RunSpec, found: Mapping[str, Record]) -> Record | None:
    """The full set of a subset's draw; where it has all rows, so that nothing was drawn, it is that of draw 0."""
    neutral = replace(spec, **FULL)
    first = found.get(replace(neutral, data_seed=0).id)
    if neutral.id in found or first is None or spec.limit is None:
        return found.get(neutral.id, first)
    facts = first.result.facts
    return first if facts.get("whole", facts["rows"]["train"] < spec.limit) else None


def _nu(record: Record, layer: int) -> float:
    """nu, which is null in the store where it is infinite."""
    value = record.result.score("nu", f"layer {layer}", "train")
    return float("inf") if value is None else value
