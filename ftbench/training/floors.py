"""Reference rows of summarization: what copying from the document gives, without a model.

lead    its first n words, n the median length of a training summary
lead-3  its first three sentences, where documents have more
oracle  the sentences that a greedy choice with the reference in hand would copy: a ceiling for extraction, not a bar

A system that does not beat lead has learned nothing that the position of a word does not say.
"""

from __future__ import annotations

from typing import Any

import torch

from ftbench.analysis.extracts import extracts, median_words
from ftbench.analysis.summaries import score_summaries
from ftbench.training.cost import Meter
from ftbench.training.run import Outcome, Place, apply_perturbations
from ftbench.types import Cost, Data, Result, RunSpec


def floors(spec: RunSpec, data: Data, place: Place) -> Outcome:
    """Scores of the extracts on every scored split of ``spec``: ``metrics[extract][split]``.

    facts: ``lead_words``; ``intervals[extract][split][metric]``, 95 % over the rows; ``notes`` of the scoring.
    """
    data = apply_perturbations(spec, data)
    meter = Meter(Cost(device=str(place.device), threads=torch.get_num_threads()), place.device)
    meter.start()
    words = median_words([texts[0] for texts in data.splits["train"].summaries])
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    intervals: dict[str, dict[str, dict[str, list[float]]]] = {}
    notes: dict[str, None] = {}
    for split, rows in data.splits.items():
        if split in ("train", "selection"):
            continue
        for name, summaries in extracts(rows.texts[0], rows.summaries, words).items():
            scores = score_summaries(summaries, rows.summaries, rows.texts[0])
            metrics.setdefault(name, {})[split] = dict(scores.means)
            intervals.setdefault(name, {})[split] = {key: list(ends) for key, ends in scores.intervals.items()}
            notes |= dict.fromkeys(scores.notes)
    meter.stop()
    facts: dict[str, Any] = {
        "kind": data.task.kind,
        "headline": data.task.metrics[0],
        "lower_is_better": False,
        "rows": {name: len(rows) for name, rows in data.splits.items()},
        "lead_words": words,
        "intervals": intervals,
        "notes": list(notes),
    }
    return Outcome(Result(spec=spec, status="ok", metrics=metrics, facts=facts), meter.cost)
