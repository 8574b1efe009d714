"""Layers as text: what a user may write, and what a run's id has."""

from __future__ import annotations

import pytest

from ftbench.errors import UsageError
from ftbench.types.layers import LayerRule, Layers, resolve_layers


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("", ""),
        ("all", ""),
        ("1:6:6", ""),
        ("top:6", ""),
        ("top:3", "4:6:6"),
        ("top:1", "6:6:6"),
        ("2:4:4", "2:4:4"),
        ("2:4:6", "2:4:6"),
        ("1:4:4", "1:4:4"),
        ("02:4:4", "2:4:4"),
    ],
)
def test_what_a_run_has(text: str, resolved: str) -> None:
    assert resolve_layers(text, 6, "minilm") == resolved
    assert resolve_layers(resolved, 6, "minilm") == resolved


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7:9:9", r"layers '7:9:9': model 'minilm' has 6 blocks; expected numbers from 1 to 6"),
        ("2:4:7", "has 6 blocks; expected numbers from 1 to 6"),
        ("2:4:3", "layers 2:4:3: the head is below the top: expected a head from 4 on"),
        ("4:2:6", "layers 4:2:6: expected a bottom from 1 to the top, 2"),
        ("0:2:6", "layers 0:2:6: expected a bottom from 1 to the top, 2"),
        ("top:0", "has 6 blocks; expected top:1 to top:6"),
        ("top:7", "has 6 blocks; expected top:1 to top:6"),
        ("2:4", "layers '2:4': expected all, top:COUNT, BOTTOM:TOP:HEAD, auto"),
        ("auto:0", "layers 'auto:0': expected at least 1 layer"),
        ("auto:2", "layers 'auto:2' has to be measured first"),
        ("auto:top", "layers 'auto:top': expected all"),
        ("l*-side", r"layers 'l\*-side': expected all"),
        ("-1:2:3", "layers '-1:2:3': expected all"),
        ("3", "layers '3': expected all"),
        ("top", "layers 'top': expected all"),
    ],
)
def test_what_no_model_has(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_layers(text, 6, "minilm")


def test_a_model_that_does_not_say_how_many_blocks_it_has() -> None:
    assert resolve_layers("all", 0, "odd") == ""
    with pytest.raises(UsageError, match="model 'odd' does not say how many blocks it has"):
        resolve_layers("top:2", 0, "odd")


def test_a_triple_is_its_text() -> None:
    assert str(Layers.parse("2:4:5")) == "2:4:5" and Layers.parse("2:4:5") == Layers(2, 4, 5)


@pytest.mark.parametrize(
    ("text", "best", "layers"),
    [
        ("auto", 4, "1:4:4"),
        ("auto:2", 4, "3:4:4"),
        ("auto:9", 4, "1:4:4"),
        ("l*-down", 6, "1:6:6"),
        ("l*-down:2:top", 4, "3:4:6"),
        ("l*-down:top", 4, "1:4:6"),
        ("l*-down:3", 1, "1:1:1"),
        ("l*-up", 4, "5:6:6"),
        ("l*-up:1", 4, "5:5:5"),
        ("l*-up:1:top", 4, "5:5:6"),
        ("l*-up:9", 4, "5:6:6"),
        ("l*-up:2", 6, "None"),
    ],
)
def test_where_a_rule_puts_the_layers_of_six_blocks(text: str, best: int, layers: str) -> None:
    rule = LayerRule.parse(text)
    assert rule is not None and str(rule.place(best, 6)) == layers
    assert LayerRule.parse(str(rule)) == rule


def test_a_place_is_no_rule() -> None:
    assert [LayerRule.parse(text) for text in ("all", "", "top:3", "2:4:4", "automatic", "l*-down:-1")] == [None] * 6
