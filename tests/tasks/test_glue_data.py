"""GLUE and its neighbours as downloaded: run where FTBENCH_DATA points to the folder with ``glue/`` and ``extra/``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ftbench.tasks import TASKS, from_folder
from ftbench.tasks.sources import load
from ftbench.types.task import Data

FOLDER = os.environ.get("FTBENCH_DATA", "")
pytestmark = [pytest.mark.data, pytest.mark.skipif(not FOLDER, reason="FTBENCH_DATA is not set")]

#: rows of each label, by its name, in train and validation; train of QNLI, QQP and MNLI is a part of the official one
COUNTS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "cola": ({"unacceptable": 2528, "acceptable": 6023}, {"unacceptable": 322, "acceptable": 721}),
    "sst2": ({"negative": 29780, "positive": 37569}, {"negative": 428, "positive": 444}),
    "mrpc": ({"not_equivalent": 1194, "equivalent": 2474}, {"not_equivalent": 129, "equivalent": 279}),
    "qqp": ({"not_duplicate": 10897, "duplicate": 10495}, {"not_duplicate": 4871, "duplicate": 2729}),
    "mnli": (
        {"entailment": 4177, "neutral": 4296, "contradiction": 4335},
        {"entailment": 3479, "neutral": 3123, "contradiction": 3213},
    ),
    "qnli": ({"entailment": 5227, "not_entailment": 5248}, {"entailment": 2702, "not_entailment": 2761}),
    "rte": ({"entailment": 1249, "not_entailment": 1241}, {"entailment": 146, "not_entailment": 131}),
    "wnli": ({"not_entailment": 323, "entailment": 312}, {"not_entailment": 40, "entailment": 31}),
    "ag_news": (
        {"World": 1938, "Sports": 2001, "Business": 1988, "Sci/Tech": 1916},
        {"World": 247, "Sports": 255, "Business": 254, "Sci/Tech": 244},
    ),
    "trec": (
        {"ABBR": 77, "ENTY": 1125, "DESC": 1046, "HUM": 1101, "LOC": 752, "NUM": 806},
        {"ABBR": 9, "ENTY": 125, "DESC": 116, "HUM": 122, "LOC": 83, "NUM": 90},
    ),
    "imdb": ({"neg": 11250, "pos": 11250}, {"neg": 1250, "pos": 1250}),
    "snli": (
        {"entailment": 6666, "neutral": 6562, "contradiction": 6771},
        {"entailment": 3329, "neutral": 3235, "contradiction": 3278},
    ),
    "yelp_polarity": ({"negative": 1820, "positive": 1796}, {"negative": 202, "positive": 200}),
    "boolq": ({"no": 759, "yes": 1241}, {"no": 1237, "yes": 2033}),
    "mr": ({"neg": 4265, "pos": 4265}, {"neg": 533, "pos": 533}),
}


def read(name: str, folder: Path) -> Data:
    (task,) = from_folder([TASKS[name]], str(folder))
    return load(task)


def counts(data: Data, split: str) -> dict[str, int]:
    found = np.bincount(data.splits[split].labels, minlength=len(data.labels))
    return dict(zip(data.labels, found.tolist(), strict=True))


def folder_of(name: str) -> Path:
    layout = TASKS[name].layout
    assert layout is not None
    return Path(FOLDER, "glue" if Path(FOLDER, "glue", layout.folder).is_dir() else "extra")


@pytest.mark.parametrize("name", COUNTS)
def test_every_row_and_label_is_read(name: str) -> None:
    data = read(name, folder_of(name))
    assert data.labels == TASKS[name].labels and tuple(COUNTS[name][0]) == data.labels
    assert (counts(data, "train"), counts(data, "validation")) == COUNTS[name]
    assert all(any(text.strip() for text in column) for rows in data.splits.values() for column in rows.texts)


def test_every_score_is_read() -> None:
    data = read("stsb", Path(FOLDER, "glue"))
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 5749, "validation": 1500}
    for split, mean in (("train", 2.701), ("validation", 2.364)):
        labels = data.splits[split].labels
        assert labels.mean() == pytest.approx(mean, abs=6e-4) and (labels.min(), labels.max()) == (0, 5)


def test_labels_mean_what_they_say() -> None:
    """A swapped order would pass every count of a balanced task: one row of each class, judged by eye."""
    known = {
        "rte": ("validation", 0, "Dana Reeve, the widow", "not_entailment"),
        "sst2": ("validation", 0, "it 's a charming and often affecting journey", "positive"),
        "qnli": ("validation", 0, "What came into force after the new constitution", "entailment"),
        "qqp": ("validation", 0, "What are the best franchises in India?", "duplicate"),
        "mrpc": ("train", 0, "Amrozi accused his brother", "equivalent"),
        "wnli": ("train", 0, "I stuck a pin through a carrot.", "entailment"),
        "cola": ("train", 0, "Our friends won't buy this analysis", "acceptable"),
        "mnli": ("validation", 0, "The new rights are nice enough", "neutral"),
    }
    for name, (split, row, start, label) in known.items():
        data = read(name, Path(FOLDER, "glue"))
        rows = data.splits[split]
        assert rows.texts[0][row].startswith(start), name
        assert data.labels[rows.labels[row]] == label, name


def test_mnli_with_and_without_its_mismatched_file(tmp_path: Path) -> None:
    """1,000 mismatched rows are to be had, under another name."""
    data = read("mnli", Path(FOLDER, "glue"))
    assert "mismatched" not in data.splits and "dev_mismatched.tsv" in data.notes[0]
    place = tmp_path / "MNLI"
    place.mkdir()
    theirs = Path(FOLDER, "glue", "MNLI").resolve()
    for name, source in (("train", "train"), ("dev_matched", "dev_matched"),
                         ("dev_mismatched", "dev_mismatched_tokenised1k")):  # fmt: skip
        (place / f"{name}.tsv").symlink_to(theirs / f"{source}.tsv")
    both = read("mnli", tmp_path)
    assert both.notes == () and len(both.splits["mismatched"]) == 1000
    assert counts(both, "mismatched") == {"entailment": 346, "neutral": 319, "contradiction": 335}
    assert both.splits["validation"].texts == data.splits["validation"].texts
