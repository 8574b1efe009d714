"""Claims of papers against the runs at hand: supported, contradicted, or undecided with what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ftbench.lookup import find
from ftbench.reporting import across, crossed, pairs
from ftbench.reporting.cells import Cell, Group, by_rows, to_cells, varying
from ftbench.reporting.claims import COLUMNS, CONTRADICTED, MARGIN, SUPPORTED, UNDECIDED, Claim, Finding, claims
from ftbench.reporting.costs import mean_of
from ftbench.reporting.differences import Difference, contrast, is_compared, with_holm
from ftbench.reporting.layer_claims import LAYER_JUDGES
from ftbench.reporting.probe_claims import expressive, kept_more
from ftbench.reporting.study import Study


def judge(study: Study, number: str) -> Finding:
    """The verdict on claim ``number`` by these runs. Raises UsageError for a number that no claim has."""
    claim = find({str(claim.number): claim for claim in claims()}, number, "claim")
    if not claim.kind:
        return Finding(claim, UNDECIDED, f"these runs cannot tell: it takes {claim.needs}")
    return JUDGES[claim.kind](claim, study)


def _groups(claim: Claim, study: Study) -> Iterator[Group]:
    arms, references = to_cells(study.records, study.selection)
    for _, groups in by_rows(arms, references):
        for group in groups:
            task = (group.std or group.arms[0]).spec.task
            if is_compared(group) and (not claim.tasks or task in claim.tasks):
                yield group


def _compared(claim: Claim, study: Study) -> list[Difference]:
    """Each better method against each other one, where both were run beside a std that learned; Holm over all."""
    found = []
    for group in _groups(claim, study):
        cells = {cell.method: cell for cell in group.arms}
        for name, other in ((n, o) for n in claim.better for o in claim.than if n in cells and o in cells):
            keys = [key for key in cells[name].scores if key in cells[other].scores]
            if keys:
                found.append(contrast(cells[name], cells[other], keys, study.kept))
    return with_holm(found, "all")


def _says(d: Difference, seeds: int) -> str:
    """What one comparison says of "better"."""
    if d.headline is None or len(d.a) < seeds:
        return UNDECIDED
    if d.verdict == "better":
        return SUPPORTED
    small = max(abs(d.headline.low), abs(d.headline.high)) < MARGIN
    return CONTRADICTED if d.verdict in ("worse", "equal") or small else UNDECIDED


def _row(d: Difference, says: str, cost: float | None = None) -> dict[str, Any]:
    keys = {key: d.cell.setting(key) for key in (*varying([d.cell, d.std]),)}
    row: dict[str, Any] = {**keys, **dict.fromkeys(column.key for column in COLUMNS)}
    row |= {"method": d.cell.method, "than": d.std.method, "metric": d.cell.metric, "pairs": len(d.a), "verdict": says}
    row |= {"difference": float(np.mean(d.differences)), "basis": d.basis or None, "p_holm": d.p_holm, "cost": cost}
    return row | ({"low": d.headline.low, "high": d.headline.high} if d.headline else {})


def _together(says: Sequence[str], found: Sequence[Difference], claim: Claim) -> tuple[str, str]:
    """One verdict: all support it, or one contradicts it; else undecided, and why."""
    if not found:
        return UNDECIDED, f"no runs of {' or '.join(claim.better)} beside {' or '.join(claim.than)} where std learned"
    n = len(says)
    if CONTRADICTED in says:
        return CONTRADICTED, f"{says.count(CONTRADICTED)} of {n} comparisons contradict it"
    if all(one == SUPPORTED for one in says):
        return SUPPORTED, f"{n} of {n} comparisons support it"
    few = sum(len(d.a) < claim.seeds for d in found)
    why = f"{few} of {n} comparisons have fewer than {claim.seeds} pairs of seeds" if few else "intervals hold both"
    return UNDECIDED, f"{says.count(SUPPORTED)} of {n} comparisons support it; {why}"


def _superiority(claim: Claim, study: Study) -> Finding:
    found = _compared(claim, study)
    says = [_says(d, claim.seeds) for d in found]
    verdict, why = _together(says, found, claim)
    rows = tuple(_row(d, s) for d, s in zip(found, says, strict=True))
    return Finding(claim, verdict, why, rows, tuple(d.cell for d in found))


def _not_worse_and_cheaper(claim: Claim, study: Study) -> Finding:
    found = _compared(claim, study)
    says, costs = [], []
    for d in found:
        ours, theirs = (mean_of([r.cost.training_seconds for r in cell.ok]) for cell in (d.cell, d.std))
        costs.append(ours / theirs if ours and theirs else None)
        side = -1.0 if d.cell.lower_is_better else 1.0
        if d.headline is None or len(d.a) < claim.seeds or costs[-1] is None:
            says.append(UNDECIDED)
            continue
        worst, best = sorted((side * d.headline.low, side * d.headline.high))
        dearer = (costs[-1] or 0) >= 1
        says.append(
            SUPPORTED if worst > -MARGIN and not dearer else CONTRADICTED if best < -MARGIN or dearer else UNDECIDED
        )
    verdict, why = _together(says, found, claim)
    rows = tuple(_row(d, s, c) for d, s, c in zip(found, says, costs, strict=True))
    return Finding(claim, verdict, why, rows, tuple(d.cell for d in found))


def _wins(claim: Claim, study: Study) -> Finding:
    """Counts tasks on which one of the better ones has the best mean, and compares average ranks."""
    names = (*claim.better, *claim.than)
    best: dict[str, list[float]] = {}
    cells = []
    for group in _groups(claim, study):
        found = {cell.method: cell for cell in group.arms if len(cell.scores) >= claim.seeds}
        if not all(name in found for name in names) or group.arms[0].spec.task in best:
            continue
        side = -1.0 if group.arms[0].lower_is_better else 1.0
        best[group.arms[0].spec.task] = [side * float(found[name].mean or 0.0) for name in names]
        cells.append(found[claim.better[0]])
    if len(best) < claim.of_tasks:
        why = f"{len(best)} of {claim.of_tasks} tasks have {claim.seeds} seeds of {', '.join(names)}"
        return Finding(claim, UNDECIDED, why, (), tuple(cells))
    scores = np.array(list(best.values()))
    ours = len(claim.better)
    won = int((scores[:, :ours].max(axis=1) > scores[:, ours:].max(axis=1)).sum())
    ranks = across.ranks(scores).mean(axis=0)
    first = bool(ranks[:ours].min() < ranks[ours:].min())
    verdict = SUPPORTED if won >= claim.wins and first else CONTRADICTED
    placed = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(names, ranks, strict=True))
    return Finding(claim, verdict, f"best on {won} of {len(best)} tasks; mean ranks {placed}", (), tuple(cells))


def _slope(claim: Claim, study: Study) -> Finding:
    """Slopes of the difference over log2 of the training size and over label noise, one for each pair of seeds."""
    rows, says, cells = [], [], []
    for axis, sign in (("train_size", -1.0), ("label_noise", 1.0)):
        for task, method, slopes, cell in _slopes(claim, study, axis):
            cells.append(cell)
            estimate = crossed.seeds_only(np.array(slopes)) if len(slopes) > 1 else None
            low, high = (sorted((sign * estimate.low, sign * estimate.high))) if estimate else (None, None)
            enough = estimate is not None and len(slopes) >= claim.seeds and low is not None and high is not None
            say = (
                UNDECIDED
                if not enough
                else SUPPORTED
                if (low or 0) > 0
                else CONTRADICTED
                if (high or 0) < 0
                else UNDECIDED
            )
            says.append(say)
            rows.append({
                "task": task, **dict.fromkeys(column.key for column in COLUMNS), "method": f"{method} over {axis}",
                "than": claim.than[0], "metric": cell.metric, "pairs": len(slopes), "verdict": say, "basis": "slope",
                "difference": float(np.mean(slopes)), "p_holm": pairs.paired_t(slopes),
                "low": estimate.low if estimate else None, "high": estimate.high if estimate else None,
            })  # fmt: skip
    if not says:
        return Finding(
            claim, UNDECIDED, f"no {' or '.join(claim.better)} beside {claim.than[0]} at several sizes or noises"
        )
    n = len(says)
    verdict = CONTRADICTED if CONTRADICTED in says else SUPPORTED if set(says) == {SUPPORTED} else UNDECIDED
    return Finding(
        claim, verdict, f"{says.count(SUPPORTED)} of {n} slopes have the claimed sign", tuple(rows), tuple(cells)
    )


def _slopes(claim: Claim, study: Study, axis: str) -> Iterator[tuple[str, str, list[float], Cell]]:
    levels: dict[tuple[str, str], dict[tuple[int, int], list[tuple[float, float]]]] = {}
    first: dict[tuple[str, str], Cell] = {}
    for group in _groups(claim, study):
        found = {cell.method: cell for cell in group.arms}
        for name in (n for n in claim.better if n in found and claim.than[0] in found):
            cell, other = found[name], found[claim.than[0]]
            level = cell.setting(axis)
            at = None if level is None else float(np.log2(level)) if axis == "train_size" else float(level)
            key = (cell.spec.task, name)
            first.setdefault(key, cell)
            for seed in (seed for seed in cell.scores if seed in other.scores and at is not None):
                gain = (cell.scores[seed] - other.scores[seed]) * (-1.0 if cell.lower_is_better else 1.0)
                levels.setdefault(key, {}).setdefault(seed, []).append((at or 0.0, gain))
    for (task, name), by_seed in levels.items():
        points = [np.array(values) for values in by_seed.values() if len({x for x, _ in values}) > 1]
        if points:
            yield task, name, [float(np.polyfit(p[:, 0], p[:, 1], 1)[0]) for p in points], first[task, name]


JUDGES: dict[str, Callable[[Claim, Study], Finding]] = {
    "superiority": _superiority,
    "not worse and cheaper": _not_worse_and_cheaper,
    "wins": _wins,
    "slope": _slope,
    **LAYER_JUDGES,
    "kept more": kept_more,
    "expressive": expressive,
}
