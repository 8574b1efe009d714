"""``ftbench predict --glue``: the files that GLUE's server scores, from the official test files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from ftbench.tasks import TASKS
from ftbench.types import Rows
from tests.cli import conftest
from tests.cli.conftest import Ftbench

#: task -> the header line of its test file, the submission file, and the words for its classes there
OFFICIAL = {
    "cola": ("index\tsentence", "CoLA.tsv", ("0", "1")),
    "sst2": ("index\tsentence", "SST-2.tsv", ("0", "1")),
    "mrpc": ("index\t#1 ID\t#2 ID\t#1 String\t#2 String", "MRPC.tsv", ("0", "1")),
    "qqp": ("id\tquestion1\tquestion2", "QQP.tsv", ("0", "1")),
    "qnli": ("index\tquestion\tsentence", "QNLI.tsv", ("entailment", "not_entailment")),
    "rte": ("index\tsentence1\tsentence2", "RTE.tsv", ("entailment", "not_entailment")),
    "wnli": ("index\tsentence1\tsentence2", "WNLI.tsv", ("0", "1")),
}
TEXT_COLUMNS = ("sentence", "sentence1", "sentence2", "question", "question1", "question2", "#1 String", "#2 String")
MNLI = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
Classifier = Callable[..., Path]


@pytest.fixture(scope="module")
def classifier(tiny_model: Path, tiny_data: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """``classifier("no", "yes")``: a folder with the tiny BERT and a head of those classes; without names a regression.

    The head is wide and its outputs have mean 0, so that rows get different classes.
    """
    texts = list(tiny_data(10, 40, 4).splits["validation"].texts[0])
    made: dict[tuple[str, ...], Path] = {}

    def save(*names: str) -> Path:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if names not in made:
            folder = tmp_path_factory.mktemp("classifier")
            torch.manual_seed(3)
            named = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
            model = AutoModelForSequenceClassification.from_pretrained(
                tiny_model, **(named if names else {"num_labels": 1})
            ).eval()
            tokenizer = AutoTokenizer.from_pretrained(tiny_model)
            torch.nn.init.normal_(model.classifier.weight, std=100)
            with torch.no_grad():
                logits = model(**tokenizer(texts, texts[::-1], padding=True, return_tensors="pt")).logits
                model.classifier.bias -= logits.mean(0)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[names] = folder
        return made[names]

    return save


def official_file(path: Path, header: str, rows: Rows) -> list[str]:
    """An official test file with these texts and indexes that do not count from 0; returns the first column."""
    columns = header.split("\t")
    first = [str(1000 + 3 * i) for i in range(len(rows))]
    cells: dict[str, Any] = {name: ["x"] * len(rows) for name in columns} | {columns[0]: first}
    texts = [name for name in columns if name in TEXT_COLUMNS]
    cells |= dict(zip(texts, (rows.texts[0], rows.texts[0][::-1]), strict=False))
    lines = [header, *("\t".join(row) for row in zip(*(cells[name] for name in columns), strict=True))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return first


def read(path: Path) -> tuple[list[str], list[str]]:
    """Indexes and predictions of a submission file."""
    table = pandas.read_csv(path, sep="\t", dtype=str, na_filter=False)
    assert list(table.columns) == ["index", "prediction"]
    return table["index"].tolist(), table["prediction"].tolist()


@pytest.fixture
def rows(tiny_data: Callable[..., Any]) -> Rows:
    return tiny_data(10, 40, 4).splits["validation"]


# ------------------------------------------------------------------------------------------ every task


@pytest.mark.parametrize("task", OFFICIAL)
def test_every_official_test_file(
    ftbench: Ftbench, classifier: Classifier, rows: Rows, task: str, tmp_path: Path
) -> None:
    header, name, words = OFFICIAL[task]
    index = official_file(tmp_path / "test.tsv", header, rows)
    labels = TASKS[task].labels
    model = classifier(*labels)
    assert ftbench("predict", model, "test.tsv", "--task", task, "--glue", "-o", "sent").code == 0
    assert ftbench("predict", model, "test.tsv", "--task", task, "-o", "plain.tsv").code == 0
    plain = pandas.read_csv("plain.tsv", sep="\t", dtype=str, na_filter=False, quoting=3)
    found, predictions = read(tmp_path / "sent" / name)
    assert found == (index if header.startswith("index") else [str(i) for i in range(len(rows))])
    assert predictions == [dict(zip(labels, words, strict=True))[label] for label in plain["prediction"]]
    assert set(predictions) == set(words), "a constant would be no test"
    assert list(plain.columns)[: header.count("\t") + 1] == header.split("\t"), "the file's own columns are kept"
    assert [path.name for path in (tmp_path / "sent").iterdir()] == [name]


def test_scores_of_stsb(ftbench: Ftbench, classifier: Classifier, rows: Rows, tmp_path: Path) -> None:
    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
    index = official_file(tmp_path / "test.tsv", header, rows)
    assert ftbench("predict", classifier(), "test.tsv", "--task", "stsb", "--glue").code == 0
    assert ftbench("predict", classifier(), "test.tsv", "--task", "stsb", "-o", "plain.parquet").code == 0
    raw = pandas.read_parquet("plain.parquet")["prediction"]
    assert raw.min() < 0 or raw.max() > 5, "nothing to keep within 0 to 5 would be no test"
    found, predictions = read(Path("STS-B.tsv"))
    assert found == index and predictions == [f"{min(max(value, 0), 5):.3f}" for value in raw]


@pytest.mark.parametrize(
    ("file", "name"),
    [("test_matched.tsv", "MNLI-m.tsv"), ("test_mismatched.tsv", "MNLI-mm.tsv"), ("diagnostic.tsv", "AX.tsv")],
)
def test_classes_in_another_order_and_case_are_the_task_s(
    ftbench: Ftbench, classifier: Classifier, rows: Rows, file: str, name: str, tmp_path: Path
) -> None:
    """As the hub's roberta-large-mnli has them."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    header = "index\tpromptID\tpairID\tsentence1_binary_parse\tsentence1\tsentence2"
    index = official_file(tmp_path / file, "index\tsentence1\tsentence2" if name == "AX.tsv" else header, rows)
    model = AutoModelForSequenceClassification.from_pretrained(classifier(*MNLI)).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier(*MNLI))
    texts = list(rows.texts[0])
    with torch.no_grad():
        logits = model(**tokenizer(texts, texts[::-1], padding=True, return_tensors="pt")).logits
    expected = [MNLI[i].lower() for i in logits.argmax(-1)]
    assert set(expected) == {"contradiction", "neutral", "entailment"}, "a constant would be no test"

    assert ftbench("predict", classifier(*MNLI), file, "--task", "mnli", "--glue").code == 0
    assert read(Path(name)) == (index, expected)
    assert ftbench("predict", classifier(*MNLI), file, "--task", "mnli", "-o", "plain.csv").code == 0
    plain = pandas.read_csv("plain.csv")
    assert plain["prediction"].tolist() == expected
    assert list(plain.columns)[-3:] == [f"probability_{label.lower()}" for label in MNLI]
    best = plain[list(plain.columns)[-3:]].idxmax(axis=1).str.removeprefix("probability_")
    assert best.tolist() == expected


