"""A study before it runs: its stages, what is rehearsed, and the searches that come out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ftbench.models.locate import Checkpoint
from ftbench.runs.search import FairSearch
from ftbench.runs.stages import Request, Stage, plan
from ftbench.runs.store import Store
from ftbench.types import Data, Record, RunSpec, Search


@dataclass(frozen=True)
class Study:
    """stages: see ``Grid.run``. first: the first stage's runs, each with the name of its arm."""

    stages: Sequence[Stage]
    first: Sequence[tuple[str, RunSpec]]
    search: FairSearch | None = None

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
    """The stages of a study, with a search where axes are given. Raises UsageError for what cannot be."""
    if search:
        fair = FairSearch(request, search, budget)
        return Study(fair.stages(), [(q.name, spec) for q in fair.questions for spec in q.trials], fair)
    stages = plan(request)
    return Study(stages, [(spec.method, spec) for spec in stages[0]([]) if spec.kind == "finetune"])


def rehearse(
    runs: Iterable[tuple[str, RunSpec]], data: Mapping[str, Data], models: Mapping[str, Checkpoint]
) -> dict[str, str]:
    """See ``training.rehearsal``; torch is loaded only where something is prepared."""
    waiting = [(name, spec) for name, spec in runs if spec.methods]
    if not waiting:
        return {}
    from ftbench.training import rehearsal

    return rehearsal.rehearse(waiting, data, models)
