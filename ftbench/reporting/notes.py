"""What a reader must know to read a table; a note appears only where it applies."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from typing import Any

from ftbench.reporting import stats
from ftbench.reporting.cells import (
    NO_BASELINE,
    NO_REFERENCE,
    NO_SEED,
    NOT_LEARNED,
    RECIPE_AXES,
    ROW_AXES,
    VERSIONS,
    Cell,
    Group,
    described,
    tasks_with_several,
    varying,
)
from ftbench.types import Record
from ftbench.types.run import TUNED


def notes_for(
    records: list[Record], cells: list[Cell], groups: list[Group], rows: list[dict[str, Any]], selection: str
) -> list[str]:
    """What a reader must know to read the rows; a note appears only where it applies."""
    arms = [cell for cell in cells if not cell.reference]
    notes = [stats.DEGENERATE_RULE, stats.GATE_RULE] if arms else []
    verdicts = {group.verdict for group in groups}
    if NOT_LEARNED in verdicts:
        notes.append(
            f"{NOT_LEARNED}: plain fine-tuning is no better there than a row that needs none, so which method is best "
            "is not a question these runs can answer. More rows or another recipe may change that."
        )
    if NO_REFERENCE in verdicts:
        notes.append(f"{NO_REFERENCE}: whether std learned could not be checked, so differences may mean nothing.")
    if NO_BASELINE in verdicts:
        notes.append(
            f"{NO_BASELINE}: no std arm of the same rows and recipe that finished and has this score "
            "(for std++: not exactly one of fewer steps)."
        )
    if any(row["verdict"] == NO_SEED for row in rows):
        notes.append(
            f"{NO_SEED}: runs are compared seed by seed; give std and the method the same seeds (of both kinds)."
        )
    notes += _lead_notes(groups) + _pair_notes(rows) + _tuning_notes(groups)
    lower = sorted({cell.metric for cell in arms if cell.lower_is_better and cell.metric})
    if lower:
        notes.append(f"{', '.join(lower)}: lower is better, so a negative difference favours the method.")
    finished = [record for record in records if record.result.status == "ok" and record.result.spec.kind in TUNED]
    if selection == "best" and any(record.result.facts.get("selected_on") == "validation" for record in finished):
        notes.append("best: chosen on the split it is reported on, so optimistic.")
    missing = sum(len(cell.ok) - len(cell.scores) for cell in arms)
    if missing:
        notes.append(f"{missing} finished runs have no {selection} score and are left out.")
    notes += (
        _length_notes(finished)
        + _term_notes(arms)
        + _noise_notes(arms)
        + _cost_notes(finished)
        + _version_notes(cells)
        + _memory_notes(finished)
        + _software_notes(finished)
        + _failure_notes(records)
    )
    return notes


def _lead_notes(groups: list[Group]) -> list[str]:
    """Systems that summarize no better than the beginning of the document does, and what the extracts are."""
    references = {cell.reference for group in groups for cell in group.references}
    if "lead" not in references:
        return []
    words = sorted({record.result.facts["lead_words"] for group in groups for cell in group.references
                    for record in cell.ok if "lead_words" in record.result.facts})  # fmt: skip
    shown = ", ".join(map(str, words))
    more = {"lead-3": "lead-3: its first three sentences", "oracle": "oracle: the sentences that the reference would "
            "choose, a ceiling for copying, not a bar"}  # fmt: skip
    what = "; ".join(text for name, text in more.items() if name in references)
    said = [f"lead: the document's first {shown} words, the median of a training summary{f'; {what}' if what else ''}."]
    below = [f"{described(arm, [])} {arm.method} ({bar.reference})" for group in groups for arm in group.arms
             if (bar := group.beaten(arm)) and bar.reference.startswith("lead")]  # fmt: skip
    return said + ([f"Below the beginning of the document: {'; '.join(below)}."] if below else [])


def _pair_notes(rows: list[dict[str, Any]]) -> list[str]:
    compared = [row for row in rows if row["vs_std"] is not None]
    if not compared:
        return []
    notes = [
        "vs std: mean difference over the seeds that both arms finished, with its 95 % t interval. Pairs are taken "
        "as independent; the intervals are not corrected for the number of rows."
    ]
    if any(row["failed"] for row in compared):
        notes.append("Failed and diverged runs are in no difference, which may flatter the method: read it with fail.")
    partial = [row for row in compared if row["vs_std_n"] < row["n"]]
    if partial:
        shown = "; ".join(f"{row['task']} {row['method']} {row['vs_std_n']} of {row['n']}" for row in partial)
        notes.append(f"Fewer pairs than runs: {shown}.")
    if min(row["vs_std_n"] for row in compared) < stats.FEWEST_PAIRS:
        notes.append(
            f"With fewer than {stats.FEWEST_PAIRS} pairs no exact paired test can reach p = 0.05, however large the "
            "difference (5 pairs: 0.0625 at best): add seeds before claiming one."
        )
    return notes


def _tuning_notes(groups: list[Group]) -> list[str]:
    """Which arms stand in std's place for stacks that begin with them."""
    names = sorted({group.std.method for group in groups if group.std and group.std.spec.methods})
    return [f"{name} chooses what is tuned: stacks that begin with it are compared with it as std." for name in names]


