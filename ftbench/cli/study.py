"""From an ask in words to a study carried out and printed; what ``finetune`` and its successors share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftbench.cli.output import describe_data, kept_weights, print_records
from ftbench.cli.progress import Display, Lines
from ftbench.errors import Interrupted, UsageError
from ftbench.models.locate import Checkpoint, locate, require_decoder
from ftbench.runs import team
from ftbench.runs.able import Arms, settle
from ftbench.runs.engines import HERE
from ftbench.runs.environment import done_under_others
from ftbench.runs.grid import Grid
from ftbench.runs.progress import Silent
from ftbench.runs.signals import stop_on_signals
from ftbench.runs.stages import Request, Stage
from ftbench.runs.store import Store
from ftbench.runs.study import Study, plan_study, rehearse
from ftbench.runs.track import tracked
from ftbench.runs.work import Bench, Options
from ftbench.tasks import TASKS, expand, from_folder, resolve
from ftbench.tasks.sources import load
from ftbench.types import Data, Record, Search
from ftbench.types.task import Task


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a command would do, see ``preparing``. answers: what is written down once there are records."""

    store: Store
    data: Mapping[str, Data]
    models: Mapping[str, Checkpoint]
    options: Options
    stages: Sequence[Stage]
    parents: Sequence[Record]
    answers: Callable[[Store, Sequence[Record]], list[Search]]


class _Left(Exception):
    """A command was left because its plan was all that was wanted."""


_PREPARED: ContextVar[list[Prepared] | None] = ContextVar("prepared", default=None)
_LOADED: dict[str, Data] = {}
_LOCATED: dict[tuple[str, str | None, bool], Checkpoint] = {}


@contextlib.contextmanager
def preparing() -> Iterator[list[Prepared]]:
    """Within: a command plans its study, which comes into the list, and goes no further."""
    found: list[Prepared] = []
    token = _PREPARED.set(found)
    try:
        yield found
    except _Left:
        pass
    finally:
        _PREPARED.reset(token)


@dataclass
class _Planning(Grid):
    """In the place of a grid: takes the stages and leaves."""

    def run(self, stages: Iterable[Stage]) -> list[Record]:
        """Raises ``_Left``."""
        found = _PREPARED.get()
        assert found is not None
        found.append(
            Prepared(
                store=self.store, data=self.data, models=self.models, options=self.options, stages=list(stages),
                parents=self.parents, answers=self.answers,
            )
        )  # fmt: skip
        raise _Left


def load_once(task: Task) -> Data:
    """``load``; a study's commands share what they load."""
    if _PREPARED.get() is None:
        return load(task)
    key = repr(task)
    if key not in _LOADED:
        _LOADED[key] = load(task)
    return _LOADED[key]


def locate_once(name: str, revision: str | None, *, remote_code: bool = False) -> Checkpoint:
    """``locate``; a study's commands share what they find."""
    if _PREPARED.get() is None:
        return locate(name, revision, remote_code=remote_code)
    key = (name, revision, remote_code)
    if key not in _LOCATED:
        _LOCATED[key] = locate(name, revision, remote_code=remote_code)
    return _LOCATED[key]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A fine-tuning study in the user's words."""

    tasks: Sequence[str]
    own: Mapping[str, Any]
    data_dir: str | None
    models: Sequence[str]
    revision: str | None
    methods: Sequence[str]
    baseline: bool
    references: bool
    seeds: Sequence[int]
    data_seeds: Sequence[int]
    axes: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any]
    tune: Sequence[str] = ()
    search: Sequence[str] = ()
    budget: int | None = None
    remote_code: bool = False
    writes: bool = False


def to_request(ask: Ask) -> tuple[Request, Arms]:
    """Names to tasks, rows and checkpoints; raises UsageError for the first thing that is wrong.

    Methods and tasks are looked at before anything is loaded.
    """
    if ask.budget is not None and not ask.search:
        raise UsageError("--budget is for a search: say what to vary, as in --search lr=2e-5,1e-4")
    arms = settle(
        ask.methods, baseline=ask.baseline, axes=ask.axes, passes=ask.fixed.get("passes", "separate"),
        searching=bool(ask.search), tune=ask.tune, writes=ask.writes, processes=team.size(),
    )  # fmt: skip
    if ask.fixed.get("frozen_dropout") and "layers" not in ask.axes:
        raise UsageError("--frozen-dropout says what frozen layers do: choose layers, as in --layers top:3")
    tasks = [resolve(name, **ask.own) for name in expand(ask.tasks)]
    _require_own(tasks, ask.own)
    for task in tasks:
        _require_command(task, writes=ask.writes)
    if ask.data_dir is not None:
        tasks = from_folder(tasks, ask.data_dir)
    models = [locate_once(name, ask.revision, remote_code=ask.remote_code) for name in ask.models]
    for model in models if ask.writes else ():
        require_decoder(model)
    data = [load_once(task) for task in tasks]
    request = Request(
        data=data,
        models=models,
        arms=arms.stacks,
        seeds=ask.seeds,
        data_seeds=ask.data_seeds,
        axes=ask.axes,
        fixed=ask.fixed,
        references=ask.references,
        processes=team.size(),
    )
    return request, arms


