"""Doing one run: what the process of a command and a worker do alike with a spec that they have claimed."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftbench.errors import Interrupted, OneRowTooMuch, StoreError, UsageError, is_out_of_memory
from ftbench.lookup import import_object
from ftbench.methods import make
from ftbench.models.locate import Checkpoint
from ftbench.runs.engines import Setup
from ftbench.runs.files import write_atomic
from ftbench.runs.progress import Progress
from ftbench.runs.store import Store
from ftbench.runs.team import Team
from ftbench.types import Data, Record, Result, RunSpec
from ftbench.types.run import CHECKPOINT, TUNED

log = logging.getLogger(__name__)
#: what each kind of run does; as paths, so that none loads torch before it is needed
WORK = {
    "finetune": "ftbench.training.run:finetune",
    "reference": "ftbench.training.reference:reference",
    "probe": "ftbench.training.probe:probe",
    "variability": "ftbench.training.variability:measure",
    "summarize": "ftbench.training.summarize:summarize",
}


@dataclass(kw_only=True)
class Options:
    """How the study is carried out; none of it changes a number.

    keep_model:    write the weights of each run; ``Grid.keep_models`` then leaves those that are wanted.
    keep_references: where models are kept, the linear model of reference runs too.
    need_models:   later runs start from the earlier ones: one that kept no weights is trained once more where a run
                   that starts from it is still to be done.
    retries:       a run that fails, or whose process dies, is tried so many times more.
    deterministic: torch refuses what it cannot compute the same way twice.
    team:          the processes that share each run.
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
    retries: int = 0
    deterministic: bool = False
    setup: Setup = field(default_factory=Setup)
    team: Team = field(default_factory=Team)
    should_stop: Callable[[], bool] = lambda: False

    def to_json(self) -> dict[str, Any]:
        """What a worker has to know."""
        names = (
            "device", "threads", "keep_model", "keep_references", "checkpoint_every", "prefix_cache", "retries",
            "deterministic",
        )  # fmt: skip
        cache = str(self.cache.absolute()) if self.cache else None
        return {**{name: getattr(self, name) for name in names}, "cache": cache}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], should_stop: Callable[[], bool]) -> Options:
        """Raises TypeError for fields that this version does not know."""
        cache = Path(fields["cache"]) if fields["cache"] else None
        return cls(**{**fields, "cache": cache}, should_stop=should_stop)


@dataclass
class Bench:
    """What runs need: the inputs by fingerprint, the store, and where the encoder of an earlier run is.

    folder_of: id of a finished run -> its folder
    """

    store: Store
    data: Mapping[str, Data]
    models: Mapping[str, Checkpoint]
    progress: Progress
    options: Options
    folder_of: Callable[[str], Path]

    def do(self, spec: RunSpec) -> Record:
        """Does a claimed run and stores what came out, also when it failed.

        Raises Interrupted, StoreError (the disk is full, say) and UsageError (a model that cannot be loaded).
        """
        for left in range(self.options.retries, -1, -1):
            record = self._attempt(spec)
            if record.result.status != "failed" or not left:
                break
            log.warning("%s seed %s is tried again, %d more times at most", spec.method, spec.seed, left)
        return record

    def _attempt(self, spec: RunSpec) -> Record:
        from ftbench.runs.environment import environment
        from ftbench.training.precision import warn_if_slow
        from ftbench.training.run import Place
        from ftbench.training.watch import Control

        device = set_up(self.options)
        warn_if_slow(device, spec.precision)
        options = self.options
        place = Place(self.store.folder(spec), device, options.cache, options.prefix_cache)
        control = Control(self.progress, options.checkpoint_every, options.should_stop)
        work = import_object(WORK[spec.kind], "run")
        source = self.source(spec)
        while True:
            try:
                outcome = options.team.do(work, spec, self.data[spec.data], source, place, control)
                return self._save(outcome, environment(str(device)))
            except (Interrupted, StoreError, UsageError):
                raise
            except Exception as error:
                smaller = smaller_micro_batch(spec, place.micro_batch, error)
                if smaller is None:
                    reason = explain_failure(spec, error, place.micro_batch)
                    return self.failed(spec, reason, "".join(traceback.format_exception(error)))
            self._shrink(spec, place, smaller)

    def follow(self) -> None:
        """In all processes of a team but the first: takes part in the runs that the first one begins, writes nothing.

        Raises what ``Team.follow`` raises.
        """
        from ftbench.training.run import Place
        from ftbench.training.watch import Control

        options, team = self.options, self.options.team
        control = Control(self.progress, options.checkpoint_every, options.should_stop)

        def take_part(spec: RunSpec, source: Checkpoint, folder: Path, micro_batch: int | None) -> None:
            device = team.group.device(set_up(options))
            place = Place(folder, device, options.cache, options.prefix_cache, micro_batch, team.group)
            import_object(WORK[spec.kind], "run")(spec, self.data[spec.data], source, place, control)

        team.follow(take_part)

    def _shrink(self, spec: RunSpec, place: Any, micro_batch: int) -> None:
        """Begins the run anew with smaller micro-batches, so that all its steps have the same."""
        from ftbench.training.memory import release

        log.warning("%s seed %s: out of memory, again with micro-batches of %d", spec.method, spec.seed, micro_batch)
        place.micro_batch = micro_batch
        (place.folder / CHECKPOINT).unlink(missing_ok=True)
        release()

    def _save(self, outcome: Any, where: Mapping[str, Any]) -> Record:
        spec = outcome.result.spec
        kept = self.options.keep_model and not spec.is_trial
        kept = kept and (spec.kind != "reference" or self.options.keep_references)
        return self.store.save(
            outcome.result,
            outcome.cost,
            history=outcome.history,
            predictions=outcome.predictions,
            environment=where,
            save_model=outcome.backbone.save if kept and outcome.backbone else None,
        )

    def source(self, spec: RunSpec) -> Checkpoint:
        """The checkpoint that a run starts from. Raises UsageError where that is of a run that kept no weights."""
        pretrained = self.models[spec.weights]
        if not spec.parents:
            return pretrained
        (parent,) = spec.parents
        if parent in self.models:
            return replace(self.models[parent], origin=pretrained)
        folder = self.folder_of(parent)
        if not (folder / "model").is_dir():
            raise UsageError(f"{folder} kept no weights. Run its command again with --save-model all")
        return replace(pretrained, folder=folder / "model", origin=pretrained)

    def failed(self, spec: RunSpec, reason: str, details: str) -> Record:
        """Records a failure: its reason in the result, its details (a traceback, the end of a log) beside it."""
        from ftbench.runs.environment import environment
        from ftbench.training.run import cost_of_failure

        where = environment(str(set_up(self.options)))
        return record_failure(self.store, spec, reason, details, cost_of_failure(where["device"]), where)


