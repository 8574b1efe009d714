"""Summaries that need no model, by hand."""

from __future__ import annotations

import itertools

import pytest

from ftbench.analysis.extracts import extracts, lead, median_words, oracle
from ftbench.metrics import METRICS
from ftbench.metrics.words import Words

DOCUMENT = "The bank bought a shop. It rained. The shop sells fish. Nobody cared. The end."


def test_lead() -> None:
    assert lead(" The  bank\nbought a shop.", 3) == "The bank bought"
    assert median_words(["a b", "a b c d", "a b c"]) == 3
    assert median_words(["", ""]) == 1


def test_oracle_takes_what_adds_to_it_in_the_documents_order() -> None:
    sentences = ["It rained.", "The shop sells fish.", "The bank bought a shop.", "The end."]
    assert oracle(sentences, "Bank bought shop that sells fish", Words()) == sentences[1:3]
    assert oracle(sentences, "Nothing alike", Words()) == ["It rained."]


def test_oracle_is_the_best_single_sentence_or_better() -> None:
    sentences = ["a b c d", "b c", "c d e", "x y", "e f a b"]
    for reference in ("b c d", "a b e f", "x c d", "y x f e"):
        score = sum(METRICS[name]([" . ".join(oracle(sentences, reference, Words()))], [reference])
                    for name in ("rouge1", "rouge2"))  # fmt: skip
        alone = max(METRICS["rouge1"]([s], [reference]) + METRICS["rouge2"]([s], [reference]) for s in sentences)
        assert score >= alone - 1e-12, reference
    # greedy, so not always the best set: the exhaustive best is never worse
    best = max(METRICS["rouge1"]([" . ".join(chosen)], ["b c d"]) for n in (1, 2)
               for chosen in itertools.combinations(sentences, n))  # fmt: skip
    assert METRICS["rouge1"]([" . ".join(oracle(sentences, "b c d", Words()))], ["b c d"]) <= best


def test_which_extracts_there_are() -> None:
    found = extracts([DOCUMENT], [["The shop sells fish and nobody cared"]], 4)
    assert found == {
        "lead": ["The bank bought a"],
        "lead-3": ["The bank bought a shop.\nIt rained.\nThe shop sells fish."],
        "oracle": ["The shop sells fish.\nNobody cared."],
    }
    assert set(extracts(["One sentence of a story"], [["story"]], 4)) == {"lead"}


def test_extracts_score_as_they_should() -> None:
    found = extracts([DOCUMENT] * 2, [["The shop sells fish"], ["A bank bought it"]], 4)
    scores = {
        name: METRICS["rouge1"](texts, [["The shop sells fish"], ["A bank bought it"]]) for name, texts in found.items()
    }
    assert scores["oracle"] > scores["lead-3"] > 0 and scores["oracle"] == pytest.approx(
        (1 + 8 / 11) / 2
    )  # "it" rained, too
