"""Claims about what is left in encoders, judged by probe runs.

An encoder's tasks say which protocol it is part of: ``generalization`` (tuned on one task, probed on another),
``chain`` (tuned on several), ``cycle`` (tuned on one of them twice). Within a protocol the unit is a pair of seeds: the
mean of method less the other over the (encoder, probed task) pairs that both have.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ftbench.reporting import crossed, pairs
from ftbench.reporting.cells import canonical
from ftbench.reporting.claims import COLUMNS, CONTRADICTED, SUPPORTED, UNDECIDED, Claim, Finding, is_named
from ftbench.reporting.differences import LEVEL
from ftbench.reporting.probed import PRETRAINED, RANDOM, THEN, Probed, group, reference
from ftbench.reporting.study import Study
from ftbench.types import Record

PROTOCOLS = ("generalization", "chain", "cycle")
#: collapse metrics that say how expressive the top layer is, higher: more so; all three normalisations
EXPRESSIVE = (
    "ridge_r2", "effective_rank", *(f"{mean}_{k}{of}" for mean in ("gm", "hm") for k in (5, 10, 20)
    for of in ("", "_top", "_trace")),
)  # fmt: skip
#: what the claim on expressive power rests on; the other metrics are reported beside them
DECISIVE = ("probe", "ridge_r2")

#: a seed to the values of each (encoder, probed task)
Values = Mapping[int, Mapping[tuple[str, str], float]]


@dataclass
class Line:
    """One method, one recipe in one protocol: by measure and seed what each (encoder, probed task) gave.

    ``probe`` is in units of the pretrained encoder's lead over the random one, on that task.
    """

    method: str
    protocol: str
    about: tuple[str, ...]
    recipe: str
    measures: dict[str, dict[int, dict[tuple[str, str], float]]] = field(default_factory=dict)
    leads: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, record: Record, place: tuple[str, str], one: Probed, ends: tuple[float, float]) -> None:
        """A probe run of ``one``; ends: scores of the random and the pretrained encoder on its task, which leads."""
        random, pretrained = ends
        self.leads[place], score = one.side * (pretrained - random), record.result.score(one.metric)
        above = None if score is None else one.side * (score - random)
        found = {name: record.result.score(name, split="collapse") for name in EXPRESSIVE}
        for name, value in {"probe": above, **found}.items():
            if value is not None and np.isfinite(value):
                self.measures.setdefault(name, {}).setdefault(record.result.spec.seed, {})[place] = value


@dataclass(frozen=True)
class Compared:
    """A method against another by one measure: a mean difference for each pair of seeds."""

    line: Line
    than: str
    measure: str
    values: tuple[float, ...]
    p_holm: float | None = None

    @property
    def estimate(self) -> crossed.Estimate | None:
        return crossed.seeds_only(np.array(self.values)) if len(self.values) > 1 else None

    def says(self, seeds: int) -> str:
        """Of "more than the other": supported, contradicted or undecided, at 5 % after Holm."""
        if self.estimate is None or len(self.values) < seeds or self.p_holm is None or self.p_holm >= LEVEL:
            return UNDECIDED
        return SUPPORTED if self.estimate.mean > 0 else CONTRADICTED


def kept_more(claim: Claim, study: Study) -> Finding:
    """A higher share of the pretrained encoder's lead kept than by std, by each of the methods in each protocol."""
    lines = list(_lines(study))
    found = _holm([c for line in lines for c in _against(line, lines, claim, "probe")])
    if not found:
        return Finding(claim, UNDECIDED, f"no probes of {' or '.join(claim.better)} beside {' or '.join(claim.than)}")
    says = [c.says(claim.seeds) for c in found]
    have = {(c.line.method, c.line.protocol) for c in found}
    missing = _missing([(method, name) for method in claim.better for name in PROTOCOLS], have)
    left = statistics.fmean(share for line in lines if line.method in claim.than for share in _shares(line))
    of = f"{says.count(SUPPORTED)} of {len(says)} comparisons support it; std kept {left:.0%} of the lead"
    why = f"{of}; {missing}" if missing else of
    if CONTRADICTED in says:
        verdict = CONTRADICTED
    else:
        verdict = SUPPORTED if not missing and set(says) == {SUPPORTED} else UNDECIDED
        why += _few(found, claim)
    rows = tuple(_row(c, s, "share kept") for c, s in zip(found, says, strict=True))
    return Finding(claim, verdict, why, rows, about=_about(lines))


