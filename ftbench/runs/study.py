"""A study before it runs: its stages, what is rehearsed, and the searches that come out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ftbench.errors import UsageError
from ftbench.models.locate import Checkpoint
from ftbench.runs import auto
from ftbench.runs.search import FairSearch
from ftbench.runs.stages import Request, Stage, plan
from ftbench.runs.store import Store
from ftbench.types import Data, Record, RunSpec, Search
from ftbench.types.run import TUNED


@dataclass(frozen=True)
class Study:
    """stages: see ``Grid.run``. first: runs to rehearse, each with the name of its arm. notes: what was found on the
    way, from all records."""

    stages: Sequence[Stage]
    first: Sequence[tuple[str, RunSpec]]
    search: FairSearch | None = None
    notes: Callable[[Sequence[Record]], Sequence[str]] = lambda records: ()

    def unfinished(self, store: Store) -> list[tuple[str, RunSpec]]:
        """Those of ``first`` that have no result yet."""
        return [(name, spec) for name, spec in self.first if store.find(spec) is None]

    def keep_answers(self, store: Store, records: Sequence[Record]) -> list[Search]:
        """Writes down what the searches have found so far."""
        answers = self.search.answers(records) if self.search else []
        for answer in answers:
            store.save_search(answer)
        return answers


def plan_study(request: Request, search: Sequence[str] = (), budget: int | None = None) -> Study:
    """The stages of a study: with a search where axes are given, with a measure first where layers are a rule.

    Raises UsageError for what cannot be.
    """
    rules = auto.rules_of(request)
    if search and rules:
        raise UsageError(
            f"--layers {rules[0]} has to be measured first, and a search cannot wait for it: `ftbench variability` "
            "says which layers they are; give them as numbers, such as --layers 2:4:4"
        )
    if search:
        fair = FairSearch(request, search, budget)
        return Study(fair.stages(), [(q.name, spec) for q in fair.questions for spec in q.trials], fair)
    stages = plan(auto.provisional(request))
    first = [(spec.method, spec) for spec in stages[0]([]) if spec.kind in TUNED]
    if rules:
        return Study(auto.stages(request), first, notes=lambda records: auto.answers(request, records))
    return Study(stages, first)


def rehearse(
    runs: Iterable[tuple[str, RunSpec]], data: Mapping[str, Data], models: Mapping[str, Checkpoint]
) -> dict[str, str]:
    """See ``training.rehearsal``; torch is loaded only where something is prepared."""
    waiting = [(name, spec) for name, spec in runs if spec.methods]
    if not waiting:
        return {}
    from ftbench.training import rehearsal

    return rehearsal.rehearse(waiting, data, models)
