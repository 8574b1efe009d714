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
from ftbench.reporting.crowd import apart, best_first, named, outside
from ftbench.reporting.differences import SEEDS, Difference
from ftbench.reporting.layer_charts import layer_charts
from ftbench.reporting.marks import MOST, Chart, Mark
from ftbench.reporting.overall import FEWEST_RANKED, Block, blocks
from ftbench.reporting.probe_charts import probe_charts
from ftbench.reporting.stats import t_interval
from ftbench.reporting.study import Study
from ftbench.reporting.words import arm_label, metric_name, precise, score, short

#: the legend of differences: whether Holm's correction left one decided, and what its bar lets vary
_DECIDED, _OPEN, _SEEDS = "95 % interval, decided", "95 % interval, undecided", "seeds only, for these test examples"


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
    """Every run a point, the mean of each arm a bar with its t interval, references as rules; arms of one recipe with
    the best on top."""
    cells = [cell for group in groups for cell in group.arms if cell.scores][:40]
    if not cells:
        return None
    if len(groups) == 1:
        cells = [cells[i] for i in best_first(cells)]
    metric = cells[0].metric
    spans = [max(cell.scores.values()) - min(cell.scores.values()) for cell in cells]
    drawn, away = apart(cells, [cell.mean or 0.0 for cell in cells], spans)
    every = [score for cell in drawn for score in cell.scores.values()]
    near, beyond = _references(beside, metric, min(every), max(every))
    beyond += [(arm_label(cell, cells), cell.mean or 0.0) for cell in away]
    marks = [Mark("rule", (value,), label=name, tone=i + 1) for i, (name, value) in enumerate(near)]
    for place, cell in enumerate(drawn):
        scores = tuple(cell.scores.values())
        names = tuple(f"seed {s}, data seed {d}: {precise(cell.metric, x)}" for (d, s), x in cell.scores.items())
        spread = tuple(place + 0.22 * (((7 * i) % 11) / 10 - 0.5) for i in range(len(scores)))
        marks.append(Mark("points", scores, spread, faint=True, names=names))
        if len(scores) > 2 and (interval := t_interval(scores)):  # of two scores it would fill the picture
            mean = float(np.mean(scores))
            hint = f"mean {precise(cell.metric, mean)}"
            tone = 1 if cell.plain else 0
            marks.append(Mark("bars", (mean,), (place,), (interval[0],), (interval[1],), tone=tone, names=(hint,)))
    marks += outside([f"{name} {score(metric, value)}" for name, value in beyond])
    title = described(cells[0], keys)
    categories = tuple(arm_label(cell, cells) for cell in drawn)
    note = "A point is a run, the bar the 95 % t interval of the mean (from three runs on), in colour for std."
    note += " Upright lines need no fine-tuning." if near else ""
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
    """Differences to std, a picture for each task and metric; those to one std with the best on top."""
    found: dict[tuple[str, str], list[Difference]] = {}
    for d in differences:
        if d.headline is not None:
            found.setdefault((d.cell.spec.task, d.cell.metric), []).append(d)
    for (task, metric), here in list(found.items())[:MOST]:
        yield _forest(task, metric, here[:40])


def _forest(task: str, metric: str, here: Sequence[Difference]) -> Chart:
    cells = [d.cell for d in here]
    keys = [key for key in varying(cells) if key in ROW_AXES]
    if len({id(d.std) for d in here}) == 1:
        here = [here[i] for i in best_first(cells)]
    bars = [(d, d.headline, *_ends(d.headline)) for d in here if d.headline]
    drawn, away = apart(bars, [e.mean for _, e, _, _ in bars], [high - low for _, _, low, high in bars])

    def name(cell: Cell) -> str:
        where = ", ".join(f"{ROW_AXES[key]} {short(cell.setting(key))}" for key in keys)
        return " ".join(filter(None, (arm_label(cell, cells), where)))

    marks = [Mark("rule", (0.0,), label="std")]
    for place, (d, e, low, high) in enumerate(drawn):
        texts = [precise(metric, end, signed=True) for end in (e.mean, low, high)]
        interval = f"[{texts[1]}, {texts[2]}]" if math.isfinite(e.high) else "no interval"
        shown = f"{texts[0]} {interval}, {d.basis}, {d.verdict}"
        decided = d.verdict in ("better", "worse")
        label, tone = (_DECIDED, 1) if decided else (_OPEN, 8)
        marks.append(Mark("bars", (e.mean,), (place,), (low,), (high,), tone=tone, names=(shown,), label=label))
        if (alone := d.seeds_only) and d.basis != SEEDS:
            low, high = _ends(alone)
            marks.append(Mark("thin bars", (alone.mean,), (place + 0.28,), (low,), (high,), tone=2, label=_SEEDS))
    marks += outside([f"{name(d.cell)} {precise(metric, e.mean, signed=True)}" for d, e, _, _ in away])
    return Chart(
        f"differences-{task}", f"Differences to std: {task}", metric_name(metric), "", tuple(marks),
        tuple(name(d.cell) for d, *_ in drawn), hundredths="x" if metric in ROUGE else "",
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
    """How many runs score above any value: of plain fine-tuning and the best others by the mean of the middle half."""
    columns = {method: block.scores(method) for method in block.methods}
    middle = {method: float(across.iqm_of(of)) for method, of in columns.items()}
    near, away = apart(list(columns), list(middle.values()))
    best = sorted(range(len(near)), key=lambda i: -middle[near[i]])
    shown = [near[i] for i in named([block.cells[block.tasks[0], method] for method in near], best)]
    every = np.concatenate([scores for method in shown for scores in columns[method]])
    taus = np.linspace(every.min() - 1e-9, every.max(), 101)
    marks = [
        Mark("line", tuple(taus), tuple(across.profile_of(columns[method], taus)), label=method, tone=i + 1)
        for i, method in enumerate(shown)
    ]
    marks += outside([f"{method} {middle[method]:.3f}" for method in away])
    more = f" {len(near) - len(shown)} more methods are not drawn." if len(near) > len(shown) else ""
    note = f"The share of runs that score above x, mean over tasks; higher is better.{more}"
    title = f"Performance profile: {len(block.tasks)} tasks"
    return Chart("profile", title, "score", "share of runs above", tuple(marks), note=note)


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
