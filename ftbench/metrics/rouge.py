"""ROUGE of texts: overlap of a summary with its references, by the package ``rouge_score``. Higher is better.

(predictions: n texts, references: n texts or n lists of several). Each row has an F1 = 2 P R / (P + R), 0 to 1, of
what is shared: P = shared / in the prediction, R = shared / in the reference; a score is the mean of the rows' F1, not
the F1 of mean P and R (Lin 2004, "ROUGE: a package for automatic evaluation of summaries"). Of several references a
row takes the best, for each score by itself. Values are fractions; papers print them times 100.

What differs from the Perl script ROUGE-1.5.5, and by how much: docs/rouge.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ftbench.metrics.sentences import split_sentences
from ftbench.metrics.words import Tokenizer, Words, fitting

Array = np.ndarray[Any, np.dtype[np.float64]]
#: n texts, or n lists of several each
References = Sequence[str] | Sequence[Sequence[str]]
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
#: how data sets write a word outside their vocabulary
_UNKNOWN = re.compile(r"<unk>|\[UNK\]|\bUNK\b")


@dataclass(frozen=True)
class Options:
    """How texts are made into what is counted.

    stem:      Porter's stemmer, as nearly all papers do (``-m``)
    tokenizer: see ``Words``; ``auto`` chooses by the references, see ``fitting``
    keep_unk:  whether a reference's ``<unk>`` (``UNK``, ``[UNK]``) is a word that a prediction can share; if not, it is
               taken out of the references. A prediction's own stays: it is a wrong word
    sentences: of rougeLsum: ``split`` splits a text of one line into sentences, ``lines`` takes lines as they are
    """

    stem: bool = True
    tokenizer: Tokenizer | Literal["auto"] = "auto"
    keep_unk: bool = True
    sentences: Literal["split", "lines"] = "split"

    def fitted(self, references: References) -> Options:
        """With ``auto`` decided."""
        if self.tokenizer != "auto":
            return self
        return replace(self, tokenizer=fitting(text for texts in as_lists(references) for text in texts))

    @property
    def words(self) -> Words:
        """What tokenises."""
        return Words("ascii" if self.tokenizer == "auto" else self.tokenizer, self.stem)


def rouge1(predictions: Sequence[str], references: References) -> float:
    """ROUGE-1: shared are words, each as often as both have it. 0 to 1."""
    return _mean("rouge1", predictions, references)


def rouge2(predictions: Sequence[str], references: References) -> float:
    """ROUGE-2: shared are pairs of words that follow each other. 0 to 1."""
    return _mean("rouge2", predictions, references)


def rouge_l(predictions: Sequence[str], references: References) -> float:
    """ROUGE-L of each text as one sentence: shared is the longest common subsequence of words. 0 to 1.

    Not what papers on CNN/DailyMail print as "R-L", which is ``rougeLsum``.
    """
    return _mean("rougeL", predictions, references)


def rouge_l_sum(predictions: Sequence[str], references: References) -> float:
    """ROUGE-L of summaries, ROUGE-1.5.5's ``-L``. 0 to 1.

    Shared is, for each sentence of the reference, the union of its longest common subsequences with every sentence of
    the prediction (Lin 2004, section 3.2), a word counted no more often than both have it. Equals ``rouge_l`` where
    both are one sentence.
    """
    return _mean("rougeLsum", predictions, references)


def rouge_rows(
    predictions: Sequence[str], references: References, options: Options, names: Sequence[str] = ROUGE
) -> Array:
    """F1 of each row, (2, n, names): the best of a row's references, and their mean."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(names), tokenizer=options.fitted(references).words)
    rows = np.zeros((2, len(predictions), len(names)))
    for i, (prediction, several) in enumerate(zip(predictions, as_lists(references), strict=True)):
        text = _lines(prediction, options)
        found = [scorer.score(_lines(known(reference, options), options), text) for reference in several]
        scores = np.array([[score[name].fmeasure for name in names] for score in found])
        rows[0, i], rows[1, i] = scores.max(axis=0), scores.mean(axis=0)
    return rows


def as_lists(references: References) -> list[tuple[str, ...]]:
    """The references of each row as a tuple."""
    return [(each,) if isinstance(each, str) else tuple(each) for each in references]


def known(reference: str, options: Options) -> str:
    """The reference as it is scored: with or without its unknown words."""
    return reference if options.keep_unk else _UNKNOWN.sub(" ", reference)


def _mean(name: str, predictions: Sequence[str], references: References) -> float:
    return float(rouge_rows(predictions, references, Options(), (name,))[0].mean())


def _lines(text: str, options: Options) -> str:
    """One sentence a line, as rougeLsum reads it; the other scores take a line break for a blank."""
    if options.sentences == "lines" or "\n" in text.strip():
        return text
    return "\n".join(split_sentences(text))
