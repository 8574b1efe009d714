"""``ftbench summarize score``: tables for people, JSON for scripts, errors with counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from ftbench.cli.score import score
from ftbench.errors import UsageError

DOCUMENTS = ["A bank said today that it will buy a shop.", "It rained. Dogs barked. Cats ran. The end.", "x y z"]
REFERENCES = [["bank buys shop"], ["dogs barked", "cats ran"], ["x"]]
SYSTEM = ["bank will buy shop", "dogs barked", ""]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    lines = {
        "mine.jsonl": [{"summary": text} for text in SYSTEM],
        "refs.jsonl": [{"references": texts} for texts in REFERENCES],
        "docs.jsonl": [{"document": text} for text in DOCUMENTS],
    }
    for name, rows in lines.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name.split(".")[0]: str(tmp_path / name) for name in lines}


def run(*words: str) -> None:
    app = typer.Typer()
    app.command()(score)
    app(list(words), standalone_mode=False)


def test_tables_for_people(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    run("--predictions", files["mine"], "--references", files["refs"], "--documents", files["docs"])
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "ROUGE" and "rouge1 x 100" in lines[1] and "mean rouge1 x 100" in shown.out
    assert "lead" in shown.out and "mine" in shown.out and "[" in shown.out
    assert "1 of 3 predictions have no word to count" in " ".join(shown.out.split())
    assert "new pairs" in shown.out and "copied" in shown.out
    assert shown.err == ""


def test_json_for_scripts(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--predictions", files["mine"], "--references", files["refs"], "--documents", files["docs"], "--json"]
    run(*words, "--no-stem", "--without-unk", "--tokenizer", "unicode", "--jobs", "2")
    found = json.loads(capsys.readouterr().out)
    assert found["options"] == {"stem": False, "tokenizer": "unicode", "sentences": "split", "without_unk": True}
    systems = {row["system"]: row for row in found["systems"]}
    assert systems["lead"]["reference"] and not systems["mine"]["reference"]
    # bank, shop of 4 and of 3 words; all of 2; nothing
    assert systems["mine"]["rouge1"] == pytest.approx((4 / 7 + 1 + 0) / 3)
    assert systems["mine"]["rouge1_low"] <= systems["mine"]["rouge1"] <= systems["mine"]["rouge1_high"]


def test_a_system_below_the_documents_beginning_is_named(files: dict[str, str], tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    (tmp_path / "poor.txt").write_text("nothing\n" * 3)
    run("--predictions", str(tmp_path / "poor.txt"), "--references", files["refs"], "--documents", files["docs"])
    assert "Below the beginning of the document (lead): poor." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("words", "message"), [
    (("--tokenizer", "unicod"), "Did you mean 'unicode'"),
    (("--sentences", "line"), "Did you mean 'lines'"),
    (("--column", "sumary"), "Did you mean 'summary'"),
])  # fmt: skip
def test_wrong_words(words: tuple[str, str], message: str, files: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=message):
        run("--predictions", files["mine"], "--references", files["refs"], *words)


def test_numbers_of_rows_that_differ(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("one\ntwo\n")
    with pytest.raises(UsageError, match=r"short.txt|short has 2 predictions, .* has 3 references"):
        run("--predictions", str(tmp_path / "short.txt"), "--references", files["refs"])
