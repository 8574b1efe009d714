"""Does the runs of a study, one after the other, and loses none.

A finished run is skipped, an interrupted one continues, a failure is recorded and the others go on,
a run that another process has claimed is waited for.
"""

from __future__ import annotations

import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ftbench.errors import Interrupted, StoreError, UsageError
from ftbench.lookup import import_object
from ftbench.models.locate import Checkpoint
from ftbench.runs.claim import holder
from ftbench.runs.files import write_atomic
from ftbench.runs.stages import Stage
from ftbench.runs.store import Store
from ftbench.types import Data, Record, Result, RunSpec
from ftbench.types.run import CHECKPOINT

log = logging.getLogger(__name__)
#: what each kind of run does; as paths, so that none loads torch before it is needed
WORK = {
    "finetune": "ftbench.training.run:finetune",
    "reference": "ftbench.training.reference:reference",
    "probe": "ftbench.training.probe:probe",
    "variability": "ftbench.training.variability:measure",
    "summarize": "ftbench.training.summarize:summarize",
}
POLL_SECONDS = 1.0


class StudyProgress(Protocol):
    """Told what the study does. A run's own steps go to ``step`` and ``evaluated``."""

    def planned(self, total: int) -> None: ...

    def started(self, spec: RunSpec) -> None: ...

    def finished(self, record: Record, *, skipped: bool) -> None: ...

    def waiting(self, who: str) -> None: ...

    def step(self, done: int, total: int, loss: float | None) -> None: ...

    def evaluated(self, done: int, metric: str, value: float) -> None: ...


@dataclass(kw_only=True)
class Options:
    """How the study is carried out; none of it changes a number.

    keep_references: the linear model of reference runs too, where models are kept.
    keep_model: write the weights of each run; ``Grid.keep_models`` then leaves those that are wanted.
    need_models: later runs start from the earlier ones: a finished run that kept no weights is done again.
    """

    device: str = "auto"
    threads: int | None = None
    cache: Path | None = None
    force: bool = False
    retry_failed: bool = False
    keep_model: bool = False
    keep_references: bool = False
    need_models: bool = False
    checkpoint_every: int = 0
    prefix_cache: str = "auto"
    should_stop: Callable[[], bool] = lambda: False


