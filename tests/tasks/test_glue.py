"""GLUE from the official download and from the hub: the same rows either way, and what is wrong is said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftbench.errors import FtbenchError, UsageError
from ftbench.metrics import METRICS
from ftbench.tasks import GROUPS, TASKS, expand, from_folder
from ftbench.tasks.sources import load
from ftbench.types.task import Data, Download, Hub

#: label names in the order of their ids, as the benchmark's files and the hub have them
NAMES = {
    "cola": ("unacceptable", "acceptable"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qqp": ("not_duplicate", "duplicate"),
    "stsb": (),
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
    "wnli": ("not_entailment", "entailment"),
}
#: the metrics of the benchmark, ours of the headline first
SCORED = {
    "cola": ("matthews",),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman"),
}
GLUE = tuple(NAMES)


def read(folder: Path, name: str) -> Data:
    (task,) = from_folder([TASKS[name]], str(folder))
    return load(task)


def read_hub(folder: Path, name: str) -> Data:
    source = TASKS[name].source
    assert isinstance(source, Hub)
    return load(replace(TASKS[name], source=replace(source, repo=str(folder))))


# --------------------------------------------------------------------------------- declarations


def test_the_nine_and_their_groups() -> None:
    assert sorted(GROUPS["glue"]) == sorted(GLUE)
    assert expand(["glue"]) == list(GROUPS["glue"])
    assert expand(["rte", "glue-small", "rte"]) == ["rte", "cola", "mrpc", "stsb"], "each once, as asked"
    assert expand(["news-topic", "no-such"]) == ["news-topic", "no-such"], "what is no group is left for resolve"
    assert {name for group in GROUPS.values() for name in group} <= set(TASKS)


@pytest.mark.parametrize("name", GLUE)
def test_what_is_declared(name: str) -> None:
    task = TASKS[name]
    assert (task.labels, task.kind) == (NAMES[name], "classification" if NAMES[name] else "regression")
    expected = SCORED.get(name, ("accuracy",))
    assert task.metrics[: len(expected)] == expected
    assert "in Wang et al. (2019). GLUE" in task.cite and not task.cite.startswith("Wang")
    assert task.layout is not None and task.layout.tests, "its submission file has a name"


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if isinstance(task.source, Hub) and task.labels])
def test_tasks_of_the_hub_are_pinned_and_cited(name: str) -> None:
    task = TASKS[name]
    assert isinstance(task.source, Hub)
    assert re.fullmatch(r"[0-9a-f]{40}", task.source.revision or "")
    assert task.metrics and set(task.metrics) <= set(METRICS)
    assert re.search(r"\((19|20)\d\d\)", task.cite) and task.licence and task.description
    assert len(set(task.labels)) == len(task.labels)


# ------------------------------------------------------------------------------------ the rows


@pytest.mark.parametrize("name", GLUE)
def test_every_row_of_a_download(name: str, tmp_path: Path, glue_folder: Any, glue_rows: Any) -> None:
    """Texts are as they stand, quotes, spaces at the end and all; labels by the order of the benchmark."""
    data = read(glue_folder(name, tmp_path), name)
    rows = glue_rows(name)
    assert set(data.splits) == set(rows) and data.notes == () and data.labels == NAMES[name]
    for split, expected in rows.items():
        found = data.splits[split]
        assert list(zip(*found.texts, strict=True)) == [texts for texts, _ in expected]
        assert found.index.tolist() == list(range(len(expected)))
        if not NAMES[name]:
            assert found.labels.tolist() == [float(label) for _, label in expected]
        elif expected[0][1].isdecimal():
            assert found.labels.tolist() == [int(label) for _, label in expected], "an id is an id"
        else:
            assert [data.labels[i] for i in found.labels] == [label for _, label in expected]


@pytest.mark.parametrize("name", GLUE)
def test_the_hub_has_the_same_rows(name: str, tmp_path: Path, glue_folder: Any, glue_hub: Any) -> None:
    """Runs on either are the same runs: one fingerprint. The hub's test split, all -1, is not looked at."""
    ours, theirs = read(glue_folder(name, tmp_path / "official"), name), read_hub(glue_hub(name, tmp_path / name), name)
    assert theirs.notes == () and set(theirs.splits) == set(ours.splits)
    assert [rows.texts for rows in theirs.splits.values()] == [rows.texts for rows in ours.splits.values()]
    assert theirs.fingerprint == ours.fingerprint


