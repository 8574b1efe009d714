"""Probing protocols: which encoder is tuned on what, and when what is left in it is measured.

    generalization   tune on a source; probe the targets
    chain            tune on A, B, C, ... each from the last one's encoder with a new head; probe after each
    cycle            the chain several times over; probe each task before it is tuned (again)

Each is a list of moves, and a move a stage. ``std++`` is tuned in a stage of its own, after the other arms: its steps
follow from what they cost in the same move. Before them come the two references: the pretrained encoder, untouched,
and a random one. A run that starts from another has that run's id among its own fields, so it is done again only where
something before it changed. A stage starts from the last step's weights, or from those of the best evaluation
(``checkpoint=best``), as in the R3F paper; what is probed after a stage is what the next one starts from.

Aghajanyan et al. 2021 (arXiv 2008.03156), section 4.1: ``r3f`` is their order of tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from ftbench.errors import UsageError
from ftbench.methods import make
from ftbench.models.locate import Checkpoint
from ftbench.runs import matched
from ftbench.runs.matched import Stack
from ftbench.runs.stages import Request, Stage, check_arm, identity, plan, warn_of_no_ratio
from ftbench.types import Data, Record, RunSpec

PRESETS = {"r3f": ("sst2", "qnli", "qqp", "rte")}
RANDOM = "random"
#: stands between the tasks that an encoder was tuned on
THEN = ">"


@dataclass(frozen=True)
class Move:
    """One stage of a protocol: ``tune`` on a task, or ``probe`` with several."""

    kind: Literal["tune", "probe"]
    data: tuple[Data, ...]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Who is tuned (arms, seeds and recipe of ``tuning``; its data come from the moves), and how it is probed.

    probing: RunSpec fields of the probe runs
    """

    tuning: Request
    moves: Sequence[Move]
    probing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def targets(self) -> list[Data]:
        found = {data.fingerprint: data for move in self.moves if move.kind == "probe" for data in move.data}
        return list(found.values())


def generalization(source: Data, targets: Sequence[Data]) -> list[Move]:
    """Tune on ``source``, probe each of ``targets``."""
    return [Move("tune", (source,)), Move("probe", tuple(targets))]


def chain(tasks: Sequence[Data], targets: Sequence[Data]) -> list[Move]:
    """Tune on each of ``tasks`` in turn; probe ``targets`` after each."""
    return [move for task in tasks for move in (Move("tune", (task,)), Move("probe", tuple(targets)))]


def cycle(tasks: Sequence[Data], cycles: int, texts: Data | None = None) -> list[Move]:
    """``tasks`` in turn, ``cycles`` times: each is probed, then tuned. ``texts`` are probed after each tuning, once."""
    order = [task for _ in range(cycles) for task in tasks]
    moves = []
    for task, following in zip(order, [*order[1:], None], strict=True):
        moves += [Move("probe", (task,)), Move("tune", (task,))]
        if texts is not None and (following is None or following.fingerprint != texts.fingerprint):
            moves.append(Move("probe", (texts,)))
    return moves


def stages(protocol: Protocol) -> list[Stage]:
    """Raises UsageError for what a protocol cannot have: several values of a setting, adapters in a chain, a std++ that
    is matched with a method which is not there.
    """
    several = [name for name, values in protocol.tuning.axes.items() if len(values) > 1]
    if several:
        raise UsageError(f"--{several[0].replace('_', '-')}: a protocol has one recipe, so it takes a single value")
    for arm in protocol.tuning.arms:
        check_arm(arm, protocol.tuning.arms, protocol.tuning.axes)
    adapted = any(method.name == "adapter" for arm in protocol.tuning.arms for method in arm)
    if adapted and sum(move.kind == "tune" for move in protocol.moves) > 1:
        raise UsageError(
            "adapter: an encoder that has adapters cannot get them once more, so it cannot be tuned on one task after "
            "another. Use --protocol generalization, or another method, such as lora"
        )
    first = references(protocol.tuning.models, protocol.targets, protocol.probing)
    found: list[Stage] = [lambda records: first]
    for number, move in enumerate(protocol.moves):
        if move.kind == "probe":
            found.append(partial(_probed, protocol, number))
            continue
        found.append(partial(_tuned, protocol, number))
        if matched.split(protocol.tuning.arms)[1]:
            found.append(partial(_stretched, protocol, number))
    return found


def references(models: Sequence[Checkpoint], targets: Sequence[Data], probing: Mapping[str, Any]) -> list[RunSpec]:
    """Probes of each model as it was pretrained, and of one that has its shape and random weights."""
    untouched = [_untouched(data, model, probing) for model in models for data in targets]
    return [spec for one in untouched for spec in (one, replace(one, encoder=RANDOM))]


def probe_of(tip: RunSpec, data: Data, model: Checkpoint, probing: Mapping[str, Any]) -> RunSpec:
    """The run that probes, with the rows of ``data``, the encoder that the run ``tip`` left of ``model``."""
    spec = _untouched(data, model, probing)
    return replace(spec, methods=tip.methods, seed=tip.seed, parents=(tip.id,), encoder=tuned_on(tip))


