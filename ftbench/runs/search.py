"""A fair search: every arm gets the same number of configurations, each tried once on a slice of train.

    trials   each arm's configurations, trained without the slice, with a seed that no report has   (first stage)
    choose   the best score on the slice; validation is not looked at
    report   the chosen configuration of each arm on all training rows, with the seeds asked for    (second stage)

What was tried stays in the store, and is in no mean. docs/decisions/0011-fair-search.md says why it is so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftbench.errors import UsageError
from ftbench.methods import make
from ftbench.runs.matched import Stack, name_of, std_plus_plus
from ftbench.runs.space import Axis, Configuration, check_known, configurations, ladder, own_axes, parse_axes
from ftbench.runs.space import recipe_axes as to_recipe
from ftbench.runs.stages import (
    Point,
    Request,
    Stage,
    check_arm,
    check_seeds,
    draw,
    fields_of,
    points,
    references,
)
from ftbench.types import Record, RunSpec, Search, Trial
from ftbench.types.run import TRIAL_SEED

#: of the training rows, where ``--select-on`` says nothing
SLICE = 0.2
#: configurations of an arm, where ``--budget`` says nothing and the axes have as many
BUDGET = 8
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """Which configuration of an arm is best at a point; ``trials`` in the order of ``configurations``."""

    point: Point
    arm: Stack
    axes: Mapping[str, Sequence[Any]]
    study: str
    configurations: Sequence[Configuration]
    trials: Sequence[RunSpec]

    @property
    def name(self) -> str:
        """The arm as one would type it."""
        return name_of(self.arm)


class FairSearch:
    """The questions of a request. Raises UsageError for what cannot be searched, or not fairly."""

    def __init__(self, request: Request, texts: Sequence[str], budget: int | None = None) -> None:
        axes = parse_axes(texts)
        check_seeds(request)
        check_known(axes, request.arms)
        _check_request(request, axes)
        self.request = request
        self.share: float = request.fixed.get("select_on") or SLICE
        self._trying = replace(request, fixed={**request.fixed, "select_on": self.share})
        self._fields: dict[str, dict[str, Any]] = {}
        recipe = to_recipe(axes)
        own = [own_axes(axes, arm) for arm in request.arms]
        self.budget = _budget(budget, recipe, own)
        self.questions = [
            self._question(point, arm, recipe, varied)
            for point in points(request)
            for arm, varied in zip(request.arms, own, strict=True)
        ]

    def stages(self) -> list[Stage]:
        """References and trials, then the reports. Trials go round the arms, so that an interrupted search is even."""
        trials = [spec for turn in zip(*(question.trials for question in self.questions), strict=True) for spec in turn]
        first = [*references(self.request), *{spec.id: spec for spec in trials}.values()]
        return [lambda records: first, self._reports]

    def answers(self, records: Sequence[Record]) -> list[Search]:
        """What was tried and chosen, for each question whose trials are all done and did not all fail."""
        done = {record.result.spec.id: record for record in records}
        found = [self._answer(question, done) for question in self.questions]
        return [search for search in found if search is not None]

    def _question(self, point: Point, arm: Stack, recipe: Mapping[str, Any], own: Mapping[str, Any]) -> Question:
        base = self._fields_of(self.request, point, {})
        shared = dict(recipe) if "lr" in recipe else {"lr": ladder(base["lr"], self.budget), **recipe}
        asked = {key: value for key, value in base.items() if key not in ("model", "source", *shared)}
        alike = [asked, {key: list(values) for key, values in shared.items()}, self.budget, self.share]
        study = hashlib.sha256(json.dumps(alike, sort_keys=True, default=str).encode()).hexdigest()[:12]
        tried = configurations(arm, {**shared, **own}, self.budget)
        trials = [self._spec(self._trying, point, c, TRIAL_SEED, self.request.data_seeds[0]) for c in tried]
        return Question(point, arm, {**shared, **own}, study, tried, trials)

    def _fields_of(self, request: Request, point: Point, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """As ``fields_of``, which looks at all rows, but once for each recipe."""
        data, model, chosen = point
        key = repr((request is self._trying, data.fingerprint, model.fingerprint, chosen, sorted(recipe.items())))
        if key not in self._fields:
            self._fields[key] = fields_of(request, data, model, {**chosen, **recipe})
        return dict(self._fields[key])

    def _spec(self, request: Request, point: Point, configuration: Configuration, seed: int, data_seed: int) -> RunSpec:
        fields = self._fields_of(request, point, configuration.recipe)
        stretched = std_plus_plus(configuration.stack)
        if stretched:
            fields["steps"] = round(fields["steps"] * stretched.factor)
        if seed == TRIAL_SEED and not watches(configuration.stack):
            fields["evaluations"] = 1  # only the last score is looked at
        return RunSpec(**fields, methods=configuration.stack, seed=seed, data_seed=draw(fields, data_seed))

    def _reports(self, records: Sequence[Record]) -> list[RunSpec]:
        """Seeds outermost, so that an interrupted study has complete pairs."""
        answers = {(search.study, search.arm): search for search in self.answers(records)}
        specs = []
        for data_seed in self.request.data_seeds:
            for seed in self.request.seeds:
                for question in self.questions:
                    if search := answers.get((question.study, question.name)):
                        chosen = question.configurations[search.chosen]
                        specs.append(self._spec(self.request, question.point, chosen, seed, data_seed))
        for question in self.questions:
            if (question.study, question.name) not in answers:
                log.warning("no %s: none of its %d trials has a score", question.name, len(question.trials))
        return list({spec.id: spec for spec in specs}.values())

    def _answer(self, question: Question, done: Mapping[str, Record]) -> Search | None:
        records = [done.get(spec.id) for spec in question.trials]
        facts = [record.result.facts for record in records if record and record.result.status == "ok"]
        if not all(records) or not facts:
            return None
        metric = facts[0]["headline"]
        trials = tuple(
            Trial(spec.id, configuration.words, record.result.score(metric, split="selection") if record else None)
            for spec, configuration, record in zip(question.trials, question.configurations, records, strict=True)
        )
        chosen = choose([trial.score for trial in trials], lower_is_better=facts[0]["lower_is_better"])
        if chosen is None:
            return None
        return Search(
            study=question.study,
            arm=question.name,
            axes=question.axes,
            reported=self._spec(self.request, question.point, question.configurations[chosen], 0, 0),
            share=self.share,
            rows=facts[0]["rows"]["selection"],
            metric=metric,
            trials=trials,
            chosen=chosen,
        )


def choose(scores: Sequence[float | None], *, lower_is_better: bool) -> int | None:
    """The number of the best score, the first of equals; None where there is no score."""
    sign = -1 if lower_is_better else 1
    scored = [(sign * s, -number) for number, s in enumerate(scores) if s is not None and math.isfinite(s)]
    return -max(scored)[1] if scored else None


def _check_request(request: Request, axes: Sequence[Axis]) -> None:
    """Raises UsageError where something is both given and searched, and for an arm that cannot be searched."""
    searched = {axis.field for axis in axes if not axis.owner}
    for field, values in request.axes.items():
        if field in searched or (field == "epochs" and "steps" in searched):
            raise UsageError(f"--{field.replace('_', '-')} is given, and --search varies it: leave one out")
        if field == "lr" and len(values) > 1:
            raise UsageError("--lr has several values: search them, as in --search lr=2e-5,1e-4")
    for field in sorted(searched & set(request.fixed)):
        if request.fixed[field] != _default(field):
            raise UsageError(f"--{field.replace('_', '-')} is given, and --search varies it: leave one out")
    for arm in request.arms:
        check_arm(arm, request.arms, request.axes, searching=True)


def _default(field: str) -> Any:
    return next(item.default for item in RunSpec.__dataclass_fields__.values() if item.name == field)


def _budget(asked: int | None, recipe: Mapping[str, Any], own: Sequence[Mapping[str, Any]]) -> int:
    """As asked; else as many configurations as the smallest arm has, but at most ``BUDGET``.

    Raises UsageError for fewer than two.
    """
    if asked is None:
        sizes = [math.prod(map(len, {**recipe, **axes}.values())) for axes in own]
        fewest = min(sizes) if "lr" in recipe else BUDGET
        asked = min(BUDGET, fewest)
    if asked < 2:
        raise UsageError(f"--budget is {asked}: expected at least 2 configurations, or there is nothing to choose")
    return asked


def watches(stack: Stack) -> bool:
    """Whether a method acts on evaluations, so that their number counts."""
    from ftbench.methods.method import Method

    return any(type(method).evaluated is not Method.evaluated for method in make(stack))