@pytest.mark.parametrize("change", ["text", "label", "order", "split"])
def test_another_row_is_another_fingerprint(change: str, tmp_path: Path, glue_folder: Any, glue_tsv: Any) -> None:
    whole = read(glue_folder("mnli", tmp_path), "mnli")
    path = tmp_path / "MNLI" / "dev_mismatched.tsv"
    lines = path.read_text().splitlines(keepends=True)
    if change == "text":
        lines[1] = lines[1].replace("he said", "she said")
    elif change == "label":
        lines[1] = lines[1].replace("\tentailment\n", "\tneutral\n")
    elif change == "order":
        lines[1:3] = lines[2:0:-1]
    path.write_text("".join(lines)) if change != "split" else path.unlink()
    assert read(tmp_path, "mnli").fingerprint != whole.fingerprint


def test_ids_and_names_of_labels_are_both_read(tmp_path: Path, glue_folder: Any, glue_rows: Any, glue_tsv: Any) -> None:
    """The hub's exports have ids where the official files have names, and the other way round."""
    for name, words in (("rte", {"entailment": "0", "not_entailment": "1"}), ("cola", dict(enumerate(NAMES["cola"])))):
        words = {str(key): value for key, value in words.items()}
        data = read(glue_folder(name, tmp_path / "a"), name)
        swapped = [(texts, words[label]) for texts, label in glue_rows(name)["train"]]
        glue_folder(name, tmp_path / "b", train=glue_tsv(name, swapped))
        assert read(tmp_path / "b", name).fingerprint == data.fingerprint


def test_line_ends_of_windows_and_no_last_line_end(tmp_path: Path, glue_folder: Any) -> None:
    data = read(glue_folder("mrpc", tmp_path), "mrpc")
    path = tmp_path / "MRPC" / "train.tsv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    assert read(tmp_path, "mrpc").fingerprint == data.fingerprint


def test_capitals_of_a_folder_do_not_matter(tmp_path: Path, glue_folder: Any) -> None:
    data = read(glue_folder("sst2", tmp_path), "sst2")
    (tmp_path / "SST-2").rename(tmp_path / "sst-2")
    assert read(tmp_path, "sst2").fingerprint == data.fingerprint


def test_where_rows_came_from_names_no_place(tmp_path: Path, glue_folder: Any) -> None:
    task = read(glue_folder("rte", tmp_path), "rte").task
    assert task.origin()["folder"] == "RTE" and str(tmp_path) not in str(task.origin())


# ------------------------------------------------------------------------------- left out, and said


def test_questions_that_are_cut_short_are_left_out(tmp_path: Path, glue_folder: Any, glue_tsv: Any) -> None:
    """Three rows of the official QQP end before their label; the hub's copy lacks them, too."""
    data = read(glue_folder("qqp", tmp_path / "whole"), "qqp")
    cut = tmp_path / "whole" / "QQP" / "train.tsv"
    lines = cut.read_text().splitlines(keepends=True)
    lines[3:3] = ["363871\t1\t2\tHow many questions\n", "363872\t1\t2\tAre there\tHow many are there?\t\n", "9\t1\n"]
    cut.write_text("".join(lines))
    left = read(tmp_path / "whole", "qqp")
    assert left.fingerprint == data.fingerprint
    assert left.notes == ("task 'qqp': 3 of 16 rows of train.tsv have no label",)


def test_without_the_mismatched_file(tmp_path: Path, glue_folder: Any) -> None:
    data = read(glue_folder("mnli", tmp_path, dev_mismatched=None), "mnli")
    assert set(data.splits) == {"train", "validation"}
    assert data.notes == ("task 'mnli' has no dev_mismatched.tsv in MNLI/: its mismatched rows are not scored",)


@pytest.mark.parametrize("lost", ["train", "dev_matched"])
def test_the_other_files_are_needed(lost: str, tmp_path: Path, glue_folder: Any) -> None:
    with pytest.raises(UsageError, match=rf"no file '.*{lost}\.tsv'"):
        read(glue_folder("mnli", tmp_path, **{lost: None}), "mnli")


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", ["sst2", "mnli"])
def test_hidden_labels_of_the_hub_are_refused(name: str, split: str, tmp_path: Path, glue_hub: Any) -> None:
    with pytest.raises(FtbenchError, match=rf"{name}, {split}: .*\b1 of .*hidden"):
        read_hub(glue_hub(name, tmp_path / "hub", hidden=split), name)


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize("name", ["sst2", "rte"])
def test_hidden_labels_of_a_download_are_refused(
    name: str, split: str, tmp_path: Path, glue_folder: Any, glue_rows: Any, glue_tsv: Any
) -> None:
    rows = glue_rows(name)["train"]
    rows[2:4] = [(texts, "-1") for texts, _ in rows[2:4]]
    with pytest.raises(UsageError, match=r"2 of 13 labels in column 'label' are hidden \(-1\)"):
        read(glue_folder(name, tmp_path, **{split: glue_tsv(name, rows)}), name)


# ----------------------------------------------------------------------------------- what is wrong


