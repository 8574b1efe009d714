"""Equal compute: how many steps ``std++`` gets from the measured cost of another arm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from ftbench.errors import UsageError
from ftbench.methods import make, parse_stack
from ftbench.types import MethodSpec, Record, RunSpec

Stack = tuple[MethodSpec, ...]


def name_of(stack: Stack) -> str:
    """The arm as one would type it; the empty stack is ``std``."""
    return "+".join(method.label for method in stack) or "std"


def std_plus_plus(arm: Stack) -> Any:
    """The arm's std++ method, whose ``compute`` and ``factor`` say what it is matched with; None for other arms."""
    return next((method for method in make(arm) if method.name == "std++"), None)


def split(arms: Sequence[Stack]) -> tuple[list[Stack], list[Stack]]:
    """The arms whose steps are known at once, and those with std++."""
    later = [arm for arm in arms if std_plus_plus(arm)]
    return [arm for arm in arms if arm not in later], later


def partner(compute: str, arms: Sequence[Stack]) -> Stack:
    """The arm of the same command that ``compute`` names: exactly, or as the only one of that method.

    Raises UsageError when there is none, or several, or no std to compare its cost with.
    """
    exact = parse_stack(compute)
    named = [arm for arm in arms if arm == exact] or [a for a in arms if len(a) == 1 and a[0].name == compute]
    hint = "or give a factor such as std++:compute=1.8"
    if not named:
        raise UsageError(
            f"std++:compute={compute} takes its steps from the cost of '{compute}': add --method {compute} "
            f"to the same command, {hint}"
        )
    if len(named) > 1:
        listed = ", ".join(map(name_of, named))
        raise UsageError(f"std++:compute={compute} could be any of {listed}: name one with its field, {hint}")
    if () not in arms:
        raise UsageError(f"std++ compares costs with std: leave out --no-baseline, {hint}")
    return named[0]


class Costs:
    """What finished runs cost."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    @cached_property
    def _found(self) -> dict[str, dict[tuple[int, int], float]]:
        """Training seconds by arm and settings, then by seeds."""
        found: dict[str, dict[tuple[int, int], float]] = {}
        for record in self.records:
            spec, seconds = record.result.spec, record.cost.training_seconds
            if record.result.status == "ok" and seconds > 0:
                found.setdefault(_setting(spec), {})[spec.data_seed, spec.seed] = seconds
        return found

    def ratio(self, spec: RunSpec, other: Stack) -> float | None:
        """Cost of the arm ``other`` over that of std at the settings of ``spec``, rounded to 0.1 and at least 1.

        Taken from the first seed that both finished, so that adding seeds later does not change it. None when
        there is no such seed.
        """
        own, theirs = (self._found.get(_setting(replace(spec, methods=stack)), {}) for stack in ((), other))
        shared = sorted(own.keys() & theirs.keys())
        return max(1.0, round(theirs[shared[0]] / own[shared[0]], 1)) if shared else None


def stretched(arm: Stack, spec: RunSpec, arms: Sequence[Stack], costs: Costs) -> RunSpec | None:
    """The run of the std++ ``arm`` beside std's run ``spec``: more steps, by its factor or by ``costs``; else None."""
    method = std_plus_plus(arm)
    ratio = method.factor or costs.ratio(spec, partner(method.compute, arms))
    return replace(spec, methods=arm, steps=round(spec.steps * ratio)) if ratio else None


def _setting(spec: RunSpec) -> str:
    """What a cost depends on: which weights are kept of a run is not among it."""
    return json.dumps({key: value for key, value in spec.arm().items() if key != "checkpoint"}, sort_keys=True)
