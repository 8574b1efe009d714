"""Differences to std as tables: the headline, and further tests beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftbench.reporting import pairs
from ftbench.reporting.cells import setting_columns, varying
from ftbench.reporting.differences import BOTH, EXAMPLES, LEVEL, SEEDS, Difference
from ftbench.types import Column, Table

HEADLINE = (
    "Differences are method less std over the seeds that both finished. The 95 % interval and p let seeds and test "
    "examples vary together where predictions were kept (basis: seeds x examples); seeds-only, beside it, is the usual "
    "paired t interval, which takes the test examples as given and so finds too many differences when they are few."
)
POWER = (
    "detects: the true difference that this test would find four times in five, after Holm's correction whatever the "
    "other comparisons show. A smaller one can be there and not be seen."
)
TESTS = (
    "Beside the headline: p of the paired t test and of the exact sign-flip test over seeds, with the smallest p that "
    "the latter can give after Holm; r: correlation of paired seeds; P(better): chance that a run of the method beats "
    "one of std, with a bootstrap interval; ASO: almost stochastic order, below 0.5 where the method is better."
)

_HEADLINE = (
    Column("method", "method", numeric=False), Column("metric", "metric", numeric=False), Column("pairs", "pairs"),
    Column("difference", "vs std"), Column("low", "low"), Column("high", "high"),
    Column("basis", "basis", numeric=False), Column("seeds_difference", "seeds only"), Column("seeds_low", "low"),
    Column("seeds_high", "high"), Column("p", "p"), Column("p_holm", "p Holm"), Column("family", "of"),
    Column("detectable", "detects"), Column("verdict", "verdict", numeric=False),
)  # fmt: skip
_TESTS = (
    Column("method", "method", numeric=False), Column("metric", "metric", numeric=False), Column("pairs", "pairs"),
    Column("p_t", "p t"), Column("p_flip", "p flip"), Column("p_flip_least", "least"), Column("correlation", "r"),
    Column("improvement", "P(better)"), Column("improvement_low", "low"), Column("improvement_high", "high"),
    Column("aso", "ASO"),
)  # fmt: skip


def differences_table(differences: Sequence[Difference], unpaired: Sequence[str] = ()) -> Table | None:
    """A row for each method against std; None without one. unpaired: which are left out for want of common seeds."""
    if not differences:
        return None
    keys = varying([d.cell for d in differences])
    rows = tuple({key: d.cell.setting(key) for key in keys} | _headline(d) for d in differences)
    left_out = [f"Left out, with no seed in common with std: {', '.join(dict.fromkeys(unpaired))}."] if unpaired else []
    notes = (*_notes(differences), *left_out)
    return Table("Differences to std", setting_columns(keys) + _HEADLINE, rows, notes)


def _headline(d: Difference) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(column.key for column in _HEADLINE)
    row |= {
        "method": d.cell.method, "metric": d.cell.metric, "pairs": len(d.a), "basis": d.basis or None,
        "difference": float(np.mean(d.differences)), "verdict": d.verdict, "detectable": d.detectable,
    }  # fmt: skip
    if d.headline is not None:
        row |= {"low": d.headline.low, "high": d.headline.high, "p": d.headline.p}
        row |= {"p_holm": d.p_holm, "family": d.family}
    if alone := d.seeds_only:
        row |= {"seeds_difference": alone.mean, "seeds_low": alone.low, "seeds_high": alone.high}
    return {**row, "style": "best"} if d.verdict == "better" else row


def _notes(differences: Sequence[Difference]) -> list[str]:
    notes = [HEADLINE, POWER]
    sizes = {d.cell.spec.task: d.family for d in differences if d.headline is not None}
    if sizes:
        shown = ", ".join(f"{task} {size}" for task, size in sorted(sizes.items())[:6])
        notes.append(
            f"Holm's correction takes together the comparisons of one family (by default methods against std within "
            f"one task; see the column 'of'): {shown}. 'better' and 'worse' are at {LEVEL:.0%} after it."
        )
    weaker: dict[str, list[str]] = {}
    for d in differences:
        if d.basis != BOTH:
            weaker.setdefault(f"{_BASIS[d.basis]}: {d.why}", []).append(f"{d.cell.spec.task} {d.cell.method}")
    for what, which in weaker.items():
        more = f" and {len(which) - 4} more" if len(which) > 4 else ""
        notes.append(f"{what} ({'; '.join(which[:4])}{more}).")
    failed = [d for d in differences if len(d.cell.ok) < len(d.cell.records) or len(d.std.ok) < len(d.std.records)]
    if failed:
        shown = ", ".join(dict.fromkeys(f"{d.cell.spec.task} {d.cell.method}" for d in failed[:6]))
        notes.append(f"Failed runs are in no difference, which may flatter the side that they are on: {shown}.")
    if any(d.cell.lower_is_better for d in differences):
        names = sorted({d.cell.metric for d in differences if d.cell.lower_is_better})
        notes.append(f"{', '.join(names)}: lower is better, so a negative difference favours the method.")
    return notes


_BASIS = {
    SEEDS: "Interval over seeds only, for these test examples",
    EXAMPLES: "Interval over test examples only, for this seed",
    "": "No interval",
}


def further_table(differences: Sequence[Difference], generator: np.random.Generator) -> Table | None:
    """Further tests of the same comparisons; None where none has two pairs."""
    several = [d for d in differences if len(d.a) > 1]
    if not several:
        return None
    keys = varying([d.cell for d in several])
    seed = int(generator.integers(2**62))
    rows = tuple({key: d.cell.setting(key) for key in keys} | _tests(d, np.random.default_rng(seed)) for d in several)
    notes = [TESTS]
    hopeless = sorted({f"{d.cell.spec.task} ({len(d.a)} pairs)" for d in several if _least(d) >= LEVEL})
    if hopeless:
        notes.append(
            f"The sign-flip test cannot reach 0.05 here, however large the difference: {', '.join(hopeless[:6])}. "
            "More seeds, or fewer comparisons, are needed."
        )
    return Table("Further tests over seeds", setting_columns(keys) + _TESTS, rows, tuple(notes))


def _least(d: Difference) -> float:
    return min(1.0, pairs.smallest_p(len(d.a)) * d.family)


def _tests(d: Difference, generator: np.random.Generator) -> dict[str, Any]:
    side = -1.0 if d.cell.lower_is_better else 1.0
    a, b = [side * x for x in d.cell.scores.values()], [side * x for x in d.std.scores.values()]
    interval = pairs.improvement_interval(a, b, generator) or (None, None)
    order = pairs.almost_stochastic_order(a, b, generator)
    return {
        "method": d.cell.method, "metric": d.cell.metric, "pairs": len(d.a), "p_t": pairs.paired_t(d.differences),
        "p_flip": pairs.sign_flip(d.differences, generator), "p_flip_least": _least(d),
        "correlation": pairs.correlation(d.a, d.b), "improvement": pairs.improvement(a, b),
        "improvement_low": interval[0], "improvement_high": interval[1], "aso": order.eps if order else None,
    }  # fmt: skip