def test_a_folder_that_is_not_there(tmp_path: Path, glue_folder: Any) -> None:
    with pytest.raises(UsageError, match=r"--data-dir '.*nowhere' is not a folder"):
        read(tmp_path / "nowhere", "rte")
    with pytest.raises(UsageError, match=r"has no folder RTE for task 'rte'. It holds no folders"):
        read(tmp_path, "rte")
    glue_folder("sst2", tmp_path)
    (tmp_path / "SST-2").rename(tmp_path / "SST2")
    (tmp_path / "a file").write_text("")
    with pytest.raises(UsageError, match=r"no folder SST-2 for task 'sst2'. Did you mean 'SST2'\? It holds SST2$"):
        read(tmp_path, "sst2")


def test_a_task_without_a_place_in_a_download(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--data-dir is for cola, .*: news-topic is not read from there"):
        from_folder([TASKS["news-topic"]], str(tmp_path))
    mixed = from_folder([TASKS["news-topic"], TASKS["rte"]], str(tmp_path))
    assert mixed[0] == TASKS["news-topic"] and isinstance(mixed[1].source, Download)


BROKEN: dict[str, tuple[str, Callable[[str], str | bytes], str]] = {
    "empty": ("rte", lambda text: "", r"train\.tsv' is empty"),
    "a header only": ("rte", lambda text: text.split("\n")[0] + "\n", r"RTE, train has no rows"),
    "not UTF-8": ("rte", lambda text: text.encode() + "é\tà\tü\trte\n".encode("latin-1"), r"train\.tsv' is not UTF-8"),
    "too wide": ("rte", lambda text: text + "1\ta\tb\tentailment\tmore\n", r"train\.tsv' is not a table with one"),
    "headerless and too wide": ("cola", lambda text: text + "a\t1\t\tb\tc\n", r"train\.tsv' is not a table with one"),
    "no text column": (
        "rte", lambda text: text.replace("sentence2", "hypothesis", 1),
        r"train\.tsv' has no text column 'sentence2'.*Columns: index, sentence1, hypothesis, label",
    ),
    "no text column of another name than ours": (
        "mrpc", lambda text: text.replace("#1 String", "first", 1),
        r"no text column '#1 String' or 'sentence1'.* Columns: Quality, #1 ID, #2 ID, first, #2 String",
    ),
    "no label column": ("qnli", lambda text: text.replace("label", "gold", 1), r"has no label column 'label'.*gold"),
    "no labels at all": (
        "rte", lambda text: re.sub(r"(?<=\t)(not_)?entailment$", "", text, flags=re.MULTILINE),
        r"13 rows have no label in column 'label'",
    ),
    "another label": ("rte", lambda text: text.replace("\tentailment", "\tmaybe", 1), r"'maybe' .* none of entailment"),
    # of the ids only the unknown one is wrong
    "another id": ("cola", lambda text: text.replace("\t1\t", "\t2\t", 1), r": '2' in .* none of unacceptable, acc"),
    "no score": ("stsb", lambda text: text.replace("5.000", "five", 1), r"'five' in column 'label', row 1, is not a"),
    "a few rows": ("rte", lambda text: "\n".join(text.split("\n")[:6]) + "\n", r"5 rows to train on: expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_wrong_is_named(case: str, tmp_path: Path, glue_folder: Any) -> None:
    name, spoil, message = BROKEN[case]
    (path,) = glue_folder(name, tmp_path).glob("*/train.tsv")
    spoilt = spoil(path.read_text())
    path.write_bytes(spoilt.encode() if isinstance(spoilt, str) else spoilt)
    with pytest.raises(UsageError, match=message) as error:
        read(tmp_path, name)
    assert str(tmp_path) in str(error.value), "where the file is"


def test_a_class_that_train_lacks(tmp_path: Path, glue_folder: Any) -> None:
    glue_folder("mnli", tmp_path)
    path = tmp_path / "MNLI" / "train.tsv"
    path.write_text(path.read_text().replace("\tcontradiction\n", "\tneutral\n"))
    with pytest.raises(UsageError, match=r"has 'contradiction' in column 'label', which no row of train has"):
        read(tmp_path, "mnli")


def test_the_hub_without_one_of_the_splits(tmp_path: Path, glue_hub: Any) -> None:
    """The mismatched rows are not optional there: the pinned commit has them."""
    folder = glue_hub("mnli", tmp_path / "hub")
    card = folder / "README.md"
    card.write_text(re.sub(r"  - split: validation_mismatched\n.*\n", "", card.read_text()))
    shutil.rmtree(tmp_path / "hub-cache", ignore_errors=True)
    with pytest.raises(UsageError, match=r"mnli has no validation_mismatched split. Splits: train, validation_matched"):
        read_hub(folder, "mnli")
