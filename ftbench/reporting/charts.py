"""Which pictures a study gives: runs, differences, tasks together, cost, settings, tries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ftbench.reporting import across
from ftbench.reporting.budget import pareto
from ftbench.reporting.cells import RECIPE_AXES, ROW_AXES, Cell, Group, by_rows, described, to_cells, varying
from ftbench.reporting.costs import families, mean_of
from ftbench.reporting.differences import Difference
from ftbench.reporting.marks import Chart, Mark
from ftbench.reporting.overall import FEWEST_RANKED, Block, blocks
from ftbench.reporting.stats import t_interval
from ftbench.reporting.study import Study

#: charts of one kind are drawn for at most so many sets of rows
MOST = 24
#: lines in one chart; more could not be told apart
MOST_LINES = 8


def charts(study: Study) -> list[Chart]:
    """Every picture that these runs give, in the order of a report."""
    arms, references = to_cells(study.records, study.selection)
    sets = [(beside, groups) for beside, groups in by_rows(arms, references) if groups]
    keys = [key for key in varying(arms) if key in ROW_AXES] if arms else []
    found = [chart for beside, groups in sets[:MOST] if (chart := _runs(beside, groups, keys))]
    found += _forests(study.differences)
    for block in blocks(study.records, study.selection):
        found += _over_tasks(block)
    found += [chart for _, groups in sets[:MOST] if (chart := _front(groups, keys))]
    found += [chart for _, groups in sets[:MOST] if (chart := _interaction(groups, keys))]
    found += _budgets(study)
    return [_numbered(chart, found[:i]) for i, chart in enumerate(found)]


def _numbered(chart: Chart, before: Sequence[Chart]) -> Chart:
    """Names are unique: they become names of files."""
    same = sum(other.name == chart.name for other in before)
    return replace(chart, name=f"{chart.name}-{same + 1}") if same else chart


def _label(cell: Cell, cells: Sequence[Cell]) -> str:
    """The method, with the recipe where it varies among ``cells``."""
    axes = [key for key in varying(list(cells)) if key in RECIPE_AXES and not (key == "steps" and _one_each(cells))]
    values = ", ".join(f"{RECIPE_AXES[key]} {_short(cell.setting(key))}" for key in axes)
    return f"{cell.method} ({values})" if values else cell.method


def _one_each(cells: Sequence[Cell]) -> bool:
    return len({cell.method for cell in cells}) == len(cells)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _runs(beside: Sequence[Cell], groups: Sequence[Group], keys: Sequence[str]) -> Chart | None:
    """Every run a point, the mean of each arm a bar with its t interval, references as rules."""
    cells = [cell for group in groups for cell in group.arms if cell.scores][:40]
    if not cells:
        return None
    every = [score for cell in cells for score in cell.scores.values()]
    near, far = _references(beside, cells[0].metric, min(every), max(every))
    marks = [Mark("rule", (value,), label=name, tone=i + 1) for i, (name, value) in enumerate(near)]
    for place, cell in enumerate(cells):
        scores = tuple(cell.scores.values())
        names = tuple(f"seed {s}, data seed {d}: {x:.4f}" for (d, s), x in cell.scores.items())
        spread = tuple(place + 0.22 * (((7 * i) % 11) / 10 - 0.5) for i in range(len(scores)))
        marks.append(Mark("points", scores, spread, faint=True, names=names))
        if len(scores) > 2 and (interval := t_interval(scores)):  # of two scores it would fill the picture
            mean = float(np.mean(scores))
            marks.append(Mark("bars", (mean,), (place,), (interval[0],), (interval[1],), names=(f"mean {mean:.4f}",)))
    title = described(cells[0], keys)
    categories = tuple(_label(cell, cells) for cell in cells)
    note = "A point is a run, the bar the 95 % t interval of the mean (from three runs on)."
    note += " Upright lines need no fine-tuning." if near else ""
    note += f" Outside the picture: {', '.join(f'{name} {value:.3f}' for name, value in far)}." if far else ""
    return Chart(
        f"runs-{cells[0].spec.task}", f"Runs: {title}", cells[0].metric, "", tuple(marks), categories, note=note
    )


def _references(
    beside: Sequence[Cell], metric: str, low: float, high: float
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Names and means of the references near the runs' scores, and of those that would squeeze them."""
    known = [(cell.method, cell.mean) for cell in beside if cell.mean is not None and cell.metric == metric]
    room = max(high - low, 0.01) * 1.5
    near = [(name, value) for name, value in known if low - room <= value <= high + room]
    return near, [pair for pair in known if pair not in near]


