"""The table of methods: complete, described, and searched with did-you-mean."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import ftbench.methods
from ftbench.errors import UsageError
from ftbench.lookup import import_object
from ftbench.methods import METHODS, make, method_class, parse_stack
from ftbench.methods.method import Method
from ftbench.types import MethodSpec

NOT_METHODS = {"__init__", "method", "divergence", "noise", "adversary", "features", "frozen"}


def test_every_file_of_the_folder_is_in_the_table() -> None:
    folder = Path(ftbench.methods.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - NOT_METHODS
    assert files == {path.partition(":")[0].rpartition(".")[2] for path in METHODS.values()}


@pytest.mark.parametrize("name", METHODS)
def test_the_card_of_a_method(name: str) -> None:
    cls = method_class(name)
    assert cls.name == name and issubclass(cls, Method) and dataclasses.is_dataclass(cls)
    assert cls.family and cls.summary and cls.cite and "forward" in cls.cost and "backward" in cls.cost
    assert cls.revision >= 1
    assert (cls.neutral is None) == bool(cls.no_neutral), "either a neutral point or a line that says why not"
    known = {field.name for field in dataclasses.fields(cls)}
    assert set(cls.neutral or {}) <= known
    cls(**(cls.neutral or {}))


@pytest.mark.parametrize("name", METHODS)
def test_the_docstring_of_a_method(name: str) -> None:
    module = import_object(METHODS[name].partition(":")[0] + ":__doc__", "module")
    assert re.search(r"^ {4}\S.*(=|<-)", module, re.MULTILINE), "an equation"
    year = re.compile(r"\b(19|20)\d\d\b")
    assert year.search(module) and year.search(method_class(name).cite), "a citation"
    assert "Cost" in module and re.search(r"differ|not verified", module)


@pytest.mark.parametrize("name", METHODS)
def test_defaults_spelled_out_are_left_out(name: str) -> None:
    cls = method_class(name)
    given = [field for field in dataclasses.fields(cls) if field.default is not None]
    spelled = ",".join(f"{field.name}={field.default}" for field in given)
    if spelled:
        assert parse_stack(f"{name}:{spelled}") == parse_stack(name)


def spec(name: str, **fields: object) -> MethodSpec:
    return MethodSpec(name, method_class(name).revision, fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("std", ()),
        ("r3f", (spec("r3f"),)),
        ("std+r3f", (spec("r3f"),)),
        ("r3f:weight=0.5", (spec("r3f", weight=0.5),)),
        ("r3f:weight=1", (spec("r3f"),)),
        ("r3f:weight=1.0,eps=0.00001,noise=normal", (spec("r3f", noise="normal"),)),
        ("r3f:weight=0", (spec("r3f", weight=0.0),)),
        ("ema+wise-ft", (spec("ema"), spec("wise-ft"))),
        ("ema+early-stop:keep=last", (spec("ema"), spec("early-stop", keep="last"))),
        ("std++", (spec("std++"),)),
        ("std++:compute=r3f", (spec("std++"),)),
        ("std++:compute=1.7", (spec("std++", compute="1.7"),)),
    ],
)
def test_stacks(text: str, expected: tuple[MethodSpec, ...]) -> None:
    assert parse_stack(text) == expected


@pytest.mark.parametrize("text", ["std+++r3f", "r3f+std++"])
def test_std_plus_plus_does_not_stack(text: str) -> None:
    """It is plain fine-tuning with more steps; the plus signs of its name are no trouble."""
    with pytest.raises(UsageError, match="does not stack"):
        parse_stack(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("r3ff", r"unknown method 'r3ff'\. Did you mean 'r3f'\? Known: "),
        ("R3F", r"unknown method 'R3F'\. Did you mean 'r3f'\?"),
        ("r3f:wight=1", r"r3f has no field 'wight'\. Did you mean 'weight'\? Known: detach, dropout, eps, noise"),
        ("r3f+r3f:weight=2", "method 'r3f' is given twice"),
        ("r3f:weight=1,weight=2", "field 'weight' is given twice"),
        ("r3f:weight", "'weight' is not of the form field=value"),
        ("r3f:", "not of the form"),
        ("r3f+", "not of the form"),
        ("", "not of the form"),
        ("std:weight=1", r"std has no field 'weight'\. Known: none"),
        ("std++:compute=0.5", "expected a method's name or a factor from 1 to 100"),
        ("r3f:weight=-1", "r3f:weight=-1: expected 0 or more"),
        ("ema+r3f+early-stop", "ema and early-stop do not stack: each ends with weights of its own"),
        ("wise-ft+ema", "what wise-ft makes of them would be lost: name ema first"),
    ],
)
def test_wrong_stacks(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_stack(text)


@pytest.mark.parametrize(
    "text",
    [
        "r3f",
        "r3f:weight=0.5",
        "r3f:detach=clean,dropout=shared,eps=0.001,noise=normal,noise_dtype=compute,variant=released,weight=5",
        "r3f:weight=0",
        "std++:compute=1.7",
    ],
)
def test_a_label_is_what_one_types(text: str) -> None:
    (method,) = parse_stack(text)
    assert method.label == text
    assert parse_stack(method.label) == (method,)


def test_fields_in_another_order_are_the_same_method() -> None:
    assert parse_stack("r3f:eps=0.1,weight=2") == parse_stack("r3f:weight=2,eps=0.1")


def test_make_builds_the_methods_with_their_fields() -> None:
    (method,) = make(parse_stack("r3f:weight=0.5,noise=normal"))
    assert (method.weight, method.noise, method.eps) == (0.5, "normal", 1e-5)  # type: ignore[attr-defined]
    assert make(()) == []


def test_naming_a_method_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import sys, ftbench.methods; ftbench.methods.parse_stack('std'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("typed", ["1e+6", "1000000", "1E+06", "1e6"])
def test_a_number_may_have_a_plus(typed: str) -> None:
    """It does not begin another method, neither as typed nor in the label."""
    stack = parse_stack(f"llrd+r3f:weight={typed}+ema")
    assert [method.name for method in stack] == ["llrd", "r3f", "ema"]
    assert stack[1].fields == {"weight": 1e6} and stack[1].label == "r3f:weight=1e6"
