"""What a search varies: the axes of ``--search``, and for each arm the configurations that are tried.

``lr=1e-5,5e-5`` is a field of the recipe, ``weight=0.1,1`` a field of every method that has it, and
``r3f:weight=0.1,1`` of that method alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ftbench.errors import UsageError
from ftbench.lookup import build, nearest
from ftbench.methods import method_class, parse_stack
from ftbench.runs.matched import Stack, name_of
from ftbench.types import MethodSpec
from ftbench.types.run import text_of

T = TypeVar("T")

#: fields of the recipe that may be searched
RECIPE = {"lr": float, "batch_size": int, "steps": int, "warmup": float, "weight_decay": float, "clip": float}
#: configurations of one arm
MOST = 10_000


@dataclass(frozen=True)
class Axis:
    """``field`` of the method ``owner`` (of any that has it where empty), or of the recipe; ``values`` as typed."""

    text: str
    owner: str
    field: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Configuration:
    """One point of an arm's space: recipe fields, the stack with its fields set, and both in words."""

    recipe: Mapping[str, Any]
    stack: Stack
    words: str


def parse_axes(texts: Sequence[str]) -> list[Axis]:
    """``--search`` texts; ``lr`` alone is searched around its default anyway.

    Raises UsageError for what is not ``field=value,value`` and for a field given twice.
    """
    axes: list[Axis] = []
    for text in texts:
        if text.strip() == "lr":
            continue
        name, equals, listed = text.partition("=")
        owner, _, field = name.strip().rpartition(":")
        values = tuple(value.strip() for value in listed.split(","))
        if not equals or not field or not all(values):
            raise UsageError(
                f"--search '{text}': expected a field and its values, such as lr=2e-5,1e-4 or r3f:weight=0.1,1"
            )
        field = field.replace("-", "_")
        if owner:
            (method,) = parse_stack(owner) or (MethodSpec("std"),)  # an alias becomes what it stands for
            owner = method.name
        if any((axis.owner, axis.field) == (owner, field) for axis in axes):
            raise UsageError(f"--search '{text}': '{name.strip()}' is given twice")
        axes.append(Axis(text, owner, field, values))
    return axes


def recipe_axes(axes: Sequence[Axis]) -> dict[str, list[Any]]:
    """The searched fields of the recipe, converted. Raises UsageError naming the value that is none."""
    found: dict[str, list[Any]] = {}
    for axis in axes:
        if axis.owner or axis.field not in RECIPE:
            continue
        try:
            found[axis.field] = _distinct([RECIPE[axis.field](value) for value in axis.values])
        except ValueError as error:
            word = "whole numbers" if RECIPE[axis.field] is int else "numbers"
            raise UsageError(f"--search '{axis.text}': expected {word}") from error
    return found


def check_known(axes: Sequence[Axis], arms: Sequence[Stack]) -> None:
    """Raises UsageError for a field that neither the recipe nor a method of the arms has, with the nearest."""
    fields = {method.name: _fields_of(method.name) for arm in arms for method in arm}
    for axis in axes:
        if axis.owner and axis.owner not in fields:
            listed = ", ".join(sorted(fields)) or "none"
            raise UsageError(f"--search '{axis.text}': no arm has the method {axis.owner}. Methods here: {listed}")
        known = fields[axis.owner] if axis.owner else {*RECIPE, *(f for each in fields.values() for f in each)}
        if axis.field not in known:
            what = f"method {axis.owner} has no" if axis.owner else "neither the recipe nor a method here has a"
            listed = ", ".join(sorted(known)) or "none"
            near = nearest(axis.field, known)
            raise UsageError(f"--search '{axis.text}': {what} field '{axis.field}'.{near} Known: {listed}")


