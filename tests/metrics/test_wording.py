"""What ROUGE does not see, by hand; intervals over examples."""

from __future__ import annotations

import numpy as np
import pytest

from ftbench.metrics.bootstrap import mean_intervals
from ftbench.metrics.wording import copy_rate, empty, length_ratio, mean_of_defined, novel, repetition

DOCUMENT = "the bank said on monday that it will buy the shop"


def test_length_ratio() -> None:
    found = length_ratio(["a b c d", "", "a"], [["a b", "a b c d e f"], ["a"], ["..."]])
    assert found[:2].tolist() == [1.0, 0.0] and np.isnan(found[2])


def test_novel_ngrams() -> None:
    # different words: bank will buy cinema; pairs: bank will (new), will buy, buy cinema (new), cinema bank (new)
    prediction = ["bank will buy cinema bank will"]
    assert novel(prediction, [DOCUMENT], 1).tolist() == [1 / 4]
    assert novel(prediction, [DOCUMENT], 2).tolist() == [3 / 4]
    assert np.isnan(novel(["bank"], [DOCUMENT], 2)).all()


def test_copy_rate() -> None:
    # "it will buy the" is copied, "bank said" is a run of two, "now" is new
    assert copy_rate(["bank said now it will buy the"], [DOCUMENT]).tolist() == [4 / 7]
    assert copy_rate([DOCUMENT, "shop the buy"], [DOCUMENT] * 2).tolist() == [1.0, 0.0]
    assert np.isnan(copy_rate([""], [DOCUMENT])).all()


def test_repetition() -> None:
    found = repetition(["fast fast fast fast", "one two three", "one"])
    assert found[:2].tolist() == [2 / 3, 0.0] and np.isnan(found[2])


def test_empty() -> None:
    assert empty(["a", " ", ". !", "москва"]).tolist() == [0, 1, 1, 1]
    assert empty(["москва"], "unicode").tolist() == [0]


def test_mean_of_defined() -> None:
    assert mean_of_defined(np.array([1.0, np.nan, 3.0])) == 2.0
    assert mean_of_defined(np.array([np.nan])) is None


def test_intervals_are_seeded_and_hold_the_mean() -> None:
    scores = np.random.default_rng(0).random((80, 2))
    low, high = mean_intervals(scores, seed=1)
    assert (low < scores.mean(axis=0)).all() and (scores.mean(axis=0) < high).all()
    assert all(np.array_equal(a, b) for a, b in zip((low, high), mean_intervals(scores, seed=1), strict=True))
    assert not np.array_equal(low, mean_intervals(scores, seed=2)[0])


def test_intervals_of_rows_that_are_all_alike_have_no_width() -> None:
    low, high = mean_intervals(np.full((5, 1), 0.25))
    assert low == high == 0.25
    with pytest.raises(ValueError, match="no rows"):
        mean_intervals(np.empty((0, 1)))


def test_intervals_cover_the_mean_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(3)
    hits = 0
    for draw in range(200):
        low, high = mean_intervals(generator.beta(2, 5, (60, 1)), seed=draw, resamples=300)
        hits += bool(low[0] <= 2 / 7 <= high[0])
    assert 178 <= hits <= 199  # 95 % of 200 is 190; binomial sd 3.1, and a bootstrap of 60 is a little short


def test_intervals_shrink_with_the_root_of_the_rows() -> None:
    scores = np.random.default_rng(4).random((1600, 1))
    widths = [float(np.subtract(*mean_intervals(scores[:n])[::-1])[0]) for n in (100, 1600)]
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.2)
