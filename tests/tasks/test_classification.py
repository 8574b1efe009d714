"""The tasks beside GLUE: words of their own for labels, rows that annotators did not agree on, many languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import FtbenchError, UsageError
from ftbench.tasks import TASKS, from_folder, sources
from ftbench.tasks.classification import LANGUAGES
from ftbench.tasks.sources import load
from ftbench.types.task import Data, Hub

Hubs = Callable[..., Data]


def read(folder: Path, name: str) -> Data:
    (task,) = from_folder([TASKS[name]], str(folder))
    return load(task)


def pairs(folder: Path, labels: Sequence[str], n: int = 16) -> Path:
    """train.tsv and dev.tsv of sentence pairs, as SNLI and SciTail are kept."""
    folder.mkdir()
    for name in ("train", "dev"):
        rows = [f"{i}\t{name} {i}\tso {i}\t{labels[i % len(labels)]}\n" for i in range(n)]
        (folder / f"{name}.tsv").write_text("index\tsentence1\tsentence2\tgold_label\n" + "".join(rows))
    return folder.parent


@pytest.fixture
def from_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hubs:
    """``from_hub("boolq", columns, configs=("en",), names=(...))``: loaded from a folder in the hub's format."""
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def build(name: str, columns: dict[str, list[Any]], names: Sequence[str] = (), configs: Sequence[str] = ()) -> Data:
        source, root = TASKS[name].source, tmp_path / "repo"
        assert isinstance(source, Hub)
        card = "configs:\n"
        for config in configs or [source.config or "default"]:
            made = datasets.Dataset.from_dict(
                {key: [f"{config} {v}" if key == "premise" else v for v in values] for key, values in columns.items()}
            )
            if names:
                made = made.cast_column(TASKS[name].target, datasets.ClassLabel(names=list(names)))
            made.to_parquet(root / config / "all.parquet")
            card += f"- config_name: {config}\n  data_files:\n"
            card += "".join(f"  - split: {s}\n    path: {config}/all.parquet\n" for s in ("train", "validation"))
        (root / "README.md").write_text(f"---\n{card}---\n")
        return load(replace(TASKS[name], source=replace(source, repo=str(root))))

    return build


def test_labels_under_another_name_in_the_files(tmp_path: Path) -> None:
    """SciTail's files say entails, the hub says entailment."""
    data = read(pairs(tmp_path / "SciTail", ("entails", "neutral")), "scitail")
    assert data.labels == ("entailment", "neutral")
    assert data.splits["train"].labels.tolist() == [0, 1] * 8


def test_rows_without_agreement_are_left_out_of_a_download(tmp_path: Path) -> None:
    data = read(pairs(tmp_path / "SNLI", ("entailment", "neutral", "contradiction", "-")), "snli")
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 12, "validation": 12}
    assert [note for note in data.notes if "4 of 16 rows of train.tsv have no label" in note]
    assert data.splits["train"].texts[0][3] == "train 4", "the others keep their order"


def test_rows_without_agreement_are_left_out_of_the_hub(from_hub: Hubs) -> None:
    """-1 there; what is left is what the files hold."""
    names = ("entailment", "neutral", "contradiction")
    columns = {
        "premise": [f"p {i}" for i in range(16)],
        "hypothesis": ["h"] * 16,
        "label": [i % 4 if i % 4 < 3 else -1 for i in range(16)],
    }
    data = from_hub("snli", columns, names)
    assert data.splits["train"].labels.tolist() == [0, 1, 2] * 4 and len(data.splits["validation"]) == 12
    assert len(data.notes) == 2 and all("4 of 16 rows" in note and "have no label" in note for note in data.notes)


def test_no_agreement_at_all_is_refused(tmp_path: Path, from_hub: Hubs) -> None:
    with pytest.raises(UsageError, match=r"'label'.*SNLI"):
        read(pairs(tmp_path / "SNLI", ("-",)), "snli")
    columns = {"premise": ["p"] * 12, "hypothesis": ["h"] * 12, "label": [-1] * 12}
    with pytest.raises(FtbenchError, match="hidden"):
        from_hub("snli", columns, ("entailment", "neutral", "contradiction"))


@pytest.mark.parametrize(("name", "values", "labels"), [
    ("boolq", [False, True], ("no", "yes")), ("yelp_polarity", ["1", "2"], ("negative", "positive")),
])  # fmt: skip
def test_the_hubs_words_for_labels(name: str, values: list[Any], labels: tuple[str, ...], from_hub: Hubs) -> None:
    task = TASKS[name]
    columns = {column: [f"{column} {i}" for i in range(12)] for column in task.inputs} | {task.target: values * 6}
    data = from_hub(name, columns, values if name == "yelp_polarity" else ())
    assert data.labels == labels and data.splits["train"].labels.tolist() == [0, 1] * 6


def test_many_languages_are_one_validation_split_and_each_its_group(
    from_hub: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on English alone, and each language fetched once."""
    fetched = []
    real = sources.download
    monkeypatch.setattr(sources, "download", lambda source: fetched.append(source.config) or real(source))
    columns = {"premise": [f"p {i}" for i in range(12)], "hypothesis": ["h"] * 12, "label": [0, 1, 2] * 4}
    data = from_hub("xnli", columns, ("entailment", "neutral", "contradiction"), configs=LANGUAGES)
    train, validation = data.splits["train"], data.splits["validation"]
    assert len(train) == 12 and all(text.startswith("en ") for text in train.texts[0]) and not train.groups
    assert validation.groups == tuple(language for language in LANGUAGES for _ in range(12))
    assert all(text.startswith(f"{g} ") for g, text in zip(validation.groups, validation.texts[0], strict=True))
    assert sorted(fetched) == sorted(LANGUAGES)
    some = validation.take(validation.index[::50])
    assert some.groups == validation.groups[::50]
