"""Claims of papers against the runs at hand: supported, contradicted, or undecided with what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from ftbench.lookup import find
from ftbench.reporting import crossed
from ftbench.reporting.cells import SETTINGS, Cell, canonical
from ftbench.reporting.claim_arms import ambiguous, by_name, groups_of, row_of
from ftbench.reporting.claims import CONTRADICTED, MARGIN, SUPPORTED, UNDECIDED, Claim, Finding, claims, is_named
from ftbench.reporting.costs import in_one_place, mean_of
from ftbench.reporting.differences import Difference, contrast, with_holm
from ftbench.reporting.layer_claims import LAYER_JUDGES
from ftbench.reporting.probe_claims import expressive, kept_more
from ftbench.reporting.study import Study
from ftbench.reporting.wins import wins
from ftbench.reporting.words import short

#: a method and another at several levels of one axis, from low to high
Line = tuple[tuple[Cell, Cell], ...]
#: what a gain is said to grow with, and what that makes of the method's slopes beside the other's
SLOPES = {"train_size": "worse", "label_noise": "better"}


def judge(study: Study, number: str) -> Finding:
    """The verdict on claim ``number`` by these runs. Raises UsageError for a number that no claim has."""
    claim = find({str(claim.number): claim for claim in claims()}, number, "claim")
    if not claim.kind:
        return Finding(claim, UNDECIDED, f"these runs cannot tell: it takes {claim.needs}")
    return JUDGES[claim.kind](claim, study)


def _pairs(claim: Claim, study: Study) -> Iterator[tuple[Cell, Cell]]:
    """Each better method beside each other one, where both were run beside a std that learned."""
    for group in groups_of(claim, study):
        cells = by_name(claim, group)
        yield from ((cells[n], cells[o]) for n in claim.better for o in claim.than if n in cells and o in cells)


def _compared(claim: Claim, study: Study) -> list[Difference]:
    """Each of ``_pairs`` that has seeds in common; Holm over all."""
    found = []
    for cell, other in _pairs(claim, study):
        keys = [key for key in cell.scores if key in other.scores]
        if keys:
            found.append(contrast(cell, other, keys, study.kept))
    return with_holm(found, "all")


def _says(d: Difference, seeds: int) -> str:
    """What one comparison says of "better"."""
    if d.headline is None or len(d.a) < seeds:
        return UNDECIDED
    if d.verdict == "better":
        return SUPPORTED
    small = max(abs(d.headline.low), abs(d.headline.high)) < MARGIN
    return CONTRADICTED if d.verdict in ("worse", "equal") or small else UNDECIDED


def _missing(claim: Claim, wanted: Sequence[str], found: Collection[tuple[str, str]]) -> list[str]:
    """Which of ``wanted`` were not found on each of the claim's tasks, else on each that was seen: one text, or none.

    found: what was compared, and on which task
    """
    tasks = claim.tasks or sorted({task for _, task in found})
    gaps = {what: [task for task in tasks if (what, task) not in found] for what in wanted}
    texts = [
        what if len(of) == len(tasks) else f"{what} on {', '.join(of)}" for what, of in gaps.items() if of or not tasks
    ]
    return [f"missing where std learned: {'; '.join(texts)}"] if texts else []


def _together(
    claim: Claim, found: Sequence[Difference], says: Sequence[str], lacking: Sequence[str], why_open: Sequence[str] = ()
) -> tuple[str, str]:
    """One verdict: one contradicts it, or all support it and nothing is lacking; else undecided. And why.

    lacking: what the claim speaks of and was not judged; why_open: why comparisons are undecided, if not for few seeds
    """
    if not found:
        return UNDECIDED, "; ".join(("nothing to compare", *lacking))
    n, few = len(says), sum(len(d.a) < claim.seeds for d in found)
    if CONTRADICTED in says:
        return CONTRADICTED, "; ".join((f"{says.count(CONTRADICTED)} of {n} comparisons contradict it", *lacking))
    why = [f"{says.count(SUPPORTED)} of {n} comparisons support it"]
    why += [f"{few} of {n} comparisons have fewer than {claim.seeds} pairs of seeds"] if few else []
    why += why_open
    if UNDECIDED in says and len(why) == 1:
        why.append("intervals hold both")
    verdict = SUPPORTED if set(says) == {SUPPORTED} and not lacking else UNDECIDED
    return verdict, "; ".join((*why, *lacking))


def _beside(claim: Claim, study: Study, found: Sequence[Difference]) -> list[str]:
    """What is lacking for the claim: methods that were not compared on some task, or that have several versions."""
    both = [(name, other) for name in claim.better for other in claim.than]
    there = {
        (f"{name} beside {other}", d.cell.spec.task)
        for d in found
        for name, other in both
        if is_named(d.cell.method, (name,)) and is_named(d.std.method, (other,))
    }
    wanted = [f"{name} beside {other}" for name, other in both]
    return [*_missing(claim, wanted, there), *ambiguous(claim, study)]


def _superiority(claim: Claim, study: Study) -> Finding:
    found = _compared(claim, study)
    says = [_says(d, claim.seeds) for d in found]
    verdict, why = _together(claim, found, says, _beside(claim, study, found))
    rows = tuple(row_of(d, s) for d, s in zip(found, says, strict=True))
    return Finding(claim, verdict, why, rows, tuple(d.cell for d in found))


def _cost(d: Difference) -> tuple[float | None, str]:
    """Seconds as a multiple of the other's; or None, and why there is none."""
    if not in_one_place([d.cell, d.std]):
        return None, "come from several devices or thread counts"
    ours, theirs = (mean_of([record.cost.training_seconds for record in cell.ok]) for cell in (d.cell, d.std))
    return (ours / theirs, "") if ours and theirs else (None, "were not measured")