def own_axes(axes: Sequence[Axis], arm: Stack) -> dict[str, list[Any]]:
    """``r3f:weight`` -> its values, converted, for the axes that a method of the arm has.

    Raises UsageError for a value that is none, a field that the arm fixes, and a field that two of its methods have.
    """
    found: dict[str, list[Any]] = {}
    for axis in axes:
        if not axis.owner and axis.field in RECIPE:
            continue
        owners = [m for m in arm if axis.owner in ("", m.name) and axis.field in _fields_of(m.name)]
        if len(owners) > 1:
            listed = " or ".join(f"{method.name}:{axis.field}" for method in owners)
            raise UsageError(f"--search '{axis.text}': two methods of one arm have this field; say {listed}")
        for method in owners:
            if axis.field in method.fields:
                raise UsageError(f"--search '{axis.text}': --method {method.label} fixes what is to be searched")
            cls = method_class(method.name)
            made = [build(cls, {axis.field: value}, method.name) for value in axis.values]
            found[f"{method.name}:{axis.field}"] = _distinct([getattr(each, axis.field) for each in made])
    return found


def configurations(arm: Stack, axes: Mapping[str, Sequence[Any]], budget: int) -> list[Configuration]:
    """``budget`` points of the product of the axes, in the product's order; a key with a colon is a method's field.

    Raises UsageError where there are fewer, with what would help, and for fields that do not go together.
    """
    name = name_of(arm)
    count = math.prod(map(len, axes.values()))
    if count > MOST:
        raise UsageError(f"--search: {count:,} configurations of {name}, expected at most {MOST:,}")
    if count < budget:
        sizes = " x ".join(f"{len(values)} of {key}" for key, values in axes.items()) or "nothing to vary"
        raise UsageError(
            f"--search: {name} has {count} configurations ({sizes}), and every arm gets {budget}: search more values "
            f"of a field that it has (lr, say), or take --budget {count}"
        )
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return [_configuration(arm, point) for point in balanced(points, budget)]


def _configuration(arm: Stack, point: Mapping[str, Any]) -> Configuration:
    stack = tuple(_with(method, point) for method in arm)
    words = ", ".join(f"{key.replace('_', '-')} {text_of(value)}" for key, value in point.items())
    return Configuration({key: value for key, value in point.items() if ":" not in key}, stack, words)


def _with(method: MethodSpec, point: Mapping[str, Any]) -> MethodSpec:
    """The method with the point's values in its fields."""
    own = {key.rpartition(":")[2]: value for key, value in point.items() if key.rpartition(":")[0] == method.name}
    made = build(method_class(method.name), {**method.fields, **own}, method.name)
    return replace(method, fields=made.set_fields())


def balanced(points: Sequence[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    """``budget`` of the points, in their order: taken from a seeded shuffle one by one, always the first of those whose
    values were taken least often so far. So every value of an axis gets about the same number of trials, and arms with
    spaces of one shape get the same points.
    """
    left = [int(i) for i in np.random.Generator(np.random.PCG64(0)).permutation(len(points))]
    taken: list[int] = []
    uses: Counter[tuple[str, str]] = Counter()
    while len(taken) < budget:
        best = min(left, key=lambda i: sum(uses[key, repr(value)] for key, value in points[i].items()))
        left.remove(best)
        taken.append(best)
        uses.update((key, repr(value)) for key, value in points[best].items())
    return [points[i] for i in sorted(taken)]


def ladder(middle: float, count: int) -> list[float]:
    """``count`` values around ``middle``, nearest first, evenly spaced on a log scale from about a quarter to four
    times of it; three digits each."""
    steps = [(-1) ** (i + 1) * ((i + 1) // 2) for i in range(count)]  # 0, 1, -1, 2, -2, ...
    widest = max(1, max(map(abs, steps)))
    return [float(f"{middle * 4 ** (-step / widest):.3g}") for step in steps]


def _fields_of(method: str) -> set[str]:
    return {field.name for field in dataclasses.fields(method_class(method)) if field.init}


def _distinct(values: Sequence[T]) -> list[T]:
    return [value for number, value in enumerate(values) if value not in values[:number]]
