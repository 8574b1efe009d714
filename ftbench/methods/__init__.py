"""How representations are kept: the table of methods.

Adding one is a file in this folder and a line here. Paths, not classes, so that naming a method does
not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftbench.errors import UsageError
from ftbench.lookup import build, find, import_object, parse_call
from ftbench.types import MethodSpec

if TYPE_CHECKING:
    from ftbench.methods.method import Method

METHODS = {
    "std": "ftbench.methods.std:Std",
    "std++": "ftbench.methods.std_plus_plus:StdPlusPlus",
    "r3f": "ftbench.methods.r3f:R3F",
    "r4f": "ftbench.methods.r4f:R4F",
}

#: other names in the literature: what they stand for; a run's id knows only that
ALIASES: dict[str, str] = {}


def method_class(name: str) -> type[Method]:
    """The class of a method by its name. Raises UsageError with the nearest name."""
    found: type[Method] = import_object(find(METHODS, name, "method"), "method")
    return found


def parse_stack(text: str) -> tuple[MethodSpec, ...]:
    """``"r3f:weight=0.5+llrd"`` to specs in the order given; ``std`` is the empty stack.

    Fields that equal their default are left out, so that spelling a default out does not make another run.
    Raises UsageError for unknown names or fields, values out of range, a name twice, and stacks that cannot be.
    """
    stack = []
    for call in _split_stack(text):
        name, fields = parse_call(call)
        if name in ALIASES:
            name, own = parse_call(ALIASES[name])
            fields = {**own, **fields}
        find({**METHODS, **ALIASES}, name, "method")
        if name == "std" and not fields:
            continue
        cls = method_class(name)
        method = build(cls, fields, name)
        stack.append(MethodSpec(name, cls.revision, method.set_fields()))
    names = [method.name for method in stack]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"'{text}': method '{name}' is given twice in one stack")
    if "std++" in names and len(names) > 1:
        raise UsageError(f"'{text}': std++ is plain fine-tuning with more steps and does not stack with other methods")
    _require_stackable(text, make(stack))
    return tuple(stack)


def _require_stackable(text: str, methods: Sequence[Method]) -> None:
    """At most one method of a stack owns the backward pass, then without terms of others; at most one the gradient."""
    for owns, what in (("owns_backward", "backward pass"), ("owns_gradients", "gradient of the step")):
        owners = [method.name for method in methods if getattr(method, owns)]
        if len(owners) > 1:
            raise UsageError(f"'{text}': {' and '.join(owners)} do not stack: each owns the {what}")
    owner = next((method.name for method in methods if method.owns_backward), None)
    others = [method.name for method in methods if method.has_term and method.name != owner]
    if owner and others:
        raise UsageError(f"'{text}': {owner} owns the backward pass, so the terms of {', '.join(others)} have no place")


def make(stack: Sequence[MethodSpec]) -> list[Method]:
    """The methods of a stack, ready for one run."""
    return [build(method_class(spec.name), spec.fields, spec.name) for spec in stack]


def _split_stack(text: str) -> list[str]:
    """Splits at ``+`` between calls; the two that end ``std++`` are part of the name."""
    parts = text.replace("std++", "std\0").split("+")
    return [part.replace("\0", "++") for part in parts]
