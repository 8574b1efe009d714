"""Where sentences end, in the texts that summarization has: cased, tokenised in lower case, Chinese, one a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftbench.metrics.sentences import split_sentences

CASES = {
    "abbreviations and initials": (
        "Mr. Smith met J. K. Rowling at 5 p.m. on Sept. 3. It cost $3.5 million, i.e. a lot. See fig. 2. He said no.",
        [
            "Mr. Smith met J. K. Rowling at 5 p.m. on Sept. 3.",
            "It cost $3.5 million, i.e. a lot.",
            "See fig. 2.",
            "He said no.",
        ],
    ),
    "what closes belongs to what it closes": (
        'Why? "Because," he said. "It was fun!" (Then he left.) Done',
        ["Why?", '"Because," he said.', '"It was fun!"', "(Then he left.)", "Done"],
    ),
    "an ellipsis before a capital, not in the middle": ("Well... No. So... far.", ["Well...", "No.", "So... far."]),
    "tokenised, lower case": (
        "the u.s. left israel . his `` comments . '' came late . mr. x stayed",
        ["the u.s. left israel .", "his `` comments . ''", "came late .", "mr. x stayed"],
    ),
    "tokenised, with capitals": ("She left . He stayed .", ["She left .", "He stayed ."]),
    "lines are sentences already": ("one\ntwo .\n\nthree", ["one", "two .", "three"]),
    "Chinese": ("天气很好。我们去公园！好吗？", ["天气很好。", "我们去公园！", "好吗？"]),
    "quotes in Chinese": ("他说：“走吧。”我们走了。", ["他说：“走吧。”", "我们走了。"]),
    "a dialogue": ("Ann: Hi! Bob: hi. Ann: bye", ["Ann: Hi!", "Bob: hi.", "Ann: bye"]),
    "nothing": (" \n ", []),
}


@pytest.mark.parametrize("case", CASES)
def test_sentences(case: str) -> None:
    text, expected = CASES[case]
    assert split_sentences(text) == expected


@given(st.text(max_size=80))
def test_nothing_is_lost_or_made_up(text: str) -> None:
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)
