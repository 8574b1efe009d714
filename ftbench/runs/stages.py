"""From a request to runs. A study is a list of stages, each a function (records so far) -> RunSpecs.

A plain ``finetune`` is one stage; ``std++``, whose steps follow from the measured cost of another
method, is a second. No torch here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftbench.errors import UsageError
from ftbench.methods import method_class, parse_stack
from ftbench.models.locate import Checkpoint
from ftbench.runs.recipe import BATCH_SIZE, batching_for, lr_for, steps_for
from ftbench.tasks.perturb import perturb
from ftbench.types import Data, MethodSpec, Record, RunSpec

#: raised whenever a change in training or evaluation can move a number
ENGINE_REVISION = 1
Stack = tuple[MethodSpec, ...]
Stage = Callable[[Sequence[Record]], list[RunSpec]]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asked for, names resolved and data loaded.

    axes:  RunSpec fields (and ``epochs``) with the values to cross; ``train_size`` None means all rows.
    fixed: RunSpec fields that every run shares.
    """

    data: Sequence[Data]
    models: Sequence[Checkpoint]
    arms: Sequence[Stack]
    seeds: Sequence[int]
    data_seeds: Sequence[int] = (0,)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    references: bool = True


def parse_arms(texts: Sequence[str], *, baseline: bool) -> list[Stack]:
    """``--method`` texts to stacks without repeats; ``std`` comes first unless it is not wanted.

    Raises UsageError for what ``parse_stack`` refuses.
    """
    asked = [parse_stack(text) for text in texts or ["std"]]
    stacks = [(), *asked] if baseline else asked
    arms: list[Stack] = []
    for stack in stacks:
        if stack not in arms:
            arms.append(stack)
    return arms


def plan(request: Request) -> list[Stage]:
    """The stages of a fine-tuning study. Raises UsageError for settings that no run can have."""
    direct = [arm for arm in request.arms if _compute_of(arm) is None]
    matched = [arm for arm in request.arms if _compute_of(arm) is not None]
    first = [*(_references(request) if request.references else []), *_specs(request, direct)]
    stages: list[Stage] = [lambda records: first]
    for arm in matched:
        _require_partner(arm, direct)
    if matched:
        stages.append(lambda records: _matched_specs(request, matched, records))
    return stages


def _specs(request: Request, arms: Sequence[Stack]) -> list[RunSpec]:
    """Seeds outermost, so that an interrupted study has complete pairs."""
    settings = list(_settings(request))
    return [
        RunSpec(**base, methods=arm, seed=seed, data_seed=data_seed)
        for data_seed in request.data_seeds
        for seed in request.seeds
        for base in settings
        for arm in arms
    ]


def _settings(request: Request) -> list[dict[str, Any]]:
    """Every combination of task, model and axis values, as RunSpec fields without methods and seeds."""
    out = []
    names = list(request.axes)
    for data, model in itertools.product(request.data, request.models):
        for values in itertools.product(*request.axes.values()):
            out.append(_fields(request, data, model, dict(zip(names, values, strict=True))))
    return out


def _fields(request: Request, data: Data, model: Checkpoint, chosen: dict[str, Any]) -> dict[str, Any]:
    fields = {"batch_size": BATCH_SIZE, "lr": lr_for(model.width), **request.fixed, **chosen}
    fields.setdefault("train_size", data.task.default_train_size)
    rows = _train_rows(data, fields)
    fields["steps"] = steps_for(
        rows, fields["batch_size"], epochs=fields.pop("epochs", None), steps=fields.pop("steps", None)
    )
    fields.setdefault("batching", batching_for(rows))
    return {"kind": "finetune", **_identity(data, model), **fields}


def _train_rows(data: Data, fields: Mapping[str, Any]) -> int:
    """How many rows are trained on; refuses sizes and fractions that the task cannot give."""
    names = ("train_size", "limit", "label_noise", "select_on")
    asked: dict[str, Any] = {name: fields[name] for name in names if name in fields}
    RunSpec(kind="reference", task=data.task.name, data="", weights="", **asked)  # refuses what no run can have
    return len(perturb(data, data_seed=0, **asked).splits["train"])


