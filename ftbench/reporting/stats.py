"""Pure functions on scores. The rules that give verdicts are written here as texts, printed under the table.

A *key* is ``(data_seed, seed)``: runs of two methods with one key saw the same rows, order and draws.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ftbench.types import Result

Key = TypeVar("Key", bound=Hashable)

#: fewest pairs with which an exact two-sided sign-flip test can give p < 0.05: 2 / 2^6 = 0.031, 2 / 2^5 = 0.0625
FEWEST_PAIRS = 6

DEGENERATE_RULE = (
    "deg. counts degenerate runs, which stay in the mean: the last weights give one and the same prediction for "
    "every row or, in classification, score no more than always answering the majority class."
)
GATE_RULE = (
    "Methods are compared with std only where std learned: its mean must beat the best reference row "
    "(majority or mean, cosine, linear; of summaries lead and lead-3, but not oracle) on the same rows."
)


class Summary(NamedTuple):
    """``sd`` is None for a single score."""

    mean: float
    sd: float | None
    median: float
    max: float


class PairedDifference(NamedTuple):
    """Mean of ``a - b`` over ``n`` shared keys; ``low`` and ``high`` are None where there is no interval."""

    n: int
    mean: float
    low: float | None
    high: float | None


def summary(scores: Sequence[float]) -> Summary:
    """Mean, sample standard deviation, median and maximum.

    scores: (n,), n >= 1. sd = sqrt(sum((x - mean)^2) / (n - 1)), so it estimates the spread of further seeds.
    Raises ValueError for n = 0.
    """
    if not scores:
        raise ValueError("no scores")
    sd = statistics.stdev(scores) if len(scores) > 1 else None
    return Summary(statistics.fmean(scores), sd, statistics.median(scores), max(scores))


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean; None for n < 2.

    values: (n,). mean -+ t(1 - (1 - level) / 2; n - 1) sd / sqrt(n), with sd of ddof 1.
    Exact for independent normal values (Student 1908, "The probable error of a mean").
    Raises ValueError for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}: expected above 0 and below 1")
    n = len(values)
    if n < 2:
        return None
    from scipy.special import stdtrit

    mean = statistics.fmean(values)
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * statistics.stdev(values) / math.sqrt(n)
    return mean - half, mean + half


def paired_difference(a: Mapping[Key, float], b: Mapping[Key, float]) -> PairedDifference | None:
    """Mean of ``a[key] - b[key]`` over the keys both have, with its 95 % t interval; None without a shared key.

    What the seed does to both runs cancels: var(a - b) = var a + var b - 2 cov(a, b). The interval takes the
    pairs as independent; pairs that share a data seed are not quite. None either for fewer than six differences that
    are all one number other than 0: on few test examples that happens by chance, and no t can be made of it.
    """
    differences = [value - b[key] for key, value in a.items() if key in b]
    if not differences:
        return None
    n, mean = len(differences), statistics.fmean(differences)
    low, high = t_interval(differences) or (0.0, 0.0)
    if n < 2 or (high - low <= 1e-12 < abs(mean) and n < FEWEST_PAIRS):
        return PairedDifference(n, mean, None, None)
    return PairedDifference(n, mean, low, high)


def headline(result: Result, selection: str = "last") -> str:
    """The name of the metric a run is judged by: ``facts["headline"]``, else the first metric, else ``""``."""
    named = result.facts.get("headline")
    return str(named) if named else next(iter(result.metrics.get(selection, {}).get("validation", {})), "")


def beats(score: float, reference: float, lower_is_better: bool = False) -> bool:
    """Strictly better: a tie with a reference is not learning."""
    return score < reference if lower_is_better else score > reference


def is_degenerate(result: Result) -> bool:
    """Whether one finished run predicts nothing, by ``DEGENERATE_RULE``.

    Reads ``facts``: ``distinct_predictions``, ``majority_score``, ``kind`` and ``lower_is_better``. The majority
    rule is for classification only; a run counts as regression when ``kind`` says so, or when its headline is
    lower-is-better. Mosbach et al. 2021 (arXiv:2006.04884) call a run at or below the majority score failed.
    """
    facts = result.facts
    if result.status != "ok":
        return False
    if facts.get("distinct_predictions") == 1:
        return True
    if facts.get("kind") == "regression" or facts.get("lower_is_better"):
        return False
    score, majority = result.score(headline(result)), facts.get("majority_score")
    # scores are ratios of counts: a tie may differ in the last bit
    return score is not None and majority is not None and score <= majority + 1e-12