def expressive(claim: Claim, study: Study) -> Finding:
    """Each of the methods better than std++ and std in how much of the pretrained features a ridge regression gives
    back, and in probes. The other metrics are compared too, so that it is seen where they disagree.
    """
    lines = list(_lines(study))
    names = ("probe", *EXPRESSIVE)
    found = _holm([c for line in lines for name in names for c in _against(line, lines, claim, name)], DECISIVE)
    if not found:
        return Finding(claim, UNDECIDED, f"no probes of {' or '.join(claim.better)} beside {' or '.join(claim.than)}")
    first = [c for c in found if c.measure in DECISIVE]
    says = [c.says(claim.seeds) for c in first]
    have = {
        (f"{c.line.method} beside {name}", c.measure) for c in first for name in claim.than if is_named(c.than, (name,))
    }
    pairs_of = [f"{method} beside {name}" for method in claim.better for name in claim.than]
    missing = _missing([(pair, measure) for pair in pairs_of for measure in DECISIVE], have)
    others = [c for c in found if c.measure not in DECISIVE]
    higher = sum(np.mean(c.values) > 0 for c in others)
    why = (
        f"{says.count(SUPPORTED)} of {len(says)} comparisons in probes and R2 support it; of {len(others)} other "
        f"comparisons of metrics {higher} have the higher mean and {len(others) - higher} do not"
    )
    if missing:
        why += f"; {missing}"
    if CONTRADICTED in says:
        verdict = CONTRADICTED
    else:
        verdict = SUPPORTED if not missing and set(says) == {SUPPORTED} else UNDECIDED
        why += _few(first, claim)
    rows = tuple(_row(c, c.says(claim.seeds), c.measure) for c in found)
    return Finding(claim, verdict, why, rows, about=_about(lines))


def _missing(wanted: Sequence[tuple[str, str]], have: Collection[tuple[str, str]]) -> str:
    """``missing: r4f in chain, cycle; ...``: what a claim speaks of and was not compared, and where; or nothing."""
    gaps: dict[str, list[str]] = {}
    for what, where in wanted:
        if (what, where) not in have:
            gaps.setdefault(what, []).append(where)
    return "missing: " + "; ".join(f"{what} in {', '.join(where)}" for what, where in gaps.items()) if gaps else ""


def protocols(encoder: str, task: str) -> Iterator[str]:
    """Which protocols a probe of ``task`` on an encoder that was tuned on ``encoder`` is part of."""
    tasks = encoder.split(THEN)
    if len(tasks) == 1 and tasks[0] != task:
        yield "generalization"
    if len(tasks) > 1:
        yield "cycle" if len(set(tasks)) < len(tasks) else "chain"


def _lines(study: Study) -> Iterator[Line]:
    """Encoders of one method and recipe in one protocol. Tasks of other sizes take other numbers of steps: those tell
    lines apart only where an encoder and a probed task have several.
    """
    parts = list(_parts(study))
    steps_of: dict[tuple[Any, ...], set[Any]] = {}
    for key, place, one, _ in parts:
        steps_of.setdefault((key, place), set()).add(one.recipe.get("steps"))
    several = {key for (key, _), steps in steps_of.items() if len(steps) > 1}
    lines: dict[tuple[Any, ...], Line] = {}
    for key, place, one, ends in parts:
        protocol, about, recipe, method, _ = key
        line = Line(method, protocol, (one.spec.model, *about), recipe)
        line = lines.setdefault((key, one.recipe.get("steps") if key in several else None), line)
        for record in one.ok:
            line.add(record, place, one, ends)
    yield from lines.values()