def test_classes_without_names_have_the_task_s_order(
    ftbench: Ftbench, classifier: Classifier, rows: Rows, tmp_path: Path
) -> None:
    index = official_file(tmp_path / "test.tsv", OFFICIAL["rte"][0], rows)
    assert ftbench("predict", classifier("LABEL_0", "LABEL_1"), "test.tsv", "--task", "rte", "--glue").code == 0
    columns = ("--text", "sentence1,sentence2")
    assert ftbench("predict", classifier("LABEL_0", "LABEL_1"), "test.tsv", *columns, "-o", "a.csv").code == 0
    plain = pandas.read_csv("a.csv")["prediction"]
    words = {"LABEL_0": "entailment", "LABEL_1": "not_entailment"}
    assert read(Path("RTE.tsv")) == (index, [words[label] for label in plain])


# ----------------------------------------------------------------------------------- a run of a task


def test_a_run_trained_on_a_download(ftbench: Ftbench, tiny_model: Path, rows: Rows, tmp_path: Path) -> None:
    """The run knows its task: no flag but --glue."""
    header = "index\tsentence1\tsentence2\tlabel"
    for name in ("train", "dev"):
        official_file(tmp_path / "glue" / "RTE" / f"{name}.tsv", header, rows)
        path = tmp_path / "glue" / "RTE" / f"{name}.tsv"
        lines = path.read_text().splitlines()
        words = ("entailment", "not_entailment")
        labelled = [f"{line[:-1]}{words[i % 2]}" for i, line in enumerate(lines[1:])]
        path.write_text("\n".join([lines[0], *labelled]) + "\n")
    index = official_file(tmp_path / "glue" / "RTE" / "test.tsv", "index\tsentence1\tsentence2", rows)
    flags = ("--no-references", "--save-model", "all", "--threads", 1, "--device", "cpu", "-q", "--seeds", 0)
    where = ("--task", "rte", "--data-dir", "glue", "--model", tiny_model, "-o", "runs")
    assert ftbench("finetune", *where, *flags, "--steps", 4, "--max-length", 32).code == 0
    assert ftbench("predict", "runs", "glue/RTE/test.tsv", "--glue", "-o", "sent").code == 0
    found, predictions = read(Path("sent/RTE.tsv"))
    assert found == index and set(predictions) <= {"entailment", "not_entailment"}


