"""What probes and measured layers show, in sentences beside those on methods."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from ftbench.reporting.layer_figure import title
from ftbench.reporting.probed import PRETRAINED, RANDOM, Probed, group, kept, recipe_text, reference
from ftbench.reporting.study import Study

#: sentences of one kind
MOST = 12


def of_probes(study: Study) -> Iterator[str]:
    """What each method kept of the pretrained encoder's lead, a sentence for each probed task and tuned-on tasks."""
    probes = [record for record in study.apart if record.result.spec.kind == "probe"]
    lines = []
    for found in group(probes, study.records):
        ends = {name: _score(reference(found, name)) for name in (PRETRAINED, RANDOM)}
        encoders = dict.fromkeys(one.encoder for one in found if not one.is_reference and one.ok)
        for encoder in encoders:
            lines.append(_of_encoder(encoder, found, ends[PRETRAINED], ends[RANDOM]))
    yield from lines[:MOST]
    if len(lines) > MOST:
        yield f"{len(lines) - MOST} more encoders and probed tasks are in the tables."


def _of_encoder(encoder: str, found: list[Probed], pretrained: float | None, random: float | None) -> str:
    here = [one for one in found if one.encoder == encoder and not one.is_reference and one.ok]
    about = f"{here[0].spec.task}, probed after tuning on {encoder}"
    if pretrained is None or random is None:
        return f"{about}: no pretrained or no random encoder beside it, so what was kept cannot be said."
    lead = f"{here[0].metric} {pretrained:.3f} before, {random:.3f} of a random encoder"
    side = here[0].side
    if side * (pretrained - random) <= 0:
        return f"{about}: {lead}; without a lead nothing can be kept of it."
    shares = [(one, kept(_score(one), pretrained, random, side)) for one in here]
    said = [
        f"{' '.join(filter(None, (one.spec.method, recipe_text(one, found))))} {share:.0%} ({len(one.ok)})"
        for one, share in shares
        if share is not None
    ]
    more = f" and {len(said) - 8} more" if len(said) > 8 else ""
    return f"{about}: {lead}; kept of that lead (seeds in brackets): {', '.join(said[:8])}{more}."


def _score(one: Probed | None) -> float | None:
    values = one.values(one.metric, one.layers) if one and one.ok else []
    return statistics.fmean(values) if values else None


def of_layers(study: Study) -> Iterator[str]:
    """The verdict of each measurement of layers and its reason."""
    measured = [r.result for r in study.apart if r.result.spec.kind == "variability" and r.result.status == "ok"]
    with_nu = [result for result in measured if result.facts["headline"] == "nu"]
    for result in with_nu[:MOST]:
        about, verdict = title(result).split("\n")
        yield f"layers of {about}: {verdict}; {result.facts['reason']}."
    if len(with_nu) > MOST:
        yield f"{len(with_nu) - MOST} more measurements of layers are in the tables."
