"""Files of summaries to scores: JSON lines, Parquet, plain lines; columns, counts, marks for line breaks, extracts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ftbench.errors import UsageError
from ftbench.metrics import METRICS, ROUGE
from ftbench.runs.scoring import Asked, score_files

REFERENCES = ["the bank will buy a shop", "dogs bark", "it rained"]
SYSTEM = ["the bank buys a shop", "", "it rained a lot"]
OUTPUTS = Path(os.environ.get("FTBENCH_DATA", "none")) / "summarization" / "system_outputs"


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., str]:
    def write(name: str, columns: Any) -> str:
        path = tmp_path / name
        if isinstance(columns, list):
            path.write_text("".join(f"{line}\n" for line in columns), encoding="utf-8")
        elif path.suffix == ".parquet":
            pd.DataFrame(columns).to_parquet(path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in pd.DataFrame(columns).to_dict("records")))
        return str(path)

    return write


def row_of(scored: Any, system: str) -> dict[str, Any]:
    (found,) = [row for row in scored.rows if row["system"] == system]
    return dict(found)


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.parquet", "mine.txt", "mine.hypo"])
def test_every_kind_of_file_gives_the_same(name: str, place: Callable[..., str]) -> None:
    table = name.endswith(("jsonl", "parquet"))
    predictions = place(name, {"summary": SYSTEM} if table else SYSTEM)
    scored = score_files(Asked((predictions,), place("refs.txt", REFERENCES)))
    row = row_of(scored, "mine")
    for metric in ROUGE:
        assert row[metric] == pytest.approx(METRICS[metric](SYSTEM, REFERENCES))
        assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
    assert row["n"] == 3 and row["empty"] == pytest.approx(1 / 3)
    assert scored.notes == ("1 of 3 predictions have no word to count: these rows score 0.",)


def test_columns_are_systems(place: Callable[..., str]) -> None:
    table = place("all.parquet", {"bart": SYSTEM, "copy": REFERENCES, "reference": REFERENCES})
    scored = score_files(Asked((table,), table, columns=("bart", "copy")))
    assert [row["system"] for row in scored.rows] == ["bart", "copy"]
    assert row_of(scored, "copy")["rougeLsum"] == 1.0
    assert scored.notes == ("bart: 1 of 3 predictions have no word to count: these rows score 0.",)
    again = score_files(Asked((table, place("more.parquet", {"bart": REFERENCES})), table, columns=("bart",)))
    assert [row["system"] for row in again.rows] == ["all:bart", "more:bart"]


def test_one_column_is_not_both_sides(place: Callable[..., str], tmp_path: Path) -> None:
    """It would score 100 and say nothing."""
    table = place("all.jsonl", {"document": REFERENCES, "summary": REFERENCES, "theirs": SYSTEM})
    lines = place("lines.txt", REFERENCES)
    (tmp_path / "below").mkdir()
    same = f"{tmp_path}/below/../all.jsonl"
    for asked in (
        Asked((table,), table), Asked((table,), same), Asked((table,), table, columns=("theirs", "summary")),
        Asked((table,), table, columns=("theirs",), reference_column="theirs"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=r"column '(summary|theirs)' of '.*all\.jsonl' .* both .*--column"):
            score_files(asked)
    with pytest.raises(UsageError, match=r"'.*lines\.txt' .* both"):
        score_files(Asked((lines,), lines))
    assert row_of(score_files(Asked((table,), table, columns=("theirs",))), "theirs")["rouge1"] < 1.0


def test_several_columns_that_may_be_the_predictions(place: Callable[..., str]) -> None:
    references = place("refs.txt", REFERENCES)
    table = place("all.jsonl", {"summary": REFERENCES, "generated": SYSTEM})
    with pytest.raises(UsageError, match=r"'.*all\.jsonl' has several columns .*: summary, generated\..*--column"):
        score_files(Asked((table,), references))
    assert row_of(score_files(Asked((table,), references, columns=("generated",))), "generated")["rouge1"] < 1.0


def test_several_references_and_documents(place: Callable[..., str]) -> None:
    references = place("refs.jsonl", {"references": [["a b", "c d"], ["e"], ["f g"]]})
    documents = place("docs.jsonl", {"article": ["c d and more", "e f", "a b"]})
    scored = score_files(Asked((place("mine.txt", ["c d", "e", "x"]),), references, documents))
    assert [(row["system"], row.get("style")) for row in scored.rows] == [("lead", "reference"), ("mine", None)]
    mine = row_of(scored, "mine")
    assert mine["rouge1"] == pytest.approx(2 / 3) and mine["mean_rouge1"] == pytest.approx(0.5)
    assert mine["novel_1"] == pytest.approx(1 / 3)
    assert row_of(scored, "lead")["rouge1"] == pytest.approx((1 + 2 / 3 + 0) / 3)  # 2 words of each


def test_a_mark_for_line_breaks(place: Callable[..., str]) -> None:
    references = place("refs.txt", ["Cats purr <q> dogs bark"])
    predictions = place("mine.txt", ["dogs bark<q>cats purr"])
    with_mark = row_of(score_files(Asked((predictions,), references, line_break="<q>")), "mine")
    assert with_mark["rougeLsum"] == 1.0 and with_mark["rouge1"] == 1.0
    assert row_of(score_files(Asked((predictions,), references)), "mine")["rougeLsum"] < 1.0


def test_options_reach_the_scores(place: Callable[..., str]) -> None:
    predictions, references = place("mine.txt", ["dogs running"]), place("refs.txt", ["dog run <unk>"])
    score = {
        name: row_of(score_files(Asked((predictions,), references, **options)), "mine")["rouge1"]
        for name, options in {"usual": {}, "no unk": {"keep_unk": False}, "plain": {"stem": False}}.items()  # type: ignore[attr-defined]
    }
    assert score == pytest.approx({"usual": 4 / 5, "no unk": 1.0, "plain": 0.0})


def test_a_byte_order_mark_and_blank_lines_count_right(place: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "bom.txt"
    path.write_text("\ufeffdogs bark\n\nit rained", encoding="utf-8")
    row = row_of(score_files(Asked((str(path),), place("refs.txt", REFERENCES))), "bom")
    assert row["n"] == 3


@pytest.mark.parametrize(
    ("name", "encoding", "said"),
    [("a.txt", "cp1252", "cp1252"), ("a.csv", "cp1252", "cp1252"), ("a.txt", "utf-16", "")],
)
def test_another_encoding(name: str, encoding: str, said: str, tmp_path: Path) -> None:
    for stem, text in (("mine", "un caf\xe9 noir"), ("refs", "le caf\xe9 noir")):
        lines = ["summary", text] if name.endswith("csv") else [text]
        (tmp_path / (stem + name)).write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    mine, theirs = (str(tmp_path / (stem + name)) for stem in ("mine", "refs"))
    row = row_of(score_files(Asked((mine,), theirs, encoding=said, tokenizer="unicode")), f"mine{name[0]}")
    assert row["rouge1"] == pytest.approx(2 / 3)


def test_refusals(place: Callable[..., str], tmp_path: Path) -> None:
    predictions, references = place("mine.jsonl", {"summary": SYSTEM}), place("refs.txt", REFERENCES)
    short = place("short.txt", REFERENCES[:2])
    latin = tmp_path / "latin.txt"
    latin.write_bytes("caf\xe9\n".encode("latin-1") * 3)
    cases: dict[str, Asked] = {
        "has 2 predictions, .*refs.txt has 3 references: expected one for every": Asked((short,), references),
        "has 2 documents, .* has 3 references": Asked((predictions,), references, short),
        "no column 'sumary'. Did you mean 'summary'": Asked((predictions,), references, columns=("sumary",)),
        r"no column of a usual name \(prediction, .* Say it with --column": Asked(
            (place("odd.jsonl", {"x": SYSTEM}),), references
        ),
        "is no table": Asked((short,), references, columns=("summary",)),
        r"no file '.*nonesuch.txt'": Asked((str(tmp_path / "nonesuch.txt"),), references),
        "several predictions in row 1": Asked((place("l.jsonl", {"summary": [["a", "b"]] * 3}),), references),
        "is not UTF-8 .*or say its encoding, such as --encoding cp1252": Asked((str(latin),), references),
        "two files of predictions are called mine": Asked((predictions, place("mine.txt", SYSTEM)), references),
        "1 rows have no reference, the first is row 2": Asked((predictions,), place("gap.txt", ["a", "", "b"])),
        "--encoding 'cp125x'": Asked((str(latin),), references, encoding="cp125x"),
        "has no rows": Asked((place("none.txt", []),), references),
    }
    for message, asked in cases.items():
        with pytest.raises(UsageError, match=message):
            score_files(asked)


@pytest.mark.skipif(not OUTPUTS.is_dir(), reason="FTBENCH_DATA has no folder summarization/system_outputs")
@pytest.mark.data
def test_published_outputs_score_as_rouge_score_did() -> None:
    """The first of the acceptance rows; the 11,334 rows of XSum are in docs/rouge.md."""
    table = str(OUTPUTS / "gigaword_zhou_rush2019.parquet")
    row = row_of(score_files(Asked((table,), table, columns=("contextual_match",))), "contextual_match")
    assert [100 * row[name] for name in ("rouge1", "rouge2", "rougeLsum")] == pytest.approx(
        [26.49, 10.06, 24.43], abs=0.02
    )