def _forests(differences: Sequence[Difference]) -> Iterator[Chart]:
    """Differences to std, a picture for each task and metric."""
    found: dict[tuple[str, str], list[Difference]] = {}
    for d in differences:
        if d.headline is not None:
            found.setdefault((d.cell.spec.task, d.cell.metric), []).append(d)
    for (task, metric), here in list(found.items())[:MOST]:
        here = here[:40]
        cells = [d.cell for d in here]
        keys = [key for key in varying(cells) if key in ROW_AXES]
        marks = [Mark("rule", (0.0,), label="std")]
        for place, d in enumerate(here):
            assert d.headline is not None
            e = d.headline
            shown = f"{e.mean:+.4f} [{e.low:+.4f}, {e.high:+.4f}], {d.basis}, {d.verdict}"
            marks.append(Mark("bars", (e.mean,), (place,), (e.low,), (e.high,), tone=1, names=(shown,)))
            if alone := d.seeds_only:
                marks.append(Mark("thin bars", (alone.mean,), (place + 0.28,), (alone.low,), (alone.high,), tone=2))
        where = [", ".join(f"{ROW_AXES[key]} {_short(c.setting(key))}" for key in keys) for c in cells]
        labels = tuple(" ".join(filter(None, (_label(c, cells), w))) for c, w in zip(cells, where, strict=True))
        note = "Thick: the headline's 95 % interval; thin: seeds only, for these test examples."
        yield Chart(f"differences-{task}", f"Differences to std: {task}", metric, "", tuple(marks), labels, note=note)


def _front(groups: Sequence[Group], keys: Sequence[str]) -> Chart | None:
    """Mean score against training seconds, and who is not beaten in both."""
    cells = [cell for group in groups for cell in group.arms if cell.scores]
    timed = [(mean_of([r.cost.training_seconds for r in cell.ok]), cell) for cell in cells]
    known = [(seconds, cell) for seconds, cell in timed if seconds is not None]
    places = {(r.cost.device, r.cost.threads) for _, cell in known for r in cell.ok}
    if len(known) < 2 or len(places) > 1:
        return None
    side = -1.0 if known[0][1].lower_is_better else 1.0
    seconds, scores = [s for s, _ in known], [float(cell.mean or 0.0) for _, cell in known]
    ahead = pareto(seconds, [side * score for score in scores])
    first = sorted((seconds[j], scores[j]) for j in range(len(known)) if ahead[j])
    marks = [Mark("line", tuple(x for x, _ in first), tuple(y for _, y in first), label="front", tone=0, faint=True)]
    shown = list(dict.fromkeys(_label(cell, cells) for _, cell in known))
    for i, label in enumerate(shown[:MOST_LINES]):
        here = [j for j, (_, cell) in enumerate(known) if _label(cell, cells) == label]
        marks.append(Mark(
            "points", tuple(seconds[j] for j in here), tuple(scores[j] for j in here), label=label, tone=i + 1,
            names=tuple(f"{label}: {scores[j]:.4f}, {seconds[j]:.1f} s" for j in here),
        ))  # fmt: skip
    rest = [j for j, (_, cell) in enumerate(known) if _label(cell, cells) not in shown[:MOST_LINES]]
    if rest:
        marks.append(Mark(
            "points", tuple(seconds[j] for j in rest), tuple(scores[j] for j in rest), label="others", faint=True,
            names=tuple(f"{_label(known[j][1], cells)}: {scores[j]:.4f}, {seconds[j]:.1f} s" for j in rest),
        ))  # fmt: skip
    cell = known[0][1]
    title = f"Score and cost: {described(cell, keys)}"
    note = "The line joins the arms that no other beats in both."
    name, axis = f"cost-{cell.spec.task}", "training seconds"
    return Chart(name, title, axis, cell.metric, tuple(marks), log=True, note=note)


