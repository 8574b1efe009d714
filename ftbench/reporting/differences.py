"""Each method against std on the same rows, recipe and seeds: what runs show, and what they could not have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ftbench.reporting import crossed, pairs
from ftbench.reporting.cells import NO_REFERENCE, Cell, Group, by_rows, to_cells, unique
from ftbench.reporting.predictions import Kept
from ftbench.types import Record

#: what an interval lets vary
BOTH, SEEDS, EXAMPLES, NOTHING = "seeds x examples", "seeds", "examples", ""
FAMILIES = ("task", "all", "none")
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """One method against std. Differences are method less std, in units of the metric.

    a, b:     paired scores of method and std, (pairs,) each
    headline: the estimate that conclusions rest on; None with one pair and no predictions
    basis:    what it lets vary: seeds x examples, seeds, or examples
    why:      why it is not seeds x examples, where it is not
    p_holm:   p of the headline, corrected for the ``family`` comparisons it is one of
    """

    cell: Cell
    std: Cell
    a: tuple[float, ...]
    b: tuple[float, ...]
    headline: crossed.Estimate | None
    basis: str
    why: str
    p_holm: float | None = None
    family: int = 1

    @property
    def differences(self) -> tuple[float, ...]:
        return tuple(x - y for x, y in zip(self.a, self.b, strict=True))

    @property
    def seeds_only(self) -> crossed.Estimate | None:
        """The paired t, which takes the test examples as given; None below two pairs."""
        return crossed.seeds_only(np.array(self.differences)) if len(self.a) > 1 else None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``undecided`` at 5 % after Holm; ``equal`` where no run differs from std's."""
        if self.headline is not None and self.headline.se == 0 and not any(self.differences):
            return "equal"
        if self.headline is None or self.p_holm is None or self.p_holm >= LEVEL:
            return "undecided"
        return "better" if (self.headline.mean > 0) != self.cell.lower_is_better else "worse"

    @property
    def detectable(self) -> float | None:
        """The true difference that the test behind ``verdict`` finds four times in five, whatever the others show.

        At 5 % over the ``family`` comparisons, which is the first step of Holm's correction.
        """
        if self.headline is None or self.headline.se <= 0:
            return None
        return pairs.detectable(self.headline.se, self.headline.df, level=LEVEL / self.family)


def compare(
    records: Sequence[Record], kept: Kept, *, selection: str = "last", family: str = "task"
) -> list[Difference]:
    """Every method against the std of its rows and recipe, where std learned, in the order of the tables.

    family: which comparisons Holm's correction takes together: those of one ``task``, ``all``, or ``none``.
    """
    arms, references = to_cells(unique(records), selection)
    found = []
    for group in (group for _, groups in by_rows(arms, references) for group in groups):
        if not is_compared(group) or group.std is None:
            continue
        for cell in group.arms:
            keys = [key for key in cell.scores if key in group.std.scores]
            if keys and cell is not group.std and cell.metric == group.std.metric:
                found.append(contrast(cell, group.std, keys, kept))
    return with_holm(found, family)


def unpaired(records: Sequence[Record], selection: str = "last") -> list[str]:
    """Task and method of each that would be compared, had it a seed in common with std."""
    groups = [group for _, found in by_rows(*to_cells(unique(records), selection)) for group in found]
    return [
        f"{cell.spec.task} {cell.method}"
        for group in groups if is_compared(group) for cell in group.arms if group.is_unpaired(cell)
    ]  # fmt: skip


def is_compared(group: Group) -> bool:
    """Whether std learned there, or nobody can say."""
    return group.std is not None and group.verdict in ("", NO_REFERENCE)


def contrast(cell: Cell, std: Cell, keys: Sequence[tuple[int, int]], kept: Kept) -> Difference:
    """``cell`` against ``std`` over the seeds ``keys`` that both have, at least one."""
    a, b = tuple(cell.scores[key] for key in keys), tuple(std.scores[key] for key in keys)
    runs = [*runs_of(cell, keys), *runs_of(std, keys)]
    drawn = kept.on_resamples(runs, cell.metric, cell.selection)
    seeds = np.subtract(a, b)
    n = len(seeds)
    if isinstance(drawn, str):
        if n > 1:
            return Difference(cell, std, a, b, crossed.seeds_only(seeds), SEEDS, drawn)
        return Difference(cell, std, a, b, None, NOTHING, f"there is one pair of seeds and {drawn}")
    scores, rows = drawn
    examples = scores[:n] - scores[n:]
    if n > 1:
        return Difference(cell, std, a, b, crossed.crossed(seeds, examples, rows), BOTH, "")
    estimate = crossed.examples_only(float(seeds[0]), examples[0], rows)
    return Difference(cell, std, a, b, estimate, EXAMPLES, "there is one pair of seeds")


def runs_of(cell: Cell, keys: Sequence[tuple[int, int]]) -> list[Record]:
    """The cell's finished runs with these (data seed, seed), in that order."""
    by_key = {(r.result.spec.data_seed, r.result.spec.seed): r for r in cell.ok}
    return [by_key[key] for key in keys]


def with_holm(found: Sequence[Difference], family: str) -> list[Difference]:
    """The same differences with p corrected within each family; ``seeds x examples`` or not, a test is a test."""
    of = {"task": lambda d: d.cell.spec.task, "all": lambda d: "", "none": id}[family]
    families: dict[Any, list[int]] = {}
    for i, difference in enumerate(found):
        if difference.headline is not None:
            families.setdefault(of(difference), []).append(i)
    out = list(found)
    for places in families.values():
        tests = [found[i].headline for i in places]
        adjusted = pairs.holm([test.p for test in tests if test is not None])
        for i, p in zip(places, adjusted, strict=True):
            out[i] = replace(found[i], p_holm=p, family=len(places))
    return out
