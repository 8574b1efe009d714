"""Collapse metrics against recorded numbers of public packages, against textbook formulas and known answers."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.analysis import layer as layers
from ftbench.analysis import pairs as pairing
from ftbench.analysis import spectrum
from ftbench.analysis.collapse import COLLAPSE, measure
from ftbench.analysis.layer import Layer
from ftbench.analysis.similarity import best_strength, disagreement
from ftbench.errors import UsageError

Array = np.ndarray[Any, Any]


def oracle(name: str) -> dict[str, Any]:
    return dict(json.loads((Path(__file__).parents[1] / "oracles" / f"{name}.json").read_text()))


def array(recorded: dict[str, Any]) -> Array:
    return np.array(recorded["data"], dtype=recorded["dtype"]).reshape(recorded["shape"])


CKA, ISOSCORE, NC, COLLAPSED, RANKME, TWONN = map(
    oracle, ("cka", "isoscore", "nc", "neural_collapse", "rankme", "twonn")
)


# ------------------------------------------------------------------------------------- recorded numbers


@pytest.mark.parametrize("case", ["related_tall", "independent_tall", "related_wide", "independent_wide"])
def test_cka_equals_the_packages(case: str) -> None:
    """pytorch-cka clamps the debiased form to [0, 1]; ours is the value before."""
    x, y = (array(CKA["inputs"][case][name]) for name in "xy")
    expected = CKA["outputs"][case]
    assert measure("cka", x, reference=y) == pytest.approx(expected["biased"], abs=1e-9)
    debiased = measure("cka_debiased", x, reference=y)
    assert debiased == pytest.approx(expected["debiased_without_clamp"], abs=1e-9)
    assert max(debiased, 0) == pytest.approx(expected["debiased"], abs=1e-9)


@pytest.mark.parametrize("case", ISOSCORE["inputs"])
def test_isoscore_equals_the_package_and_its_repository(case: str) -> None:
    """In nine steps there, here in one."""
    found = measure("isoscore", array(ISOSCORE["inputs"][case]["points"]))
    expected = ISOSCORE["outputs"][case]
    assert found == pytest.approx(expected["isoscore"], abs=1e-6)
    if isinstance(expected["isoscore_repository"], float):
        assert found == pytest.approx(expected["isoscore_repository"], abs=1e-12)


@pytest.mark.parametrize("case", RANKME["inputs"])
def test_rankme_equals_the_package_but_for_its_epsilon(case: str) -> None:
    x, expected = array(RANKME["inputs"][case]["features"]), RANKME["outputs"][case]
    assert measure("rankme", x) == pytest.approx(expected["without_epsilon"], rel=1e-9)
    values = np.linalg.svd(x.astype(float), compute_uv=False)
    shares = values / values.sum() + 1e-5
    assert np.exp(-(shares * np.log(shares)).sum()) == pytest.approx(expected["rankme"], rel=1e-4)


@pytest.mark.parametrize("case", TWONN["inputs"])
def test_twonn_equals_scikit_dimension(case: str) -> None:
    found = measure("twonn", array(TWONN["inputs"][case]["points"]))
    assert found == pytest.approx(TWONN["outputs"][case]["linear_discard_0.1"], abs=1e-9)


@pytest.mark.parametrize("case", NC["inputs"])
def test_nc1_equals_the_authors_of_hidden_state_variability(case: str) -> None:
    """Their compute_nc in float64, also with one example a class and with more classes than dimensions."""
    x, labels = (array(NC["inputs"][case][name]) for name in ("features", "labels"))
    expected = NC["outputs"][case]["float64"]["compute_nc"]
    assert measure("nc1", x, labels) == pytest.approx(expected, rel=1e-9)
    assert measure("nc1", x.astype(np.float64), labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("case", COLLAPSED["inputs"])
def test_nc1_by_traces_has_the_package_s_parts(case: str) -> None:
    """neural-collapse weighs examples inside classes; its means and its variances of classes are the parts of ours."""
    given, parts = COLLAPSED["inputs"][case], COLLAPSED["outputs"][case]
    x, labels, means = array(given["features"]), array(given["labels"]), array(parts["means"])
    between = np.square(means - array(parts["global_mean"])).sum(axis=1).mean()
    within, counts = array(parts["variance_norms"]), np.bincount(labels)
    assert within @ counts / counts.sum() / between == pytest.approx(parts["nc1_quotient"], rel=1e-8)
    assert measure("nc1_trace", x, labels) == pytest.approx(within.mean() / between, rel=1e-8)


# --------------------------------------------------------------------------------------------- spectra


def with_spectrum(eigenvalues: Array, n: int = 64, seed: int = 0) -> Array:
    """(n, width) centred features whose covariance has exactly these eigenvalues, turned at random, with a mean."""
    generator = np.random.default_rng(seed)
    width = len(eigenvalues)
    rows = generator.normal(size=(n, width))
    left = np.linalg.qr(rows - rows.mean(0))[0] * np.sqrt(n)
    turn = np.linalg.qr(generator.normal(size=(width, width)))[0]
    return np.asarray((left * np.sqrt(eigenvalues)) @ turn + 3)


def test_known_spectra() -> None:
    spread = np.array([8.0, 4.0, 2.0, 1.0, 1.0, *[0.0] * 3])
    x = with_spectrum(spread)
    assert measure("gm_5", x) == pytest.approx(64 ** (1 / 5))
    assert measure("gm_5_top", x) == pytest.approx(64 ** (1 / 5) / 8)
    assert measure("gm_5_trace", x) == pytest.approx(64 ** (1 / 5) / 16)
    assert measure("hm_5", x) == pytest.approx(5 / (1 / 8 + 1 / 4 + 1 / 2 + 2))
    assert measure("hm_5_top", x) == pytest.approx(5 / 8 / (1 / 8 + 1 / 4 + 1 / 2 + 2))
    assert measure("hm_5_trace", x) == pytest.approx(5 / 16 / (1 / 8 + 1 / 4 + 1 / 2 + 2))
    assert measure("effective_rank", x) == pytest.approx(2**1.875), "1/2 1/4 1/8 1/16 1/16: 1.875 bits"
    assert measure("participation_ratio", x) == pytest.approx(256 / 86)
    assert measure("stable_rank", x) == pytest.approx(2)
    assert measure("isoscore", x) == pytest.approx((256 / 86 - 1) / 7)
    white = with_spectrum(np.ones(20))
    for name in ("effective_rank", "participation_ratio", "stable_rank"):
        assert measure(name, white) == pytest.approx(20)
    for name in ("gm_20", "hm_20", "gm_10_top", "hm_10_top", "isoscore"):
        assert measure(name, white) == pytest.approx(1)
    for name in ("gm_10_trace", "hm_20_trace"):
        assert measure(name, white) == pytest.approx(1 / 20)


@pytest.mark.parametrize("n", [40, 300])
def test_eigenvalues_equal_those_of_a_decomposition_of_the_features(n: int) -> None:
    """By X^T X and by X X^T, against singular values, also where they span eight orders of magnitude."""
    x = np.random.default_rng(0).normal(size=(n, 60)) * np.logspace(0, -4, 60) + 0.1
    found = Layer(x)
    centred = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2 / n
    np.testing.assert_allclose(found.eigenvalues, np.where(centred > found.rounding, centred, 0), rtol=1e-6)
    np.testing.assert_allclose(
        np.sqrt(found.uncentred_eigenvalues[:40]), np.linalg.svd(x, compute_uv=False)[:40] / np.sqrt(n), rtol=1e-6
    )


def test_a_missing_direction_is_exactly_0() -> None:
    x = np.random.default_rng(0).normal(size=(200, 9)) @ np.random.default_rng(1).normal(size=(9, 30))
    assert (Layer(x).eigenvalues > 0).sum() == 9
    assert measure("gm_5", x) > 0 == measure("gm_10", x) == measure("hm_10_top", x)
    assert (Layer(x[:8]).eigenvalues > 0).sum() == 7, "8 examples"


def test_functions_of_a_spectrum_of_zeros_are_0() -> None:
    nothing = np.zeros(6)
    assert spectrum.geometric_mean(nothing, 5, "top") == spectrum.harmonic_mean(nothing, 5, "trace") == 0
    assert spectrum.effective_rank(nothing) == spectrum.participation_ratio(nothing) == 0
    assert spectrum.stable_rank(nothing) == spectrum.isoscore(nothing, 6) == 0


def test_the_normalisations_of_gm_disagree() -> None:
    """Longer features with one direction grown most: raw rises, the normalised one falls."""
    before, after = with_spectrum(np.ones(6)), with_spectrum(np.array([50.0, 2, 2, 2, 2, 2]))
    assert measure("gm_5", after) > measure("gm_5", before)
    assert measure("gm_5_top", after) < measure("gm_5_top", before)


# -------------------------------------------------------------------------------------------- geometry


def some(n: int = 90, width: int = 12, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, width)) * np.linspace(2, 0.3, width) + 0.4


def distances(x: Array, y: Array) -> Array:
    return np.asarray(np.linalg.norm(x[:, None] - y, axis=2))


@pytest.mark.parametrize("rows", [7, 1024])
def test_pairs_are_those_of_a_double_loop(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "ROWS", rows)
    x = some()
    x[5] = 0
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    apart = distances(x, x) + np.where(np.eye(len(x)) > 0, np.inf, 0)
    two = list(combinations(range(len(x)), 2))
    found = pairing.pairs(x)
    np.testing.assert_allclose(np.sort(found.nearest, axis=1), np.sort(apart, axis=1)[:, :2], rtol=1e-9)
    assert (found.nearest[:, 0] <= found.nearest[:, 1]).all()
    kernel = np.mean([np.exp(-2 * np.square(unit[i] - unit[j]).sum()) for i, j in two])
    assert found.kernel == pytest.approx(kernel, rel=1e-12)
    assert measure("uniformity", x) == pytest.approx(np.log(kernel), rel=1e-12)
    assert measure("anisotropy", x) == pytest.approx(np.mean([unit[i] @ unit[j] for i, j in two]), abs=1e-12)


def test_alignment_is_that_of_a_double_loop() -> None:
    x, labels = some(40), np.array([7] * 25 + [3] * 14 + [4])
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    two = [(i, j) for i, j in combinations(range(40), 2) if labels[i] == labels[j]]
    expected = np.mean([np.square(unit[i] - unit[j]).sum() for i, j in two])
    assert measure("alignment", x, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("dimension", "near"), [(1, 0.1), (2, 0.2), (5, 0.5)])
def test_twonn_finds_the_dimension_of_gaussian_data(dimension: int, near: float) -> None:
    generator = np.random.default_rng(0)
    flat = generator.normal(size=(1500, dimension)) @ np.linalg.qr(generator.normal(size=(40, dimension)))[0].T
    assert measure("twonn", flat + 0.2) == pytest.approx(dimension, abs=near)


def test_twins_are_left_out_of_twonn() -> None:
    x = some(200)
    few = np.concatenate([x, x[:2], x[5:6] * (1 + 1e-7)])
    nearest, twins = Layer(few).pairs.nearest[:, 0], [0, 1, 5, 200, 201, 202]
    assert np.flatnonzero(nearest == 0).tolist() == twins
    assert measure("twonn", few) == pytest.approx(measure("twonn", x), rel=0.1)
    assert measure("twonn", np.repeat(x, 2, axis=0)) == 0, "nothing but twins"


def test_many_examples_are_paired_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    x = some(300)
    monkeypatch.setattr(layers, "MOST_PAIRED", 100)
    drawn = Layer(x).pairs
    assert drawn.nearest.shape == (100, 2) and drawn.kernel == Layer(x + 0).pairs.kernel
    assert drawn.kernel == pytest.approx(pairing.pairs(x).kernel, rel=0.2)


# --------------------------------------------------------------------------------------------- classes


def test_nc1_of_two_classes_is_2_over_d_prime_squared() -> None:
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(60, 5)), np.arange(60) % 2
    x[labels == 1] += 2
    means = [x[labels == c].mean(0) for c in range(2)]
    delta = means[0] - means[1]
    inside = sum(np.var((x[labels == c] - means[c]) @ delta) for c in range(2))
    assert measure("nc1", x, labels) == pytest.approx(inside / (delta @ delta) ** 2, rel=1e-12)


def test_nc1_equals_the_pseudo_inverse_s_whatever_the_labels_are_called() -> None:
    x, labels = some(), np.random.default_rng(3).integers(0, 4, 90)
    classes = [x[labels == c] for c in range(4)]
    means = np.stack([rows.mean(0) for rows in classes])
    within = sum(np.cov(rows.T, bias=True) for rows in classes) / 4
    between = np.cov(means.T, bias=True)
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-10, hermitian=True)) / 4
    assert measure("nc1", x, labels) == pytest.approx(expected, rel=1e-9)
    assert measure("nc1", x, labels * 5 - 2) == measure("nc1", x, labels)
    assert measure("nc1_trace", x, labels) == pytest.approx(np.trace(within) / np.trace(between), rel=1e-12)


@pytest.mark.parametrize("name", ["nc1", "nc1_trace"])
def test_collapsed_classes_have_nc1_0_and_equal_means_infinity(name: str) -> None:
    labels = np.arange(12) % 3
    points = some(3)
    assert measure(name, points[labels], labels) == pytest.approx(0, abs=1e-24)
    same = np.concatenate([some(10)[[0, 0, 0, 1, 1, 1]], some(10)[[2, 2, 2, 1, 1, 1]]])[:6]
    assert measure(name, same[[0, 1, 2, 3, 4, 5]], np.array([0, 1, 2, 0, 1, 2])) == math.inf


# ------------------------------------------------------------------------------------------ similarity


@pytest.mark.parametrize("name", ["cka", "cka_debiased", "ridge_r2"])
@pytest.mark.parametrize("width", [12, 20])
def test_a_rotation_of_the_reference_is_the_reference(name: str, width: int) -> None:
    """Also into a wider space, scaled and shifted."""
    x = some()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(width, 12)))[0].T
    assert measure(name, 3 * x @ turn + 1, reference=x) == pytest.approx(1, abs=1e-6)
    assert measure(name, x, reference=x @ turn) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("n", "widths"), [(40, (12, 9)), (10, (30, 25)), (20, (30, 12))])
@pytest.mark.parametrize("debiased", [False, True])
def test_cka_equals_the_textbook_s(n: int, widths: tuple[int, int], debiased: bool) -> None:
    """By Gram and centring matrices, Song et al.'s U-statistic; n below both widths, between them and above."""
    x, y = some(n, widths[0]), some(n, widths[0], 1)[:, : widths[1]] + some(n, widths[0])[:, : widths[1]]
    one, centring, off = np.ones(n), np.eye(n) - 1 / n, 1 - np.eye(n)

    def hsic(a: Array, b: Array) -> float:
        k, m = a @ a.T, b @ b.T
        if not debiased:
            return float(np.trace(k @ centring @ m @ centring))
        k, m = k * off, m * off
        middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float(np.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one))

    found = measure("cka_debiased" if debiased else "cka", x, reference=y)
    assert found == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)), abs=1e-9)


