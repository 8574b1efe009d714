"""How representations are kept: the table of methods.

Adding one is a file in this folder and a line here. Paths, not classes, so that naming a method does
not import torch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

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
    "rdrop": "ftbench.methods.rdrop:RDrop",
    "smart": "ftbench.methods.smart:Smart",
    "vat": "ftbench.methods.vat:VAT",
    "freelb": "ftbench.methods.freelb:FreeLB",
    "hype": "ftbench.methods.hype:HyPe",
    "neftune": "ftbench.methods.neftune:NEFTune",
    "noisytune": "ftbench.methods.noisytune:NoisyTune",
    "capcort-i": "ftbench.methods.capcort:CapcortI",
    "capcort-mlp": "ftbench.methods.capcort:CapcortMLP",
    "bss": "ftbench.methods.bss:BSS",
    "cka": "ftbench.methods.cka:CKA",
    "l2sp": "ftbench.methods.l2sp:L2SP",
    "mixout": "ftbench.methods.mixout:Mixout",
    "reinit": "ftbench.methods.reinit:ReInit",
    "llrd": "ftbench.methods.llrd:LLRD",
    "recadam": "ftbench.methods.recadam:RecAdam",
    "child-tuning": "ftbench.methods.child_tuning:ChildTuning",
    "freeze": "ftbench.methods.freeze:Freeze",
    "bitfit": "ftbench.methods.bitfit:BitFit",
    "lora": "ftbench.methods.lora:LoRA",
    "adapter": "ftbench.methods.adapter:Adapter",
    "sam": "ftbench.methods.sam:SAM",
    "asam": "ftbench.methods.sam:ASAM",
    "ema": "ftbench.methods.ema:EMA",
    "lp-ft": "ftbench.methods.lp_ft:LPFT",
    "wise-ft": "ftbench.methods.wise_ft:WiseFT",
    "early-stop": "ftbench.methods.early_stop:EarlyStop",
}

#: other names in the literature: what they stand for; a run's id knows only that
ALIASES: dict[str, str] = {
    "alum": "smart:variant=released,inner=kl",
    "prior-wd": "l2sp:mode=decoupled",
    "repina-i": "capcort-i",
    "repina-mlp": "capcort-mlp",
}

_NAMES_ONLY: ContextVar[bool] = ContextVar("names_only", default=False)


@contextmanager
def names_only() -> Iterator[None]:
    """Within, methods are those that have a name: a path (``module:Class``), whoever names it, is refused unread."""
    token = _NAMES_ONLY.set(True)
    try:
        yield
    finally:
        _NAMES_ONLY.reset(token)


def names() -> list[str]:
    """Every method that can be named: those of the table, then those of other installed packages."""
    return [*METHODS, *(name for name in _entry_points() if name not in METHODS)]


def method_class(name: str) -> type[Method]:
    """The class of a method: of the table, of an installed package's entry point ``ftbench.methods``, or a user's own
    by its path (``my_package.module:MyMethod``, also in the present folder).

    Raises UsageError with the nearest name, for a path that is no method, and for any path within ``names_only``.
    """
    path = name if _is_path(name) else find({**_entry_points(), **METHODS}, name, "method")
    if _is_path(name):
        if _NAMES_ONLY.get():
            raise UsageError(
                f"'{name}' is a Python module, and a study file runs no code. Install the method as an entry point "
                "(docs/adding.md), then it has a name"
            )
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # where `python -m` would look too
    found = import_object(path, "method")
    if path not in METHODS.values():
        _require_method(found, path)
    return cast("type[Method]", found)


def _is_path(name: str) -> bool:
    return ":" in name


def _known(name: str) -> bool:
    return name in METHODS or name in ALIASES or name in _entry_points()


@functools.cache
def _entry_points() -> dict[str, str]:
    """Methods of other installed packages, by name."""
    return {point.name: point.value for point in importlib.metadata.entry_points(group="ftbench.methods")}


def _require_method(found: object, path: str) -> None:
    from ftbench.methods.method import Method

    if not (isinstance(found, type) and issubclass(found, Method) and dataclasses.is_dataclass(found)):
        raise UsageError(f"'{path}' is not a method: expected a dataclass derived from ftbench.methods.method.Method")


def _revision(cls: type[Method], name: str) -> int:
    """The class's own number; of a user's method also its source, so that an edit makes other runs."""
    if name in METHODS:
        return cls.revision
    source = inspect.getsource(inspect.getmodule(cls) or cls)
    return int(hashlib.sha256(f"{cls.revision}{source}".encode()).hexdigest()[:7], 16)


def parse_stack(text: str) -> tuple[MethodSpec, ...]:
    """``"r3f:weight=0.5+llrd"`` to specs in the order given; ``std`` is the empty stack.

    Fields that equal their default are left out, so that spelling a default out does not make another run.
    Raises UsageError for unknown names or fields, values out of range, a name twice, and stacks that cannot be.
    """
    stack = []
    for call in split_stack(text):
        name, fields = _parse(call)
        if name == "std" and not fields:
            continue
        cls = method_class(name)
        method = build(cls, fields, name)
        stack.append(MethodSpec(name, _revision(cls, name), method.set_fields()))
    names = [method.name for method in stack]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"'{text}': method '{name}' is given twice in one stack")
    if "std++" in names and len(names) > 1:
        raise UsageError(f"'{text}': std++ is plain fine-tuning with more steps and does not stack with other methods")
    _require_stackable(text, make(stack))
    return tuple(stack)


def _parse(call: str) -> tuple[str, dict[str, str]]:
    """Name and fields of one method; an alias becomes what it stands for."""
    module, _, rest = call.partition(":")
    own_name, _, own_fields = rest.partition(":")
    if own_name.isidentifier() and not _known(module):
        return f"{module}:{own_name}", parse_call(f"own:{own_fields}")[1] if own_fields else {}
    name, given = parse_call(call)
    if name in ALIASES:
        name, own = parse_call(ALIASES[name])
        given = {**own, **given}
    elif name not in METHODS:
        find({**METHODS, **ALIASES, **_entry_points()}, name, "method")
    return name, given


def _require_stackable(text: str, methods: Sequence[Method]) -> None:
    """At most one method of a stack chooses what is tuned, and then before all others; at most one owns the backward
    pass, then without terms of others; at most one the gradient; one that replaces all weights in the end is the only
    one, and comes before those that go on from what they find."""
    tuning = [method.name for method in methods if method.tunes]
    if len(tuning) > 1:
        raise UsageError(f"'{text}': {' and '.join(tuning)} do not stack: each chooses which parameters are tuned")
    if tuning and not methods[0].tunes:
        rest = "+".join(method.name for method in methods if not method.tunes)
        raise UsageError(
            f"'{text}': {tuning[0]} chooses which parameters are tuned, so it comes first: {tuning[0]}+{rest}"
        )
    for owns, what in (("owns_backward", "backward pass"), ("owns_gradients", "gradient of the step")):
        owners = [method.name for method in methods if getattr(method, owns)]
        if len(owners) > 1:
            raise UsageError(f"'{text}': {' and '.join(owners)} do not stack: each owns the {what}")
    moving = [method for method in methods if method.moves]
    replacing = [method.name for method in moving if method.replaces]
    if len(replacing) > 1:
        raise UsageError(f"'{text}': {' and '.join(replacing)} do not stack: each ends with weights of its own")
    if replacing and moving[0].name != replacing[0]:
        raise UsageError(
            f"'{text}': {replacing[0]} ends with weights of its own, so what {moving[0].name} makes of them would be "
            f"lost: name {replacing[0]} first"
        )
    owner = next((method.name for method in methods if method.owns_backward), None)
    others = [method.name for method in methods if method.has_term and method.name != owner]
    if owner and others:
        raise UsageError(f"'{text}': {owner} owns the backward pass, so the terms of {', '.join(others)} have no place")


def make(stack: Sequence[MethodSpec]) -> list[Method]:
    """The methods of a stack, ready for one run."""
    return [build(method_class(spec.name), spec.fields, spec.name) for spec in stack]


def split_stack(text: str) -> list[str]:
    """Splits at ``+`` between calls; the two that end ``std++`` are part of the name, that of ``1e+6`` of a number."""
    parts = re.split(r"(?<![\d.][eE])\+", text.replace("std++", "std\0"))
    return [part.replace("std\0", "std++") for part in parts]
