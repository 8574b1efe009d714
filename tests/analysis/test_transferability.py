"""The companions of nu against recorded numbers of their authors' code, and against definitions written out."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from ftbench.analysis import transferability
from ftbench.analysis.grouping import classes_of
from ftbench.analysis.layer import Layer
from ftbench.analysis.moments import moments_of
from ftbench.analysis.similarity import linear_cka
from ftbench.analysis.transferability import COMPANIONS, companions, correlations, log_evidence, vci
from ftbench.types import Features

FOLDER = Path(__file__).parents[1] / "oracles"
SCORES = json.loads((FOLDER / "hscore_logme.json").read_text())
COLLAPSE = json.loads((FOLDER / "neural_collapse.json").read_text())
Array = np.ndarray[Any, Any]


def recorded(oracle: dict[str, Any], case: str) -> Features:
    given = oracle["inputs"][case]
    labels = np.array(given.get("labels", given.get("targets"))["data"])
    return Features(np.array(given["features"]["data"])[None], labels)


@pytest.mark.parametrize("case", ["easy", "hard", "wide", "regression"])
def test_logme_equals_its_authors_code(case: str) -> None:
    """For wide features the older form, which has a term for every column."""
    found = companions(recorded(SCORES, case))["logme"][0]
    expected = SCORES["outputs"][case]
    assert found == pytest.approx(expected["logme_tllib"], rel=1e-6, abs=1e-6)
    if case != "wide":
        assert found == pytest.approx(expected["logme_thuml"], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("case", ["easy", "hard", "wide"])
def test_regularised_h_score_equals_the_released_code(case: str) -> None:
    found = companions(recorded(SCORES, case))["h_score"][0]
    assert found == pytest.approx(SCORES["outputs"][case]["hscore_regularised_tllib"], rel=1e-9)
    assert found == pytest.approx(SCORES["outputs"][case]["hscore_regularised_transformer_ranker"], rel=1e-6)


@pytest.mark.parametrize("case", sorted(COLLAPSE["inputs"]))
def test_cdnv_equals_the_released_code(case: str) -> None:
    found = companions(recorded(COLLAPSE, case))["cdnv"][0]
    assert found == pytest.approx(COLLAPSE["outputs"][case]["cdnv"], rel=1e-5)


def clouds(n: int = 240, width: int = 6, apart: float = 1.0) -> tuple[Array, Array]:
    generator = np.random.default_rng(width)
    labels = generator.integers(0, 3, n)
    x = generator.normal(size=(n, width)) * np.arange(1, width + 1)
    return (x + apart * generator.normal(size=(3, width))[labels]).astype(np.float32), labels


def test_vci_by_its_definition_and_its_range() -> None:
    x, labels = clouds()
    parts = [x[labels == c].astype(np.float64) for c in range(3)]
    within = sum(np.cov(part.T, bias=True) for part in parts) / 3
    between = np.cov(np.stack([part.mean(0) for part in parts]).T, bias=True)
    expected = 1 - np.trace(np.linalg.inv(within + between) @ between) / 2
    assert vci(moments_of(x, classes_of(labels))) == pytest.approx(expected, rel=1e-9)
    values = [companions(Features(clouds(apart=a)[0][None], labels))["vci"][0] for a in (0.0, 3.0, 300.0)]
    assert 1 > values[0] > values[1] > values[2] > 0 and values[0] > 0.9 and values[2] < 0.01


def test_vci_does_not_see_the_scale_of_single_dimensions_and_nu_does() -> None:
    x, labels = clouds()
    scaled = x * np.array([100, 1, 1, 1, 0.1, 1], dtype=np.float32)
    found = companions(Features(np.stack([x, scaled]), labels))
    assert found["vci"][0] == pytest.approx(found["vci"][1], rel=1e-5)
    assert found["cdnv"][0] != pytest.approx(found["cdnv"][1], rel=0.1)


def test_the_same_class_means_are_the_worst_of_each() -> None:
    x = np.tile(clouds(30)[0], (2, 1))
    found = companions(Features(x[None], np.repeat([0, 1], 30)))
    assert found["vci"][0] == 1 and found["cdnv"][0] == np.inf
    assert found["h_score"][0] == pytest.approx(0, abs=1e-12)


def test_class_means_that_differ_by_rounding_are_the_same() -> None:
    x = clouds(30)[0].astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    found = companions(Features(np.r_[x, x[order]][None], np.repeat([0, 1], len(x))))
    assert found["cdnv"][0] == np.inf


def test_constant_features_are_no_trouble() -> None:
    found = companions(Features(np.full((2, 8, 3), 0.5, dtype=np.float32), np.tile([0, 1], 4)))
    assert found["vci"].tolist() == [1, 1] and found["h_score"].tolist() == [0, 0]
    assert np.isfinite(found["logme"]).all() and np.isinf(found["cdnv"]).all()
    zeros = companions(Features(np.zeros((1, 8, 3), dtype=np.float32), np.tile([0, 1], 4)))
    assert zeros["logme"][0] == -np.inf


def test_shrinkage_is_scikit_learns() -> None:
    x, labels = clouds()
    _, a = ledoit_wolf(x.astype(np.float64))
    covariance = (1 - a) * np.cov(x.T, bias=True)
    covariance += a * np.trace(np.cov(x.T, bias=True)) / 6 * np.eye(6)
    means = np.stack([x[labels == c].astype(np.float64).mean(0) for c in range(3)])[labels]
    expected = (1 - a) * np.trace(np.linalg.inv(covariance) @ np.cov(means.T))
    assert companions(Features(x[None], labels))["h_score"][0] == pytest.approx(expected, rel=1e-6)


def test_an_exact_fit_has_a_finite_evidence() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 4))
    y = x @ np.ones(4)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    exact = log_evidence(s**2, (u.T @ y) ** 2, float(y @ y), 20)
    noisy = y + 0.1 * generator.normal(size=20)
    assert np.isfinite(exact) and exact > log_evidence(s**2, (u.T @ noisy) ** 2, float(noisy @ noisy), 20)


def test_a_layer_is_compared_with_the_one_above_and_a_lone_class_is_left_out() -> None:
    x, labels = clouds(60)
    hidden = np.stack([x, x**2, x])
    hidden = np.concatenate([hidden, np.full((3, 1, 6), 9, dtype=np.float32)], axis=1)
    found = companions(Features(hidden, np.append(labels, 5)))
    same = companions(Features(hidden[:, :-1], labels))
    assert all(found[name] == pytest.approx(same[name], rel=1e-9, nan_ok=True) for name in COMPANIONS)
    cka = linear_cka(Layer(x, reference=Layer(x**2)))
    assert found["cka_next"] == pytest.approx([cka, cka, np.nan], nan_ok=True, rel=1e-9)


def test_numbers_have_no_measures_of_classes_and_bins_keep_their_numbers_for_logme() -> None:
    x, _ = clouds(60)
    targets = x[:, 0].astype(np.float64)
    plain = companions(Features(x[None], targets))
    assert set(plain) == {"logme", "effective_rank", "anisotropy", "cka_next"}
    binned = companions(Features(x[None], (targets > 0).astype(int)), targets)
    assert binned["logme"] == pytest.approx(plain["logme"], rel=1e-12) and set(binned) == set(COMPANIONS)


def test_correlations_are_1_where_a_measure_ranks_layers_as_the_probe_does() -> None:
    probe = np.array([0.5, 0.6, 0.8, 0.7])
    found = correlations({"nu": 1 / probe, "vci": 1 - probe, "logme": probe, "h_score": -probe}, probe)
    assert found == pytest.approx({"nu": 1, "vci": 1, "logme": 1, "h_score": -1})


def test_no_layer_keeps_those_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Layer]] = []
    alive: list[int] = []

    def layer(*given: Any, **named: Any) -> Layer:
        gc.collect()
        alive.append(sum(one() is not None for one in made))
        one = Layer(*given, **named)
        made.append(weakref.ref(one))
        return one

    monkeypatch.setattr(transferability, "Layer", layer)
    x, labels = clouds(60)
    companions(Features(np.stack([x] * 6), labels))
    assert max(alive) <= 2, "the one below, and the last one before it is let go of"
