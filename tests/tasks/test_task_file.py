"""A task file declares a user's own task for keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftbench.errors import UsageError
from ftbench.tasks import resolve
from ftbench.tasks.sources import load
from ftbench.types.task import Hub

WHOLE = """
name = "reviews"
text = ["review"]
label = "stars"
train = "rows.csv"
validation = "held-out.csv"
labels = ["good", "bad"]
metrics = ["macro_f1", "accuracy"]
licence = "ours"
"""


def write(folder: Path, text: str = WHOLE) -> str:
    rows = "review,stars\n" + "".join(f"r{i},{('good', 'bad')[i % 2]}\n" for i in range(12))
    (folder / "rows.csv").write_text(rows)
    (folder / "held-out.csv").write_text(rows.replace("r", "h", 1).replace("hev", "rev"))
    (folder / "my-task.toml").write_text(text)
    return str(folder / "my-task.toml")


def test_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    monkeypatch.chdir("/")  # its paths are beside it
    task = resolve(path)
    assert (task.name, task.inputs, task.target, task.metrics) == ("reviews", ("review",), "stars", task.metrics)
    assert task.metrics == ("macro_f1", "accuracy") and task.licence == "ours"
    data = load(task)
    assert data.labels == ("good", "bad") and {k: len(v) for k, v in data.splits.items()} == {
        "train": 12, "validation": 12,
    }  # fmt: skip
    assert data.splits["train"].labels.tolist() == [0, 1] * 6
    assert "my-task.toml" in str(task.origin()) and str(tmp_path) not in str(task.origin())


def test_little_is_needed(tmp_path: Path) -> None:
    task = resolve(write(tmp_path, 'text = "review"\nlabel = "stars"\ntrain = "rows.csv"'))
    assert task.name == "my-task" and task.kind == "classification" and task.metrics[0] == "accuracy"
    assert len(load(task).splits["validation"]) == 2


def test_a_hub_data_set(tmp_path: Path) -> None:
    task = resolve(write(tmp_path, 'text = "t"\nhub = "org/name"\nconfig = "en"\nrevision = "abc"'))
    assert task.source == Hub("org/name", "abc", "en")


@pytest.mark.parametrize(("text", "message"), [
    ('text = "review"\nlabel = "review"\ntrain = "rows.csv"', "'review' is given as text and as label"),
    ('text = "review"\nlabels = ["a"\ntrain = "x"', r"not TOML: .*line"),
    ('text = "review"\ntrain = "rows.csv"\nlabell = "stars"', r"unknown key 'labell'\. Did you mean 'label'\?"),
    ('train = "rows.csv"', "names no text column"),
    ('text = "review"', "expected train = .* or hub"),
    ('text = "review"\ntrain = "rows.csv"\nhub = "a/b"', "and not both"),
    ('text = "review"\ntrain = "rows.csv"\nkind = "regresion"', r"kind is 'regresion'\. Did you mean 'regression'\?"),
    ('text = "review"\ntrain = "rows.csv"\nmetrics = ["acuracy"]', r"metric 'acuracy'\. Did you mean 'accuracy'\?"),
    ('text = "review"\ntrain = "rows.csv"\nmetrics = ["ece"]', "unknown metric 'ece'"),
    ('text = 3\ntrain = "rows.csv"', "text is 3: expected a list of texts"),
    ('text = "review"\ntrain = 7', "train is 7: expected a text in quotes"),
])  # fmt: skip
def test_what_is_wrong_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(write(tmp_path, text))


def test_a_file_that_is_not_there_and_columns_given_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the task file"):
        resolve(str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="names its columns"):
        resolve(write(tmp_path), ("review",))
    path = write(tmp_path, 'text = "review"\nlabel = "stars"\ntrain = "gone.csv"')
    with pytest.raises(UsageError, match=r"no file .*gone\.csv"):
        load(resolve(path))
