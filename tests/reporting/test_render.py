"""ftbench.reporting.render: every form holds the numbers, and none lets a cell run as code."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from rich.console import Console

from ftbench.errors import UsageError
from ftbench.reporting import render as render_module
from ftbench.reporting.render import FORMS, render
from ftbench.types import Column, Table

SETTINGS = (Column("task", "task", False), Column("label_noise", "noise"))
MEASURES = tuple(
    Column(key, label, key not in ("method", "metric", "verdict"))
    for key, label in {
        "method": "method", "metric": "metric", "n": "n", "failed": "fail", "degenerate": "deg.", "mean": "mean",
        "sd": "sd", "median": "med.", "max": "max", "vs_std": "vs std", "vs_std_low": "low", "vs_std_high": "high",
        "vs_std_n": "pairs", "verdict": "verdict", "cost": "cost", "forward": "fwd", "memory": "memory",
        "seconds": "time",
    }.items()
)  # fmt: skip
EMPTY: dict[str, Any] = {column.key: None for column in (*SETTINGS, *MEASURES)}


def row(method: str, **values: Any) -> dict[str, Any]:
    return {**EMPTY, "task": "rte", "label_noise": 0.2, "method": method, "metric": "accuracy", "n": 5, **values}


LINEAR = row("linear", n=1, mean=0.6, style="reference")
STD = row("std", failed=0, degenerate=0, mean=0.7, sd=0.0213, median=0.69, max=0.72, cost=1.0, forward=1.0, verdict="",
          memory=612 * 2**20, seconds=12.34)  # fmt: skip
R3F = row("r3f:weight=0.5", failed=1, degenerate=2, mean=0.7124, sd=0.0312, median=0.705, max=0.731, vs_std=0.0124,
          vs_std_low=-0.0031, vs_std_high=0.0274, vs_std_n=5, cost=1.699, forward=2.0, memory=3 * 2**30, seconds=21.0,
          verdict="", style="best")  # fmt: skip
R3F_NUMBERS = ("5", "1", "2", "0.712", "0.031", "0.705", "0.731", "+0.012", "[-0.003,", "+0.027]", "1.70x", "2")


def table(*rows: dict[str, Any], columns: tuple[Column, ...] = SETTINGS + MEASURES, notes: Any = ("a note",)) -> Table:
    return Table("A title", columns, rows, notes)


def paper(width: int, **options: Any) -> Console:
    return Console(file=io.StringIO(), width=width, **options)


def test_unknown_form_is_named() -> None:
    with pytest.raises(UsageError, match="Did you mean 'markdown'"):
        render(table(STD), "markdwon")


@pytest.mark.parametrize("width", [80, 100, 119])
def test_narrow_rich_holds_all_the_numbers(width: int) -> None:
    lines = render(table(LINEAR, STD, R3F), "rich", paper(width)).splitlines()
    assert all(len(line) <= 100 or width > 100 for line in lines)
    (line,) = (line for line in lines if "r3f:weight=0.5" in line)
    assert [part for part in line.split() if part in R3F_NUMBERS] == list(R3F_NUMBERS)
    assert "MiB" not in "".join(lines) and any("a note" in line for line in lines)


def test_wide_rich_holds_memory_and_seconds() -> None:
    text = render(table(LINEAR, STD, R3F), "rich", paper(140))
    assert "612 MiB" in text and "3.0 GiB" in text and "12.3 s" in text


def test_narrow_terminal_loses_no_number() -> None:
    text = render(table(LINEAR, STD, R3F), "rich", paper(40, force_terminal=True, color_system=None))
    assert all(number in text for number in R3F_NUMBERS) and "…" not in text


def test_many_settings_lose_no_number() -> None:
    more = tuple(Column(key, key) for key in ("lr", "steps", "batch_size", "warmup", "clip"))
    values = {"lr": 1e-5, "steps": 20000, "batch_size": 32, "warmup": 0.06, "clip": 1.0}
    text = render(table({**R3F, **values}, columns=(*SETTINGS, *more, *MEASURES)), "rich", paper(100))
    assert all(number in text for number in R3F_NUMBERS)
    assert all(part in text for part in ("lr=1e-05", "steps=20000", "batch_size=32", "warmup=0.06"))


def test_settings_are_not_repeated() -> None:
    other = {**STD, "label_noise": 0.3}
    lines = render(table(LINEAR, STD, other), "rich", paper(100)).splitlines()
    assert sum("rte" in line for line in lines) == 1
    assert sum("0.2" in line.split() for line in lines) == 1 and sum("0.3" in line.split() for line in lines) == 1


def test_zero_is_shown_and_missing_is_a_dash() -> None:
    single = {**STD, "n": 1, "sd": None, "train_size": None}
    text = render(table(single, columns=(Column("train_size", "train"), *MEASURES)), "markdown")
    assert "| all | std | accuracy | 1 | 0 | 0 | 0.700 | \N{EN DASH} | 0.690 |" in text


def test_verdict_stands_where_the_comparison_would() -> None:
    failed = {**R3F, "vs_std": None, "verdict": "std did not learn this"}
    for form in ("rich", "markdown"):
        assert "std did not learn this" in render(table(failed), form)


def test_one_pair_has_no_interval() -> None:
    single = {**R3F, "vs_std_low": None, "vs_std_high": None, "vs_std": -0.0001}
    assert "+0.000 [\N{EN DASH}]" in render(table(single), "markdown")


def test_runs_that_all_failed() -> None:
    failed = {**EMPTY, "task": "rte", "method": "r3f", "n": 0, "failed": 3, "degenerate": 0, "verdict": "no baseline"}
    for width in (100, 140):
        text = render(table(failed), "rich", paper(width))
        assert "no baseline" in text and "None" not in text and "nan" not in text


def test_rich_styles() -> None:
    text = render(table(LINEAR, STD, R3F), "rich", paper(120, force_terminal=True, color_system="standard"))
    lines = {name: line for line in text.splitlines() for name in ("linear", "0.700", "r3f") if name in line}
    assert "\x1b[2;3m" in lines["linear"]
    assert "\x1b[1m0.712" in lines["r3f"] and "\x1b[1m" not in lines["0.700"]


def test_markup_in_names_is_text() -> None:
    assert "[bold]x" in render(table({**STD, "task": "[bold]x"}), "rich", paper(100))


def test_csv_has_every_key_and_raw_numbers() -> None:
    text = render(table(LINEAR, R3F), "csv")
    read = list(csv.DictReader(io.StringIO(text)))
    assert list(read[0]) == [column.key for column in SETTINGS + MEASURES]
    assert float(read[1]["vs_std_low"]) == -0.0031 and float(read[1]["mean"]) == 0.7124
    assert read[0]["sd"] == "" and "note" not in text


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_csv_injection(evil: str) -> None:
    read = list(csv.DictReader(io.StringIO(render(table({**R3F, "task": evil, "vs_std": -0.5}), "csv"))))
    assert read[0]["task"] == f"'{evil}"
    assert read[0]["vs_std"] == "-0.5"


def test_json_round_trip() -> None:
    read = json.loads(render(table(LINEAR, {**R3F, "sd": float("nan"), "max": float("inf")}), "json"))
    assert read["schema"] == 1 and read["title"] == "A title" and read["notes"] == ["a note"]
    assert read["columns"][0] == {"key": "task", "label": "task", "numeric": False}
    assert read["rows"][0] == LINEAR
    assert read["rows"][1] == {**R3F, "sd": None, "max": None}


def test_markdown_escapes_pipes_and_line_breaks() -> None:
    lines = render(table({**R3F, "task": "a|b"}, notes=("two\nlines",)), "markdown").splitlines()
    assert "a\\|b" in lines[4] and lines[-1] == "- two lines"
    assert lines[3].startswith("|---|---:|---|")


@pytest.mark.parametrize("form", sorted(FORMS))
def test_no_rows(form: str) -> None:
    text = render(table(notes=("No runs to show.",)), form)
    assert text.endswith("\n") and ("No runs to show." in text or form == "csv")


@pytest.mark.parametrize("width", [100, 140, 200])
def test_text_for_a_pipe_is_what_rich_would_print(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(
        {"task": task, "method": method, "metric": "accuracy", "mean": 0.7, "difference": -0.01, "low": -0.02,
         "high": None, "style": "best"}
        for task in ("rte", "mrpc") for method in ("std", "r3f:dropout=shared,eps=0.001", "漢字")
    )  # fmt: skip
    columns = (Column("task", "task", numeric=False), Column("method", "method", numeric=False),
               Column("metric", "metric", numeric=False), Column("mean", "mean"), Column("difference", "vs std"),
               Column("low", "low"), Column("high", "high"))  # fmt: skip
    table = Table("Scores", columns, rows, ("a note",))
    console = Console(file=io.StringIO(), width=width)
    quick = render_module.render(table, "rich", console)
    monkeypatch.setattr(render_module, "_plain", lambda layout, width: None)
    assert quick == render_module.render(table, "rich", console) and "漢字" in quick
