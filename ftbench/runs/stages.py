"""From a request to runs. A study is a list of stages, each a function (records so far) -> RunSpecs.

A plain ``finetune`` is one stage; ``std++``, whose steps follow from the measured cost of another
method, is a second. No torch here.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftbench.errors import UsageError
from ftbench.lookup import find
from ftbench.methods import METHODS, make, parse_stack
from ftbench.models.locate import Checkpoint
from ftbench.runs import matched
from ftbench.runs.matched import Stack
from ftbench.runs.recipe import BATCH_SIZE, batching_for, lr_for, steps_for, writing_for
from ftbench.tasks.perturb import perturb
from ftbench.types import Data, Record, RunSpec
from ftbench.types.layers import resolve_layers
from ftbench.types.run import TRIAL_SEED, TUNING

#: raised whenever a change in training or evaluation can move a number
ENGINE_REVISION = 1
#: fields of RunSpec whose rows or labels the data seed draws
DRAWN = ("imbalance", "train_size", "label_noise", "select_on", "limit", "folds")
#: as a ``--method``: each one of the table
ALL = "all"
#: as a ``--tune``: the method alone chooses
FULL = "full"
log = logging.getLogger(__name__)
Stage = Callable[[Sequence[Record]], list[RunSpec]]
#: rows, checkpoint and the values that the axes have
Point = tuple[Data, Checkpoint, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asked for, names resolved and data loaded.

    axes:  RunSpec fields (and ``epochs``) with the values to cross; ``train_size`` None means all rows.
    fixed: RunSpec fields that every run shares.
    processes: how many share each run: a batch has at least as many micro-batches, unless ``fixed`` says how large.
    """

    data: Sequence[Data]
    models: Sequence[Checkpoint]
    arms: Sequence[Stack]
    seeds: Sequence[int]
    data_seeds: Sequence[int] = (0,)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    references: bool = True
    processes: int = 1


def parse_arms(texts: Sequence[str], *, baseline: bool, tune: Sequence[str] = ()) -> list[Stack]:
    """``--method`` texts to stacks without repeats; ``std`` comes first unless it is not wanted. ``all`` is every
    method of the table at its defaults, in the table's order; std++ has the compute of r3f.

    tune: every arm once under each of these methods, std too, which is that method alone; ``full`` is none.
    Raises UsageError for what ``parse_stack`` refuses.
    """
    arms: list[Stack] = []
    for way in tune or [FULL]:
        require_tuning(way)
        whole = [name for name in METHODS if way == FULL or name not in ("std++", *TUNING)]
        asked = [name for text in texts or ["std"] for name in (whole if text == ALL else [text])]
        for name in ["std"] * baseline + asked:
            stack = parse_stack(name if way == FULL else f"{way}+{name}")
            if stack not in arms:
                arms.append(stack)
    return arms


def require_tuning(way: str) -> None:
    """Raises UsageError for a ``--tune`` that is no method which chooses what is tuned; names the nearest."""
    find({name: name for name in (FULL, *TUNING)}, way.partition(":")[0], "way to tune")


def plan(request: Request) -> list[Stage]:
    """The stages of a fine-tuning study. Raises UsageError for settings that no run can have."""
    direct, later = matched.split(request.arms)
    check_seeds(request)
    first = [*references(request), *_specs(request, direct)]
    stages: list[Stage] = [lambda records: first]
    for arm in later:
        check_arm(arm, request.arms, request.axes)
    if later:
        stages.append(lambda records: _matched_specs(request, later, records))
    return stages


def _specs(request: Request, arms: Sequence[Stack]) -> list[RunSpec]:
    """Seeds outermost, so that an interrupted study has complete pairs."""
    settings = _settings(request)
    specs = [
        RunSpec(**base, methods=arm, seed=seed, data_seed=draw(base, data_seed))
        for data_seed in request.data_seeds
        for seed in request.seeds
        for base in settings
        for arm in arms
    ]
    return list({spec.id: spec for spec in specs}.values())


def check_seeds(request: Request) -> None:
    """Raises UsageError for seeds that are kept for the trials of a search, which are in no mean."""
    if reserved := [seed for seed in request.seeds if TRIAL_SEED <= seed < 2**32]:
        raise UsageError(f"seed {reserved[0]}: seeds from {TRIAL_SEED} on are kept for searches")


def draw(base: Mapping[str, Any], data_seed: int) -> int:
    """The data seed, or 0 where nothing is drawn with it: else one run would be counted several times."""
    return data_seed if any(base.get(key) for key in DRAWN) else 0


def points(request: Request) -> list[Point]:
    """Every combination of task, model and axis values."""
    names = list(request.axes)
    return [
        (data, model, dict(zip(names, values, strict=True)))
        for data, model in itertools.product(request.data, request.models)
        for values in itertools.product(*request.axes.values())
    ]


def _settings(request: Request) -> list[dict[str, Any]]:
    """Every point as RunSpec fields without methods and seeds."""
    return [fields_of(request, *point) for point in points(request)]


