"""ROUGE against values worked out by hand and against rouge_score as it comes; words of every script."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbench.metrics import METRICS
from ftbench.metrics.rouge import ROUGE, Options, rouge_rows
from ftbench.metrics.words import Words, fitting

CASES: dict[str, tuple[str, str, dict[str, float]]] = {
    # 5 of 6 and of 7 words; 3 of 5 and of 6 pairs; the subsequence "the cat on the mat"
    "one sentence": (
        "the cat sat on the mat", "the cat was on the mat today",
        {"rouge1": 10 / 13, "rouge2": 6 / 11, "rougeL": 10 / 13, "rougeLsum": 10 / 13},
    ),
    "a word counts as often as both have it": ("the the the", "the cat", {"rouge1": 2 / 5, "rouge2": 0.0}),
    # Lin (2004), section 3.2: LCS w1 w2 and w1 w3 w5, their union 4 of the reference's 5 words; prediction: 10
    "the union of subsequences": (
        "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", {"rougeLsum": 2 * 4 / 15},
    ),
    "sentences in another order": (
        "Dogs bark. Cats purr.", "Cats purr. Dogs bark.",
        {"rouge1": 1.0, "rouge2": 2 / 3, "rougeL": 0.5, "rougeLsum": 1.0},
    ),
    "case, marks and stems": ("RUNNING, dogs!", "run dog", {"rouge1": 1.0, "rouge2": 1.0}),
    "nothing said": ("", "run dog", dict.fromkeys(ROUGE, 0.0)),
    "nothing to say": ("run dog", " ... ", dict.fromkeys(ROUGE, 0.0)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case: str) -> None:
    prediction, reference, expected = CASES[case]
    for name, value in expected.items():
        assert METRICS[name]([prediction], [reference]) == pytest.approx(value, abs=1e-12), name


def test_the_mean_is_over_rows() -> None:
    assert METRICS["rouge1"](["a b", "c"], ["a b", "d"]) == 0.5


def test_of_several_references_each_score_takes_its_best() -> None:
    references = [["a b c d", "b a"]]
    rows = rouge_rows(["a b"], references, Options())
    # against "a b c d": 2/3 and 1/2 by pairs; against "b a": 1 and 0
    assert rows[0, 0, :2] == pytest.approx([1.0, 2 * 1 / (1 + 3)])
    assert rows[1, 0, :2] == pytest.approx([(2 / 3 + 1) / 2, 0.25])
    assert METRICS["rouge1"](["a b"], references) == 1.0


def test_without_stemming_forms_of_a_word_are_words_apart() -> None:
    assert rouge_rows(["running dogs"], ["run dog"], Options(stem=False))[0].max() == 0.0


def test_unknown_words_of_references_can_be_left_out() -> None:
    pair = (["bank <unk> fell"], ["UNK bank fell <unk>"])
    assert rouge_rows(*pair, Options())[0, 0, 0] == pytest.approx(2 * 3 / 7)
    assert rouge_rows(*pair, Options(keep_unk=False))[0, 0, 0] == pytest.approx(2 * 2 / 5)


def test_lines_as_they_are() -> None:
    pair = (["Dogs bark. Cats purr."], ["Cats purr. Dogs bark."])
    assert rouge_rows(*pair, Options(sentences="lines"), ("rougeLsum",))[0, 0, 0] == 0.5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="abcs .,'\nÉ1-", max_size=40), min_size=2, max_size=2), st.booleans())
def test_a_z_words_are_scored_as_rouge_score_does(texts: list[str], stem: bool) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(list(ROUGE), use_stemmer=stem).score(texts[1], texts[0])
    options = Options(stem=stem, tokenizer="ascii", sentences="lines")
    ours = rouge_rows([texts[0]], [texts[1]], options)[0, 0]
    assert ours.tolist() == [theirs[name].fmeasure for name in ROUGE]


@given(st.text(max_size=60))
def test_words_of_a_z_are_rouge_scores(text: str) -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    assert Words("ascii", stem=False).tokenize(text) == DefaultTokenizer(use_stemmer=False).tokenize(text)


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=60), st.booleans())
def test_on_ascii_texts_both_tokenizers_are_one(text: str, stem: bool) -> None:
    assert Words("unicode", stem).tokenize(text) == Words("ascii", stem).tokenize(text)


LANGUAGES = {
    "Russian": ("Президент посетил Москву.", ["президент", "посетил", "москву"]),
    "Hindi, with vowel signs": ("हिन्दी में समाचार", ["हिन्दी", "में", "समाचार"]),
    "Arabic": ("زار الرئيس موسكو", ["زار", "الرئيس", "موسكو"]),
    "Chinese, a character a word": ("总统访问", ["总", "统", "访", "问"]),
    "Korean, with spaces": ("대통령이 방문했다", ["대통령이", "방문했다"]),
    "French": ("L'été à Paris", ["l", "été", "à", "pari"]),  # a-z words are stemmed, the others not
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_script_has_words_and_never_scores_nothing(language: str) -> None:
    text, words = LANGUAGES[language]
    assert Words("unicode").tokenize(text) == words
    assert fitting([text]) == "unicode"
    assert METRICS["rouge1"]([text], [text]) == 1.0


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert METRICS["rouge1"](["caf\u00e9 \u0438\u0306"], ["cafe\u0301 \u0439"]) == 1.0


def test_english_with_foreign_names_stays_as_papers_score_it() -> None:
    assert (
        fitting(["the café in Zürich closed its doors " + "and the owner left the country for good " * 10]) == "ascii"
    )
    assert fitting([]) == "ascii"


def test_rows_do_not_depend_on_each_other() -> None:
    predictions, references = ["a b c", "x y", ""], [["a c"], ["y", "x y z"], ["q"]]
    together = rouge_rows(predictions, references, Options(tokenizer="ascii"))
    alone = [rouge_rows([p], [r], Options(tokenizer="ascii")) for p, r in zip(predictions, references, strict=True)]
    assert np.array_equal(together, np.concatenate(alone, axis=1))
