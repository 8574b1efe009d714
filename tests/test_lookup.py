"""Names to things: did-you-mean, calls, and texts to the types of fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from ftbench.errors import UsageError
from ftbench.lookup import build, find, import_object, nearest, parse_call

TABLE = {"std": 1, "std++": 2, "r3f": 3, "news-topic": 4}


@dataclass
class Sample:
    count: int = 1
    weight: float = 1.0
    flag: bool = False
    noise: Literal["uniform", "normal"] = "uniform"
    name: str = ""
    most: int | None = None
    share: float | None = None
    mixed: int | str = 0
    loose: Literal["a", "b"] | None = None
    derived: int = field(default=0, init=False)


@pytest.mark.parametrize(("text", "expected"), [
    ("r3", "r3f"), ("R3F", "r3f"), ("sdt", "std"), ("std+", "std++"), ("news-topc", "news-topic"),
    ("news_topic", "news-topic"),
])  # fmt: skip
def test_nearest(text: str, expected: str) -> None:
    assert nearest(text, TABLE) == f" Did you mean '{expected}'?"


@pytest.mark.parametrize("text", ["", "zzzzzz", "\0", "完全"])
def test_nothing_is_near(text: str) -> None:
    assert nearest(text, TABLE) == ""


def test_find() -> None:
    assert find(TABLE, "r3f", "method") == 3


def test_find_names_the_thing_the_nearest_and_all() -> None:
    with pytest.raises(UsageError) as caught:
        find(TABLE, "r3g", "method")
    assert str(caught.value) == "unknown method 'r3g'. Did you mean 'r3f'? Known: news-topic, r3f, std, std++"


def test_find_in_an_empty_table() -> None:
    with pytest.raises(UsageError, match=r"unknown task 'a'\. Known: "):
        find({}, "a", "task")


@pytest.mark.parametrize(("text", "call"), [
    ("r3f", ("r3f", {})),
    ("r3f:weight=0.5", ("r3f", {"weight": "0.5"})),
    ("r3f:weight=0.5,eps=1e-3", ("r3f", {"weight": "0.5", "eps": "1e-3"})),
    ("std++:compute=r3f:weight=2", ("std++", {"compute": "r3f:weight=2"})),
    ("a:b=c=d", ("a", {"b": "c=d"})),
])  # fmt: skip
def test_parse_call(text: str, call: tuple[str, dict[str, str]]) -> None:
    assert parse_call(text) == call


@pytest.mark.parametrize(("text", "named"), [
    ("", "''"), (":", "':'"), (":a=1", "':a=1'"), ("r3f:", "'r3f:'"), ("r3f:weight", "'weight'"), ("r3f:=1", "'=1'"),
    ("r3f:weight=", "'weight='"), ("r3f:weight=1,", "''"), ("r3f:a=1,,b=2", "''"),
])  # fmt: skip
def test_calls_that_are_none(text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_call(text)
    assert named in str(caught.value) and "field=value" in str(caught.value)


def test_a_field_given_twice() -> None:
    with pytest.raises(UsageError, match="'r3f:a=1,a=2': field 'a' is given twice"):
        parse_call("r3f:a=1,a=2")


@pytest.mark.parametrize(("name", "text", "value"), [
    ("count", "3", 3), ("count", "-2", -2), ("count", "1e3", 1000), ("count", "1_000", 1000),
    ("weight", "0.5", 0.5), ("weight", "1", 1.0), ("weight", "1e-5", 1e-5), ("weight", "inf", float("inf")),
    ("flag", "true", True), ("flag", "True", True), ("flag", "on", True), ("flag", "OFF", False), ("flag",
    "false", False),
    ("noise", "normal", "normal"), ("name", "x y", "x y"), ("name", "3", "3"),
    ("most", "7", 7), ("share", "0.25", 0.25), ("mixed", "5", 5), ("mixed", "five", "five"), ("loose", "b", "b"),
])  # fmt: skip
def test_texts_become_what_the_field_declares(name: str, text: str, value: Any) -> None:
    found = getattr(build(Sample, {name: text}, "sample"), name)
    assert found == value and type(found) is type(value)


def test_values_that_are_no_text_are_taken_as_they_are() -> None:
    assert build(Sample, {"count": 3, "most": None}, "sample") == Sample(count=3)


WHOLE, NUMBER = "a whole number", "a number"


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("count", "1.5", WHOLE), ("count", "x", WHOLE), ("count", "", WHOLE), ("count", "True", WHOLE),
    ("count", "1e999", WHOLE),
    ("count", "[1]", WHOLE), ("count", "__import__('os')", WHOLE), ("count", "'3'", WHOLE), ("weight", "much", NUMBER),
    ("weight", "0,5", NUMBER), ("flag", "yes", "on or off"), ("flag", "1", "on or off"),
    ("noise", "gauss", "uniform or normal"), ("most", "few", "a whole number."), ("loose", "c", "a or b"),
])  # fmt: skip
def test_texts_of_another_type(name: str, text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(Sample, {name: text}, "sample")
    assert str(caught.value).startswith(f"sample:{name}={text}: expected {expected}")


def test_a_choice_that_is_nearly_right() -> None:
    with pytest.raises(UsageError, match=r"sample:noise=unifrom: expected uniform or normal\. Did you mean 'uniform'"):
        build(Sample, {"noise": "unifrom"}, "sample")


def test_an_unknown_field_names_the_nearest_and_all() -> None:
    with pytest.raises(UsageError) as caught:
        build(Sample, {"wieght": "1"}, "r3f")
    known = "count, flag, loose, mixed, most, name, noise, share, weight"
    assert str(caught.value) == f"r3f has no field 'wieght'. Did you mean 'weight'? Known: {known}"


def test_a_field_that_is_derived_cannot_be_given() -> None:
    with pytest.raises(UsageError, match="no field 'derived'"):
        build(Sample, {"derived": "1"}, "sample")


def test_a_class_without_fields_says_none() -> None:
    @dataclass
    class Empty: ...

    with pytest.raises(UsageError, match=r"std has no field 'eps'. Known: none"):
        build(Empty, {"eps": "1"}, "std")


def test_import_object() -> None:
    assert import_object("ftbench.lookup:find", "thing") is find


@pytest.mark.parametrize("path", ["no_such_module:A", "ftbench.lookup:nothing", "ftbench.lookup", ":find", ""])
def test_what_cannot_be_imported_is_named(path: str) -> None:
    with pytest.raises(UsageError, match=f"cannot import method '{path}'"):
        import_object(path, "method")
