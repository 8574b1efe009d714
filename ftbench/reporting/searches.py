"""What a search tried and chose: a table of its own, and notes for the table of the reported runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ftbench.reporting.cells import ROW_AXES, TEXTS
from ftbench.types import Column, Record, Search, Table

#: what chooses rows, but for the slice, which the title of each search says
_AXES = {key: label for key, label in ROW_AXES.items() if key != "select_on"}
#: chosen configurations in a note
MOST_LISTED = 6
RULE = (
    "Each arm was given as many configurations; each was trained once, without the slice of train that the score is "
    "taken on. Chosen: the best score, of equals the first. These runs are in no mean, and no validation score was "
    "looked at."
)


def search_table(searches: Sequence[Search]) -> Table | None:
    """A row for each configuration that was tried; None without a search."""
    if not searches:
        return None
    settings = [key for key in _AXES if len({_setting(search, key) for search in searches}) > 1]
    rows = [
        {
            "task": search.reported.task,
            **{key: _setting(search, key) for key in settings},
            "arm": search.arm,
            "configuration": trial.configuration,
            "metric": search.metric,
            "score": trial.score,
            "chosen": "chosen" if number == search.chosen else "",
            **({"style": "best"} if number == search.chosen else {}),
        }
        for search in _ordered(searches, settings)
        for number, trial in enumerate(search.trials)
    ]
    columns = (
        Column("task", "task", numeric=False),
        *(Column(key, _AXES[key], numeric=key not in TEXTS) for key in settings),
        Column("arm", "arm", numeric=False),
        Column("configuration", "configuration", numeric=False),
        Column("metric", "metric", numeric=False),
        Column("score", "on the slice"),
        Column("chosen", "", numeric=False),
    )
    sizes = sorted({(search.share, search.rows) for search in searches})
    slices = ", ".join(f"{rows} rows ({share:.0%} of train)" for share, rows in sizes)
    return Table(f"Tried, and scored on {slices}", columns, tuple(rows), (RULE, *_noise(searches)))


def search_notes(searches: Sequence[Search], trials: Sequence[Record]) -> list[str]:
    """What was searched, on what, what was chosen, and how many runs it took; and trials that led to no choice."""
    notes = []
    studies: dict[str, list[Search]] = {}
    for search in _ordered(searches, list(_AXES)):
        studies.setdefault(search.study, []).append(search)
    for found in studies.values():
        first = found[0]
        budget = " or ".join(str(n) for n in sorted({len(search.trials) for search in found}))
        listed = "; ".join(f"{search.arm}: {search.trials[search.chosen].configuration}" for search in found)
        chosen = listed if len(found) <= MOST_LISTED else "see the table of what was tried"
        runs = len({trial.id for search in found for trial in search.trials})
        notes.append(
            f"Searched ({first.reported.task}): {budget} configurations of every arm, chosen on {first.rows} rows of "
            f"train ({first.share:.0%}), reported with fresh seeds; {runs} runs more, in no row above. Differences are "
            f"to the std that was searched alike. Chosen: {chosen}."
        )
    known = {trial.id for search in searches for trial in search.trials}
    if loose := sum(record.result.spec.id not in known for record in trials):
        notes.append(f"{loose} runs of searches that are not finished, or have no score, are left out.")
    return notes


def _noise(searches: Sequence[Search]) -> list[str]:
    """How far chance alone moves a score on so few rows."""
    shares = [
        (search.trials[search.chosen].score or 0.0, search.rows) for search in searches if search.metric == "accuracy"
    ]
    if not shares:
        return []
    errors = [(score * (1 - score) / rows) ** 0.5 for score, rows in shares]
    return [
        f"An accuracy on so few rows has a standard error of about {statistics.fmean(errors):.3f}: smaller differences "
        "between configurations say nothing."
    ]


def _ordered(searches: Sequence[Search], settings: Sequence[str]) -> list[Search]:
    """By task and settings, std first: what was just found and what was read from disk give one table."""

    def place(search: Search) -> tuple[Any, ...]:
        values = [_setting(search, key) for key in settings]
        within = tuple((value is None, value if value is not None else 0) for value in values)
        return search.reported.task, within, search.study, search.arm != "std", search.arm, search.id

    return sorted(searches, key=place)


def _setting(search: Search, key: str) -> Any:
    return getattr(search.reported, key)
