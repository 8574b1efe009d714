"""Summaries that need no model: the beginning of the document, and the best that copying its sentences can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ftbench.metrics.sentences import split_sentences
from ftbench.metrics.words import Words, fitting

#: what papers on news call LEAD-3
LEAD_SENTENCES = 3


def extracts(documents: Sequence[str], references: Sequence[Sequence[str]], words: int) -> dict[str, list[str]]:
    """By name, n summaries each: ``lead``, and where half of the documents or more have over 3 sentences ``lead-3``
    and ``oracle``.

    words: of ``lead``; see ``median_words``.
    """
    found = {"lead": [lead(document, words) for document in documents]}
    sentences = [split_sentences(document) for document in documents]
    if np.median([len(each) for each in sentences]) > LEAD_SENTENCES:
        counted = Words(fitting(texts[0] for texts in references))
        found["lead-3"] = ["\n".join(each[:LEAD_SENTENCES]) for each in sentences]
        found["oracle"] = [
            "\n".join(oracle(each, texts[0], counted)) for each, texts in zip(sentences, references, strict=True)
        ]
    return found


def median_words(summaries: Sequence[str]) -> int:
    """Median number of words of the training summaries, at least 1: the length of a fair ``lead``."""
    return max(1, int(np.median([len(text.split()) for text in summaries])))


def lead(document: str, words: int) -> str:
    """The first words of the document, one blank apart."""
    return " ".join(document.split()[:words])


def oracle(sentences: Sequence[str], reference: str, words: Words) -> list[str]:
    """Sentences, in their order, chosen one by one for the largest ROUGE-1 + ROUGE-2 F1 until none adds to it.

    The greedy oracle that extractive systems are trained on (Nallapati, Zhai, Zhou 2017, arXiv 1611.04230); pairs of
    words do not cross sentences. Where no sentence shares a word, the first. It knows the reference: a mark for what
    copying could reach, not a bar.
    """
    wanted = _Grams.of(words.tokenize(reference))
    grams = [_Grams.of(words.tokenize(sentence)) for sentence in sentences]
    chosen: list[int] = []
    so_far, best = _Grams.of([]), 0.0
    while len(chosen) < len(sentences):
        open_ = [i for i in range(len(sentences)) if i not in chosen]
        scores = [(so_far + grams[i]).f1(wanted) for i in open_]
        top = int(np.argmax(scores))
        if scores[top] <= best:
            break
        best, so_far = scores[top], so_far + grams[open_[top]]
        chosen.append(open_[top])
    return [sentences[i] for i in sorted(chosen or [0])]


@dataclass(frozen=True)
class _Grams:
    """How often a text has each word, and each pair of neighbouring words."""

    counts: tuple[Counter[tuple[str, ...]], ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> _Grams:
        return cls((Counter((word,) for word in words), Counter(pairwise(words))))

    def __add__(self, other: _Grams) -> _Grams:
        return _Grams(tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    def f1(self, wanted: _Grams) -> float:
        """ROUGE-1 F1 plus ROUGE-2 F1 against a reference, 0 to 2."""
        total = 0.0
        for own, theirs in zip(self.counts, wanted.counts, strict=True):
            size = own.total() + theirs.total()
            total += 2 * (own & theirs).total() / size if size else 0.0
        return total
