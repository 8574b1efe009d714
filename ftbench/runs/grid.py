"""Does the runs of a study, here one after the other or at an engine, and loses none.

A finished run is skipped, an interrupted one continues, a failure is recorded and the others go on,
a run that another process has claimed is waited for. A run whose process died (killed, or crashed without an error
of Python's) is done again by the next command: that says little about the run.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ftbench.errors import Interrupted
from ftbench.models.locate import Checkpoint
from ftbench.runs import engines
from ftbench.runs.attend import LOST, Attendant
from ftbench.runs.claim import holder
from ftbench.runs.environment import command
from ftbench.runs.files import writing_in
from ftbench.runs.manifest import Manifest, path_for, tasks_of
from ftbench.runs.progress import StudyProgress
from ftbench.runs.rows import save_rows
from ftbench.runs.stages import Stage
from ftbench.runs.store import Store
from ftbench.runs.work import Bench, Options
from ftbench.types import Data, Record, RunSpec, Search
from ftbench.types.run import CHECKPOINT, TUNED

POLL_SECONDS = 1.0


@dataclass
class Grid:
    """The inputs of a study's runs by fingerprint, and the store they go to.

    parents: finished runs, of this or another store, that runs of the study start from
    answers: what is written down of the records in the end, such as what a search has chosen
    """

    store: Store
    data: Mapping[str, Data]
    models: Mapping[str, Checkpoint]
    progress: StudyProgress
    options: Options
    records: list[Record] = field(default_factory=list)
    parents: Sequence[Record] = ()
    answers: Callable[[Store, Sequence[Record]], list[Search]] = lambda store, records: []
    _fresh: set[str] = field(default_factory=set)
    _again: set[str] = field(default_factory=set)
    _total: int = 0
    _planned: dict[str, RunSpec] = field(default_factory=dict)
    _plan: Path | None = None
    _engine: engines.Engine | None = None

    def run(self, stages: Iterable[Stage]) -> list[Record]:
        """Every record of the study, in the stages' order. A stage is asked for when the one before is done.

        Raises Interrupted, StoreError (the disk is full, say) and UsageError (a model that cannot be
        loaded); all other failures become records with status ``failed``.
        """
        for stage in stages:
            self._run_stage(stage(self.records))
        return self.records

    def close(self) -> None:
        """Ends the engine's workers. A grid that is run again starts new ones."""
        if self._engine:
            self._engine.close()
            self._engine = None

    def want_weights(self, specs: Iterable[RunSpec]) -> None:
        """Of these runs a finished one that kept no weights is done again, to the same numbers."""
        self._again |= {spec.id for spec in specs}

    def keep_models(self, which: str) -> None:
        """Keeps the weights of each arm's best or median seed, or of all.

        A chosen run whose weights are not there is trained again, to the same numbers. Weights kept by
        an earlier command stay.
        """
        arms: dict[str, list[Record]] = {}
        for record in self.records:
            spec = record.result.spec
            if spec.kind in TUNED and not spec.is_trial and record.result.status == "ok":
                arms.setdefault(replace(spec, seed=0, data_seed=0).id, []).append(record)
        for group in arms.values():
            chosen = choose(group, which)
            for record in group:
                model = record.folder / "model"
                if record not in chosen and record.result.spec.id in self._fresh:
                    shutil.rmtree(model, ignore_errors=True)
                elif record in chosen and not model.exists():
                    self._again.add(record.result.spec.id)
        missing = [record.result.spec for record in self.records if record.result.spec.id in self._again]
        self.records = [record for record in self.records if record.result.spec.id not in self._again]
        self._run_stage(missing)

    def _run_stage(self, specs: Sequence[RunSpec]) -> None:
        self._total += len(specs)
        self.progress.planned(self._total)
        self._train_parents_again(specs)
        plan = self.write_plan(specs, for_workers=self.options.setup.engine != engines.HERE)
        done: dict[str, Record] = {}
        try:
            if self.options.setup.engine == engines.HERE:
                self._run_here(specs, done)
            else:
                self._run_elsewhere(specs, plan, done)
        finally:  # also when interrupted, so that it can be said how many there are
            self.records += [done[spec.id] for spec in specs if spec.id in done]

    def _train_parents_again(self, specs: Sequence[RunSpec]) -> None:
        """Runs of this study whose weights are gone, where one that starts from them is still to be done; to the same
        numbers."""
        if not self.options.need_models:
            return
        own = {record.result.spec.id: record for record in self.records}
        wanted = dict.fromkeys(parent for spec in specs if not self._finished(spec) for parent in spec.parents)
        bare = [own[parent] for parent in wanted if parent in own and not (own[parent].folder / "model").is_dir()]
        if bare:
            known = len(self.records)
            self._again |= {record.result.spec.id for record in bare}
            self._run_stage([record.result.spec for record in bare])
            del self.records[known:]  # they are there already

    def write_plan(self, specs: Sequence[RunSpec], *, for_workers: bool) -> Manifest:
        """The plan file with these runs and those of earlier stages, for ``ftbench status``; and for workers, the rows.

        Raises StoreError, and UsageError for a task that workers cannot have.
        """
        self._planned |= {spec.id: spec for spec in specs}
        if self._plan is None:
            self._plan = path_for(self.store.root, specs, self.models, self.options.to_json())
            with writing_in(self.store.root):
                Manifest.cancel_file(self._plan).unlink(missing_ok=True)
        plan = Manifest(
            path=self._plan,
            runs=list(self._planned.values()),
            tasks=tasks_of(self.data.values(), strict=for_workers),
            models=self.models,
            parents={record.result.spec.id: record.folder for record in self.parents},
            options=self.options.to_json(),
            command=command(),
        )
        plan.write()
        for key in {spec.data for spec in specs if for_workers}:
            save_rows(self.data[key], plan.rows_folder(self.options.cache))
        return plan

    def _run_here(self, specs: Sequence[RunSpec], done: dict[str, Record]) -> None:
        """One after the other in this process."""
        options = replace(self.options, should_stop=self._is_asked_to_stop)
        bench = Bench(self.store, self.data, self.models, self.progress, options, self._folder_of)
        while missing := [spec for spec in specs if spec.id not in done]:
            before = len(done)
            for spec in missing:
                if record := self._one(spec, bench):
                    done[spec.id] = record
            if len(done) == before:
                self.progress.waiting(holder(self.store.folder(missing[0])) or "another process")
                self._stop_if_asked()
                time.sleep(POLL_SECONDS)

    def _run_elsewhere(self, specs: Sequence[RunSpec], plan: Manifest, done: dict[str, Record]) -> None:
        """At an engine, several at a time."""
        left: dict[str, RunSpec] = {}
        again: set[str] = set()
        for spec in specs:
            if record := self._finished(spec):
                done[spec.id] = record
                self.progress.finished(record, skipped=True)
                continue
            left[spec.id] = spec
            if self.store.find(spec):
                again.add(spec.id)
                self._forget(spec)
        if not left:
            return
        self._engine = self._engine or engines.make(replace(self.options.setup, threads=self.options.threads))
        attendant = Attendant(
            self._engine, plan.path, self.store, self.progress, self.options.retries, self._is_asked_to_stop, again
        )
        for record, by_another in attendant.results(left):
            self._fresh.add(record.result.spec.id)
            done[record.result.spec.id] = record
            self.progress.finished(record, skipped=by_another)

    def _folder_of(self, identity: str) -> Path:
        """Where a finished run is that others start from."""
        return {record.result.spec.id: record.folder for record in (*self.parents, *self.records)}[identity]

    def _one(self, spec: RunSpec, bench: Bench) -> Record | None:
        """The run's record, done now or before; None while another process has it."""
        if record := self._finished(spec):
            self.progress.finished(record, skipped=True)
            return record
        self._stop_if_asked()
        claim = self.store.claim(spec)
        if claim is None:
            return None
        try:
            record = self._finished(spec)
            done_by_another = record is not None
            if record is None:
                self.progress.started(spec)
                self._fresh.add(spec.id)
                self._forget(spec)
                record = bench.do(spec)
            self.progress.finished(record, skipped=done_by_another)
            return record
        finally:
            claim.release()

    def _finished(self, spec: RunSpec) -> Record | None:
        """The stored run, unless it is to be done again by this command and was not yet."""
        record = self.store.find(spec)
        if record is None or spec.id in self._fresh:
            return record
        lost = record.result.facts.get("failure") == LOST
        retry = lost or (self.options.retry_failed and record.result.status != "ok")
        bare = spec.id in self._again and not (record.folder / "model").is_dir()
        return None if self.options.force or retry or bare else record

    def _forget(self, spec: RunSpec) -> None:
        """With --force a failed run begins anew, not at its checkpoint."""
        before = self.store.find(spec)
        if self.options.force and before and before.result.status == "failed":
            (before.folder / CHECKPOINT).unlink(missing_ok=True)

    def _is_asked_to_stop(self) -> bool:
        """By a signal, or by ``ftbench cancel``."""
        return self.options.should_stop() or (self._plan is not None and Manifest.cancel_file(self._plan).exists())

    def _stop_if_asked(self) -> None:
        if self._is_asked_to_stop():
            raise Interrupted("stopped between runs; run the same command to continue")


def choose(group: Sequence[Record], which: str) -> list[Record]:
    """Of an arm's runs the best or the (lower) median one by headline score, or all."""
    ranked = sorted(group, key=_headline)
    middle = (len(ranked) - 1) // 2
    return {"best": ranked[-1:], "median": ranked[middle : middle + 1], "all": ranked}[which]


def _headline(record: Record) -> float:
    """The headline score, larger is better."""
    facts = record.result.facts
    value = record.result.score(facts["headline"])
    return (-1 if facts["lower_is_better"] else 1) * (value if value is not None else float("-inf"))
