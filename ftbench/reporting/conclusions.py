"""What the runs show, in sentences: nothing that the tables do not hold, and nothing stronger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ftbench.reporting.cells import (
    NO_REFERENCE,
    NO_SEED,
    NOT_LEARNED,
    Cell,
    Group,
    by_rows,
    described,
    to_cells,
    varying,
)
from ftbench.reporting.differences import BOTH, Difference
from ftbench.reporting.findings import of_layers, of_probes
from ftbench.reporting.study import Study
from ftbench.reporting.words import metric_name, score, several

#: tasks and settings that a summary has room for
MOST = 12


#: what was decided is said first
_ORDER = ("better", "worse", "undecided", "equal")


class Conclusion(NamedTuple):
    """A sentence on one set of rows and recipe, and one on each of its methods."""

    text: str
    methods: tuple[str, ...] = ()


def conclusions(study: Study) -> list[Conclusion]:
    """What can be said, the counts first; empty without runs."""
    arms, references = to_cells(study.records, study.selection)
    apart = [*of_probes(study), *of_layers(study)]
    lines = [Conclusion(counts)] if (counts := _counts(study, arms)) else []
    if not arms:
        return [*lines, *map(Conclusion, apart)]
    keys = [key for key in varying(arms) if key not in ("task", "steps")]
    every = [group for _, found in by_rows(arms, references) for group in found]
    groups = [group for group in every if len(group.arms) > 1 or group.std not in (None, *group.arms)] or every
    for group in groups[:MOST]:
        about = described(group.std or group.arms[0], keys)
        text, methods = _of_group(group, study.differences)
        lines.append(Conclusion(f"{about}: {text}", methods))
    if len(groups) > MOST:
        lines.append(Conclusion(f"{len(groups) - MOST} more sets of rows and recipes are in the tables."))
    return [*lines, *map(Conclusion, apart)]


def _counts(study: Study, arms: Sequence[Cell]) -> str:
    """How many runs of each kind; empty without any."""
    runs = [record for cell in arms for record in cell.records]
    bad = sum(record.result.status != "ok" for record in runs)
    methods, tasks = {cell.method for cell in arms}, {cell.spec.task for cell in arms}
    failed = f", {bad} of which failed or diverged" if bad else ""
    on = f"{several(len(methods), 'method')} on {several(len(tasks), 'task')}"
    kinds = [record.result.spec.kind for record in study.apart]
    trials = sum(record.result.spec.is_trial for record in study.apart)
    parts = [
        *([f"{several(len(runs), 'run')}{failed}: {on}"] if runs else []),
        *([f"{several(kinds.count('probe'), 'probe')} of encoders"] if "probe" in kinds else []),
        *([f"layers measured {several(kinds.count('variability'), 'time')}"] if "variability" in kinds else []),
        *([f"{several(trials, 'trial')} of searches, in no mean"] if trials else []),
    ]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def as_lines(found: Sequence[Conclusion]) -> list[str]:
    """As a list in Markdown, methods indented."""
    return [line for one in found for line in (f"- {one.text}", *(f"  - {method}" for method in one.methods))]


def _of_group(group: Group, differences: Sequence[Difference]) -> Conclusion:
    std = group.std
    if std is None or not std.ok:
        return Conclusion("no finished std beside these runs, so methods are not compared.")
    if std.mean is None:
        return Conclusion(f"std has no {std.metric or 'score'}, so methods are not compared.")
    best = group.bar(std)
    mean = score(std.metric, std.mean)
    about = f"{std.method} {metric_name(std.metric)} {mean} over {several(len(std.scores), 'run')}"
    bar = score(best.metric, best.mean or 0.0) if best is not None else ""
    if group.verdict == NOT_LEARNED and best is not None:
        why = f"no better than {best.method} ({bar}) without fine-tuning: methods are not compared."
        return Conclusion(f"{about}, {why}")
    against = f", against {bar} of {best.method} without fine-tuning" if best is not None else ""
    if group.verdict == NO_REFERENCE:
        against = "; there are no reference rows, so whether it learned anything is not known"
    here = [d for d in differences if d.std.records[0] is std.records[0]]
    here.sort(key=lambda d: _ORDER.index(d.verdict))
    more = [f"{len(here) - 8} more methods are in the tables."] if len(here) > 8 else []
    alone = [cell.method for cell in group.arms if group.is_unpaired(cell)]
    more += [f"{', '.join(alone)}: {NO_SEED}, so not compared."] if alone else []
    return Conclusion(f"{about}{against}.", (*map(_of_method, here[:8]), *more))


def _of_method(d: Difference) -> str:
    if d.headline is None:
        return f"{d.cell.method}: one pair of seeds, which shows nothing."
    over = f"{len(d.a)} pairs of seeds" if len(d.a) > 1 else "one pair of seeds"
    if d.verdict == "equal":
        return f"{d.cell.method}: the same score as std in all {over}."
    unit, ends = _unit(d), (d.headline.mean, d.headline.low, d.headline.high)
    mean, low, high = (f"{round(unit * end, 1) + 0.0:+.1f}" if unit > 1 else f"{end:+.3g}" for end in ends)
    interval = f" [{low}, {high}]" if math.isfinite(d.headline.high) else ""
    moved = f"{mean}{' points' if unit > 1 else ''}{interval}"
    weak = "" if d.basis == BOTH else f", over {d.basis} only"
    if d.verdict == "undecided":
        seen = f"; a true one of {unit * d.detectable:.2g} would be found four times in five" if d.detectable else ""
        return f"{d.cell.method}: no difference shown in {over}, {moved}{weak}{seen}."
    return f"{d.cell.method}: {d.verdict} in {over}, {moved}{weak}."


def _unit(d: Difference) -> float:
    """Metrics that end at 1 are told in points, hundredths; others in their own unit."""
    return 1.0 if d.cell.metric == "mse" else 100.0
