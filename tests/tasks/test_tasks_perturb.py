"""Subsets, noise, selection, limit: seeded, nested, stratified, counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbench.errors import UsageError
from ftbench.tasks.perturb import perturb
from ftbench.tasks.splits import carve, stratified
from ftbench.types.task import Data, Files, Kind, Rows, Task


def rows(labels: Any) -> Rows:
    values = np.asarray(labels)
    return Rows((tuple(f"t{i}" for i in range(len(values))),), values, np.arange(len(values)))


def data(labels: Any, validation: Any = (0, 1), kind: Kind = "classification") -> Data:
    task = Task(name="toy", kind=kind, source=Files("x.csv"), inputs=("text",), metrics=("accuracy",))
    names = tuple(str(i) for i in range(max(map(int, labels)) + 1)) if kind == "classification" else ()
    return Data(task, {"train": rows(labels), "validation": rows(validation)}, names, ("a note",))


def counts(labels: Any, classes: int) -> np.ndarray[Any, Any]:
    return np.bincount(labels, minlength=classes)


def as_pairs(split: Rows) -> dict[int, int]:
    return dict(zip(split.index.tolist(), split.labels.tolist(), strict=True))


@st.composite
def class_labels(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Shuffled labels of 2 to 6 classes, each with 1 to 40 rows: at least 10 rows."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=2, max_size=6).filter(lambda sizes: sum(sizes) >= 10))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)


SEEDS = st.integers(0, 2**32 - 1)
FAST = settings(max_examples=60, deadline=None)


@FAST
@given(class_labels(), st.data(), SEEDS)
def test_smaller_subsets_are_within_larger_ones(labels: Any, more: st.DataObject, seed: int) -> None:
    large = more.draw(st.integers(1, len(labels)))
    small = more.draw(st.integers(1, large))
    a, b = (perturb(data(labels), train_size=size, data_seed=seed).splits["train"] for size in (small, large))
    assert b.index[:small].tolist() == a.index.tolist()
    assert len(set(b.index.tolist())) == large
    assert b.labels.tolist() == labels[b.index].tolist()
    assert b.texts[0] == tuple(f"t{i}" for i in b.index)


@FAST
@given(class_labels(), st.data(), SEEDS)
def test_subsets_keep_the_shares(labels: Any, more: st.DataObject, seed: int) -> None:
    size = more.draw(st.integers(1, len(labels)))
    taken = perturb(data(labels), train_size=size, data_seed=seed).splits["train"].labels
    all_, got = counts(labels, labels.max() + 1), counts(taken, labels.max() + 1)
    if size >= len(all_):
        assert got.min() >= 1
    share = all_ * size / len(labels)
    assert (got <= np.maximum(1, np.ceil(share - 1e-9))).all()
    if share.min() >= 1:
        assert (got >= np.floor(share + 1e-9)).all()


def test_many_uneven_classes_keep_their_shares_at_every_size() -> None:
    """Picking whoever is furthest behind, or sorting by (i + 1/2) / count, would leave the quota here."""
    sizes = np.array([300, *[7] * 30, 55, 21, 13])
    order = np.repeat(np.arange(len(sizes)), sizes)[
        stratified(np.repeat(np.arange(len(sizes)), sizes), int(sizes.sum()), np.random.default_rng(0))
    ]
    running = np.cumsum(order[:, None] == np.arange(len(sizes)), axis=0)
    share = np.arange(1, len(order) + 1)[:, None] * sizes / sizes.sum()
    late = share.min(axis=1) >= 1
    assert late.sum() > 400
    assert np.abs(running - share)[late].max() < 1


@FAST
@given(class_labels(), st.floats(0, 0.99), st.floats(0, 0.99), SEEDS)
def test_noise_flips_the_exact_number_and_is_nested(labels: Any, one: float, other: float, seed: int) -> None:
    low, high = sorted((one, other))
    toy = data(labels)
    less, more = (perturb(toy, label_noise=p, data_seed=seed).splits["train"].labels for p in (low, high))
    assert (less != labels).sum() == round(low * len(labels))
    assert (more != labels).sum() == round(high * len(labels))
    flipped = less != labels
    assert (more[flipped] == less[flipped]).all()
    assert set(more.tolist()) <= set(range(len(toy.labels)))
    assert toy.splits["train"].labels.tolist() == labels.tolist()  # the given rows are not written to


@FAST
@given(class_labels(), st.data(), SEEDS)
def test_a_row_is_flipped_to_the_same_class_in_every_subset(labels: Any, more: st.DataObject, seed: int) -> None:
    size = more.draw(st.integers(2, len(labels)))
    whole = as_pairs(perturb(data(labels), label_noise=0.99, data_seed=seed).splits["train"])
    part = perturb(data(labels), train_size=size, label_noise=0.5, data_seed=seed).splits["train"]
    moved = [(i, label) for i, label in as_pairs(part).items() if label != labels[i]]
    assert len(moved) == round(0.5 * size)
    # at 0.99 a row or so of the whole keeps its label
    assert all(whole[i] in (label, labels[i]) for i, label in moved)
    assert sum(whole[i] != label for i, label in moved) <= len(labels) - round(0.99 * len(labels))


def test_which_rows_of_a_subset_are_flipped_follows_from_the_whole() -> None:
    labels = np.arange(60) % 3
    rank: dict[int, int] = {}  # of each row: how many flips it takes until it is flipped
    for flips in range(1, 60):
        noisy = perturb(data(labels), label_noise=flips / 60, data_seed=9).splits["train"].labels
        for i in np.flatnonzero(noisy != labels).tolist():
            rank.setdefault(i, flips)
    part = perturb(data(labels), train_size=30, label_noise=0.5, data_seed=9).splits["train"]
    flipped = {i for i, label in as_pairs(part).items() if label != labels[i]}
    assert flipped == set(sorted(part.index.tolist(), key=lambda i: rank.get(i, 60))[:15])


def test_noise_goes_to_every_other_class_equally_often() -> None:
    labels = np.zeros(9000, dtype=np.int64)
    labels[:3] = [1, 2, 3]
    noisy = perturb(data(labels), label_noise=0.9, data_seed=3).splits["train"].labels
    moved = counts(noisy[labels != noisy], 4)
    assert moved[1:].sum() >= 8000 and np.abs(moved[1:] / moved[1:].sum() - 1 / 3).max() < 0.02


def test_noise_does_not_change_which_rows_are_chosen() -> None:
    labels = np.arange(300) % 3
    clean, noisy = (
        perturb(data(labels), train_size=100, label_noise=p, select_on=0.0, data_seed=5).splits["train"]
        for p in (0, 0.3)
    )
    assert clean.index.tolist() == noisy.index.tolist()


@FAST
@given(class_labels(), st.floats(0.1, 0.9), SEEDS)
def test_selection_is_a_stratified_slice(labels: Any, fraction: float, seed: int) -> None:
    splits = perturb(data(labels), select_on=fraction, data_seed=seed).splits
    both = [*splits["train"].index.tolist(), *splits["selection"].index.tolist()]
    assert sorted(both) == list(range(len(labels)))
    assert len(splits["selection"]) == round(fraction * len(labels))
    all_, got = (counts(x, labels.max() + 1) for x in (labels, splits["selection"].labels))
    share = np.maximum(1, np.ceil(all_ * len(splits["selection"]) / len(labels) - 1e-9))
    kept_back = np.maximum(0, share - (all_ - 1)).sum()  # a class that keeps a row for train leaves its seat to others
    assert (got <= share + kept_back).all()
    if len(splits["train"]) >= len(all_):
        assert counts(splits["train"].labels, len(all_)).min() >= 1


def test_selection_holds_noisy_labels_and_limit_comes_last() -> None:
    labels = np.arange(200) % 2
    splits = perturb(data(labels, np.arange(50) % 2), train_size=100, label_noise=0.5, select_on=0.4, limit=30).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 30, "validation": 30, "selection": 30}
    wide = perturb(data(labels), train_size=100, label_noise=0.5, select_on=0.4).splits
    assert {name: len(split) for name, split in wide.items()} == {"train": 60, "validation": 2, "selection": 40}
    both = as_pairs(wide["train"]) | as_pairs(wide["selection"])
    assert len(both) == 100 and sum(label != i % 2 for i, label in both.items()) == 50
    assert any(label != i % 2 for i, label in as_pairs(wide["selection"]).items())


def test_limit_is_stratified_and_scores_the_same_rows_for_every_data_seed() -> None:
    toy = data(np.repeat([0, 1], [90, 10]), np.repeat([0, 1], [80, 20]))
    splits = perturb(toy, limit=10).splits
    assert counts(splits["train"].labels, 2).tolist() == [9, 1]
    assert counts(splits["validation"].labels, 2).tolist() == [8, 2]
    other = perturb(toy, limit=10, data_seed=1).splits
    assert other["validation"].index.tolist() == splits["validation"].index.tolist()
    assert other["train"].index.tolist() != splits["train"].index.tolist()
    assert perturb(toy, limit=100).fingerprint == toy.fingerprint


@FAST
@given(class_labels(), SEEDS)
def test_nothing_asked_nothing_changed(labels: Any, seed: int) -> None:
    toy = data(labels)
    same = perturb(toy, data_seed=seed)
    assert same.fingerprint == toy.fingerprint and same.notes == toy.notes


def test_seeds_matter_and_repeat() -> None:
    toy = data(np.arange(400) % 4)
    asked: dict[str, Any] = {"train_size": 100, "label_noise": 0.2, "select_on": 0.2}
    prints = [perturb(toy, **asked, data_seed=seed).fingerprint for seed in (0, 0, 1, 2, 3)]
    assert prints[0] == prints[1] and len(set(prints)) == 4


def test_validation_is_never_perturbed() -> None:
    toy = data(np.arange(40) % 2, np.arange(40) % 2)
    changed = perturb(toy, train_size=20, label_noise=0.5, select_on=0.5, data_seed=1)
    assert as_pairs(changed.splits["validation"]) == as_pairs(toy.splits["validation"])


class TestRegression:
    toy = data(np.linspace(0, 1, 100), (0.0, 1.0), kind="regression")

    def test_subsets_are_nested_and_random(self) -> None:
        small, large = (perturb(self.toy, train_size=n).splits["train"].index.tolist() for n in (20, 50))
        assert large[:20] == small and small != sorted(small)

    def test_selection_and_limit(self) -> None:
        splits = perturb(self.toy, select_on=0.25, limit=60).splits
        assert (len(splits["train"]), len(splits["selection"])) == (60, 25)

    def test_noise_is_refused(self) -> None:
        with pytest.raises(UsageError, match="'toy' is a regression"):
            perturb(self.toy, label_noise=0.1)


@pytest.mark.parametrize(("asked", "message"), [
    ({"train_size": 21}, "train-size is 21: task 'toy' has 20 train rows"),
    ({"select_on": 0.01}, "select-on is 0.01: of 20 train rows that leaves 20 to train on and 0"),
    ({"select_on": 0.99}, "leaves 0 to train on and 20"),
    ({"train_size": 1, "select_on": 0.5}, "of 1 train rows"),
])  # fmt: skip
def test_what_cannot_be_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        perturb(data(np.arange(20) % 2), **asked)


@FAST
@given(class_labels())
def test_carving_leaves_every_class_to_train(labels: Any) -> None:
    train, validation = carve(labels, classes=True)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    assert set(labels[train]) == set(labels)
    several = {c for c in set(labels.tolist()) if (labels == c).sum() > 1}
    assert set(labels[validation].tolist()) >= several
    spare = sum(int((labels == c).sum()) - 1 for c in several)
    assert len(validation) == min(max(round(0.2 * len(labels)), len(several)), spare or 1)


@pytest.mark.parametrize("labels", [[0] * 3 + list(range(1, 16)), [0, 0, *range(1, 9)]])
def test_carving_takes_the_only_row_of_no_class(labels: list[int]) -> None:
    train, _ = carve(np.array(labels), classes=True)
    assert set(np.array(labels)[train]) == set(labels)
