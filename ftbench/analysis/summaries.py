"""Everything that is scored of a set of summaries, in one call: ROUGE with intervals, and what ROUGE does not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import numpy as np

from ftbench.errors import UsageError
from ftbench.metrics.bootstrap import mean_intervals
from ftbench.metrics.rouge import ROUGE, Options, References, as_lists, known, rouge_rows
from ftbench.metrics.wording import copy_rate, empty, length_ratio, mean_of_defined, novel, repetition

Array = np.ndarray[Any, np.dtype[np.float64]]
#: rows that a process is given at a time
CHUNK = 250


@dataclass(frozen=True)
class Scores:
    """Scores of n summaries. All are fractions, but for ``length_ratio``.

    means:     rouge1, rouge2, rougeL, rougeLsum (best reference of each row); with several references mean_rouge1 and
               so on (their mean); length_ratio, repetition, empty; with documents novel_1, novel_2, copy_rate
    intervals: 95 % bootstrap intervals over the rows, of the ROUGE scores
    rows:      (n,) each: their mean is the one in ``means``, without NaN
    options:   as used: its tokenizer is decided
    notes:     what a reader must know: the tokenizer, rows that cannot score
    """

    means: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    rows: Mapping[str, Array]
    options: Options
    notes: tuple[str, ...] = field(default=())


def score_summaries(
    predictions: Sequence[str],
    references: References,
    documents: Sequence[str] | None = None,
    *,
    options: Options | None = None,
    processes: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Scores n predictions against n references, or n lists of several.

    processes: further processes that share the work from 1,000 rows on; the result does not depend on them.
    progress:  called with the number of rows that were just scored.

    Raises UsageError for no predictions, for numbers of predictions, references or documents that differ, and for a
    row without a reference.
    """
    several = as_lists(references)
    _require_equal(predictions, several, documents)
    fitted = (options or Options()).fitted(several)
    best, mean = rouge_of(predictions, several, fitted, processes=processes, progress=progress)
    rows = {name: best[:, i] for i, name in enumerate(ROUGE)}
    if any(len(texts) > 1 for texts in several):
        rows |= {f"mean_{name}": mean[:, i] for i, name in enumerate(ROUGE)}
    low, high = mean_intervals(np.stack([*rows.values()], axis=1), seed=seed)
    intervals = {name: (float(a), float(b)) for name, a, b in zip(rows, low, high, strict=True)}
    rows |= _wording(predictions, several, documents, fitted)
    means = {name: found for name, values in rows.items() if (found := mean_of_defined(values)) is not None}
    return Scores(means, intervals, rows, fitted, tuple(_notes(predictions, several, fitted)))


def rouge_of(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    options: Options,
    *,
    processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Array:
    """``rouge_rows`` (2, n, 4), by several processes where the rows are worth starting them."""
    chunks = [slice(start, start + CHUNK) for start in range(0, len(predictions), CHUNK)]
    work = [(predictions[chunk], references[chunk], options) for chunk in chunks]
    found = []
    for rows in _in_processes(work, processes) if processes > 1 and len(chunks) > 4 else map(_rouge_rows, work):
        found.append(rows)
        if progress:
            progress(rows.shape[1])
    return np.concatenate(found, axis=1)


def _rouge_rows(work: tuple[Sequence[str], Sequence[Sequence[str]], Options]) -> Array:
    return rouge_rows(*work)


def _in_processes(work: Sequence[Any], processes: int) -> Iterator[Array]:
    """Results in the order of the work. New processes, not forks: a fork of a process with threads may hang."""
    pool = ProcessPoolExecutor(min(processes, len(work)), mp_context=get_context("spawn"))
    try:
        futures: list[Future[Array]] = [pool.submit(_rouge_rows, each) for each in work]
        for future in futures:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _wording(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    documents: Sequence[str] | None,
    options: Options,
) -> dict[str, Array]:
    tokenizer = options.words.tokenizer
    shown = [[known(text, options) for text in texts] for texts in references]
    found = {
        "length_ratio": length_ratio(predictions, shown, tokenizer),
        "repetition": repetition(predictions, tokenizer),
        "empty": empty(predictions, tokenizer),
    }
    if documents is None:
        return found
    return {
        **found,
        "novel_1": novel(predictions, documents, 1, tokenizer),
        "novel_2": novel(predictions, documents, 2, tokenizer),
        "copy_rate": copy_rate(predictions, documents, tokenizer),
    }


def _require_equal(
    predictions: Sequence[str], references: Sequence[Sequence[str]], documents: Sequence[str] | None
) -> None:
    if not predictions:
        raise UsageError("there are no predictions to score")
    if len(predictions) != len(references):
        raise UsageError(
            f"{len(predictions):,} predictions and {len(references):,} references: expected one prediction for every "
            "reference, in the same order"
        )
    if documents is not None and len(documents) != len(predictions):
        raise UsageError(f"{len(documents):,} documents and {len(predictions):,} predictions: expected as many")
    without = [row for row, texts in enumerate(references, start=1) if not texts]
    if without:
        raise UsageError(f"{len(without):,} rows have no reference, the first is row {without[0]:,}")


def _notes(predictions: Sequence[str], references: Sequence[Sequence[str]], options: Options) -> Iterator[str]:
    words = options.words
    if words.tokenizer == "unicode":
        stemmed = ", a-z words stemmed as English" if words.stem else ""
        yield (
            f"Words of any script are counted (tokenizer unicode{stemmed}): rouge_score and ROUGE-1.5.5 know a-z only, "
            "so their scores of these texts are lower or 0."
        )
    unseen = sum(not any(words.tokenize(known(text, options)) for text in texts) for texts in references)
    if unseen:
        hint = " Try the tokenizer unicode." if words.tokenizer == "ascii" and _has_letters(references, options) else ""
        yield f"{unseen:,} of {len(references):,} references have no word to count: these rows score 0.{hint}"
    nothing = sum(not words.tokenize(text) for text in predictions)
    if nothing:
        yield f"{nothing:,} of {len(predictions):,} predictions have no word to count: these rows score 0."


def _has_letters(references: Sequence[Sequence[str]], options: Options) -> bool:
    """Whether a reference without a word in a-z has letters all the same."""
    words = options.words
    texts = (known(text, options) for several in references for text in several)
    return any(not words.tokenize(text) and any(map(str.isalpha, text)) for text in texts)