def _require_own(tasks: Sequence[Task], own: Mapping[str, Any]) -> None:
    """Raises UsageError for a flag on tables of one's own where there is none."""
    target = "summary" if own.get("kind") == "summarization" else "label"
    usual = {"label": (target,), "kind": ("classification", "summarization"), "encoding": ()}
    given = [name for name, values in usual.items() if own.get(name, "") not in (*values, "")]
    if given and all(task.name in TASKS for task in tasks):
        flag = target if given[0] == "label" else given[0]
        raise UsageError(f"--{flag} is for your own tables: task '{tasks[0].name}' needs no telling")


def _require_command(task: Task, *, writes: bool) -> None:
    """Raises UsageError for a task of another command."""
    if (task.kind == "summarization") != writes:
        command = "finetune" if writes else "summarize"
        raise UsageError(f"task '{task.name}' is a {task.kind}: use `ftbench {command} --task {task.name}`")


def settled(ask: Ask, store: Store, *, quiet: bool) -> tuple[Request, Study]:
    """The request and its stages, without the arms that cannot run; says what is left out, and what the data are.

    Raises UsageError for an arm that was named and cannot run.
    """
    request, arms = to_request(ask)
    for data in request.data:
        if not quiet:
            print(describe_data(data), file=sys.stderr)
        for note in data.notes:
            print(f"note: {note}", file=sys.stderr)
    study = plan_study(request, ask.search, ask.budget)
    refused = rehearse(
        study.unfinished(store) if _PREPARED.get() is None else (),
        {data.fingerprint: data for data in request.data},
        {model.fingerprint: model for model in request.models},
    )
    if refused:
        arms.refuse(refused)
        request = replace(request, arms=arms.stacks)
        study = plan_study(request, ask.search, ask.budget)
    for name, reason in arms.left_out.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    return request, study


@contextlib.contextmanager
def attended(
    store: Store, data: Iterable[Data], models: Iterable[Checkpoint], options: Options, *, quiet: bool,
    track: str | None = None,
) -> Iterator[Grid]:  # fmt: skip
    """A grid that shows its progress on stderr and stops at a signal; what was finished by then is said.

    track: see ``runs.track``; raises its UsageError.
    """
    if _PREPARED.get() is not None:
        inputs = {one.fingerprint: one for one in data}, {one.fingerprint: one for one in models}
        yield _Planning(store, *inputs, Lines(quiet=True), options)
        return
    display = Display() if not quiet and sys.stderr.isatty() else Lines(quiet=quiet)
    shown = tracked(display, track, store.root)
    with display, stop_on_signals(display.message) as should_stop:
        grid = Grid(
            store,
            {one.fingerprint: one for one in data},
            {one.fingerprint: one for one in models},
            shown,
            replace(options, should_stop=should_stop),
        )
        try:
            yield grid
            if others := done_under_others(grid.records):
                display.message(
                    f"note: the versions here are others than those of {others}; kept, and noted in reports"
                )
        except Interrupted:
            display.message(f"finished runs: {len(grid.records)}, in {store.root}")
            raise
        finally:
            grid.close()


def _take_part(ask: Ask, store: Store, options: Options) -> int:
    """What a process does that shares the runs of another: no word, no file. Returns 0."""
    request, _ = to_request(ask)
    data = {one.fingerprint: one for one in request.data}
    models = {one.fingerprint: one for one in request.models}
    with team.gathered() as processes, stop_on_signals(lambda text: None) as should_stop:
        options = replace(options, team=processes, should_stop=should_stop)
        Bench(store, data, models, Silent(), options, lambda identity: Path(identity)).follow()
    return 0


def run_study(
    ask: Ask,
    output_dir: Path,
    options: Options,
    *,
    save_model: str | None,
    quiet: bool,
    as_json: bool,
    track: str | None = None,
) -> int:
    """Does the study and prints its table. Returns how many runs failed. Raises what ``Grid.run`` raises."""
    store = Store(output_dir)
    if options.prefix_cache == "on" and ("layers" not in ask.axes or ask.fixed.get("frozen_dropout")):
        raise UsageError("--prefix-cache on: expected frozen layers without dropout, as in --layers top:3")
    if team.size() > 1 and options.setup.engine != HERE:
        raise UsageError(f"{team.size()} processes share every run: leave out --jobs and --engine")
    options = replace(options, keep_model=save_model is not None)
    if team.rank():
        return _take_part(ask, store, options)
    request, study = settled(ask, store, quiet=quiet)
    with (
        team.gathered() as processes,
        attended(
            store, request.data, request.models, replace(options, team=processes), quiet=quiet, track=track
        ) as grid,
    ):
        grid.answers = study.keep_answers
        try:
            grid.run(study.stages)
            if save_model:
                grid.keep_models(save_model)
        finally:
            searches = grid.answers(store, grid.records)
    print_records(grid.records, searches, form="json" if as_json else "rich")
    if not quiet:
        for note in study.notes(grid.records):
            print(note, file=sys.stderr)
        print(f"Runs are in {output_dir}/; `ftbench report {output_dir}` prints this again.", file=sys.stderr)
        for folder in kept_weights(grid.records):
            print(f"Weights kept: `ftbench predict {folder} FILE` uses them.", file=sys.stderr)
    return sum(record.result.status == "failed" for record in grid.records)
