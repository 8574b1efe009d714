"""What ``docs/checked.toml`` says of each method is so."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from ftbench.methods import METHODS

ROOT = Path(__file__).parents[1]
CHECKED = tomllib.loads((ROOT / "docs" / "checked.toml").read_text())


def test_every_method_has_an_entry() -> None:
    assert list(CHECKED) == list(METHODS)


@pytest.mark.parametrize("name", CHECKED)
def test_an_entry_is_true(name: str) -> None:
    """The test is there and reads the oracles; each says whose code it recorded."""
    entry = CHECKED[name]
    assert set(entry) <= {"test", "oracles", "reference"} and (entry.get("oracles") or entry.get("reference"))
    text = (ROOT / entry["test"]).read_text()
    for oracle in entry.get("oracles", []):
        stem = oracle.removeprefix("rdrop_") if oracle.startswith("rdrop_") else oracle
        assert stem in text, f"{entry['test']} does not read {oracle}"
        assert json.loads((ROOT / "tests" / "oracles" / f"{oracle}.json").read_text())["source"]