# ------------------------------------------------------------------------------------ what is refused


@pytest.fixture
def refused(ftbench: Ftbench) -> Callable[..., None]:
    """``refused(arguments, *named)``: one message on stderr, nothing written."""

    def check(arguments: tuple[object, ...], *named: str, code: int = 2) -> None:
        before = sorted(Path().rglob("*"))
        conftest.refused(ftbench("predict", *arguments), *named, code=code)
        assert sorted(Path().rglob("*")) == before

    return check


def test_a_file_that_is_no_test_file_is_refused_before_the_model_is_run(
    refused: Callable[..., None], classifier: Classifier, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object, **options: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr("ftbench.training.predict.predict_texts", load)
    for name in ("dev.tsv", "test_matched.tsv", "MRPC.tsv"):
        official_file(tmp_path / name, OFFICIAL["mrpc"][0], rows)
        asked = (classifier(*TASKS["mrpc"].labels), name, "--task", "mrpc", "--glue")
        refused(asked, f"'{name}' is no test file of task 'mrpc'", "Expected test.tsv")


@pytest.mark.parametrize(
    ("task", "names", "named"),
    [
        ("mnli", ("yes", "no", "maybe"), ("yes, no, maybe", "entailment, neutral, contradiction", "cannot be matched")),
        ("mnli", ("entailment", "not_entailment"), ("cannot be matched",)),
        ("mnli", (), ("cannot be matched",)),
        ("stsb", ("negative", "positive"), ("negative, positive", "'stsb'", "regression")),
    ],
)
def test_classes_that_are_not_the_task_s_are_refused(
    refused: Callable[..., None],
    classifier: Classifier,
    rows: Rows,
    tmp_path: Path,
    task: str,
    names: tuple[str, ...],
    named: tuple[str, ...],
) -> None:
    file = "test_matched.tsv" if task == "mnli" else "test.tsv"
    official_file(tmp_path / file, "index\tsentence1\tsentence2", rows)
    refused((classifier(*names), file, "--task", task, "--glue"), *named)


def test_a_folder_that_cannot_be_is_said_clearly(
    refused: Callable[..., None], classifier: Classifier, rows: Rows, tmp_path: Path
) -> None:
    official_file(tmp_path / "test.tsv", OFFICIAL["rte"][0], rows)
    (tmp_path / "file").write_text("")
    asked = (classifier(*TASKS["rte"].labels), "test.tsv", "--task", "rte", "--glue", "-o")
    for output in ("file", "file/deep"):
        refused((*asked, output), "file", code=1)
