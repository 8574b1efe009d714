"""The nine GLUE tasks in a few rows, as the official download keeps them and as the hub does.

glue_rows      task -> Split rows: (texts, label) of train, validation and, of MNLI, mismatched
glue_folder    (task, folder, **files) writes the official files; ``files`` replaces the text of one, or drops it (None)
glue_hub       (task, folder) writes the hub's: a configuration with Parquet files, labels as ids of a ``ClassLabel``
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Row = tuple[tuple[str, ...], str]
#: what a reader of tables may trip over; none of it is markup in GLUE
ODD = (
    'he said " no', '"', "''", "it 's a charming journey . ", " two  spaces", "NA", "null", "1.0", "naïve – “quoted”",
    "a\u2028line separator", "a, comma; a | bar", "# no comment", "\\t no tab \\n", "ŒUVRE \U0001f600",
)  # fmt: skip


@dataclass(frozen=True)
class Official:
    """A task as the official script leaves it, written down from its files and not from ``tasks/glue.py``.

    columns: of train.tsv; those that are not listed in ``ours`` hold what nobody reads
    ours:    our column, with "label" last, to theirs
    labels:  as they stand in the files, in the order of the hub's ids; none for a regression
    """

    folder: str
    columns: str
    ours: dict[str, str]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    has_header: bool = True
    start: str = ""
    dev: str = "dev.tsv"


_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2", "label": "label"}
_MNLI = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2 label1 gold_label"
)
_YES = ("entailment", "not_entailment")
OFFICIAL = {
    "cola": Official(
        "CoLA", "source label mark sentence", {"sentence": "sentence", "label": "label"}, ("0", "1"),
        ("unacceptable", "acceptable"), has_header=False,
    ),
    "sst2": Official(
        "SST-2", "sentence label", {"sentence": "sentence", "label": "label"}, ("0", "1"), ("negative", "positive")
    ),
    "mrpc": Official(
        "MRPC", "Quality|#1 ID|#2 ID|#1 String|#2 String",
        {"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"}, ("0", "1"),
        ("not_equivalent", "equivalent"), start="\ufeff",
    ),
    "qqp": Official(
        "QQP", "id qid1 qid2 question1 question2 is_duplicate",
        {"question1": "question1", "question2": "question2", "label": "is_duplicate"}, ("0", "1"),
        ("not_duplicate", "duplicate"),
    ),
    "stsb": Official(
        "STS-B", "index genre filename year old_index source1 source2 sentence1 sentence2 score",
        {"sentence1": "sentence1", "sentence2": "sentence2", "label": "score"}, (), (),
    ),
    "mnli": Official(
        "MNLI", _MNLI, {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},
        ("entailment", "neutral", "contradiction"), ("entailment", "neutral", "contradiction"), dev="dev_matched.tsv",
    ),
    "qnli": Official(
        "QNLI", "index question sentence label", {"question": "question", "sentence": "sentence", "label": "label"},
        _YES, _YES,
    ),
    "rte": Official("RTE", "index sentence1 sentence2 label", _PAIR, _YES, _YES),
    "wnli": Official("WNLI", "index sentence1 sentence2 label", _PAIR, ("0", "1"), ("not_entailment", "entailment")),
}  # fmt: skip
SCORES = ("5.000", "0.000", "3.800", "2.667", "1.250", "4.2")


def rows_of(task: str) -> dict[str, list[Row]]:
    """13 rows of train, 5 of each other split; labels are as in the files, uneven so that an order shows."""
    form = OFFICIAL[task]
    labels = form.labels or SCORES
    inputs = len(form.ours) - 1

    def split(name: str, n: int) -> list[Row]:
        def text(i: int, column: int) -> str:
            odd = ODD[(i + column) % len(ODD)]
            return odd if i < 5 else f"{name} {i} of {task} {odd}{column}"

        # the first label three times as often as the others
        order = (labels[0], *labels, labels[0])
        return [(tuple(text(i, c) for c in range(inputs)), order[i % len(order)]) for i in range(n)]

    splits = {"train": split("train", 13), "validation": split("validation", 5)}
    return splits | ({"mismatched": split("mismatched", 5)} if task == "mnli" else {})


def to_tsv(task: str, rows: list[Row], *, labelled: bool = True, dev: bool = False) -> str:
    """Lines of an official file, ending in newlines."""
    form = OFFICIAL[task]
    columns = form.columns.split("|") if "|" in form.columns else form.columns.split()
    if dev and task == "mnli":
        columns = [*columns[:-1], "label2", "label3", "label4", "label5", "gold_label"]
    lines = ["\t".join(columns)] if form.has_header else []
    for number, (texts, label) in enumerate(rows):
        cells = dict(zip(form.ours.values(), (*texts, label if labelled else ""), strict=True))
        lines.append("\t".join(cells.get(column, f"{column}{number}") for column in columns))
    return form.start + "".join(f"{line}\n" for line in lines)


def write_official(task: str, folder: Path, **files: str | bytes | None) -> Path:
    """See the fixture ``glue_folder``: names of ``files`` are without ``.tsv``. Returns ``folder``."""
    form, rows = OFFICIAL[task], rows_of(task)
    content: dict[str, str | bytes | None] = {
        "train": to_tsv(task, rows["train"]),
        form.dev.removesuffix(".tsv"): to_tsv(task, rows["validation"], dev=True),
        "test": b"\xff\xfe\x00 never read \t\t\t\n",
    }
    if task == "mnli":
        content["dev_mismatched"] = to_tsv(task, rows["mismatched"], dev=True)
    place = folder / form.folder
    place.mkdir(parents=True, exist_ok=True)
    for name, text in (content | files).items():
        if text is not None:
            (place / f"{name}.tsv").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def write_hub(task: str, folder: Path, hidden: str = "") -> Path:
    """See the fixture ``glue_hub``; the first label of the split ``hidden`` is -1. Returns ``folder``."""
    from datasets import ClassLabel, Dataset, Features, Value

    form = OFFICIAL[task]
    theirs = {"train": "train", "validation": "validation"}
    if task == "mnli":
        theirs |= {"validation": "validation_matched", "mismatched": "validation_mismatched"}
    kind = ClassLabel(names=list(form.names)) if form.labels else Value("float32")
    inputs = list(form.ours)[:-1]
    features = Features({**{name: Value("string") for name in inputs}, "label": kind, "idx": Value("int32")})
    place = folder / task
    place.mkdir(parents=True, exist_ok=True)
    listed = [f"configs:\n- config_name: {task}\n  data_files:\n"]
    splits = rows_of(task)
    for split, name in {**theirs, "test": "test"}.items():
        rows = splits.get(split, [(("never read",) * len(inputs), "")] * 3)
        columns: dict[str, Any] = {column: [texts[i] for texts, _ in rows] for i, column in enumerate(inputs)}
        labels = [-1 if not label else form.labels.index(label) if form.labels else float(label) for _, label in rows]
        columns["label"] = [-1, *labels[1:]] if split == hidden else labels
        columns["idx"] = list(range(len(rows)))
        path = place / f"{name}-00000-of-00001.parquet"
        Dataset.from_dict(columns, features=features).to_parquet(path)
        listed.append(f"  - split: {name}\n    path: {task}/{path.name}\n")
    (folder / "README.md").write_text(f"---\n{''.join(listed)}---\n")
    return folder


@pytest.fixture(scope="session")
def glue_rows() -> Callable[[str], dict[str, list[Row]]]:
    """Split -> [(texts, label as in the files)] of a task."""
    return rows_of


@pytest.fixture(scope="session")
def glue_folder() -> Callable[..., Path]:
    """``glue_folder("rte", folder, dev="")``: see the module."""
    return write_official


@pytest.fixture(scope="session")
def glue_tsv() -> Callable[..., str]:
    """``glue_tsv("rte", rows)``: the text of an official file."""
    return to_tsv


@pytest.fixture
def glue_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``glue_hub("rte", folder, hidden="train")``: see the module. The cache is a folder of the test's own."""
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return write_hub
