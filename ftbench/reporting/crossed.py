"""Seeds and test examples, crossed: what a difference is worth when both could have come out otherwise."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ftbench.reporting.pairs import smallest_p

Array = np.ndarray[Any, np.dtype[np.float64]]

#: below so many pairs of seeds the crossed interval is never narrower than the seeds' own t interval
FEWEST_CROSSED = 5


class Estimate(NamedTuple):
    """A mean difference, its standard error, the t distribution it is held against, and what follows."""

    mean: float
    se: float
    df: float
    low: float
    high: float
    p: float


def crossed(seeds: Array, examples: Array, rows: int, level: float = 0.95) -> Estimate:
    """Estimate of a mean difference over further seeds and further test examples of the same kind.

    seeds:    (S,) difference of each pair of seeds on all test examples, S >= 2
    examples: (S, B) the same on B resamples of the test examples, one resample for all seeds
    rows:     how many test examples there are

    With T_s the differences and C the (S, S) covariance of ``examples``, the variance of their mean is estimated by

        V = max( var(T) / S + max(0, mean of C off the diagonal),  mean of C )

    The first term is what resampling seeds gives (in closed form, with n - 1); the second is what all seeds share
    because they meet the same examples; C's diagonal belongs to single seeds and is in the first term already. This
    is the two-way variance of Cameron, Gelbach, Miller 2011 with the examples' part bootstrapped, so that it holds for
    F1 or a correlation as for accuracy; Owen 2007, "The pigeonhole bootstrap", shows why one-way resampling is too
    narrow. Student's t with Satterthwaite's (1946) degrees of freedom,
    V^2 / (V_S^2 / (S - 1) + (V - V_S)^2 / (rows - 1)) with V_S = var(T) / S.
    Two to four seeds say too little of their own spread for that: the wider of this and the seeds-only t is taken.
    """
    n = len(seeds)
    mean, of_seeds = float(seeds.mean()), float(seeds.var(ddof=1)) / n
    covariance = np.atleast_2d(np.cov(examples))
    of_examples = float(covariance.mean())
    shared = float((covariance.sum() - np.trace(covariance)) / (n * (n - 1)))
    variance = max(of_seeds + max(0.0, shared), of_examples)
    rest = variance - of_seeds
    below = of_seeds**2 / (n - 1) + rest**2 / max(1, rows - 1)
    df = variance**2 / below if below > 0 else float(n - 1)
    estimate = _student(mean, math.sqrt(variance), df, level)
    alone = seeds_only(seeds, level)
    if n < FEWEST_CROSSED and alone.se > 0 and alone.high - alone.low > estimate.high - estimate.low:
        return alone
    return estimate


def seeds_only(seeds: Array, level: float = 0.95) -> Estimate:
    """Student's paired t of (S,) differences, S >= 2: further seeds on these very test examples.

    Where methods order the test examples differently it rejects true nulls the more often the more seeds there are,
    for no number of seeds makes up for few examples. Where all differences are one number other than 0, which on few
    test examples happens by chance, t has nothing to go on: p and interval are the exact sign-flip test's, 2 / 2^S and
    that number alone, or (-inf, inf) where so few seeds cannot rule out anything.
    """
    n = len(seeds)
    estimate = _student(float(seeds.mean()), float(seeds.std(ddof=1)) / math.sqrt(n), float(n - 1), level)
    if estimate.se > 0 or estimate.p == 1:
        return estimate
    p = smallest_p(n)
    ends = (estimate.mean, estimate.mean) if p < 1 - level else (-math.inf, math.inf)
    return Estimate(estimate.mean, 0.0, estimate.df, *ends, p)


def examples_only(mean: float, examples: Array, rows: int, level: float = 0.95) -> Estimate:
    """One pair of seeds, (B,) resamples of its test examples: says nothing of other seeds."""
    return _student(mean, float(examples.std(ddof=1)), float(max(1, rows - 1)), level)


def _student(mean: float, se: float, df: float, level: float) -> Estimate:
    from scipy.special import stdtr, stdtrit

    if se <= 1e-12 * max(1.0, abs(mean)):
        return Estimate(mean, 0.0, df, mean, mean, 1.0 if abs(mean) <= 1e-12 else 0.0)
    half = se * float(stdtrit(df, 0.5 + level / 2))
    return Estimate(mean, se, df, mean - half, mean + half, float(2 * stdtr(df, -abs(mean) / se)))