def _says_cheaper(d: Difference, cost: float | None, seeds: int) -> str:
    """What one comparison says of "not worse, and cheaper". Scores alone can contradict it."""
    if d.headline is None or len(d.a) < seeds:
        return UNDECIDED
    side = -1.0 if d.cell.lower_is_better else 1.0
    worst, best = sorted((side * d.headline.low, side * d.headline.high))
    if best < -MARGIN:
        return CONTRADICTED
    if cost is None:
        return UNDECIDED
    return CONTRADICTED if cost >= 1 else SUPPORTED if worst > -MARGIN else UNDECIDED


def _not_worse_and_cheaper(claim: Claim, study: Study) -> Finding:
    found = _compared(claim, study)
    costs = [_cost(d) for d in found]
    says = [_says_cheaper(d, cost, claim.seeds) for d, (cost, _) in zip(found, costs, strict=True)]
    unknown = Counter(reason for _, reason in costs if reason)
    reasons = [f"seconds of {count} of {len(found)} comparisons {reason}" for reason, count in unknown.items()]
    verdict, why = _together(claim, found, says, _beside(claim, study, found), reasons)
    rows = tuple(row_of(d, s, cost) for d, s, (cost, _) in zip(found, says, costs, strict=True))
    return Finding(claim, verdict, why, rows, tuple(d.cell for d in found))


def _lines(claim: Claim, study: Study, axis: str) -> Iterator[Line]:
    """Pairs that differ in nothing but ``axis``, and in steps, which follow from the size; one at each level."""
    found: dict[str, list[tuple[Cell, Cell]]] = {}
    for pair in _pairs(claim, study):
        if pair[0].setting(axis) is not None:
            alike = [{k: v for k, v in cell.spec.arm().items() if k not in (axis, "steps")} for cell in pair]
            found.setdefault(canonical(alike), []).append(pair)
    for pairs in found.values():
        by_level = {cell.setting(axis): (cell, other) for cell, other in pairs}
        if len(by_level) == len(pairs) > 1:
            yield tuple(by_level[level] for level in sorted(by_level))


def _slopes(line: Line, axis: str) -> Difference:
    """Of both methods over the axis (log2 of a size), for each seed that has two levels or more."""
    fitted = []
    for seed in dict.fromkeys(seed for cell, _ in line for seed in cell.scores):
        there = [(cell, other) for cell, other in line if seed in cell.scores and seed in other.scores]
        if len(there) > 1:
            levels = np.array([cell.setting(axis) for cell, _ in there], dtype=np.float64)
            scores = np.array([(cell.scores[seed], other.scores[seed]) for cell, other in there])
            fitted.append(np.polyfit(np.log2(levels) if axis == "train_size" else levels, scores, 1)[0])
    a, b = (tuple(float(slope[i]) for slope in fitted) for i in range(2))
    estimate = crossed.seeds_only(np.subtract(a, b)) if len(a) > 1 else None
    return Difference(*line[0], a, b, estimate, "slope", "")


def _says_slope(d: Difference, axis: str, seeds: int) -> str:
    """What one slope says of "grows"."""
    if len(d.a) < seeds or d.verdict not in ("better", "worse"):
        return UNDECIDED
    return SUPPORTED if d.verdict == SLOPES[axis] else CONTRADICTED


def _slope_row(d: Difference, says: str, line: Line, axis: str) -> dict[str, Any]:
    """What differs along the line is given by its ends: ``100 to 1000``."""
    ends = {key: (line[0][0].setting(key), line[-1][0].setting(key)) for key in SETTINGS}
    spans = {key: f"{short(low)} to {short(high)}" for key, (low, high) in ends.items() if low != high}
    return row_of(d, says) | spans | {"method": f"{d.cell.method} over {axis}"}


def _slope(claim: Claim, study: Study) -> Finding:
    """Slopes of the difference over log2 of the training size and over label noise, one for each pair of seeds."""
    every = [(line, axis) for axis in SLOPES for line in _lines(claim, study, axis)]
    fitted = [_slopes(line, axis) for line, axis in every]
    lines = [of for of, d in zip(every, fitted, strict=True) if d.a]
    found = with_holm([d for d in fitted if d.a], "all")
    says = [_says_slope(d, axis, claim.seeds) for d, (_, axis) in zip(found, lines, strict=True)]
    wanted = [f"{name} over {axis}" for name in claim.better for axis in SLOPES]
    there = {(f"{d.cell.method} over {axis}", d.cell.spec.task) for d, (_, axis) in zip(found, lines, strict=True)}
    lacking = [*_missing(claim, wanted, there), *ambiguous(claim, study)]
    verdict, why = _together(claim, found, says, lacking)
    rows = tuple(_slope_row(d, s, *line) for d, s, line in zip(found, says, lines, strict=True))
    return Finding(claim, verdict, why, rows, tuple(cell for line, _ in lines for cell, _ in line))


JUDGES: dict[str, Callable[[Claim, Study], Finding]] = {
    "superiority": _superiority,
    "not worse and cheaper": _not_worse_and_cheaper,
    "wins": wins,
    "slope": _slope,
    **LAYER_JUDGES,
    "kept more": kept_more,
    "expressive": expressive,
}
