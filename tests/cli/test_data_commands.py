"""``ftbench validate`` and ``ftbench download``, and a user's own method by its path."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbench.cli.app import main

Said = tuple[int, str, str]
Ftbench = Callable[..., Said]


@pytest.fixture
def ftbench(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ftbench:
    """``ftbench("validate", ...)`` in this process, in a folder of its own: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["ftbench", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return code, *capfd.readouterr()

    return run


def reviews(rows: int = 40) -> None:
    text = "".join(f'"goal match number {i} {"day " * (i == 7) * 90}",{i % 2}\n' for i in range(rows))
    Path("reviews.csv").write_text("review,stars\n" + text)


def test_validate_shows_what_is_there(ftbench: Ftbench, tiny_model: Path) -> None:
    reviews()
    asked = ("validate", "reviews.csv", "--text", "review", "--label", "stars", "-m", tiny_model, "--max-length", 32)
    code, out, _ = ftbench(*asked)
    assert code == 0 and "label 0" in out and "tokens, cut" in out
    assert "rows are longer than 32 tokens and would be cut" in out and "8 of 40 rows were set aside" in out
    code, out, _ = ftbench(*asked, "--json")
    found = json.loads(out)
    assert code == 0 and found["labels"] == ["0", "1"] and found["task"] == "reviews"
    splits = found["splits"]
    assert splits["train"]["rows"] == 32 and splits["validation"]["rows"] == 8
    tokens = [split["tokens"] for split in splits.values()]
    assert sum(t["cut"] for t in tokens) == 1 and max(t["max"] for t in tokens) > 90
    assert {t["limit"] for t in tokens} == {32}


def test_validate_is_bounded_by_the_models_own_limit(ftbench: Ftbench, tiny_model: Path) -> None:
    reviews()
    asked = ("validate", "reviews.csv", "--text", "review", "--label", "stars", "-m", tiny_model, "--max-length", 500)
    code, out, _ = ftbench(*asked, "--json")
    assert code == 0 and json.loads(out)["splits"]["train"]["tokens"]["limit"] == 62


@pytest.mark.parametrize(("arguments", "message"), [
    (("nowhere.csv", "--text", "t"), "no file 'nowhere.csv'"),
    (("reviews.csv", "--text", "reviw", "--label", "stars"), "Did you mean 'review'?"),
    (("reviews.csv", "--text", "review", "--label", "star"), "Did you mean 'stars'?"),
    (("reviews.csv", "--text", "review", "--label", "stars", "--kind", "regresion"), "Did you mean 'regression'?"),
    (("rtee",), "Did you mean 'rte'?"),
])  # fmt: skip
def test_validate_refuses_what_cannot_be_used(arguments: tuple[str, ...], message: str, ftbench: Ftbench) -> None:
    reviews()
    code, out, err = ftbench("validate", *arguments)
    assert code == 2 and message in err and out == "" and "Traceback" not in err


def test_download_says_what_it_got_and_a_failure_spares_the_others(ftbench: Ftbench, tiny_model: Path) -> None:
    code, out, err = ftbench("download", "--task", "rte", "--model", tiny_model, "--json")
    rows = json.loads(out)
    assert code == 1 and [row["ok"] for row in rows] == [False, True], "the hub is switched off in tests"
    assert "nyu-mll/glue" in rows[0]["what"] and "fingerprint" in rows[1]["what"] and "FAILED" in err
    code, out, _ = ftbench("download", "--task", "embedded", "--json")
    assert code == 0 and [row["name"] for row in json.loads(out)] == ["news-topic", "news-article", "news-match"]
    code, _, err = ftbench("download")
    assert code == 2 and "give --task or --model" in err


OWN = '''
"""Half of the loss again."""
from dataclasses import dataclass
from ftbench.methods.method import Method, Term

@dataclass
class Again(Method):
    weight: float = 0.5
    name = "again"
    def penalty(self, batch, out, views):
        return Term("again", batch.task_loss(out), self.weight)

class NoMethod:
    pass
'''


def test_a_users_own_method_runs_by_its_path(ftbench: Ftbench, tiny_model: Path) -> None:
    reviews()
    name = f"own_methods_{Path.cwd().name.replace('-', '_')}"
    Path(f"{name}.py").write_text(OWN)
    run = ("finetune", "--task", "reviews.csv", "--text", "review", "--label", "stars", "-m", tiny_model, "--seeds", 0,
           "--steps", 3, "--max-length", 16, "--threads", 1, "--no-references", "--json", "--method")  # fmt: skip
    code, out, err = ftbench(*run, f"{name}:Again:weight=0.25")
    assert code == 0, err
    runs: list[dict[str, Any]] = json.loads(out)["runs"]
    assert [r["method"] for r in runs] == ["std", f"{name}:Again:weight=0.25"]
    code, _, err = ftbench(*run, f"{name}:NoMethod")
    assert code == 2 and "is not a method" in err
    code, _, err = ftbench(*run, f"{name}:Again:wait=1")
    assert code == 2 and "Did you mean 'weight'?" in err
    code, _, err = ftbench(*run, "nowhere.at.all:Again")
    assert code == 2 and "cannot import method 'nowhere.at.all:Again'" in err
