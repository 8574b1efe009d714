"""Texts to the words that overlap scores count: rouge_score's a-z words, or words of any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

Tokenizer = Literal["ascii", "unicode"]
#: shorter words are not stemmed, as in ROUGE-1.5.5 and rouge_score
LONGEST_UNSTEMMED = 3
#: from this share of characters on that are letters outside a-z, texts are not taken for English with a few names
FOREIGN = 0.005
#: scripts that put no space between words: each character is a word
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_ASCII = re.compile("[a-z0-9]+")


@dataclass(frozen=True)
class Words:
    """What ``rouge_score`` takes as its tokenizer.

    tokenizer: ``ascii`` is rouge_score's own: lower case, words of a-z and 0-9, everything else separates; a Russian or
               Chinese text has no word at all. ``unicode`` keeps letters, marks and digits of any script (NFC), and
               takes each character of a script without spaces for a word; on ASCII texts the two are equal.
    stem:      Porter's stemmer for English, on a-z words of more than three characters
    """

    tokenizer: Tokenizer = "ascii"
    stem: bool = True

    def tokenize(self, text: str) -> list[str]:
        """The words of ``text``, in their order."""
        lowered = text.lower()
        if self.tokenizer == "ascii" or lowered.isascii():
            words = _ASCII.findall(lowered)
        else:
            words = unicodedata.normalize("NFC", lowered).translate(_KEPT).split()
        if not self.stem:
            return words
        stem = _stemmer()
        return [stem(word) if len(word) > LONGEST_UNSTEMMED and word.isascii() else word for word in words]


class _Characters(dict[int, str]):
    """A table for ``str.translate`` that fills itself: a character, that character apart, or a blank."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = character.isalnum() or unicodedata.category(character).startswith("M")
        alone = kept and unicodedata.name(character, "").startswith(UNSPACED)
        self[code] = f" {character} " if alone else character if kept else " "
        return self[code]


_KEPT = _Characters()


@cache
def _stemmer() -> Callable[[str], str]:
    """Porter's stemmer as rouge_score uses it (nltk's, with its extensions); words recur, so stems are kept."""
    from nltk.stem.porter import PorterStemmer

    stem: Callable[[str], str] = lru_cache(maxsize=2**17)(PorterStemmer().stem)
    return stem


def fitting(texts: Iterable[str]) -> Tokenizer:
    """``unicode`` where more than one character in 200 is a letter outside a-z, else ``ascii``, which all papers used.

    So English with a few foreign names is scored as ever, and no other language loses its words.
    """
    foreign = total = 0
    for text in texts:
        total += len(text)
        if not text.isascii():
            foreign += sum(not character.isascii() and character.isalpha() for character in text)
    return "unicode" if foreign > FOREIGN * total else "ascii"