def _length_notes(finished: list[Record]) -> list[str]:
    """How many rows lost their end to the limit on their tokens."""
    cut: dict[str, None] = {}
    for result in (record.result for record in finished):
        rows, lost = result.facts.get("rows", {}), result.facts.get("truncated", {})
        shown = ", ".join(f"{lost[name]} of {rows[name]} {name} rows" for name in sorted(lost) if lost[name])
        if shown:
            cut[
                f"{result.spec.task}: {shown} were cut to {result.spec.max_length} tokens ({result.spec.length_flag})."
            ] = None
    return list(cut)[:6]


def _term_notes(arms: list[Cell]) -> list[str]:
    """Whether a regulariser did anything: its terms over the run, as the runs logged them."""
    lines: dict[str, None] = {}
    settings = [key for key in varying(arms) if key in ROW_AXES or key in RECIPE_AXES]
    for cell in arms:
        terms = [found for record in cell.ok if (found := record.result.facts.get("terms"))]
        names = sorted({name for found in terms for name, value in found.items() if value is not None})
        logged = {name: [found[name] for found in terms if found.get(name) is not None] for name in names}
        means = {name: statistics.fmean(values) for name, values in logged.items()}
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.2g}" for name, value in means.items())
        if shown:
            lines[f"{cell.method} ({described(cell, settings)}): {shown}."] = None
    return [f"Terms, mean over the run: {line}" for line in list(lines)[:6]]


def _noise_notes(arms: list[Cell]) -> list[str]:
    """What the arms did with wrong labels, over all their runs."""
    lines = []
    settings = [key for key in varying(arms) if key in ROW_AXES]
    for cell in arms:
        facts = [record.result.facts for record in cell.ok if record.result.facts.get("flipped")]
        if flipped := sum(found["flipped"] for found in facts):
            fitted, recovered = (sum(found[f"flipped_{what}"] for found in facts) for what in ("fitted", "recovered"))
            shares = f"{fitted / flipped:.0%} and {recovered / flipped:.0%}"
            lines.append(f"{cell.method} ({described(cell, settings)}) {shares}")
    if not lines:
        return []
    more = f"; and {len(lines) - 8} more arms" if len(lines) > 8 else ""
    return [f"Wrong training labels learned, and seen through (the true one predicted): {'; '.join(lines[:8])}{more}."]


def _cost_notes(finished: list[Record]) -> list[str]:
    if not finished:
        return []
    kinds = ", ".join(sorted({record.cost.memory_of for record in finished if record.cost.memory_of}))
    notes = [
        "Relative to std: cost, CPU seconds of all threads in training (wall seconds on a GPU; no loading, no "
        f"evaluation); mem, peak memory{f' ({kinds})' if kinds else ''}. fwd: forward passes a step."
    ]
    places = sorted({f"{record.cost.device or 'unknown'}, {record.cost.threads} threads" for record in finished})
    if len(places) > 1:
        notes.append(f"Runs come from several devices or thread counts, so costs may not compare: {'; '.join(places)}.")
    return notes


def _version_notes(cells: list[Cell]) -> list[str]:
    found: dict[str, list[str]] = {}
    for key, label in VERSIONS.items():
        for task in sorted(tasks_with_several(key, cells)):
            found.setdefault(task, []).append(label)
    return [f"{task}: rows differ in {', '.join(labels)}; they are never averaged." for task, labels in found.items()]


def _failure_notes(records: list[Record]) -> list[str]:
    """The first line of three errors, then a count."""
    bad = [record.result for record in records if record.result.status != "ok"]
    notes = []
    for result in bad[:3]:
        error = (result.error.strip().splitlines() or ["no message"])[0]
        name = result.spec.method if result.spec.kind in TUNED else "reference"
        notes.append(
            f"{result.status}: {result.spec.task} {name}, seed {result.spec.seed}, data seed "
            f"{result.spec.data_seed}: {error}"
        )
    return notes + ([f"{len(bad) - 3} more runs failed or diverged."] if len(bad) > 3 else [])


def _memory_notes(records: list[Record]) -> list[str]:
    """Runs that did not fit into memory as they were asked for."""
    used = Counter((r.result.spec.method, r.result.facts["micro_batch_used"]) for r in records if _is_halved(r))
    if not used:
        return []
    named = ", ".join(
        f"{method} (micro-batches of {size}): {number}" for (method, size), number in sorted(used.items())
    )
    return [
        f"Out of memory, so done with smaller micro-batches at the same batch, runs: {named}. Their dropout masks are "
        "others than those of the same seed in other arms."
    ]


def _is_halved(record: Record) -> bool:
    return bool(record.result.facts.get("micro_batch_used"))


def _software_notes(records: list[Record]) -> list[str]:
    """Runs that were done under several versions of what can move a number, one beside the other or one by several."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        try:
            versions = json.loads((record.folder / "environment.json").read_text("utf-8"))["versions"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        for name, version in versions:
            found.setdefault(str(name), Counter())[str(version)] += 1
    several = {name: counts for name, counts in found.items() if len(counts) > 1}
    named = "; ".join(
        f"{name} {', '.join(f'{version} ({number})' for version, number in sorted(counts.items()))}"
        for name, counts in sorted(several.items())
    )
    notes = [f"Runs were done under several versions: {named}. Their numbers may differ for that."] if several else []
    mixed = Counter(" then ".join(software) for r in records if (software := r.result.facts.get("software")))
    shown = "; ".join(f"{number} under {which}" for which, number in mixed.items())
    return notes + ([f"Runs went on under other versions than they began with: {shown}."] if mixed else [])
