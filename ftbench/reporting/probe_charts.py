"""Pictures of probe runs: the score of every layer, after every stage of a chain, and collapse against the score."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from ftbench.reporting.marks import MOST, MOST_LINES, Chart, Mark
from ftbench.reporting.probed import PRETRAINED, RANDOM, THEN, Probed, group, recipe_text
from ftbench.reporting.study import Study

#: the references' tones: a plain line and a dotted one
_TONES = {PRETRAINED: 0, RANDOM: 7}


def probe_charts(study: Study) -> Iterator[Chart]:
    """For each set of probed rows: score by layer, by stage where an encoder was tuned several times, and collapse."""
    probes = [record for record in study.apart if record.result.spec.kind == "probe"]
    for found in [found for found in group(probes, study.records) if any(one.ok for one in found)][:MOST]:
        ready = sorted(
            (one for one in found if one.ok), key=lambda one: (not one.is_reference, one.spec.method != "std")
        )
        yield from filter(None, (_by_layer(ready), _by_stage(ready), _collapse(ready)))


def _by_layer(found: Sequence[Probed]) -> Chart | None:
    """A line an encoder, means over its seeds; None where the encoders of a chain would be too many lines."""
    if len(found) > MOST_LINES:
        return None
    tones = _tones(found)
    marks = []
    for one in found:
        layers = tuple(float(layer) for layer in range(1, one.layers + 1))
        values = [one.values(one.metric, layer) for layer in range(1, one.layers + 1)]
        hints = tuple(f"{_label(one, found)}, layer {n:g}: {_range(v)}" for n, v in zip(layers, values, strict=True))
        means = tuple(statistics.fmean(v) for v in values)
        marks.append(Mark("line", layers, means, label=_label(one, found), tone=tones[id(one)], names=hints))
    return Chart(
        f"probe-{found[0].spec.task}", f"Probe by layer: {_about(found[0])}", "layer", found[0].metric, tuple(marks),
        note="A linear probe of each layer of the frozen encoder, means over seeds.",
    )  # fmt: skip


def _by_stage(found: Sequence[Probed]) -> Chart | None:
    """The top layer after each stage, a line a method; None where no encoder was tuned twice."""
    tuned = [one for one in found if not one.is_reference]
    if not any(THEN in one.encoder for one in tuned):
        return None
    lines: dict[str, list[Probed]] = {}
    for one in tuned:
        lines.setdefault(_method(one, found), []).append(one)
    last = max(_stage(one) for one in tuned)
    marks = [
        Mark(
            "line", (0.0, float(last)), (statistics.fmean(_top(one)),) * 2, label=one.encoder, tone=_TONES[one.encoder]
        )
        for one in found
        if one.is_reference and one.encoder in _TONES
    ]
    for i, (method, line) in enumerate(list(lines.items())[:MOST_LINES]):
        line.sort(key=_stage)
        x, y = tuple(float(_stage(one)) for one in line), tuple(statistics.fmean(_top(one)) for one in line)
        hints = tuple(f"{method} after {one.encoder}: {_range(_top(one))}" for one in line)
        marks.append(Mark("line", x, y, label=method, tone=i + 1, names=hints))
    return Chart(
        f"stages-{found[0].spec.task}", f"Probe by stage: {_about(found[0])}", "tasks tuned on before", found[0].metric,
        tuple(marks), note="The top layer, means over seeds. Level lines: the encoder before any tuning, a random one.",
    )  # fmt: skip


def _collapse(found: Sequence[Probed]) -> Chart | None:
    """Effective rank against the probe's score at the top layer, a point a run."""
    methods = list(dict.fromkeys(_method(one, found) for one in found if not one.is_reference))
    marks: list[Mark] = []
    for one in found:
        ranks, scores = one.values("effective_rank", one.layers, "collapse"), _top(one)
        if len(ranks) != len(scores) or not ranks:
            continue
        name = _method(one, found)
        tone = _TONES.get(one.encoder, 0) if one.is_reference else methods.index(name) + 1
        label = "" if any(mark.label == name for mark in marks) else name
        seeds = [record.result.spec.seed for record in one.ok]
        hints = tuple(
            f"{_label(one, found)}, seed {seed}: {score:.4f}, effective rank {rank:.1f}"
            for seed, score, rank in zip(seeds, scores, ranks, strict=True)
        )
        marks.append(Mark("points", tuple(ranks), tuple(scores), label=label, tone=tone, names=hints))
    if len(marks) < 2:
        return None
    note = "A point is a run: its top layer. To the left: fewer directions are used."
    return Chart(
        f"collapse-{found[0].spec.task}", f"Collapse and probe: {_about(found[0])}", "effective rank", found[0].metric,
        tuple(marks), log=True, note=note,
    )  # fmt: skip


def _top(one: Probed) -> list[float]:
    return one.values(one.metric, one.layers)


def _stage(one: Probed) -> int:
    return one.encoder.count(THEN) + 1


def _method(one: Probed, found: Sequence[Probed]) -> str:
    """Of an encoder that was tuned: the method, with its recipe where that varies; of a reference its name."""
    return one.encoder if one.is_reference else " ".join(filter(None, (one.spec.method, recipe_text(one, found))))


def _label(one: Probed, found: Sequence[Probed]) -> str:
    """The method, with the tasks before where encoders differ in them."""
    if one.is_reference or len({other.encoder for other in found if not other.is_reference}) < 2:
        return _method(one, found)
    return f"{_method(one, found)} after {one.encoder}"


def _about(one: Probed) -> str:
    return ", ".join([one.spec.task, *([one.spec.model] if one.spec.model else []), f"{one.spec.pooling} pooling"])


def _tones(found: Sequence[Probed]) -> dict[int, int]:
    tuned = [one for one in found if not one.is_reference]
    tones = {id(one): i + 1 for i, one in enumerate(tuned)}
    return tones | {id(one): _TONES.get(one.encoder, 0) for one in found if one.is_reference}


def _range(values: Sequence[float]) -> str:
    """``0.8123``, or of several runs ``0.8123 (0.81 to 0.82, 3 runs)``."""
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) < 2 else f"{mean} ({min(values):.4f} to {max(values):.4f}, {len(values)} runs)"
