"""What ROUGE does not see of summaries: length, own words, copied runs, repetition, nothing at all.

Words are those of ``words.Words`` without stemming; give the tokenizer that ROUGE was taken with. Each function gives a
value a row, NaN where it is not defined (a summary of too few words); its mean over the others is what tables show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ftbench.metrics.words import Tokenizer, Words

Array = np.ndarray[Any, np.dtype[np.float64]]
Texts = Sequence[str]
#: words of a run that counts as copied
RUN = 3


def length_ratio(predictions: Texts, references: Sequence[Sequence[str]], tokenizer: Tokenizer = "ascii") -> Array:
    """Words of the prediction / mean words of its references, (n,); 0 upwards, 1 is as long as they are."""
    words = Words(tokenizer, stem=False)
    return np.array([
        _ratio(len(words.tokenize(prediction)), float(np.mean([len(words.tokenize(text)) for text in several])))
        for prediction, several in zip(predictions, references, strict=True)
    ])  # fmt: skip


def novel(predictions: Texts, documents: Texts, n: int, tokenizer: Tokenizer = "ascii") -> Array:
    """Share of the prediction's different n-grams that its document does not have, (n,); 0 to 1.

    As See, Liu, Manning (2017, arXiv 1704.04368) and Narayan, Cohen, Lapata (2018, arXiv 1808.08745) plot it.
    """

    def share(prediction: list[str], document: list[str]) -> float:
        own = set(_ngrams(prediction, n))
        return _ratio(len(own - set(_ngrams(document, n))), len(own))

    return _by_pair(share, predictions, documents, tokenizer)


def copy_rate(predictions: Texts, documents: Texts, tokenizer: Tokenizer = "ascii") -> Array:
    """Share of the prediction's words that stand in a run of at least 3 words copied from the document, (n,); 0 to 1.

    The coverage of Grusky, Naaman, Artzi (2018, arXiv 1804.11283) without its fragments of one or two words, which any
    text shares with its document.
    """

    def share(prediction: list[str], document: list[str]) -> float:
        runs = set(_ngrams(document, RUN))
        copied = {
            start + offset
            for start, gram in enumerate(_ngrams(prediction, RUN))
            if gram in runs
            for offset in range(RUN)
        }
        return _ratio(len(copied), len(prediction))

    return _by_pair(share, predictions, documents, tokenizer)


def repetition(predictions: Texts, tokenizer: Tokenizer = "ascii") -> Array:
    """Share of the prediction's pairs of neighbouring words that it has said before, (n,); 0 to 1.

    1 - different pairs / pairs. "fast fast fast fast" has 2/3; text of people is near 0.
    """
    words = Words(tokenizer, stem=False)
    pairs = [list(_ngrams(words.tokenize(text), 2)) for text in predictions]
    return np.array([_ratio(len(found) - len(set(found)), len(found)) for found in pairs])


def empty(predictions: Texts, tokenizer: Tokenizer = "ascii") -> Array:
    """1 where a prediction has no word, else 0, (n,)."""
    words = Words(tokenizer, stem=False)
    return np.array([float(not words.tokenize(text)) for text in predictions])


def mean_of_defined(values: Array) -> float | None:
    """Mean of (n,) without NaN; None where nothing is left."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _by_pair(
    share: Callable[[list[str], list[str]], float], predictions: Texts, documents: Texts, tokenizer: Tokenizer
) -> Array:
    words = Words(tokenizer, stem=False)
    pairs = zip(predictions, documents, strict=True)
    return np.array([share(words.tokenize(prediction), words.tokenize(document)) for prediction, document in pairs])


def _ngrams(words: list[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(n)), strict=False)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
