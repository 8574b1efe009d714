"""Which pictures a study gives: runs, differences, tasks together; cost, settings, tries; encoders and layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ftbench.metrics import ROUGE
from ftbench.reporting import across
from ftbench.reporting.cells import ROW_AXES, Cell, Group, by_rows, described, to_cells, varying
from ftbench.reporting.cost_charts import COSTS, budgets, front, interaction
from ftbench.reporting.crossed import Estimate
from ftbench.reporting.differences import Difference
from ftbench.reporting.layer_charts import layer_charts
from ftbench.reporting.marks import MOST, MOST_LINES, Chart, Mark
from ftbench.reporting.overall import FEWEST_RANKED, Block, blocks
from ftbench.reporting.probe_charts import probe_charts
from ftbench.reporting.stats import t_interval
from ftbench.reporting.study import Study
from ftbench.reporting.words import arm_label, metric_name, precise, score, short


def charts(study: Study) -> list[Chart]:
    """Every picture that these runs give, in the order of a report."""
    arms, references = to_cells(study.records, study.selection)
    sets = [(beside, groups) for beside, groups in by_rows(arms, references) if groups]
    keys = [key for key in varying(arms) if key in ROW_AXES] if arms else []
    found = [chart for beside, groups in sets[:MOST] if (chart := _runs(beside, groups, keys))]
    found += _forests(study.differences)
    for block in blocks(study.records, study.selection):
        found += _over_tasks(block)
    found += [chart for cost in COSTS for _, groups in sets[:MOST] if (chart := front(groups, keys, cost))]
    found += [chart for _, groups in sets[:MOST] if (chart := interaction(groups, keys))]
    found += [*budgets(study), *probe_charts(study), *layer_charts(study)]
    return found


def _runs(beside: Sequence[Cell], groups: Sequence[Group], keys: Sequence[str]) -> Chart | None:
    """Every run a point, the mean of each arm a bar with its t interval, references as rules."""
    cells = [cell for group in groups for cell in group.arms if cell.scores][:40]
    if not cells:
        return None
    every = [score for cell in cells for score in cell.scores.values()]
    metric = cells[0].metric
    near, far = _references(beside, metric, min(every), max(every))
    marks = [Mark("rule", (value,), label=name, tone=i + 1) for i, (name, value) in enumerate(near)]
    for place, cell in enumerate(cells):
        scores = tuple(cell.scores.values())
        names = tuple(f"seed {s}, data seed {d}: {precise(cell.metric, x)}" for (d, s), x in cell.scores.items())
        spread = tuple(place + 0.22 * (((7 * i) % 11) / 10 - 0.5) for i in range(len(scores)))
        marks.append(Mark("points", scores, spread, faint=True, names=names))
        if len(scores) > 2 and (interval := t_interval(scores)):  # of two scores it would fill the picture
            mean = float(np.mean(scores))
            hint = f"mean {precise(cell.metric, mean)}"
            marks.append(Mark("bars", (mean,), (place,), (interval[0],), (interval[1],), names=(hint,)))
    title = described(cells[0], keys)
    categories = tuple(arm_label(cell, cells) for cell in cells)
    note = "A point is a run, the bar the 95 % t interval of the mean (from three runs on)."
    note += " Upright lines need no fine-tuning." if near else ""
    note += (
        f" Outside the picture: {', '.join(f'{name} {score(metric, value)}' for name, value in far)}." if far else ""
    )
    return Chart(
        f"runs-{cells[0].spec.task}", f"Runs: {title}", metric_name(metric), "", tuple(marks), categories, note=note,
        hundredths="x" if metric in ROUGE else "",
    )  # fmt: skip


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
            low, high = _ends(e)
            texts = [precise(metric, end, signed=True) for end in (e.mean, low, high)]
            interval = f"[{texts[1]}, {texts[2]}]" if math.isfinite(e.high) else "no interval"
            shown = f"{texts[0]} {interval}, {d.basis}, {d.verdict}"
            marks.append(Mark("bars", (e.mean,), (place,), (low,), (high,), tone=1, names=(shown,)))
            if alone := d.seeds_only:
                low, high = _ends(alone)
                marks.append(Mark("thin bars", (alone.mean,), (place + 0.28,), (low,), (high,), tone=2))
        where = [", ".join(f"{ROW_AXES[key]} {short(c.setting(key))}" for key in keys) for c in cells]
        labels = tuple(" ".join(filter(None, (arm_label(c, cells), w))) for c, w in zip(cells, where, strict=True))
        note = "Thick: the headline's 95 % interval; thin: seeds only, for these test examples."
        yield Chart(
            f"differences-{task}", f"Differences to std: {task}", metric_name(metric), "", tuple(marks), labels,
            note=note, hundredths="x" if metric in ROUGE else "",
        )  # fmt: skip


def _ends(e: Estimate) -> tuple[float, float]:
    """Of the bar: the mean alone where the interval has no end."""
    return (e.low, e.high) if math.isfinite(e.high) else (e.mean, e.mean)


def _over_tasks(block: Block) -> Iterator[Chart]:
    """Performance profile where scores share a scale, and from five tasks on mean ranks."""
    if not block.lower:
        yield _profile(block)
    if len(block.tasks) >= FEWEST_RANKED:
        yield _ranks(block)


def _profile(block: Block) -> Chart:
    """How many runs of each method score above any value."""
    columns = {method: np.concatenate(block.scores(method)) for method in block.methods}
    every = np.concatenate(list(columns.values()))
    taus = np.linspace(every.min() - 1e-9, every.max(), 101)
    marks = tuple(
        Mark("line", tuple(taus), tuple(across.performance_profile(scores, taus)), label=method, tone=i + 1)
        for i, (method, scores) in enumerate(list(columns.items())[:MOST_LINES])
    )
    note = "The share of all runs that score above x; higher is better."
    title = f"Performance profile: {len(block.tasks)} tasks"
    return Chart("profile", title, "score", "share of runs above", marks, note=note)


def _ranks(block: Block) -> Chart:
    """Mean ranks with the critical difference."""
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
    return Chart("ranks", f"Mean ranks: {len(block.tasks)} tasks", "mean rank", "", bars, labels, note=note)
