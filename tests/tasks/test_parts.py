"""The test part and the pool: nothing in common, nothing lost unsaid, and rows that nothing can be chosen by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ftbench.errors import UsageError
from ftbench.tasks import resolve
from ftbench.tasks.parts import set_aside
from ftbench.tasks.perturb import perturb
from ftbench.tasks.portable import task_from_json, task_to_json
from ftbench.tasks.sources import load
from ftbench.types import Data, Rows

Tiny = Callable[..., Data]


def texts(rows: Rows) -> set[str]:
    return {" ".join(text.split()).casefold() for text in rows.texts[0]}


def test_the_pool_has_train_only_and_no_text_of_the_test_part(tiny_data: Tiny) -> None:
    parts = set_aside(tiny_data(80, 24))
    assert set(parts.pool.splits) == {"train"}
    assert not texts(parts.pool.splits["train"]) & texts(parts.whole.splits["validation"])


def test_rows_whose_text_is_in_the_test_part_or_twice_are_left_out_and_that_is_said(tiny_data: Tiny) -> None:
    data = tiny_data(80, 24)
    train, test = data.splits["train"], data.splits["validation"]
    # spaces and case do not make another text
    doubled = (test.texts[0][0].upper(), f"  {train.texts[0][5]} ", *train.texts[0][2:])
    data = replace(data, splits={"train": replace(train, texts=(doubled,)), "validation": test})
    parts = set_aside(data)
    assert len(parts.pool.splits["train"]) == len(texts(parts.pool.splits["train"])) < 80
    assert "left out of what is chosen by, for their text is in the test part too: 1 row" in parts.notes
    assert any("their text stands in an earlier row" in note for note in parts.notes)
    assert 0 not in parts.pool.splits["train"].index and np.array_equal(
        parts.whole.splits["validation"].labels, test.labels
    )


def test_where_nothing_is_left_out_the_rows_are_those_of_finetune(tiny_data: Tiny) -> None:
    data = tiny_data(80, 24)
    seen, keep = set(), []
    for place, text in enumerate(data.splits["train"].texts[0]):
        if text not in seen | texts(data.splits["validation"]):
            keep.append(place)
        seen.add(text)
    clean = replace(
        data,
        splits={**data.splits, "train": replace(data.splits["train"].take(np.array(keep)), index=np.arange(len(keep)))},
    )
    assert set_aside(clean).whole.fingerprint == clean.fingerprint


def test_a_part_is_loaded_from_its_task_alone_in_another_process_too(tiny_folder: Callable[..., Path]) -> None:
    parts = set_aside(load(resolve(str(tiny_folder(80, 24)))))
    for part in (parts.pool, parts.whole):
        again = load(task_from_json(task_to_json(part.task)))
        assert again.fingerprint == part.fingerprint and set(again.splits) == set(part.splits)
    assert load(parts.pool.task).task.origin() == parts.pool.task.origin()


def test_all_rows_of_a_part_are_trained_on_whatever_its_task_does_by_default(tiny_data: Tiny) -> None:
    data = tiny_data(80, 24)
    parts = set_aside(replace(data, task=replace(data.task, default_train_size=20)))
    assert parts.pool.task.default_train_size is parts.whole.task.default_train_size is None


@pytest.mark.parametrize("rows", [20, 60])
def test_too_few_rows_are_refused_with_what_is_expected(tmp_path: Path, rows: int) -> None:
    table = tmp_path / "few.csv"
    table.write_text("text,label\n" + "".join(f"word{i},{i % 2}\n" for i in range(rows)))
    with pytest.raises(UsageError, match=f"{rows} rows are too few to choose by.*Expected at least 100 rows"):
        set_aside(load(resolve(str(table))))


def test_a_small_test_part_is_warned_of_in_points(tiny_data: Tiny) -> None:
    assert any(
        "24 rows only: a score there is known to about 20 points" in n for n in set_aside(tiny_data(80, 24)).notes
    )


def test_rows_that_are_all_one_text_leave_nothing(tiny_data: Tiny) -> None:
    data = tiny_data(80, 24)
    same = replace(data.splits["train"], texts=(("a word",) * 80,))
    with pytest.raises(UsageError, match="1 rows are left to choose by, once texts that repeat are left out"):
        set_aside(replace(data, splits={**data.splits, "train": same}))


def write(path: Path, header: str, rows: list[str]) -> str:
    path.write_text(header + "\n" + "\n".join(rows) + "\n")
    return str(path)


def test_a_label_column_that_is_an_id_is_refused_and_the_columns_are_named(tmp_path: Path) -> None:
    name = write(tmp_path / "t.csv", "id,text,stars", [f"{i},word{i} again,{i % 5}" for i in range(200)])
    with pytest.raises(
        UsageError, match=r"'id' has 200 different values.*an id or a text.*--kind regression.*stars \(5 values\)"
    ):
        set_aside(load(resolve(name, ("text",), "id")))


def test_a_label_column_that_is_a_text_is_refused(tmp_path: Path) -> None:
    name = write(tmp_path / "t.csv", "text,label", [f"word{i},say {i}" for i in range(200)])
    with pytest.raises(UsageError, match="'label' has 200 different values in 200 rows: an id or a text, but no label"):
        set_aside(load(resolve(name)))
    with pytest.raises(UsageError, match="column 'text' is given as text and as label"):
        resolve(name, ("text",), "text")


def test_a_class_with_two_rows_does_not_stop_anything(tmp_path: Path) -> None:
    rows = [f"word{i} of text,{'rare' if i < 2 else 'ab'[i % 2]}" for i in range(150)]
    parts = set_aside(load(resolve(write(tmp_path / "t.csv", "text,label", rows))))
    for draw in range(8):
        data = perturb(parts.pool, folds=4, data_seed=draw)
        assert set(np.unique(data.splits["train"].labels)) == {0, 1, 2}


@pytest.mark.parametrize("regression", [False, True])
def test_folds_hold_every_row_out_once_and_are_cut_anew_after_that(tiny_data: Tiny, regression: bool) -> None:
    data = tiny_data(80, 24, regression=regression)
    held = [perturb(data, folds=4, data_seed=draw).splits["validation"].index for draw in range(8)]
    assert sorted(np.concatenate(held[:4])) == sorted(np.concatenate(held[4:])) == list(range(80))
    assert not any(np.array_equal(a, b) for a in held[:4] for b in held[4:])


def test_a_fold_and_what_is_trained_on_are_apart_and_have_the_classes_shares(tiny_data: Tiny) -> None:
    data = tiny_data(90, 24, 3)
    for draw in range(3):
        cut = perturb(data, folds=3, data_seed=draw, train_size=30).splits
        assert not set(cut["train"].index) & set(cut["validation"].index)
        assert np.bincount(cut["validation"].labels).tolist() == [10, 10, 10]
        assert np.bincount(cut["train"].labels).tolist() == [10, 10, 10]


def test_more_folds_than_rows_are_refused(tiny_data: Tiny) -> None:
    with pytest.raises(UsageError, match="folds is 81: expected at most the 80 train rows"):
        perturb(tiny_data(80, 24), folds=81)
