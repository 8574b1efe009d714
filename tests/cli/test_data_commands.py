"""``ftbench validate`` and ``ftbench download``, and a user's own method by its path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Ftbench, refused


def reviews(rows: int = 40) -> None:
    text = "".join(f'"goal match number {i} {"day " * (i == 7) * 90}",{i % 2}\n' for i in range(rows))
    Path("reviews.csv").write_text("review,stars\n" + text)


def test_validate_shows_what_is_there(ftbench: Ftbench, tiny_model: Path) -> None:
    reviews()
    asked = ("validate", "reviews.csv", "--text", "review", "--label", "stars", "-m", tiny_model, "--max-length", 32)
    said = ftbench(*asked)
    assert said.code == 0 and "label 0" in said.out and "rows cut" in said.out
    assert "1 of 32 rows would be cut to 32 tokens" in said.out and "8 of 40 rows were set aside" in said.out
    found = ftbench(*asked, "--json").json()
    assert found["labels"] == ["0", "1"] and found["task"] == "reviews"
    splits = found["splits"]
    assert splits["train"]["rows"] == 32 and splits["validation"]["rows"] == 8
    tokens = [split["tokens"] for split in splits.values()]
    assert sum(t["cut"] for t in tokens) == 1 and max(t["max"] for t in tokens) > 90
    assert {t["limit"] for t in tokens} == {32}


def test_validate_is_bounded_by_the_models_own_limit(ftbench: Ftbench, tiny_model: Path) -> None:
    reviews()
    asked = ("validate", "reviews.csv", "--text", "review", "--label", "stars", "-m", tiny_model, "--max-length", 500)
    assert ftbench(*asked, "--json").json()["splits"]["train"]["tokens"]["limit"] == 62


@pytest.mark.parametrize(("arguments", "message"), [
    (("nowhere.csv", "--text", "t"), "no file 'nowhere.csv'"),
    (("reviews.csv", "--text", "reviw", "--label", "stars"), "Did you mean 'review'?"),
    (("reviews.csv", "--text", "review", "--label", "star"), "Did you mean 'stars'?"),
    (("reviews.csv", "--text", "review", "--label", "stars", "--kind", "regresion"), "Did you mean 'regression'?"),
    (("rtee",), "Did you mean 'rte'?"),
])  # fmt: skip
def test_validate_refuses_what_cannot_be_used(arguments: tuple[str, ...], message: str, ftbench: Ftbench) -> None:
    reviews()
    refused(ftbench("validate", *arguments), message)


def test_validate_summaries(ftbench: Ftbench, tiny_model: Path) -> None:
    rows = [{"article": f"goal match number {i} of the day", "headline": f"match {i}"} for i in range(38)]
    rows += [{"article": "goal of the day", "headline": "goal of the day and more"}]  # longer than its text
    rows += [
        {"article": "goal of the week in the league", "headline": "goal of the week"},
        {"article": "x", "headline": ""},
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("validate", "pairs.jsonl", "--summary", "headline", "-m", tiny_model, "--max-target-length", 6)
    said = ftbench(*asked)
    assert said.code == 0 and "summary tokens, median" in said.out and "summary, references, max" in said.out
    text = " ".join(said.out.split())
    assert "1 of 41 rows without a text or a summary left out" in text and "8 of 40 rows were set aside" in text
    assert "summaries are how their text begins" in text and "as long as their text, or longer" in text
    found = ftbench(*asked, "--json").json()
    assert found["kind"] == "summarization"
    splits = found["splits"].values()
    assert sum(split["rows"] for split in splits) == 40 and sum(s["summary_tokens"]["cut"] for s in splits) >= 1
    assert {split["summary_tokens"]["limit"] for split in splits} == {6}
    assert {split["tokens"]["limit"] for split in splits} == {62}
    refused(ftbench("validate", "pairs.jsonl", "--summary", "headlin"), "Did you mean 'headline'?")
    refused(ftbench("validate", "pairs.jsonl", "--summary", "headline", "--text", "a,b"), "a document is one column")


def test_download_says_what_it_got_and_a_failure_spares_the_others(ftbench: Ftbench, tiny_model: Path) -> None:
    said = ftbench("download", "--task", "rte", "--model", tiny_model, "--json")
    rows = json.loads(said.out)
    assert said.code == 1 and [row["ok"] for row in rows] == [False, True], "the hub is switched off in tests"
    assert "nyu-mll/glue" in rows[0]["what"] and "fingerprint" in rows[1]["what"] and "FAILED" in said.err
    rows = ftbench("download", "--task", "embedded", "--json").json()
    assert [row["name"] for row in rows] == ["news-topic", "news-article", "news-match"]
    refused(ftbench("download"), "give --task or --model")


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
    runs = ftbench(*run, f"{name}:Again:weight=0.25").runs()
    assert [r["method"] for r in runs] == ["std", f"{name}:Again:weight=0.25"]
    refused(ftbench(*run, f"{name}:NoMethod"), "is not a method")
    refused(ftbench(*run, f"{name}:Again:wait=1"), "Did you mean 'weight'?")
    refused(ftbench(*run, "nowhere.at.all:Again"), "cannot import method 'nowhere.at.all:Again'")
