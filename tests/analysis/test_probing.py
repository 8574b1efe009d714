"""The probe: scikit-learn's scores at its strength, a control at chance; rows that are scored choose nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ftbench.analysis import probing
from ftbench.analysis.probing import FALLBACK, STRENGTHS, draw, probe
from ftbench.errors import UsageError
from ftbench.metrics import METRICS
from ftbench.types import Features

#: how much of the task each layer shows
SIGNAL = (0.0, 0.3, 3.0)


def features(n: int, classes: int = 3, *, seed: int = 0, width: int = 20, regression: bool = False) -> Features:
    """Layers of ``SIGNAL``, noise that is correlated, and labels 0, 1 ...; float targets in a regression."""
    world, generator = np.random.default_rng(99), np.random.default_rng(seed)
    mixing, places = world.normal(size=(width, width)) * np.logspace(0, -1, width), world.normal(size=(classes, width))
    labels: Any = np.arange(n) % classes
    told = places[labels]
    if regression:
        labels = generator.normal(2, 1, size=n)
        told = labels[:, None] * places[:1]
    noise = generator.normal(size=(len(SIGNAL), n, width)) @ mixing.T
    return Features((noise + np.array(SIGNAL)[:, None, None] * told + 5).astype(np.float32), labels)


@pytest.mark.parametrize(("metric", "classes"), [("accuracy", 2), ("accuracy", 4), ("matthews", 3)])
def test_scores_are_scikit_learns_at_the_same_strength(metric: str, classes: int) -> None:
    train, scored = features(150, classes), features(300, classes, seed=1)
    found = probe(train, scored, metric, seeds=[0, 1])
    assert found.scores.shape == found.controls.shape == found.strengths.shape == (3, 2)
    for layer in range(3):
        for seed in range(2):
            strength = found.strengths[layer, seed]
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-8, max_iter=5000))
            model.fit(train.hidden[layer].astype(float), train.labels)
            expected = METRICS[metric](model.predict(scored.hidden[layer].astype(float)), scored.labels)
            assert found.scores[layer, seed] == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize("enough", [20, 1000])
def test_the_strength_scores_best_on_rows_it_was_not_fitted_to(enough: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ENOUGH", enough)
    train, scored = features(120, 3), features(60, 3, seed=1)
    found = probe(train, scored, "accuracy", seeds=[5])
    rows, parts = draw(train.labels, None, 5, regression=False)
    assert np.array_equal(rows, np.arange(120)) and parts.max() == (0 if enough == 20 else 4)
    held = [parts == part for part in range(parts.max() + 1)]
    spread = []
    for layer in range(3):
        x = StandardScaler().fit_transform(train.hidden[layer].astype(float))
        rights = []
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=5000)
            rights.append(
                sum((model.fit(x[~h], train.labels[~h]).predict(x[h]) == train.labels[h]).sum() for h in held)
            )
        ours = rights[STRENGTHS.index(found.strengths[layer, 0])]
        assert ours >= max(rights) - 1, "one row may lie on the border"
        spread.append(max(rights) - min(rights))
    assert max(spread) > 2


def test_ridge_is_scikit_learns_at_the_same_strength() -> None:
    train, scored = features(120, regression=True), features(100, regression=True, seed=1)
    for metric in ("pearson", "mse"):
        found = probe(train, scored, metric, regression=True, seeds=[0])
        for layer in range(3):
            model = make_pipeline(StandardScaler(), Ridge(alpha=1 / found.strengths[layer, 0]))
            model.fit(train.hidden[layer].astype(float), train.labels)
            expected = METRICS[metric](model.predict(scored.hidden[layer].astype(float)), scored.labels)
            assert found.scores[layer, 0] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert found.selectivity[2, 0] > 0.4 and abs(found.selectivity[0, 0]) < 0.4


def test_selectivity_is_the_lead_over_shuffled_labels() -> None:
    found = probe(features(300, 4), features(600, 4, seed=1), "accuracy", seeds=range(3))
    assert np.array_equal(found.selectivity, found.scores - found.controls)
    assert np.abs(found.controls.mean(1) - 0.25).max() < 0.04
    assert np.abs(found.selectivity[0]).max() < 0.08, "noise tells nothing"
    assert found.selectivity[2].min() > 0.6


def test_rows_that_are_scored_choose_nothing() -> None:
    train, scored = features(90), features(40, seed=1)
    found = probe(train, scored, "accuracy", seeds=[0, 1])
    other = Features(scored.hidden[:, ::-1] * 3, scored.labels)
    assert np.array_equal(probe(train, other, "accuracy", seeds=[0, 1]).strengths, found.strengths)
    part = Features(scored.hidden[:, :20], scored.labels[:20])
    again = probe(train, part, "accuracy")
    together = probe(
        train, Features(np.concatenate([part.hidden, part.hidden], 1), np.tile(part.labels, 2)), "accuracy"
    )
    assert np.array_equal(again.scores, together.scores)


def test_two_probes_are_identical_and_seeds_differ(tmp_path: Path) -> None:
    train, scored = features(90), features(80, seed=1)
    np.save(tmp_path / "train.npy", train.hidden)
    mapped = replace(train, hidden=np.load(tmp_path / "train.npy", mmap_mode="r"))
    first, again = (probe(each, scored, "accuracy", seeds=[0, 1], size=45) for each in (train, mapped))
    for name in ("scores", "controls", "strengths"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert np.array_equal(first.scores[:, 1], probe(train, scored, "accuracy", seeds=[1], size=45).scores[:, 0])
    assert len(np.unique(first.scores[1])) > 1


def test_layers_solved_together_score_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    train, scored = features(90), features(80, seed=1)
    alone = probe(train, scored, "accuracy")
    monkeypatch.setattr(probing._Seed, "_groups", lambda *_: iter([slice(0, 2), slice(2, 4)]))
    together = probe(train, scored, "accuracy")
    assert np.array_equal(together.strengths, alone.strengths)
    np.testing.assert_allclose(together.scores, alone.scores, atol=1 / 80)


def test_a_subsample_has_the_classes_in_proportion() -> None:
    labels = np.array([0] * 60 + [1] * 30 + [2] * 9 + [3])
    draws = [draw(labels, 20, seed, regression=False) for seed in range(2)]
    for rows, parts in draws:
        assert len(np.unique(rows)) == 20 and np.array_equal(rows, np.sort(rows))
        counts = np.bincount(labels[rows], minlength=4)
        assert counts.min() == 1 and abs(counts[0] - 12) <= 1 and abs(counts[1] - 6) <= 1
        assert (parts[labels[rows] == 3] == -1).all(), "the only one of its class"
        assert np.bincount(parts + 1).tolist()[0] == 1 and parts.max() == 4
        assert all(set(labels[rows]) == set(labels[rows][parts != part]) for part in range(5))
    assert not np.array_equal(draws[0][0], draws[1][0])
    for size in (None, 100, 1000):
        assert np.array_equal(draw(labels, size, 0, regression=False)[0], np.arange(100))
    rows, parts = draw(np.linspace(0, 1, 30), 10, 0, regression=True)
    assert len(rows) == 10 and np.bincount(parts).tolist() == [2] * 5


def test_few_rows_choose_the_strength_in_turn_and_of_many_a_fifth() -> None:
    for n, counts in ((1000, [0, 200, 200, 200, 200, 200]), (2600, [1560, 520, 520]), (5000, [4000, 1000])):
        parts = draw(np.arange(n) % 2, None, 0, regression=False)[1]
        assert np.bincount(parts + 1).tolist() == counts


def test_classes_may_have_any_numbers_and_be_missing_in_train() -> None:
    train, scored = features(60, 3), features(60, 3, seed=1)
    kept = train.labels != 1
    two = Features(train.hidden[:, kept], train.labels[kept])
    found = probe(two, scored, "accuracy")
    assert 0.55 < found.scores[2, 0] <= 2 / 3, "a class that train lacks is never guessed"


def test_few_rows_are_fitted_at_a_fixed_strength() -> None:
    found = probe(features(3, 3), features(40, 3, seed=1), "accuracy")
    assert (found.strengths == FALLBACK).all() and found.scores[2, 0] > 0.8


def test_a_layer_that_is_constant_guesses_the_most_frequent_class() -> None:
    train, scored = features(60, 3), features(60, 3, seed=1)
    labels = np.array([0] * 30 + [1] * 20 + [2] * 10)
    flat = Features(np.full_like(train.hidden, 0.3), labels)
    found = probe(flat, Features(np.full_like(scored.hidden, 0.3), labels), "accuracy")
    assert (found.scores == 0.5).all() and (found.selectivity == 0).all()


def test_bad_features_are_refused() -> None:
    train, scored = features(60, 3), features(30, 3, seed=1)
    with pytest.raises(UsageError, match=r"all 60 train rows of the probe are of class 1: expected two"):
        probe(replace(train, labels=np.ones(60, dtype=int)), scored, "accuracy")
    with pytest.raises(UsageError, match=r"a probe for 3 classes has 2 train rows"):
        probe(train, scored, "accuracy", size=2)
    with pytest.raises(
        UsageError, match=r"train features have 3 layers of width 20, those to score 3 layers of width 7"
    ):
        probe(train, features(30, 3, width=7), "accuracy")
    for name, number in (("train", 41), ("scored", 17)):
        broken = {"train": train, "scored": scored}
        hidden = broken[name].hidden.copy()
        hidden[1, number, 5] = np.nan
        broken[name] = replace(broken[name], hidden=hidden)
        with pytest.raises(UsageError, match=rf"layer 2 is NaN or infinite for {name} row {number}:"):
            probe(broken["train"], broken["scored"], "accuracy")
