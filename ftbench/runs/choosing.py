"""The protocol behind ``ftbench choose``, as stages over runs of the store.

    known     what earlier commands finished of this race is taken in; nothing is trained twice
    race      round after round, as ``runs.race`` says, on folds of the pool: the test part is in none of these runs
    layers    before a round, for candidates whose layers are measured: on the rows that the round trains on
    final     the choice, trained on the whole pool, scores the test part, once
    curve     the same draws with half and a quarter of the rows, as far as the time goes; layers that are measured are
              measured on these rows

Each round is a stage, asked for when the one before is done. A unit is a fold of the pool (``RunSpec.folds``) whose
number is ``data_seed``, with a ``seed`` of its own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ftbench.errors import FtbenchError, UsageError
from ftbench.runs.auto import choose_layers, measure
from ftbench.runs.candidates import Candidate
from ftbench.runs.files import slug
from ftbench.runs.grid import Grid
from ftbench.runs.journal import Journal
from ftbench.runs.race import FAILED, NO_TIME, Job, Race, Rules, Scored
from ftbench.runs.scorer import Scorer
from ftbench.runs.search import watches
from ftbench.runs.stages import Request, Stage, fields_of, identity
from ftbench.runs.store import Store
from ftbench.runs.telling import WHY, standing_line
from ftbench.tasks.parts import Parts
from ftbench.types import Data, Record, RunSpec
from ftbench.types.layers import LayerRule

FOLDS = 4
#: share of the budget that is kept for the learning curve
CURVE = 0.1
#: draws of a learning curve
CURVE_UNITS = 3
#: a method that looks at scores while it trains gets a slice of train to look at: never the rows that it is judged on
WATCHED = 0.15
#: seconds to load and save and measure, beside training, in the last step
LAST = 10.0


@dataclass
class Choosing:
    """The race of ``candidates`` for the rows of ``parts``, within ``budget`` seconds.

    fixed: RunSpec fields that all runs share. tell: told in words how it stands. jobs: runs that go on at once.
    """

    parts: Parts
    candidates: Sequence[Candidate]
    store: Store
    budget: float
    fixed: Mapping[str, Any] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    jobs: int = 1
    device: str = "auto"
    tell: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        pool = self.parts.pool
        self.by_name = {one.name: one for one in self.candidates}
        floor = next((one.name for one in self.candidates if one.reference), "")
        ratios = {one.name: one.ratio for one in self.candidates}
        rows = len(pool.splits["train"])
        self.race = Race([one.name for one in self.candidates], self.rules, floor, rows, ratios)
        self.scorer = Scorer(pool.splits["train"], pool.task.metrics[0])
        self.journal = Journal.open(self.store.root / slug(pool.task.name) / f"choice-{self.id}.json")
        self.final: Record | None = None
        self._fields: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._warm = False  # until the first round is done: what it takes to start is in no run's cost

    @property
    def id(self) -> str:
        """12 hex digits that stand for rows, candidates and settings, not for the budget: more time goes on. Nor for
        the margin: the test part is no newer for another one."""
        asked = [self.parts.whole.fingerprint, [(one.name, one.model.fingerprint) for one in self.candidates],
                 dict(self.fixed), FOLDS]  # fmt: skip
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:12]

    @property
    def data(self) -> list[Data]:
        return [self.parts.pool, self.parts.whole]

    def spec(self, name: str, unit: int, rows: int | None = None) -> RunSpec:
        """The run of a candidate on a unit, trained on ``rows`` of the draw's rows where that is said."""
        return self._spec(self.by_name[name], self.parts.pool, unit, _folds(rows))

    def measured_by(self, name: str, unit: int, rows: int | None = None) -> RunSpec | None:
        """The run that measures the layers of a candidate on the rows of ``spec``; None where its layers are said."""
        return self._measured_by(self.by_name[name], self.parts.pool, unit, _folds(rows))

    def ready(self, name: str, unit: int, rows: int | None = None) -> RunSpec | None:
        """``spec`` once it is known which layers it tunes; None while they are to be measured."""
        first = self.measured_by(name, unit, rows)
        return self.spec(name, unit, rows) if first is None or self.store.find(first) else None

    def measured_by_whole(self, name: str) -> RunSpec | None:
        """As ``measured_by``, on the whole pool."""
        return self._measured_by(self.by_name[name], self.parts.whole, 0, {})

    def last(self, name: str) -> RunSpec:
        """The run that trains a candidate on the pool and scores the test part."""
        return self._spec(self.by_name[name], self.parts.whole, 0, {})

    def stages(self, grid: Grid) -> Iterator[Stage]:
        """See the module. Raises UsageError for a budget that is too short for the default alone, with what it
        needs."""
        load_once()
        yield from self._go_on(grid)
        while jobs := self.race.next(self.left, self.jobs):
            began = time.monotonic()
            measures = [spec for job in jobs if (spec := self.measured_by(*job))]
            if measures:
                yield lambda records, specs=measures: specs  # type: ignore[misc]
            specs = {job: self.spec(*job) for job in jobs}
            yield lambda records, specs=specs: list(specs.values())  # type: ignore[misc]
            self._take(specs, grid.records, time.monotonic() - began)
            self._require_time()
            self._tell(self.race.drop())
            self.journal.out = self.race.out
            self.journal.save()
        self.journal.out = self.race.out
        self.journal.over, self.journal.budget = self.race.why_over, max(self.budget, self.journal.budget)
        yield from self._end(grid)

    def _go_on(self, grid: Grid) -> Iterator[Stage]:
        """Takes in what earlier commands did. A race that is over stays so unless it gets more time or is judged by
        another margin."""
        earlier, more = self._known(), self.budget > self.journal.budget
        anew = self.journal.judge_by(self.rules.margin)
        if earlier:
            yield lambda records: list(earlier.values())
        if earlier:
            self._take(earlier, grid.records, 0.0)
        self.race.out |= {name: why for name, why in self.journal.out.items() if not (more and why.startswith(NO_TIME))}
        self.race.why_over = "" if more else self.journal.over
        if anew:
            self.race.drop()

    def _end(self, grid: Grid) -> Iterator[Stage]:
        """The last step and the curve."""
        self.tell(f"{WHY[self.race.why_over]}: training {self.race.choice} on all {self.race.rows} rows")
        racing = grid.options
        grid.options = replace(racing, keep_model=True, keep_references=True, retry_failed=True)
        if first := self.measured_by_whole(self.race.choice):
            yield lambda records: [first]
        final = self.last(self.race.choice)
        grid.want_weights([final])
        yield lambda records: [final]
        self.final = self._found(final, grid.records)
        if self.final.result.status != "ok":
            raise FtbenchError(f"{self.race.choice} failed on all rows: {self.final.result.error}")
        self.journal.finals = list(dict.fromkeys([*self.journal.finals, final.id]))
        grid.options = racing
        for spec in self._curve():
            yield lambda records, spec=spec: [spec]  # type: ignore[misc]

    @property
    def left(self) -> float:
        """Seconds for runs of the race: the rest of the budget without what the last step and the curve will take."""
        if not self.race.scores:
            return self.budget - self.journal.elapsed
        return self.budget * (1 - CURVE) - self.journal.elapsed - self._last_step()

    def _last_step(self) -> float:
        first = self.candidates[0].name
        stretched = self.last(first).steps / max(1, self.spec(first, 0).steps)
        return 1.1 * max(1.0, stretched) * self.race.reserve() + LAST

    @property
    def is_hopeless(self) -> bool:
        """Whether the budget is over before the default has run once."""
        if self.journal.elapsed <= self.budget or self.race.units(self.race.baseline):
            return False
        return self.store.find(self.spec(self.race.baseline, 0)) is None

    def _require_time(self) -> None:
        """Raises UsageError where the default alone cannot be run to the end in the budget."""
        default = [self.race.baseline, *([self.race.floor] if self.race.floor else [])]
        one = sum(self.race.seconds(name) for name in default)
        to_come = one * max(0, self.rules.first - self.race.units(self.race.baseline)) / self.jobs
        need = self.journal.elapsed + to_come + self._last_step()
        if self.race.units(self.race.baseline) == 1 and need > self.budget:
            whole = one * self.rules.first / self.jobs + self._last_step() + LAST
            raise UsageError(
                f"--budget {self.budget:.0f}s is too short: a run of {self.race.baseline} takes {one:.0f} s here, and "
                f"{self.rules.first} of them with a last one on all rows take {whole:.0f} s. To compare it with others "
                f"takes more: try --budget {max(2, round(8 * whole / 60))}m. What was run is kept"
            )

    def _known(self) -> dict[Job, RunSpec]:
        """The runs of this race that the store has, in the order in which they would be asked for."""
        found: dict[Job, RunSpec] = {}
        for name in self.by_name:
            for unit in range(self.rules.most):
                spec = self.ready(name, unit)
                if spec is None or self.store.find(spec) is None:
                    break
                found[name, unit] = spec
        return dict(sorted(found.items(), key=lambda pair: pair[0][1]))

    def _take(self, specs: Mapping[Job, RunSpec], records: Sequence[Record], wall: float) -> None:
        """Finished runs into the race. wall: seconds of the round, shared out by what the runs measured themselves."""
        found = {job: self._found(spec, records) for job, spec in specs.items()}
        own = {job: record.cost.wall_seconds + record.cost.evaluate_seconds for job, record in found.items()}
        besides = max(0.0, wall * self.jobs - sum(own.values())) / max(1, len(own)) if self._warm else 0.0
        self._warm = self._warm or wall > 0
        for (name, unit), record in found.items():
            seconds = self.journal.seconds.setdefault(record.result.spec.id, own[name, unit] + besides)
            scored = self._scored(name, record, seconds)
            if scored is not None:
                self.race.add(name, unit, scored)
            elif name == self.race.baseline:
                raise FtbenchError(f"{name} failed, so there is nothing to compare with: {record.result.error}")
            else:
                self.race.fail(name, f"{FAILED}: {record.result.error or record.result.status}")
        self.journal.save()

    def _scored(self, name: str, record: Record, seconds: float) -> Scored | None:
        return self.scorer.scored(record, self.by_name[name].reference or "last", seconds)

    @staticmethod
    def _found(spec: RunSpec, records: Sequence[Record]) -> Record:
        return next(record for record in reversed(records) if record.result.spec.id == spec.id)

    def _tell(self, dropped: Sequence[str]) -> None:
        for name in dropped:
            self.tell(f"out: {name}: {self.race.out[name]}")
        self.tell(standing_line(self.race, self.journal.elapsed, self.budget, self.scorer.sign))

    def _curve(self) -> Iterator[RunSpec]:
        """Half and a quarter of a draw's rows: of linear, which costs little, then of what was chosen, or std."""
        for name in self.curves:
            for rows in reversed(self.sizes[:-1]):
                for unit in range(min(CURVE_UNITS, self.race.units(name))):
                    yield from self._point(name, unit, rows)

    def _point(self, name: str, unit: int, rows: int) -> Iterator[RunSpec]:
        """What measures the layers, where that is needed, then the run, which is known once that is done; nothing where
        there is no time."""
        known = self.ready(name, unit, rows)
        if (known and self.store.find(known)) or self.journal.elapsed + self.race.seconds(name) <= self.budget:
            if first := self.measured_by(name, unit, rows):
                yield first
            yield self.spec(name, unit, rows)

    @property
    def curves(self) -> list[str]:
        """Whose learning curve is drawn: the choice's and linear's; where linear is chosen, std's if not worse."""
        race = self.race
        tuned = race.choice if race.choice != race.floor else race.baseline
        worse = tuned != race.choice and race.beats(race.floor, tuned)
        return [name for name in (race.floor, "" if worse else tuned) if name]

    @property
    def sizes(self) -> list[int]:
        """Rows of the learning curve: a quarter, half and all of a draw's training rows; those that can be drawn."""
        pool = len(self.parts.pool.splits["train"])
        drawn = pool * (FOLDS - 1) // FOLDS
        least = max(10, 2 * len(self.parts.pool.labels))
        return [rows for rows in (drawn // 4, drawn // 2) if rows >= least] + [pool - pool // FOLDS]

    def _spec(self, one: Candidate, data: Data, unit: int, drawn: Mapping[str, Any]) -> RunSpec:
        layers = self._layers(one, data, unit, drawn)
        key = (one.name, layers, data.fingerprint, drawn.get("folds"), drawn.get("train_size"))
        if key not in self._fields:
            self._fields[key] = self._fields_of(one, layers, data, drawn)
        seed = 0 if one.reference else unit
        return RunSpec(**self._fields[key], seed=seed, data_seed=unit, methods=one.stack)

    def _measured_by(self, one: Candidate, data: Data, unit: int, drawn: Mapping[str, Any]) -> RunSpec | None:
        if LayerRule.parse(one.layers) is None:
            return None
        fields = {key: value for key, value in self.fixed.items() if key in ("max_length", "precision")}
        return measure(data, one.model, {**fields, **drawn}, unit)

    def _layers(self, one: Candidate, data: Data, unit: int, drawn: Mapping[str, Any]) -> str:
        """As ``--layers``: what the measure of these rows gives, or all where it did not finish."""
        rule = LayerRule.parse(one.layers)
        if rule is None:
            return one.layers
        spec = self._measured_by(one, data, unit, drawn)
        record = self.store.find(spec) if spec else None
        return choose_layers(record, rule).text if record and record.result.status == "ok" else ""

    def _fields_of(self, one: Candidate, layers: str, data: Data, drawn: Mapping[str, Any]) -> dict[str, Any]:
        request = Request(data=[data], models=[one.model], arms=[], seeds=[], fixed={**self.fixed, **drawn})
        if one.reference:
            kept = {
                key: value
                for key, value in {**self.fixed, **drawn}.items()
                if key in ("max_length", "folds", "train_size")
            }
            return {"kind": "reference", **identity(data, one.model), **kept}
        chosen: dict[str, Any] = {"evaluations": 1}
        if watches(one.stack):
            chosen = {"select_on": WATCHED}
        if layers:
            chosen["layers"] = layers
        return fields_of(request, data, one.model, chosen)


def _folds(rows: int | None) -> dict[str, int]:
    """RunSpec fields of a draw, of so many of its rows where that is said."""
    return {"folds": FOLDS, **({"train_size": rows} if rows else {})}


def load_once() -> None:
    """Loads what training needs now, so that its seconds are in no run's cost."""
    import ftbench.training.reference
    import ftbench.training.run  # noqa: F401
