"""Claims about layers (8 to 11) against the runs at hand; see ``judging`` for the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ftbench.reporting import pairs, stats
from ftbench.reporting.cells import SETTINGS, to_cells
from ftbench.reporting.claims import COLUMNS, CONTRADICTED, MARGIN, SUPPORTED, UNDECIDED, Claim, Finding
from ftbench.reporting.layer_runs import Scores, Tuned, measured_by_layer, spearman, tuned_layers
from ftbench.reporting.layer_study import arm_name
from ftbench.reporting.study import Study
from ftbench.types import Record
from ftbench.types.layers import rules

#: full tuning may be better by so much
NEAR = 0.01
LEVEL = 0.05
#: measures that are compared with the probe in claim 11; the first is the claimed one
COMPARED = {"nu": "nu", "ratio": "nu/shuffled", "logme": "LogME", "h_score": "H-score"}


@dataclass(frozen=True)
class _Pair:
    """Chosen layers against others: paired differences, larger is better."""

    tuned: Tuned
    arm: str
    than: str
    differences: tuple[float, ...]
    same: bool

    @property
    def interval(self) -> tuple[float, float] | None:
        return stats.t_interval(self.differences)

    @property
    def p(self) -> float | None:
        return None if self.same else pairs.paired_t(self.differences)


def _pairs(study: Study, than: str) -> tuple[list[_Pair], int]:
    """Every strategy of the paper against ``top`` or ``all``, and how many kinds of runs had not learned."""
    found, left_out = [], 0
    for tuned in tuned_layers(study.records, study.selection):
        if not _learned(tuned, study):
            left_out += 1
            continue
        seen: list[Any] = []
        for rule in (rule for count in tuned.counts for rule in rules(count)):
            placed = tuned.placed(rule)
            if placed in seen:
                continue
            seen.append(placed)
            sizes = {place.top - place.bottom + 1 for place in placed.values()}
            if len(sizes) != 1:
                continue
            (size,) = sizes
            ours, theirs = tuned.scores(placed), tuned.top(size) if than == "top" else tuned.all()
            keys = sorted(ours.keys() & theirs.keys())
            if keys:
                where = ", ".join(sorted({str(place) for place in placed.values()}))
                named = f"{tuned.first.method}, {arm_name(rule)} {where}"
                other = f"top {size}" if than == "top" else "all"
                topmost = than == "top" and all(p.top == tuned.blocks for p in placed.values())
                found.append(_Pair(tuned, named, other, _differences(tuned, ours, theirs, keys), topmost))
    return found, left_out


def _differences(tuned: Tuned, ours: Scores, theirs: Scores, keys: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    side = -1.0 if tuned.first.lower_is_better else 1.0
    return tuple(side * (ours[key] - theirs[key]) for key in keys)


def _learned(tuned: Tuned, study: Study) -> bool:
    """Whether tuning everything beats the references of these rows, or nobody can say."""
    whole = tuned.cells.get("")
    _, references = to_cells(study.records, study.selection)
    if whole is None or whole.mean is None:
        return True
    beside = [cell for cell in references if cell.spec.rows_key() == whole.spec.rows_key()]
    bars = [cell.mean for cell in beside if cell.metric == whole.metric and cell.mean is not None]
    lower = whole.lower_is_better
    return not bars or stats.beats(whole.mean, min(bars) if lower else max(bars), lower)


def _beats_top(claim: Claim, study: Study) -> Finding:
    found, left_out = _pairs(study, "top")
    corrected = _holm([pair.p for pair in found])

    def say(pair: _Pair, p: float | None) -> str:
        if pair.same or p is None or pair.interval is None or len(pair.differences) < claim.seeds:
            return UNDECIDED
        low, high = pair.interval
        if p < LEVEL and low > 0:
            return SUPPORTED
        return CONTRADICTED if (p < LEVEL and high < 0) or max(-low, high) < MARGIN else UNDECIDED

    return _found(claim, found, [say(pair, p) for pair, p in zip(found, corrected, strict=True)], corrected, left_out)


def _matches_all(claim: Claim, study: Study) -> Finding:
    found, left_out = _pairs(study, "all")

    def say(pair: _Pair) -> str:
        if pair.interval is None or len(pair.differences) < claim.seeds:
            return UNDECIDED
        low, high = pair.interval
        return SUPPORTED if low > -NEAR else CONTRADICTED if high < -NEAR else UNDECIDED

    return _found(claim, found, list(map(say, found)), [None] * len(found), left_out)


def _holm(p: Sequence[float | None]) -> list[float | None]:
    """Over those that there are."""
    adjusted = iter(pairs.holm([value for value in p if value is not None]))
    return [None if value is None else next(adjusted) for value in p]


def _found(
    claim: Claim, found: Sequence[_Pair], says: Sequence[str], p: Sequence[float | None], left_out: int
) -> Finding:
    if not found:
        unlearned = f"; {left_out} ways to tune did not beat the reference rows" if left_out else ""
        return Finding(claim, UNDECIDED, f"these runs cannot tell: it takes {claim.needs}{unlearned}")
    rows = tuple(_row(pair, say, value) for pair, say, value in zip(found, says, p, strict=True))
    by_task: dict[str, list[str]] = {}
    for pair, say in zip(found, says, strict=True):
        by_task.setdefault(pair.tuned.first.spec.task, []).extend([] if pair.same else [say])
    verdicts = [_most(task) for task in by_task.values()]
    why = (
        f"{verdicts.count(SUPPORTED)} of {len(verdicts)} tasks support it, {verdicts.count(CONTRADICTED)} contradict "
        f"it; of {sum(map(len, by_task.values()))} comparisons {says.count(SUPPORTED)} and {says.count(CONTRADICTED)}"
    )
    few = sum(len(pair.differences) < claim.seeds for pair in found if not pair.same)
    why += f"; {few} have fewer than {claim.seeds} pairs of seeds" if few else ""
    same = sum(pair.same for pair in found)
    why += f"; {same} more are of the same runs, where the chosen layers are the topmost" if same else ""
    why += f"; {left_out} ways to tune did not beat the reference rows" if left_out else ""
    return Finding(claim, _most(verdicts), why, rows, tuple(pair.tuned.first for pair in found))


def _most(says: Sequence[str]) -> str:
    """What more than half say."""
    return next((say for say in (SUPPORTED, CONTRADICTED) if 2 * says.count(say) > len(says)), UNDECIDED)


def _row(pair: _Pair, say: str, p: float | None) -> dict[str, Any]:
    cell = pair.tuned.first
    row: dict[str, Any] = dict.fromkeys(column.key for column in COLUMNS) | {k: cell.setting(k) for k in SETTINGS}
    low, high = pair.interval or (None, None)
    return row | {
        "method": pair.arm, "than": pair.than, "metric": cell.metric, "pairs": len(pair.differences),
        "difference": float(np.mean(pair.differences)), "low": low, "high": high, "p_holm": p, "verdict": say,
        "basis": "as many top ones" if pair.same else "seeds",
    }  # fmt: skip


def _measured(study: Study) -> list[Record]:
    """Finished measures with nu."""
    return [
        record
        for record in study.apart
        if record.result.spec.kind == "variability" and record.result.status == "ok" and "best" in record.result.facts
    ]


def _subsets(study: Study) -> Iterator[tuple[Record, Record]]:
    """Scarce and imbalanced subsets, each with the measure of the full set."""
    full: dict[str, Record] = {}
    for record in _measured(study):
        if record.result.spec.train_size is None and record.result.spec.imbalance is None:
            full.setdefault(replace(record.result.spec, data_seed=0).id, record)
    for record in _measured(study):
        spec = record.result.spec
        whole = full.get(replace(spec, train_size=None, imbalance=None, data_seed=0).id)
        if whole is not None and not spec.label_noise and (spec.train_size or spec.imbalance is not None):
            yield record, whole


def _is_robust(claim: Claim, study: Study) -> Finding:
    rows, says = [], []
    for record, whole in _subsets(study):
        a, b = (measured_by_layer(one, "nu") for one in (record, whole))
        correlation = spearman(a, b) if a is not None and b is not None else None
        drift = record.result.facts["best"] - whole.result.facts["best"]
        if whole.result.facts["verdict"] == "floor" or correlation is None:
            say = UNDECIDED  # no curve that a subset could keep
        else:
            say = SUPPORTED if correlation >= 0.9 - 1e-9 and abs(drift) <= 1 else CONTRADICTED
        spec, facts = record.result.spec, record.result.facts
        balance = f", imbalance {spec.imbalance:g}" if spec.imbalance is not None else ""
        rows.append(
            dict.fromkeys(column.key for column in COLUMNS)
            | {
                "task": spec.task, "method": f"{facts['rows']['train']:,} rows{balance}, draw {spec.data_seed}",
                "than": f"{whole.result.facts['rows']['train']:,} rows", "metric": "Spearman", "verdict": say,
                "difference": correlation, "basis": f"l* moves by {drift:+d}",
            }
        )  # fmt: skip
        says.append(say)
    if not says:
        return Finding(claim, UNDECIDED, f"these runs cannot tell: it takes {claim.needs}")
    models = ", ".join(sorted({record.result.spec.model for record, _ in _subsets(study)}))
    why = f"{says.count(SUPPORTED)} of {len(says)} subsets keep the curve, {says.count(CONTRADICTED)} do not ({models})"
    return Finding(claim, _most(says), why, tuple(rows))


def _ranks_as_probe(claim: Claim, study: Study) -> Finding:
    rows, wins = [], []
    probed = list(_largest(study))
    for record in probed:
        found, facts = record.result.facts["spearman"], record.result.facts
        rest = {name: found.get(name) for name in COMPARED if name != "nu"}
        others = {name: value for name, value in rest.items() if value is not None and math.isfinite(value)}
        best = max(others, key=lambda name: others[name])
        wins.append(found["nu"] >= others[best] - 1e-9)
        rows.append(
            dict.fromkeys(column.key for column in COLUMNS)
            | {
                "task": record.result.spec.task, "method": f"nu {found['nu']:.2f}", "metric": "Spearman",
                "than": ", ".join(f"{COMPARED[name]} {value:.2f}" for name, value in others.items()),
                "difference": found["nu"] - others[best], "verdict": SUPPORTED if wins[-1] else CONTRADICTED,
                "basis": f"{facts['layers']} layers, {facts['rows']['train']:,} rows",
            }
        )  # fmt: skip
    if not wins:
        return Finding(claim, UNDECIDED, f"these runs cannot tell: it takes {claim.needs}")
    verdict = SUPPORTED if all(wins) else CONTRADICTED if 2 * sum(wins) < len(wins) else UNDECIDED
    models = ", ".join(sorted({record.result.spec.model for record in probed}))
    why = f"nu ranks best, or ties, on {sum(wins)} of {len(wins)} tasks ({models})"
    return Finding(claim, verdict, why, tuple(rows))


def _largest(study: Study) -> Iterator[Record]:
    """For each task and model the measure with a probe on the most rows, neither imbalanced nor mislabelled."""
    found: dict[tuple[str, str], Record] = {}
    for record in _measured(study):
        spec, correlation = record.result.spec, record.result.facts.get("spearman") or {}
        known = {name: value for name, value in correlation.items() if value is not None and math.isfinite(value)}
        if spec.imbalance is None and not spec.label_noise and "nu" in known and len(known.keys() & COMPARED) > 1:
            largest = found.setdefault((spec.task, spec.weights), record)
            if largest.result.facts["rows"]["train"] < record.result.facts["rows"]["train"]:
                found[spec.task, spec.weights] = record
    yield from found.values()


LAYER_JUDGES: dict[str, Callable[[Claim, Study], Finding]] = {
    "layers beat top": _beats_top,
    "layers match all": _matches_all,
    "curve robust": _is_robust,
    "nu ranks as the probe": _ranks_as_probe,
}