def probe_given(name: str, given: Checkpoint, data: Data, model: Checkpoint, probing: Mapping[str, Any]) -> RunSpec:
    """The run that probes a checkpoint that no run of the store made, beside ``model``."""
    return replace(_untouched(data, model, probing), parents=(given.fingerprint,), encoder=name)


def tuned_on(spec: RunSpec) -> str:
    """The tasks that the encoder of a fine-tuning run was tuned on, in order: ``sst2>qnli``."""
    return f"{spec.encoder}{THEN}{spec.task}" if spec.encoder else spec.task


def _untouched(data: Data, model: Checkpoint, probing: Mapping[str, Any]) -> RunSpec:
    """``train_size`` is at most: all rows are taken where there are fewer."""
    size, rows = probing.get("train_size"), min(len(data.splits["train"]), probing.get("limit") or sys.maxsize)
    fields = {**probing, "train_size": size if size and size < rows else None}
    return RunSpec(kind="probe", **identity(data, model), **fields)


def _probed(protocol: Protocol, number: int, records: Sequence[Record]) -> list[RunSpec]:
    """The probes of a move; none of an encoder that is still the pretrained one, which is a reference."""
    models = {model.fingerprint: model for model in protocol.tuning.models}
    tips, targets = _ready(protocol, number, matched.Costs(records)) or (), protocol.moves[number].data
    return [probe_of(tip, data, models[tip.weights], protocol.probing) for tip in tips for data in targets]


def _tuned(protocol: Protocol, number: int, records: Sequence[Record]) -> list[RunSpec]:
    """The runs of a move that tunes, but for those of std++."""
    direct, _ = matched.split(protocol.tuning.arms)
    return _go_on(_planned(protocol, number, direct), _ready(protocol, number, matched.Costs(records)))


def _stretched(protocol: Protocol, number: int, records: Sequence[Record]) -> list[RunSpec]:
    """The runs of std++ in a move that tunes; says where there is nothing to take its steps from."""
    costs, found = matched.Costs(records), []
    tips = _ready(protocol, number, costs)
    for arm in matched.split(protocol.tuning.arms)[1]:
        if tips is None or any(tip.methods == arm for tip in tips):
            specs = _with_steps(protocol, number, tips, arm, costs)
            if not specs:
                warn_of_no_ratio(arm)
            found += specs
    return found


def _ready(protocol: Protocol, number: int, costs: matched.Costs) -> list[RunSpec] | None:
    """The finished runs whose encoders stand before a move; None where they are still the pretrained one."""
    good = {record.result.spec.id for record in costs.records if record.result.status == "ok"}
    direct, later = matched.split(protocol.tuning.arms)
    tips: list[RunSpec] | None = None
    for earlier, move in enumerate(protocol.moves[:number]):
        if move.kind == "tune":
            stretched = [spec for arm in later for spec in _with_steps(protocol, earlier, tips, arm, costs)]
            tips = [*_go_on(_planned(protocol, earlier, direct), tips), *stretched]
    return None if tips is None else [tip for tip in tips if tip.id in good]


def _planned(protocol: Protocol, number: int, arms: Sequence[Stack]) -> list[RunSpec]:
    """The runs of arms in a move that tunes, as if it were the first."""
    if not arms:
        return []
    request = replace(protocol.tuning, data=protocol.moves[number].data, arms=arms, references=False)
    (stage,) = plan(request)
    return [replace(spec, checkpoint="last") if _has_own_weights(spec) else spec for spec in stage(())]


def _go_on(planned: list[RunSpec], tips: Sequence[RunSpec] | None) -> list[RunSpec]:
    """The runs, each from the encoder of its own arm and seed; those that have none are left out."""
    if tips is None:
        return planned
    before = {_line(tip): tip for tip in tips}
    pairs = [(spec, before[_line(spec)]) for spec in planned if _line(spec) in before]
    return [replace(spec, parents=(tip.id,), encoder=tuned_on(tip)) for spec, tip in pairs]


def _with_steps(
    protocol: Protocol, number: int, tips: Sequence[RunSpec] | None, arm: Stack, costs: matched.Costs
) -> list[RunSpec]:
    """The runs of a std++ in a move that tunes; none where the costs are not known."""
    planned = [replace(spec, methods=arm) for spec in _planned(protocol, number, [()])]
    found = (matched.stretched(arm, spec, protocol.tuning.arms, costs) for spec in _go_on(planned, tips))
    return [spec for spec in found if spec]


def _has_own_weights(spec: RunSpec) -> bool:
    """Whether a method says which weights are the result: those of an average, say."""
    return any(method.moves for method in make(spec.methods))


def _line(spec: RunSpec) -> tuple[Any, ...]:
    """What stays the same along a chain."""
    return spec.weights, spec.method, spec.seed, spec.data_seed
