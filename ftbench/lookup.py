"""Names to things, with did-you-mean: the one place where a table is searched or a method string parsed.

``"r3f:weight=0.5,eps=1e-3"`` is a *call*: a name and its fields. ``"a+b"`` is a stack of calls.
Nothing here imports torch; tables map a name to ``"package.module:Class"`` and are imported on use.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ftbench.errors import UsageError

T = TypeVar("T")
_WORDS = {int: "a whole number", float: "a number", bool: "on or off", str: "a text"}


def nearest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'r3f'?"``, or an empty string when nothing is near."""
    lowered = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f" Did you mean '{lowered[close[0]]}'?" if close else ""


def beside(path: Path, wanted: Callable[[Path], bool]) -> list[str]:
    """The entries in the place where ``path`` would be, as they would be named: those that are ``wanted``."""
    parent = path.parent
    return [str(parent / each.name) for each in parent.iterdir() if wanted(each)] if parent.is_dir() else []


def find(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry of ``table`` called ``name``.

    Raises UsageError: names the unknown thing, the nearest valid name and all known ones.
    """
    if name in table:
        return table[name]
    known = ", ".join(sorted(table))
    raise UsageError(f"unknown {what} '{name}'.{nearest(name, table)} Known: {known}")


def match_labels(own: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """For each of the ``wanted`` labels its place among a checkpoint's ``own``: by name, whatever the case, with ``-``,
    ``_`` and space alike; in the same order for names that say nothing (LABEL_0 ...). None where they do not match."""
    if len(own) == len(wanted) and all(label.upper() == f"LABEL_{i}" for i, label in enumerate(own)):
        return list(range(len(own)))
    places = {_plain(label): i for i, label in enumerate(own)}
    if {_plain(label) for label in wanted} != places.keys() or not len(places) == len(own) == len(wanted):
        return None
    return [places[_plain(label)] for label in wanted]


def _plain(label: str) -> str:
    return re.sub(r"[-_\s]+", " ", label).strip().casefold()


def import_object(path: str, what: str) -> Any:
    """``"package.module:Name"`` to the object. Raises UsageError when it cannot be imported."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"cannot import {what} '{path}': {error}") from error


def parse_call(text: str) -> tuple[str, dict[str, str]]:
    """``"r3f:weight=0.5,eps=1e-3"`` to ``("r3f", {"weight": "0.5", "eps": "1e-3"})``.

    Raises UsageError for an empty name, a field without ``=`` or a field given twice.
    """
    name, colon, rest = text.partition(":")
    if not name or (colon and not rest):
        raise UsageError(f"'{text}' is not of the form name or name:field=value,field=value")
    fields: dict[str, str] = {}
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"in '{text}': '{part}' is not of the form field=value")
        if key in fields:
            raise UsageError(f"in '{text}': field '{key}' is given twice")
        fields[key] = value
    return name, fields


def build(cls: type[T], fields: Mapping[str, str | Any], what: str) -> T:
    """Makes the dataclass ``cls`` from field texts, converted to the types that its fields declare.

    Raises UsageError for an unknown field (the known ones are named), a text that is not of the
    field's type, and whatever the class itself refuses.
    """
    hints = get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    values = {}
    for key, value in fields.items():
        if key not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise UsageError(f"{what} has no field '{key}'.{nearest(key, known)} Known: {listed}")
        values[key] = _convert(value, known[key], f"{what}:{key}") if isinstance(value, str) else value
    return cls(**values)


def _convert(text: str, kind: Any, what: str) -> Any:
    """``text`` as an int, float, bool, one of a Literal's choices, or a str."""
    choices = [option for branch in (kind, *get_args(kind)) for option in _literals(branch)]
    if text in choices:
        return text
    kinds = get_args(kind) if get_origin(kind) not in (None,) and not choices else (kind,)
    for candidate in kinds:
        if candidate is bool and text.lower() in ("true", "false", "on", "off"):
            return text.lower() in ("true", "on")
        if candidate in (int, float):
            try:
                return float(text) + 0.0 if candidate is float else _whole(text)  # -0.0 is 0.0
            except ValueError:
                continue
        if candidate is str:
            return text
    names = choices or [_WORDS.get(k, str(k)) for k in kinds if k is not type(None)]
    expected = " or ".join(names)
    raise UsageError(f"{what}={text}: expected {expected}.{nearest(text, choices)}")


def _whole(text: str) -> int:
    """``"1000"`` or ``"1e3"``. Raises ValueError for what is no whole number."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(number)


def _literals(kind: Any) -> tuple[str, ...]:
    from typing import Literal

    return get_args(kind) if get_origin(kind) is Literal else ()