def test_debiased_cka_of_examples_equally_far_apart_is_0() -> None:
    """K without its mean has no off-diagonal structure left: 0/0."""
    assert measure("cka_debiased", np.eye(6), reference=some(6)) == 0


def split(n: int) -> tuple[Array, Array]:
    order = np.random.default_rng(0).permutation(n)
    return np.sort(order[: n // 5]), np.sort(order[n // 5 :])


@pytest.mark.parametrize(("n", "width"), [(150, 12), (40, 60)])
def test_ridge_equals_scikit_learn_s_at_the_best_strength(n: int, width: int) -> None:
    from sklearn.linear_model import Ridge

    x = some(n, width)
    y = x @ np.random.default_rng(1).normal(size=(width, 7)) + 3 * np.random.default_rng(2).normal(size=(n, 7))
    held_out, train = split(n)
    a, b = x[train] - x[train].mean(0), y[train] - y[train].mean(0)
    u, s, _ = np.linalg.svd(a, full_matrices=False)
    u, squares = u[:, s > 1e-10], s[s > 1e-10] ** 2
    strength = best_strength(squares, np.square(u.T @ b).sum(1), float(np.square(b).sum()), len(train))
    model = Ridge(alpha=strength).fit(x[train], y[train])
    wrong = np.square(y[held_out] - model.predict(x[held_out])).sum()
    total = np.square(y[held_out] - y[train].mean(0)).sum()
    assert measure("ridge_r2", x, reference=y) == pytest.approx(1 - wrong / total, abs=1e-9)


@pytest.mark.parametrize(("n", "width", "noise"), [(120, 12, 3.0), (120, 12, 0.1), (40, 60, 3.0)])
def test_the_strength_is_near_that_of_leaving_one_out(n: int, width: int, noise: float) -> None:
    """Generalised cross-validation, against scikit-learn's exact leave-one-out error of both strengths."""
    from sklearn.linear_model import RidgeCV

    x = some(n, width) - some(n, width).mean(0)
    y = x @ np.random.default_rng(1).normal(size=(width, 3)) + noise * np.random.default_rng(2).normal(size=(n, 3))
    y -= y.mean(0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    u, squares = u[:, s > 1e-10], s[s > 1e-10] ** 2
    ours = best_strength(squares, np.square(u.T @ y).sum(1), float(np.square(y).sum()), n)
    grid = np.append(squares.mean() * np.logspace(-6, 3, 37), ours)
    errors = RidgeCV(alphas=grid, store_cv_results=True).fit(x, y).cv_results_.mean(axis=(0, 1))
    assert errors[-1] <= 1.05 * errors.min()


def test_nothing_is_read_off_unrelated_features() -> None:
    assert abs(measure("ridge_r2", some(400), reference=some(400, 12, 9))) < 0.05
    assert abs(measure("ridge_r2", some(100, 150), reference=some(100, 150, 9))) < 0.05


def test_what_was_lost_cannot_be_read_off() -> None:
    """Half of four equal directions: half of the variance."""
    y = with_spectrum(np.ones(4), 4000)
    turned = y @ np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    assert measure("ridge_r2", turned[:, :2], reference=y) == pytest.approx(0.5, abs=0.03)
    assert measure("ridge_r2", y, reference=turned[:, :2]) == pytest.approx(1, abs=1e-9), "the other way nothing is"


def test_disagreement() -> None:
    assert disagreement(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 0])) == 0.5
    assert disagreement(np.array([0, 1]), np.array([0, 1])) == 0
    for a, b in (([1, 2], [1]), ([], []), ([[1]], [[1]])):
        with pytest.raises(UsageError, match="disagreement: expected two vectors of one length"):
            disagreement(np.array(a), np.array(b))


@pytest.mark.parametrize("name", COLLAPSE)
def test_reading_a_few_rows_at_a_time_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels, other = some(100), np.arange(100) % 3, some(100, 12, 5)
    if COLLAPSE[name].width > 12:
        x, other = some(100, 30), some(100, 30, 5)
    whole = measure(name, x, labels, other)
    monkeypatch.setattr(layers, "ROWS", 7)
    assert measure(name, x, labels, other) == pytest.approx(whole, rel=1e-9)
