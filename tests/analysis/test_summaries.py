"""All scores of a set of summaries in one call: one process or several, notes, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from ftbench.analysis.summaries import CHUNK, Scores, rouge_of, score_summaries
from ftbench.errors import UsageError
from ftbench.metrics.rouge import ROUGE, Options

PREDICTIONS = ["the bank will buy the shop", "the cat sat", ""]
REFERENCES = [["bank buys shop", "the bank will buy it"], ["a cat sat there"], ["dogs bark"]]
DOCUMENTS = ["the bank said it will buy the shop", "the cat sat", "dogs bark"]


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score_summaries(PREDICTIONS, REFERENCES, DOCUMENTS)


def test_means_are_those_of_the_rows(scores: Scores) -> None:
    for name in (*ROUGE, *(f"mean_{name}" for name in ROUGE)):
        low, high = scores.intervals[name]
        assert len(scores.rows[name]) == 3 and low <= scores.means[name] <= high
        assert scores.means[name] == pytest.approx(scores.rows[name].mean())
    assert scores.means["mean_rouge1"] < scores.means["rouge1"]
    assert scores.means["empty"] == pytest.approx(1 / 3)
    assert set(scores.means) - set(scores.intervals) == {
        "length_ratio", "repetition", "empty", "novel_1", "novel_2", "copy_rate",
    }  # fmt: skip
    assert scores.means["copy_rate"] == pytest.approx((4 / 6 + 1) / 2)  # the empty prediction has none


def test_without_documents_and_with_one_reference_there_is_less() -> None:
    found = score_summaries(["a b"], ["a c"])
    assert set(found.means) == {*ROUGE, "length_ratio", "repetition", "empty"}
    assert found.options.tokenizer == "ascii" and found.notes == ()


def test_what_cannot_score_is_said(scores: Scores) -> None:
    assert scores.notes == ("1 of 3 predictions have no word to count: these rows score 0.",)
    (note,) = score_summaries(["x"] * 2, ["нет", "a " * 600]).notes
    assert note.startswith("1 of 2 references have no word to count") and note.endswith("Try the tokenizer unicode.")
    (note,) = score_summaries(["da", "da"], ["..", "da"]).notes
    assert not note.endswith("unicode.")
    (note,) = score_summaries(["президент"], ["президент"]).notes
    assert "tokenizer unicode" in note


REFUSED = {
    "3 predictions and 2 references: expected one": (["a"] * 3, ["a"] * 2, None),
    "no predictions": ([], [], None),
    "1 documents and 2 predictions": (["a"] * 2, ["a"] * 2, ["a"]),
    "1 rows have no reference, the first is row 2": (["a"] * 2, [["a"], []], None),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message: str) -> None:
    with pytest.raises(UsageError, match=message):
        score_summaries(*REFUSED[message])


def test_several_processes_give_the_same_rows_in_the_same_order() -> None:
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(["bank", "shop", "cat", "dog"], 4)) for _ in range(2 * (4 * CHUNK + 7))]
    predictions, references = texts[::2], [(text,) for text in texts[1::2]]
    done: list[int] = []
    both = rouge_of(predictions, references, Options(tokenizer="ascii"), processes=2, progress=done.append)
    assert sum(done) == len(predictions) == both.shape[1]
    assert np.array_equal(both, rouge_of(predictions, references, Options(tokenizer="ascii")))