def _identity(data: Data, model: Checkpoint) -> dict[str, Any]:
    return {
        "task": data.task.name,
        "source": data.task.origin(),
        "task_revision": data.task.revision,
        "data": data.fingerprint,
        "model": model.name,
        "weights": model.fingerprint,
        "engine_revision": ENGINE_REVISION,
    }


def _references(request: Request) -> list[RunSpec]:
    """One reference run for each set of rows, whatever the recipe."""
    kept = ("train_size", "label_noise", "select_on", "limit", "max_length")
    specs: list[RunSpec] = []
    for base, data_seed in itertools.product(_settings(request), request.data_seeds):
        fields = {**{k: base[k] for k in kept if k in base}, "engine_revision": base["engine_revision"]}
        identity = {k: base[k] for k in ("task", "source", "task_revision", "data", "model", "weights")}
        spec = RunSpec(kind="reference", **identity, **fields, data_seed=data_seed)
        if spec not in specs:
            specs.append(spec)
    return specs


def _compute_of(arm: Stack) -> str | None:
    """The method whose cost decides this arm's steps, or None when they are known."""
    for method in arm:
        if method.name == "std++":
            compute = {"compute": "r3f", **method.fields}["compute"]
            return str(compute)
    return None


def _require_partner(arm: Stack, direct: Sequence[Stack]) -> None:
    compute = _compute_of(arm) or ""
    if _factor(compute) is None and not any(_matches(other, compute) for other in direct):
        raise UsageError(
            f"std++:compute={compute} takes its steps from the cost of '{compute}': add --method {compute} "
            "to the same command, or give a factor such as std++:compute=1.8"
        )
    if () not in direct and _factor(compute) is None:
        raise UsageError("std++ compares costs with std: leave out --no-baseline, or give a factor")


def _matched_specs(request: Request, arms: Sequence[Stack], records: Sequence[Record]) -> list[RunSpec]:
    """The std++ runs: std's steps times the cost ratio, rounded to 0.1."""
    specs = []
    for arm in arms:
        compute = _compute_of(arm) or ""
        for spec in _specs(request, [()]):
            ratio = _factor(compute) or _cost_ratio(spec, compute, records)
            if ratio is not None:
                steps = round(spec.steps * ratio)
                specs.append(RunSpec(**{**spec.__dict__, "methods": arm, "steps": steps}))
    return specs


def _cost_ratio(spec: RunSpec, compute: str, records: Sequence[Record]) -> float | None:
    """Mean training process time of the partner over std's at the same settings; None when one has no finished run."""

    def mean(wanted: Callable[[Stack], bool]) -> float | None:
        costs = [
            record.cost.process_seconds
            for record in records
            if record.result.status == "ok"
            and _without_method(record.result.spec) == _without_method(spec)
            and wanted(record.result.spec.methods)
        ]
        return sum(costs) / len(costs) if costs else None

    own, other = mean(lambda stack: stack == ()), mean(lambda stack: _matches(stack, compute))
    return max(1.0, round(other / own, 1)) if own and other else None


def _without_method(spec: RunSpec) -> dict[str, Any]:
    return {key: value for key, value in spec.arm().items() if key != "methods"}


def _matches(arm: Stack, compute: str) -> bool:
    return "+".join(m.label for m in arm) == compute or (len(arm) == 1 and arm[0].name == compute)


def _factor(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def check_joined(arms: Sequence[Stack], passes: str) -> None:
    """Raises UsageError where ``--passes joined`` is asked of a method that cannot."""
    from ftbench.methods import make

    if passes != "joined":
        return
    for arm in arms:
        for method in make(arm):
            cls = method_class(method.name)
            masks = getattr(method, "dropout", "independent")
            if method.has_views and not (cls.joinable and masks == "independent"):
                raise UsageError(
                    f"--passes joined: method {method.name} needs its passes apart (dropout={masks}); "
                    "use --passes separate"
                )
