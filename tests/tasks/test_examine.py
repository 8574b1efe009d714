"""What a user should know before training: each warning on rows that deserve it, none on rows that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ftbench.tasks.examine import examine
from ftbench.types.task import Data, Files, Rows, Task


def data(train: list[tuple[str, Any]], validation: list[tuple[str, Any]], labels: tuple[str, ...] = ("a", "b")) -> Data:
    kind: Any = "classification" if labels else "regression"
    task = Task(name="toy", kind=kind, source=Files("x.csv"), inputs=("text",), metrics=("accuracy",))

    def rows(pairs: list[tuple[str, Any]]) -> Rows:
        values = np.array([value for _, value in pairs])
        return Rows((tuple(text for text, _ in pairs),), values, np.arange(len(pairs)))

    return Data(task, {"train": rows(train), "validation": rows(validation)}, labels)


CLEAN = [(f"text {i}", i % 2) for i in range(40)]
HELD = [(f"held {i}", i % 2) for i in range(50)]


def test_clean_rows_raise_no_warning() -> None:
    found = examine(data(CLEAN, HELD))
    assert found.warnings == ()
    assert found.splits["train"] == {
        "rows": 40, "words_median": 2, "words_max": 2, "empty": 0, "duplicates": 0, "labels": {"a": 20, "b": 20},
    }  # fmt: skip


@pytest.mark.parametrize(("train", "validation", "labels", "message"), [
    (CLEAN, [*HELD, ("  TEXT   3", 1)], ("a", "b"), "validation: 1 of 51 rows with a text that is in train too"),
    ([*CLEAN, ("text 3", 1)], HELD, ("a", "b"), "train: 1 of 41 rows with the text of an earlier one"),
    ([*CLEAN, ("text 3", 0)], HELD, ("a", "b"), "train: texts that stand there with different labels: 1"),
    ([*CLEAN, (" ", 0)], HELD, ("a", "b"), "train: 1 of 41 texts are empty"),
    (CLEAN, HELD[:20], ("a", "b"), "validation: 20 rows only: a score on so few is mostly chance"),
    (CLEAN, HELD, ("Pos", "pos "), "labels 'Pos', 'pos ' differ in case or spaces only"),
    (CLEAN, HELD, ("0", "0.0"), "labels '0', '0.0' are one number"),
    (CLEAN, HELD, ("NaN", "nan"), "labels 'NaN', 'nan' differ in case or spaces only"),
    ([*CLEAN, ("x", 2)], HELD, ("a", "b", "c"), r"fewer than 8 train rows: 'c' \(1\)"),
    ([*((f"y{i}", 0) for i in range(300)), *CLEAN], HELD, ("a", "b"), "the largest class has 16 times the rows"),
    ([(f"t{i}", float(i % 2)) for i in range(40)], [("v", 0.5)], (), "the target has 2 values only"),
])  # fmt: skip
def test_each_doubt_is_said(train: Any, validation: Any, labels: tuple[str, ...], message: str) -> None:
    import re

    warnings = examine(data(train, validation, labels)).warnings
    assert any(re.search(message, warning) for warning in warnings), warnings


def test_a_regression_shows_its_range() -> None:
    found = examine(data([("a", 1.0), ("b", 2.5), ("c", 4.0)], [(f"d{i}", 3.0) for i in range(50)], ()))
    assert found.splits["train"]["target"] == {"min": 1.0, "mean": 2.5, "max": 4.0} and found.warnings == ()