def fields_of(request: Request, data: Data, model: Checkpoint, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """RunSpec fields of a point, without methods and seeds: the recipe's defaults where nothing is said.

    Raises UsageError for settings that no run can have.
    """
    writes = data.task.kind == "summarization"
    usual = {**writing_for(model.width, model.decoder), **data.task.decoding} if writes else {"lr": lr_for(model.width)}
    fields = {"batch_size": BATCH_SIZE, **usual, **request.fixed, **chosen}
    fields.setdefault("train_size", data.task.default_train_size)
    rows = train_rows(data, fields)
    fields["steps"] = steps_for(
        rows, fields["batch_size"], epochs=fields.pop("epochs", None), steps=fields.pop("steps", None)
    )
    fields.setdefault("batching", batching_for(rows))
    if request.processes > 1 and fields.get("micro_batch") is None:
        fields["micro_batch"] = math.ceil(fields["batch_size"] / request.processes)
    if fields.get("micro_batch") == fields["batch_size"]:
        fields["micro_batch"] = None  # the whole batch at once: the same run
    layers = resolve_layers(fields.pop("layers", ""), model.blocks, model.name)
    if layers:
        fields["layers"] = layers
    else:
        fields.pop("frozen_dropout", None)  # nothing is frozen: the same run
    return {"kind": "summarize" if writes else "finetune", **identity(data, model), **fields}


def train_rows(data: Data, fields: Mapping[str, Any]) -> int:
    """How many rows are trained on; refuses sizes and fractions that the task cannot give."""
    asked: dict[str, Any] = {name: fields[name] for name in DRAWN if name in fields}
    RunSpec(kind="reference", task=data.task.name, data="", weights="", **asked)  # refuses what no run can have
    return len(perturb(data, data_seed=0, **asked).splits["train"])


def identity(data: Data, model: Checkpoint) -> dict[str, Any]:
    """RunSpec fields that say which rows and weights."""
    return {
        "task": data.task.name,
        "source": data.task.origin(),
        "task_revision": data.task.revision,
        "data": data.fingerprint,
        "model": model.name,
        "weights": model.fingerprint,
        "engine_revision": ENGINE_REVISION,
        **({"remote_code": True} if model.remote_code else {}),
    }


def references(request: Request) -> list[RunSpec]:
    """One reference run for each set of rows, whatever the recipe; none where they are not wanted."""
    if not request.references:
        return []
    kept = (*DRAWN, "max_length", "remote_code")
    specs: list[RunSpec] = []
    for base, data_seed in itertools.product(_settings(request), request.data_seeds):
        fields = {**{k: base[k] for k in kept if k in base}, "engine_revision": base["engine_revision"]}
        about = {k: base[k] for k in ("task", "source", "task_revision", "data", "model", "weights")}
        specs.append(RunSpec(kind="reference", **about, **fields, data_seed=draw(base, data_seed)))
    return list({spec.id: spec for spec in specs}.values())


def _matched_specs(request: Request, arms: Sequence[Stack], records: Sequence[Record]) -> list[RunSpec]:
    """The std++ runs: std's steps times the cost ratio."""
    specs, costs = [], matched.Costs(records)
    for arm in arms:
        for spec in _specs(request, [()]):
            found = matched.stretched(arm, spec, request.arms, costs)
            if found is None:
                warn_of_no_ratio(arm)
            else:
                specs.append(found)
    return specs


def warn_of_no_ratio(arm: Stack) -> None:
    """Says why there are no runs of this std++."""
    name = matched.std_plus_plus(arm).compute
    log.warning("no %s: %s and std have no finished seed in common", arm[0].label, name)


def check_arm(
    arm: Stack,
    arms: Sequence[Stack],
    axes: Mapping[str, Sequence[Any]],
    passes: str = "separate",
    *,
    searching: bool = False,
) -> None:
    """Raises UsageError for an arm that cannot run beside ``arms`` in this setting."""
    check_joined([arm], passes)
    method = matched.std_plus_plus(arm)
    if method is None:
        return
    if len(axes.get("steps", axes.get("epochs", (0,)))) > 1:
        raise UsageError("std++ stretches one number of steps: give a single value to --steps or --epochs")
    if method.factor is None and searching:
        raise UsageError(
            f"{arm[0].label} takes its steps from measured costs, which a search does not have: give a factor, as in "
            "std++:compute=1.8"
        )
    if method.factor is None:
        matched.partner(method.compute, [other for other in arms if matched.std_plus_plus(other) is None])


def check_shared(arm: Stack, processes: int) -> None:
    """Raises UsageError for an arm whose runs several processes cannot share."""
    for method in make(arm) if processes > 1 else ():
        if method.in_order:
            raise UsageError(
                f"{method.name}: each of its passes changes what the next one computes, so that {processes} processes "
                "cannot share a run. Do it in one process"
            )


def check_fit(arm: Stack, *, writes: bool) -> None:
    """Raises UsageError for methods that have nothing to do where summaries are written, or where they are not."""
    if reasons := [reason for method in make(arm) if (reason := method.unfit(writes=writes))]:
        raise UsageError("; ".join(reasons))


def check_joined(arms: Sequence[Stack], passes: str) -> None:
    """Raises UsageError where ``--passes joined`` is asked of a method that cannot."""
    for method in (method for arm in arms for method in make(arm) if passes == "joined"):
        if not method.can_join:
            raise UsageError(f"--passes joined: method {method.name} needs its passes apart; use --passes separate")
