"""Whatever is read from outside is read, or refused in a clear error: study files, method strings, tables, the store.

A few hundred inputs each; with ``FTBENCH_DEEP`` in the environment 100,000 each (``.ci/deep``).
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftbench.cli import options as flags
from ftbench.cli.written import settings as settings_of_commands
from ftbench.errors import FtbenchError, StoreError, UsageError
from ftbench.methods import ALIASES, METHODS, parse_stack
from ftbench.runs import store
from ftbench.runs.files import slug
from ftbench.runs.manifest import Manifest
from ftbench.runs.study_file import cells, read_study
from ftbench.tasks.files import READERS, read_table
from ftbench.types import RunSpec

DEEP = "FTBENCH_DEEP" in os.environ
EXAMPLES = int(os.environ.get("FTBENCH_EXAMPLES", 100_000)) if DEEP else 150
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=not DEEP, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)  # fmt: skip


def clear(error: Exception) -> None:
    """A message for people: it says something, in few lines."""
    text = str(error)
    assert text and "Traceback" not in text and "object at 0x" not in text


NAMES = st.sampled_from([*METHODS, *ALIASES, "r3", "std++", "all", ""])
FIELDS = st.sampled_from(["weight", "eps", "variant", "layer", "mode", "p", "steps", "compute", "rank", "Weight", ""])
VALUES = st.one_of(
    st.sampled_from(["0", "1e-3", "1e+6", "9" * 40, "-1", "nan", "inf", "-inf", "1e999", "\0", "on", "paper"]),
    st.sampled_from(["released", "top", "", "=", ","]),
    st.floats().map(repr), st.integers().map(str), st.text(max_size=8),
)  # fmt: skip
CALLS = st.builds(
    lambda name, pairs: name + (":" + ",".join(f"{key}={value}" for key, value in pairs) if pairs else ""),
    NAMES, st.lists(st.tuples(FIELDS, VALUES), max_size=3),
)  # fmt: skip
#: no colon, which would name a module to import
WORDS = st.text(st.characters(exclude_characters=":"), max_size=30)


@fuzzed
@given(st.one_of(st.lists(CALLS, max_size=3).map("+".join), WORDS))
def test_method_strings(text: str) -> None:
    try:
        stack = parse_stack(text)
    except UsageError as error:
        clear(error)
    else:
        again = "+".join(method.label for method in stack)
        assert not again or parse_stack(again) == stack


@fuzzed
@given(st.text(max_size=20))
def test_the_small_languages_of_flags(text: str) -> None:
    for parse in (
        lambda: flags.parse_seeds(text, "--seeds"),
        lambda: flags.select_on(text),
        lambda: flags.seconds(text),
        lambda: flags.engine_options([text]),
        lambda: flags.parse_axis(text, float, "--lr", "a number"),
    ):
        try:
            parse()
        except UsageError as error:
            clear(error)


KNOWN = settings_of_commands()
TOML_WORDS = st.sampled_from(
    ["[", "]", "[[", "]]", "=", "\n", '"', "study", "stage", "axes", "defaults", "exclude", "override", "name",
     "method", "task", "seeds", "finetune", "profile", "quick", "0-4", "true", "1", ".", "{", "}", ",", "steps",
     "command"]
)  # fmt: skip
VALUES_OF_TOML = st.recursive(
    st.one_of(st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


@fuzzed
@given(content=st.one_of(st.lists(TOML_WORDS, max_size=40).map(" ".join).map(str.encode), st.binary(max_size=200)))
def test_study_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    try:
        study, _ = read_study(str(path), None, KNOWN)
        for stage in study.stages:
            list(itertools.islice(cells(stage), 20))
    except UsageError as error:
        clear(error)


CELLS = st.text(st.sampled_from("ab ,;\t|\"'\n\r\x00=+-@\u00e9\ufeff0.1"), max_size=12)
TABLES = st.one_of(
    st.binary(max_size=200),
    st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=6).map("\n".join).map(str.encode),
    st.lists(st.dictionaries(st.text(max_size=5), VALUES_OF_TOML, max_size=3), max_size=4)
    .map(lambda rows: "\n".join(json.dumps(row) for row in rows).encode()),
)  # fmt: skip


@pytest.mark.parametrize("kind", sorted(READERS))
def test_loaders(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{kind}"

    @settings(parent=fuzzed, max_examples=max(60, EXAMPLES // len(READERS)))
    @given(TABLES)
    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            table = read_table(path)
        except UsageError as error:
            clear(error)
        else:
            assert len(set(table.columns)) == table.shape[1]

    read()


def whole_result() -> dict[str, Any]:
    spec = RunSpec(kind="finetune", task="tiny", data="d", weights="w", steps=1)
    written = {"schema": store.SCHEMA, "id": spec.id, "status": "ok", "metrics": {"last": {"validation": {"a": 0.5}}}}
    return {**written, "facts": {"headline": "a"}, "error": "", "spec": spec.to_json()}


def mutations(value: Any) -> st.SearchStrategy[Any]:
    """The value with one part of it replaced, removed or added."""
    if not isinstance(value, dict) or not value:
        return VALUES_OF_TOML
    return st.sampled_from(sorted(value)).flatmap(
        lambda key: st.one_of(
            mutations(value[key]).map(lambda new: {**value, key: new}),
            st.just({name: other for name, other in value.items() if name != key}),
            st.tuples(st.text(max_size=6), VALUES_OF_TOML).map(lambda pair: {**value, pair[0]: pair[1]}),
        )
    )


RESULTS = st.one_of(
    mutations(whole_result()).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=100),
    st.tuples(st.integers(0, 400), st.integers(0, 7)).map(
        lambda at: bytes(
            b ^ (1 << at[1]) if i == at[0] else b for i, b in enumerate(json.dumps(whole_result()).encode())
        )
    ),
)


@fuzzed
@given(content=RESULTS)
def test_the_store_reader(content: bytes, tmp_path: Path) -> None:
    run = tmp_path / "tiny" / "std-seed0-x"
    run.mkdir(parents=True, exist_ok=True)
    (run / "result.json").write_bytes(content)
    (run / "cost.json").write_bytes(content[::-1])
    (tmp_path / "search-x.json").write_bytes(content)
    try:
        record = store.read(run)
    except (ValueError, OSError) as error:
        clear(error)
    else:
        assert record.result.spec.id == json.loads(content)["id"]
    found = store.read_all([tmp_path])
    assert len(found.records) + len(found.skipped) + len(found.searches) == 2


@fuzzed
@given(content=RESULTS)
def test_plan_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(StoreError) as refused:
        Manifest.read(path)
    clear(refused.value)


@fuzzed
@given(st.text(max_size=80))
def test_names_never_become_paths(text: str) -> None:
    """Names of tasks, methods and files go through ``slug`` before they are part of a path."""
    name = slug(text)
    assert name and "/" not in name and "\\" not in name and "\x00" not in name and not name.startswith(".")
    assert (Path("/root-of-runs") / name).resolve().parent == Path("/root-of-runs")


def test_errors_are_of_ftbench() -> None:
    assert issubclass(UsageError, FtbenchError) and issubclass(StoreError, FtbenchError)