def _interaction(groups: Sequence[Group], keys: Sequence[str]) -> Chart | None:
    """Mean score over the learning rate (or else what varies), a line for each method and other setting."""
    cells = [cell for group in groups for cell in group.arms if cell.scores and isinstance(cell.mean, float)]
    axes = [key for key in varying(cells) if key in ("lr", "steps", "batch_size", "weight_decay")] if cells else []
    axis = next((key for key in ("lr", "batch_size", "steps", "weight_decay") if key in axes), None)
    if axis is None:
        return None
    lines: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        lines.setdefault((cell.method, *(cell.setting(key) for key in axes if key != axis)), []).append(cell)
    long = [(key, sorted(line, key=lambda c: c.setting(axis))) for key, line in lines.items() if len(line) > 1]
    if not long:
        return None
    marks = []
    for i, ((method, *others), line) in enumerate(long[:MOST_LINES]):
        names = [RECIPE_AXES[key] for key in axes if key != axis]
        label = " ".join([method, *(f"{n} {_short(v)}" for n, v in zip(names, others, strict=True))])
        x = tuple(float(cell.setting(axis)) for cell in line)
        y = tuple(float(cell.mean or 0.0) for cell in line)
        marks.append(Mark("line", x, y, label=label, tone=i + 1, names=tuple(f"{label}: {v:.4f}" for v in y)))
    more = f" {len(long) - MOST_LINES} more lines are not drawn." if len(long) > MOST_LINES else ""
    first = cells[0]
    return Chart(
        f"sensitivity-{first.spec.task}", f"Sensitivity: {described(first, keys)}", RECIPE_AXES[axis], first.metric,
        tuple(marks), log=axis == "lr", note=f"Means over seeds.{more}",
    )  # fmt: skip


def _budgets(study: Study) -> Iterator[Chart]:
    """Expected best score against seconds of runs."""
    for here in families(study.records, study.selection)[:MOST]:
        timed = [family for family in here if family.seconds and len(family.scores) > 1][:MOST_LINES]
        if not timed:
            continue
        marks = []
        for i, family in enumerate(timed):
            best, label = family.expected_best(100), family.cells[0].method
            x = tuple((family.seconds or 0.0) * k for k in range(1, len(best) + 1))
            names = tuple(f"{label}, best of {k}: {score:.4f}" for k, score in enumerate(best, 1))
            marks.append(Mark("line", x, tuple(best), label=label, tone=i + 1, names=names))
        cell = here[0].cells[0]
        keys = [key for key in ROW_AXES if cell.setting(key) is not None and key in ("train_size", "label_noise")]
        yield Chart(
            f"budget-{cell.spec.task}", f"Expected best score: {described(cell, keys)}", "seconds of runs", cell.metric,
            tuple(marks), log=True, note="Unbiased, over a method's settings and seeds.",
        )  # fmt: skip


def _over_tasks(block: Block) -> Iterator[Chart]:
    """Performance profile, and from five tasks on mean ranks with the critical difference."""
    about = f"{len(block.tasks)} tasks"
    columns = {method: np.concatenate(block.scores(method)) for method in block.methods}
    every = np.concatenate(list(columns.values()))
    taus = np.linspace(every.min() - 1e-9, every.max(), 101)
    marks = tuple(
        Mark("line", tuple(taus), tuple(across.performance_profile(scores, taus)), label=method, tone=i + 1)
        for i, (method, scores) in enumerate(list(columns.items())[:MOST_LINES])
    )
    note = "The share of all runs that score above x; higher is better."
    yield Chart("profile", f"Performance profile: {about}", "score", "share of runs above", marks, note=note)
    if len(block.tasks) < FEWEST_RANKED:
        return
    found = across.friedman(block.means())
    order = np.argsort(found.mean_ranks)
    half = found.critical_difference / 2
    bars = tuple(
        Mark("bars", (rank,), (float(place),), (rank - half,), (rank + half,), tone=1)
        for place, rank in enumerate(sorted(found.mean_ranks))
    )
    note = (
        "Critical differences (Nemenyi, 5 %): two methods differ where their bars do not overlap. Rank 1 is the best."
    )
    labels = tuple(block.methods[j] for j in order)
    yield Chart("ranks", f"Mean ranks: {about}", "mean rank", "", bars, labels, note=note)
