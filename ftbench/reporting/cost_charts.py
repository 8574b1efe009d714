"""Pictures of what scores cost and depend on: seconds, FLOPs, tries, settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from ftbench.metrics import ROUGE
from ftbench.reporting.budget import pareto
from ftbench.reporting.cells import LABELS, RECIPE_AXES, ROW_AXES, VERSIONS, Cell, Group, described, varying
from ftbench.reporting.costs import families, in_one_place, mean_of, seconds_compare
from ftbench.reporting.crowd import apart, named, outside
from ftbench.reporting.marks import MOST, MOST_LINES, Chart, Mark
from ftbench.reporting.study import Study
from ftbench.reporting.words import arm_label, metric_name, precise, score, short
from ftbench.types import Cost

#: what a score is set against, its axis, and how one value reads
COSTS: dict[str, tuple[str, Callable[[Cost], float], Callable[[float], str]]] = {
    "cost": ("training seconds", lambda cost: cost.training_seconds, lambda value: f"{value:.1f} s"),
    "flops": ("training FLOPs", lambda cost: cost.flops, lambda value: f"{value:.3g} FLOPs"),
}


def front(groups: Sequence[Group], keys: Sequence[str], cost: str) -> Chart | None:
    """Mean score against one of ``COSTS``, and who is not beaten in both; None for one arm, or one without a cost.

    FLOPs compare across machines, seconds only on one.
    """
    axis, read, text = COSTS[cost]
    cells = [cell for group in groups for cell in group.arms if cell.scores]
    measured = [(mean_of([read(r.cost) for r in cell.ok]), cell) for cell in cells]
    known = [(mean, cell) for mean, cell in measured if mean is not None]
    if len(known) < max(2, len(cells)) or (cost == "cost" and not in_one_place(cells)):
        return None
    first = known[0][1]
    side = -1.0 if first.lower_is_better else 1.0
    paid, scores = [x for x, _ in known], [float(cell.mean or 0.0) for _, cell in known]
    names = [arm_label(cell, cells) for _, cell in known]
    hints = [f"{n}: {precise(first.metric, y)}, {text(x)}" for n, x, y in zip(names, paid, scores, strict=True)]

    def some(places: Sequence[int], **more: Any) -> Mark:
        x, y = tuple(paid[j] for j in places), tuple(scores[j] for j in places)
        return Mark("points", x, y, names=tuple(hints[j] for j in places), **more)

    ahead = pareto(paid, [side * score for score in scores])
    near, away = apart(range(len(known)), scores)
    line = sorted((paid[j], scores[j]) for j in near if ahead[j])
    marks = [Mark("line", tuple(x for x, _ in line), tuple(y for _, y in line), label="front", tone=0, faint=True)]
    shown = named([known[j][1] for j in near], [i for i, j in enumerate(near) if ahead[j]])
    marks += [some([near[i]], label=names[near[i]], tone=tone) for tone, i in enumerate(shown, 1)]
    if rest := [j for i, j in enumerate(near) if i not in shown]:
        marks.append(some(rest, label="others", faint=True))
    marks += outside([f"{names[j]} {score(first.metric, scores[j])} at {text(paid[j])}" for j in away])
    title = f"Score and {axis.split()[1]}: {described(first, keys)}"
    note = "The line joins the arms that no other beats in both."
    return Chart(
        f"{cost}-{first.spec.task}", title, axis, metric_name(first.metric), tuple(marks), log=True, note=note,
        hundredths=hundredths(first.metric),
    )  # fmt: skip


def hundredths(metric: str) -> Literal["", "y"]:
    """The axis that is shown a hundred times as large, where scores are on y."""
    return "y" if metric in ROUGE else ""


def interaction(groups: Sequence[Group], keys: Sequence[str]) -> Chart | None:
    """Mean score over the learning rate (or else what varies), a line for each method and other setting."""
    cells = [cell for group in groups for cell in group.arms if cell.scores and isinstance(cell.mean, float)]
    several = [key for key in varying(cells) if key in RECIPE_AXES or key in VERSIONS]
    axis = next((key for key in ("lr", "batch_size", "steps", "weight_decay") if key in several), None)
    if axis is None:
        return None
    further = [key for key in several if key != axis]
    lines: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        lines.setdefault((cell.method, *(cell.setting(key) for key in further)), []).append(cell)
    long = [(key, sorted(line, key=lambda c: c.setting(axis))) for key, line in lines.items() if len(line) > 1]
    if not long:
        return None
    marks, first = [], cells[0]
    for i, ((method, *others), line) in enumerate(long[:MOST_LINES]):
        values = (f"{LABELS[key]} {short(v)}" for key, v in zip(further, others, strict=True) if v is not None)
        label = " ".join([method, *values])
        x = tuple(float(cell.setting(axis)) for cell in line)
        y = tuple(float(cell.mean or 0.0) for cell in line)
        marks.append(
            Mark("line", x, y, label=label, tone=i + 1, names=tuple(f"{label}: {precise(first.metric, v)}" for v in y))
        )
    more = f" {len(long) - MOST_LINES} more lines are not drawn." if len(long) > MOST_LINES else ""
    return Chart(
        f"sensitivity-{first.spec.task}", f"Sensitivity: {described(first, keys)}", RECIPE_AXES[axis],
        metric_name(first.metric), tuple(marks), log=axis == "lr", note=f"Means over seeds.{more}",
        hundredths=hundredths(first.metric),
    )  # fmt: skip


def budgets(study: Study) -> Iterator[Chart]:
    """Expected best score against seconds of runs, where these compare: plain fine-tuning and the best others."""
    for here in families(study.records, study.selection)[:MOST]:
        timed = [family for family in here if family.seconds]
        if not timed or not seconds_compare(here):
            continue
        first = [family.cells[0] for family in timed]
        metric = first[0].metric
        side = 1 if timed[0].lower else -1
        order = sorted(range(len(timed)), key=lambda i: side * timed[i].expected_best(1)[0])
        shown = [timed[i] for i in named(first, order)]
        marks = []
        for i, family in enumerate(shown):
            best, label = family.expected_best(100), family.cells[0].method
            x = tuple((family.seconds or 0.0) * k for k in range(1, len(best) + 1))
            names = tuple(f"{label}, best of {k}: {precise(metric, score)}" for k, score in enumerate(best, 1))
            marks.append(Mark("line", x, tuple(best), label=label, tone=i + 1, names=names))
        failed = [f"{family.cells[0].method} {family.failed}" for family in shown if family.failed]
        paid = f" Failed runs, whose seconds are shared out: {', '.join(failed)}." if failed else ""
        keys = [key for key in ROW_AXES if first[0].setting(key) is not None and key in ("train_size", "label_noise")]
        more = f" {len(timed) - len(shown)} more methods are not drawn." if len(timed) > len(shown) else ""
        yield Chart(
            f"budget-{first[0].spec.task}", f"Expected best score: {described(first[0], keys)}", "seconds of runs",
            metric_name(metric), tuple(marks), log=True, hundredths=hundredths(metric),
            note=f"Unbiased, of finished runs over a method's settings and seeds.{paid}{more}",
        )  # fmt: skip