def _parts(study: Study) -> Iterator[tuple[Any, tuple[str, str], Probed, tuple[float, float]]]:
    """What is the same along a line, the place (encoder, probed task), its probes, and ``_reference`` of both ends."""
    probes = [record for record in study.apart if record.result.spec.kind == "probe"]
    for found in group(probes, study.records):
        random, pretrained = (_reference(found, name) for name in (RANDOM, PRETRAINED))
        if random is None or pretrained is None or found[0].side * (pretrained - random) <= 0:
            continue  # without a lead there is no share of it
        for one in (one for one in found if one.ok and not one.is_reference):
            spec = one.spec
            about = (spec.weights, spec.pooling, str(spec.repeats), str(spec.train_size), str(spec.limit))
            recipe = canonical({key: value for key, value in one.recipe.items() if key != "steps"})
            revisions = tuple(method.revision for method in spec.methods)
            for protocol in protocols(one.encoder, spec.task):
                key = (protocol, about, recipe, spec.method, revisions)
                yield key, (one.encoder, spec.task), one, (random, pretrained)


def _reference(found: Sequence[Probed], name: str) -> float | None:
    one = reference(found, name)
    return one.mean(one.metric, one.layers) if one and one.ok else None


def _against(line: Line, lines: Sequence[Line], claim: Claim, measure: str) -> Iterator[Compared]:
    """The line against each other method of the claim that was tuned alike; not where several could be meant."""
    if not is_named(line.method, claim.better):
        return
    for name in claim.than:
        alike = [
            other for other in lines if is_named(other.method, (name,)) and other.protocol == line.protocol
            and other.about[1:] == line.about[1:] and other.recipe == line.recipe
        ]  # fmt: skip
        if len(alike) == 1 and (values := _paired(line, alike[0], measure)):
            yield Compared(line, alike[0].method, measure, values)


def _paired(line: Line, other: Line, measure: str) -> tuple[float, ...]:
    """One mean difference a seed, over the places that both methods have for every seed that both finished."""
    a, b = line.measures.get(measure, {}), other.measures.get(measure, {})
    seeds = sorted(set(a) & set(b))
    places = sorted(set.intersection(*({*a[s]} & {*b[s]} for s in seeds))) if seeds else []
    if not places:
        return ()
    gains = [sum(a[s][p] - b[s][p] for p in places) for s in seeds]
    whole = sum(line.leads[p] for p in places) if measure == "probe" else len(places)
    return tuple(gain / whole for gain in gains)


def _shares(line: Line) -> Iterator[float]:
    """What each seed kept of the lead, over the places that it has."""
    for of in line.measures.get("probe", {}).values():
        yield sum(of.values()) / sum(line.leads[place] for place in of)


def _holm(found: Sequence[Compared], only: Sequence[str] = ()) -> list[Compared]:
    """With p corrected over the comparisons that decide; the others' is left as it is."""
    p = [c.estimate.p if c.estimate else None for c in found]
    family = [i for i, c in enumerate(found) if p[i] is not None and (not only or c.measure in only)]
    adjusted = dict(zip(family, pairs.holm([float(p[i] or 0.0) for i in family]), strict=True))
    return [Compared(c.line, c.than, c.measure, c.values, adjusted.get(i, p[i])) for i, c in enumerate(found)]


def _few(found: Sequence[Compared], claim: Claim) -> str:
    few = sum(len(c.values) < claim.seeds for c in found)
    return f"; {few} of {len(found)} comparisons have fewer than {claim.seeds} pairs of seeds" if few else ""


def _row(c: Compared, says: str, metric: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(column.key for column in COLUMNS)
    row |= {"task": c.line.protocol, "method": c.line.method, "than": c.than, "metric": metric}
    row |= {"pairs": len(c.values), "difference": float(np.mean(c.values)), "p_holm": c.p_holm, "verdict": says}
    return row | ({"low": c.estimate.low, "high": c.estimate.high, "basis": "seeds"} if c.estimate else {})


def _about(lines: Sequence[Line]) -> str:
    models = sorted({line.about[0] or "an unnamed model" for line in lines})
    tasks = sorted({task for line in lines for _, task in line.leads})
    return f"{', '.join(models)}, probed on {', '.join(tasks)}"