def record_failure(
    store: Store, spec: RunSpec, reason: str, details: str, cost: Any, where: Mapping[str, Any], **facts: Any
) -> Record:
    """Writes a failed run; a good result that is there stays. Needs no torch. Raises StoreError."""
    log.error("%s seed %s failed: %s", spec.method, spec.seed, reason)
    folder = store.folder(spec)
    write_atomic(folder / "error.txt", details.encode())
    result = Result(spec=spec, status="failed", facts=facts, error=reason)
    before = store.find(spec)
    if before and before.result.status == "ok":  # done again without success: the good result stays
        return Record(folder, result, cost)
    return store.save(result, cost, environment=where)


def set_up(options: Options) -> Any:
    """Limits threads, switches to deterministic algorithms where asked, and returns the torch device."""
    import torch
    from threadpoolctl import threadpool_limits

    from ftbench.training.precision import choose_device

    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA is first used
    if torch.are_deterministic_algorithms_enabled() != options.deterministic:  # to ask is free, to set imports a lot
        torch.use_deterministic_algorithms(options.deterministic)
    if options.threads:
        torch.set_num_threads(options.threads)
        threadpool_limits(options.threads)  # NumPy's and SciPy's too
    return choose_device(options.device)


def smaller_micro_batch(spec: RunSpec, used: int | None, error: Exception) -> int | None:
    """Half of the rows that were too many at once; None where that is not what is wrong, one row is too many, or half
    of them make another term."""
    size = used or spec.micro_batch or spec.batch_size
    wanted = spec.kind in TUNED and size > 1 and is_out_of_memory(error) and not isinstance(error, OneRowTooMuch)
    return size // 2 if wanted and not coupling(spec) else None


def coupling(spec: RunSpec) -> list[str]:
    """The methods of a run whose term depends on which rows share a micro-batch; none of a run that trains nothing."""
    methods = make(spec.methods) if spec.kind in TUNED else []
    return [method.name for method in methods if method.couples(writes=spec.kind == "summarize")]


def explain_failure(spec: RunSpec, error: Exception, used: int | None = None) -> str:
    """One line for a failed run; out of memory says what to try. used: rows of a micro-batch, if not those asked for"""
    if isinstance(error, OneRowTooMuch):
        return f"{error}. Try a smaller {spec.length_flag}, --precision bf16, fewer runs at a time, or fewer beams"
    if is_out_of_memory(error):
        size = used or spec.micro_batch or spec.batch_size
        rows = f"micro-batches of {size} row{'s' * (size > 1)}"
        smaller = f"--micro-batch {size // 2} (the same effective batch), " if size > 1 else ""
        if (names := coupling(spec)) and size > 1:
            rows += f", not halved because the term of {' and '.join(names)} needs the whole micro-batch,"
            smaller = "for all arms a smaller --batch-size or --micro-batch, "
        return (
            f"out of memory at {rows} and up to {spec.max_length} tokens. Try {smaller}a smaller {spec.length_flag}, "
            "--precision bf16, or fewer runs at a time"
        )
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"