@dataclass
class Grid:
    """The inputs of a study's runs by fingerprint, and the store they go to.

    parents: finished runs, of this or another store, that runs of the study start from
    """

    store: Store
    data: Mapping[str, Data]
    models: Mapping[str, Checkpoint]
    progress: StudyProgress
    options: Options
    records: list[Record] = field(default_factory=list)
    parents: Sequence[Record] = ()
    _fresh: set[str] = field(default_factory=set)
    _again: set[str] = field(default_factory=set)

    def run(self, stages: Iterable[Stage]) -> list[Record]:
        """Every record of the study, in the stages' order.

        Raises Interrupted, StoreError (the disk is full, say) and UsageError (a model that cannot be
        loaded); all other failures become records with status ``failed``.
        """
        total = 0
        for stage in stages:
            specs = stage(self.records)
            total += len(specs)
            self.progress.planned(total)
            self._run_stage(specs)
        return self.records

    def keep_models(self, which: str) -> None:
        """Keeps the weights of each arm's best or median seed, or of all.

        A chosen run whose weights are not there is trained again, to the same numbers. Weights kept by
        an earlier command stay.
        """
        arms: dict[str, list[Record]] = {}
        for record in self.records:
            spec = record.result.spec
            if spec.kind == "finetune" and not spec.is_trial and record.result.status == "ok":
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
        self.progress.planned(len(self.records) + len(missing))
        self.records = [record for record in self.records if record.result.spec.id not in self._again]
        self._run_stage(missing)

    def _run_stage(self, specs: Sequence[RunSpec]) -> None:
        done: dict[str, Record] = {}
        try:
            while missing := [spec for spec in specs if spec.id not in done]:
                before = len(done)
                for spec in missing:
                    if record := self._one(spec):
                        done[spec.id] = record
                if len(done) == before:
                    self.progress.waiting(holder(self.store.folder(missing[0])) or "another process")
                    self._stop_if_asked()
                    time.sleep(POLL_SECONDS)
        finally:  # also when interrupted, so that it can be said how many there are
            self.records += [done[spec.id] for spec in specs if spec.id in done]

    def _one(self, spec: RunSpec) -> Record | None:
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
                before = self.store.find(spec)
                if self.options.force and before and before.result.status == "failed":
                    (before.folder / CHECKPOINT).unlink(missing_ok=True)
                record = self._do(spec)
            self.progress.finished(record, skipped=done_by_another)
            return record
        finally:
            claim.release()

    def _finished(self, spec: RunSpec) -> Record | None:
        """The stored run, unless it is to be done again by this command and was not yet."""
        record = self.store.find(spec)
        if record is None or spec.id in self._fresh:
            return record
        retry = self.options.retry_failed and record.result.status != "ok"
        kinds = ("finetune", "reference") if self.options.keep_references else ("finetune",)
        wanted = self.options.need_models and spec.kind in kinds and record.result.status == "ok"
        bare = wanted and not (record.folder / "model").is_dir()
        return None if self.options.force or retry or bare or spec.id in self._again else record

    def _do(self, spec: RunSpec) -> Record:
        import torch
        from threadpoolctl import threadpool_limits

        from ftbench.runs.environment import environment
        from ftbench.training.precision import choose_device
        from ftbench.training.run import Place
        from ftbench.training.watch import Control

        device = choose_device(self.options.device)
        if self.options.threads:
            torch.set_num_threads(self.options.threads)
            threadpool_limits(self.options.threads)  # NumPy's and SciPy's too
        place = Place(self.store.folder(spec), device, self.options.cache, self.options.prefix_cache)
        control = Control(self.progress, self.options.checkpoint_every, self.options.should_stop)
        work = import_object(WORK[spec.kind], "run")
        try:
            outcome = work(spec, self.data[spec.data], self._source(spec), place, control)
        except (Interrupted, StoreError, UsageError):
            raise
        except Exception as error:
            return self._failed(spec, error, environment(str(device)))
        kept = self.options.keep_model and not spec.is_trial
        kept = kept and (spec.kind != "reference" or self.options.keep_references)
        save_model = outcome.backbone.save if kept and outcome.backbone else None
        return self.store.save(
            outcome.result,
            outcome.cost,
            history=outcome.history,
            predictions=outcome.predictions,
            environment=environment(str(device)),
            save_model=save_model,
        )

    def _source(self, spec: RunSpec) -> Checkpoint:
        """The checkpoint that a run starts from. Raises UsageError where that is of a run that kept no weights."""
        pretrained = self.models[spec.weights]
        if not spec.parents:
            return pretrained
        (parent,) = spec.parents
        if parent in self.models:
            return replace(self.models[parent], origin=pretrained)
        folders = {record.result.spec.id: record.folder for record in (*self.parents, *self.records)}
        folder = folders[parent]
        if not (folder / "model").is_dir():
            raise UsageError(f"{folder} kept no weights. Run its command again with --save-model all")
        return replace(pretrained, folder=folder / "model", origin=pretrained)

    def _failed(self, spec: RunSpec, error: Exception, where: dict[str, Any]) -> Record:
        """Records a crash: its reason in the result, its traceback beside it."""
        from ftbench.training.run import cost_of_failure

        reason = explain_failure(spec, error)
        log.error("%s seed %s failed: %s", spec.method, spec.seed, reason)
        folder = self.store.folder(spec)
        write_atomic(folder / "error.txt", "".join(traceback.format_exception(error)).encode())
        result, cost = Result(spec=spec, status="failed", error=reason), cost_of_failure(where["device"])
        before = self.store.find(spec)
        if before and before.result.status == "ok":  # done again without success: the good result stays
            return Record(folder, result, cost)
        return self.store.save(result, cost, environment=where)

    def _stop_if_asked(self) -> None:
        if self.options.should_stop():
            raise Interrupted("stopped between runs; run the same command to continue")


def explain_failure(spec: RunSpec, error: Exception) -> str:
    """One line for a failed run; out of memory says what to try."""
    text = (str(error).strip().splitlines() or [""])[0]
    lowered = f"{type(error).__name__} {text}".lower()
    if isinstance(error, MemoryError) or "out of memory" in lowered or "can't allocate memory" in lowered:
        size = spec.micro_batch or spec.batch_size
        return (
            f"out of memory at micro-batches of {size} rows and up to {spec.max_length} tokens. Try --micro-batch "
            f"{max(1, size // 2)} (the same effective batch), a smaller --max-length, or --precision bf16"
        )
    return f"{type(error).__name__}: {text}"


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
