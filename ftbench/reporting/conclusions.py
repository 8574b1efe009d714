"""What the runs show, in sentences: nothing that the tables do not hold, and nothing stronger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ftbench.reporting.cells import NOT_LEARNED, Cell, Group, by_rows, described, to_cells, varying
from ftbench.reporting.differences import BOTH, Difference
from ftbench.reporting.study import Study
from ftbench.types.run import TUNED

#: tasks and settings that a summary has room for
MOST = 12


class Conclusion(NamedTuple):
    """A sentence on one set of rows and recipe, and one on each of its methods."""

    text: str
    methods: tuple[str, ...] = ()


def conclusions(study: Study) -> list[Conclusion]:
    """What can be said, the counts first; empty without runs."""
    arms, references = to_cells(study.records, study.selection)
    if not arms:
        return []
    keys = [key for key in varying(arms) if key not in ("task", "steps")]
    lines = [Conclusion(_counts(study, arms))]
    every = [group for _, found in by_rows(arms, references) for group in found]
    groups = [group for group in every if len(group.arms) > 1 or group.std not in (None, *group.arms)] or every
    for group in groups[:MOST]:
        about = described(group.std or group.arms[0], keys)
        text, methods = _of_group(group, study.differences)
        lines.append(Conclusion(f"{about}: {text}", methods))
    if len(groups) > MOST:
        lines.append(Conclusion(f"{len(groups) - MOST} more sets of rows and recipes are in the tables."))
    return lines


def _counts(study: Study, arms: Sequence[Cell]) -> str:
    runs = [record for record in study.records if record.result.spec.kind in TUNED]
    bad = sum(record.result.status != "ok" for record in runs)
    methods, tasks = {cell.method for cell in arms}, {cell.spec.task for cell in arms}
    failed = f", {bad} of which failed or diverged" if bad else ""
    return (
        f"{_several(len(runs), 'run')}{failed}: {_several(len(methods), 'method')} on {_several(len(tasks), 'task')}."
    )


def _several(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def as_lines(found: Sequence[Conclusion]) -> list[str]:
    """As a list in Markdown, methods indented."""
    return [line for one in found for line in (f"- {one.text}", *(f"  - {method}" for method in one.methods))]


def _of_group(group: Group, differences: Sequence[Difference]) -> Conclusion:
    std = group.std
    if std is None or std.mean is None:
        return Conclusion("no finished std beside these runs, so methods are not compared.")
    bars = [cell for cell in group.references if cell.mean is not None and cell.metric == std.metric]
    best = max(bars, key=lambda cell: -(cell.mean or 0) if std.lower_is_better else (cell.mean or 0), default=None)
    score = f"{std.method} {std.metric} {std.mean:.3f} over {_several(len(std.scores), 'run')}"
    if group.verdict == NOT_LEARNED and best is not None:
        why = f"no better than {best.method} ({best.mean:.3f}) without fine-tuning: methods are not compared."
        return Conclusion(f"{score}, {why}")
    against = f", against {best.mean:.3f} of {best.method} without fine-tuning" if best is not None else ""
    here = [d for d in differences if d.std.records[0] is std.records[0]]
    more = [f"{len(here) - 8} more methods are in the tables."] if len(here) > 8 else []
    return Conclusion(f"{score}{against}.", (*map(_of_method, here[:8]), *more))


def _of_method(d: Difference) -> str:
    if d.headline is None:
        return f"{d.cell.method}: one pair of seeds, which shows nothing."
    if d.verdict == "equal":
        return f"{d.cell.method}: the same score as std in every run."
    unit, ends = _unit(d), (d.headline.mean, d.headline.low, d.headline.high)
    mean, low, high = (f"{round(unit * end, 1) + 0.0:+.1f}" if unit > 1 else f"{end:+.3g}" for end in ends)
    moved = f"{mean}{' points' if unit > 1 else ''} [{low}, {high}]"
    weak = "" if d.basis == BOTH else f", over {d.basis} only"
    if d.verdict == "undecided":
        seen = f"; {unit * d.detectable:.2g} could have been seen" if d.detectable else ""
        return f"{d.cell.method}: no difference shown, {moved}{weak}{seen}."
    return f"{d.cell.method}: {d.verdict}, {moved}{weak}."


def _unit(d: Difference) -> float:
    """Metrics that end at 1 are told in points, hundredths; others in their own unit."""
    return 1.0 if d.cell.metric == "mse" else 100.0
