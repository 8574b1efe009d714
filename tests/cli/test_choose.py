"""``ftbench choose`` as a newcomer meets it: what it refuses, and what it prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ftbench.cli.choose import to_seconds
from ftbench.errors import UsageError
from tests.cli.conftest import Ftbench, refused

Folder = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5m", 90)]
)
def test_budgets_in_words(text: str, seconds: float) -> None:
    assert to_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "30 minutes", "0m", "-3m", "m"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--budget"):
        to_seconds(text)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--budget", "soon"], ["--budget 'soon'", "30m"]),
        (["--methods", "r3g"], ["r3g", "r3f"]),
        (["--layers", "top:99"], ["top:99", "blocks"]),
        (["--margin", "-1"], ["--margin", "0 or more"]),
        (["--margin", "nan"], ["--margin", "0 or more"]),
        (["--model", "./no-such-folder"], ["no-such-folder"]),
        (["--kind", "classify"], ["classify", "classification"]),
        (["--label", "text"], ["'text' is given as text and as label"]),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    ftbench: Ftbench, tiny_folder: Folder, tiny_model: Path, arguments: list[str], named: list[str]
) -> None:
    base = ["choose", tiny_folder(80, 24), "--text", "text"]
    said = ftbench(*base, *([] if "--model" in arguments else ["--model", tiny_model]), *arguments)
    refused(said, *named)
    assert not list(Path().glob("runs/*/std-*"))


def test_summaries_are_not_chosen_for(ftbench: Ftbench) -> None:
    refused(ftbench("choose", "news-headline"), "news-headline", "ftbench summarize")


def test_a_budget_that_is_over_in_the_first_run_ends_it(
    ftbench: Ftbench, tiny_folder: Folder, tiny_model: Path
) -> None:
    """However long that run would have been."""
    said = ftbench("choose", tiny_folder(80, 24), "--text", "text", "--model", tiny_model, "--budget", "0.001s")
    assert said.code == 2 and "--budget 0.001s is too short: not one run of std ended in it" in said.err
    assert "Traceback" not in said.err and not said.out and not list(Path().glob("runs/*/std-*/result.json"))


def test_few_rows_are_refused(ftbench: Ftbench) -> None:
    Path("few.csv").write_text("text,label\n" + "".join(f"word{i},{i % 2}\n" for i in range(20)))
    refused(ftbench("choose", "few.csv"), "20 rows are too few", "100 rows")


def test_a_choice_from_the_file_to_the_labels_of_new_rows(
    ftbench: Ftbench, tiny_folder: Folder, tiny_model: Path
) -> None:
    folder = tiny_folder(80, 24)
    arguments = ["choose", folder, "--model", tiny_model, "--methods", "none", "--layers", "none", "--budget", "5m"]
    said = ftbench(*arguments, "--threads", "1")
    assert said.code == 0, said.both
    assert (
        re.search(r"\[\w+ of 5m\] 1 draw: \w+ leads with", said.err)
        and "Test part, looked at once: 24 rows" in said.err
    )
    assert "What to use for tiny-80-24-2:" in said.out and "The race" in said.out
    page = Path("runs/choice-tiny-80-24-2.html").read_text()
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert Path("runs/choice-tiny-80-24-2.md").read_text().startswith("# What to use for")
    again = ftbench(*arguments, "--threads", "1", "--json", "--quiet")
    found = again.json()
    assert found["choice"] in ("std", "linear") and found["says"][0] in " ".join(said.out.split()).replace(" - ", " ")
    assert (
        again.err == "" and json.loads(Path("runs/choice-tiny-80-24-2.json").read_text())["choice"] == found["choice"]
    )
    labelled = ftbench("predict", found["folder"], folder / "validation.csv")
    assert labelled.code == 0 and "prediction" in labelled.out.splitlines()[0]
