"""ftbench.runs.predict: which model a word names, the table to predict for, and the words of the answer."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.errors import UsageError
from ftbench.runs import predict as work
from ftbench.runs.store import Store
from ftbench.tasks import TASKS
from ftbench.training.predict import Predicted
from ftbench.types import Cost, Result, RunSpec
from ftbench.types.run import TRIAL_SEED

COMMAND = ["ftbench", "finetune", "--task", "my reviews.csv", "--seeds", "0-2"]
Keep = Callable[..., Path]


def scored(score: float | None) -> dict[str, Any]:
    """A result's headline score."""
    if score is None:
        return {}
    return {"metrics": {"last": {"validation": {"accuracy": score}}}, "facts": {"headline": "accuracy"}}


@pytest.fixture
def keep(tmp_path: Path, tiny_model: Path) -> Keep:
    """``keep("rte", seed=1)``: a run of that task in tmp_path/runs, with weights; returns its folder."""

    def save(
        task: str = "reviews",
        *,
        weights: bool = True,
        text: tuple[str, ...] = ("review",),
        score: float | None = None,
        **fields: Any,
    ) -> Path:
        asked = {"steps": 10, "max_length": 48, "precision": "bf16", **fields}
        source = {"text": list(text), "label": "stars"} if text else {"package": "news"}
        spec = RunSpec(**{"kind": "finetune", **asked}, task=task, data="d", weights="w", source=source)
        store = Store(tmp_path / "runs")
        store.folder(spec).mkdir(parents=True)
        record = store.save(
            Result(spec=spec, status="ok", **scored(score)),
            Cost(),
            environment={"command": COMMAND},
            save_model=(lambda folder: shutil.copytree(tiny_model, folder)) if weights else None,
        )
        return record.folder

    return save


def trained(task: str | None = None, columns: tuple[str, ...] | None = None) -> work.Trained:
    """A model without a checkpoint: enough to read a table for it."""
    declared = TASKS[task] if task else None
    return work.Trained(None, declared, columns or (declared.inputs if declared else ()))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- which model is meant


def test_a_run_its_model_and_the_study_around_it(keep: Keep, tmp_path: Path) -> None:
    folder = keep()
    for named in (folder, folder / "model", folder.parent, tmp_path / "runs"):
        found = work.find_trained(str(named))
        assert found.checkpoint.folder == folder / "model", named
        assert (found.columns, found.max_length, found.precision) == (("review",), 48, "bf16")
        assert found.task is None and found.spec is not None and found.spec.task == "reviews"


@pytest.mark.parametrize(("asked", "length"), [(None, 48), (16, 16)])
def test_a_run_predicts_as_it_was_trained(
    keep: Keep, monkeypatch: pytest.MonkeyPatch, asked: int | None, length: int
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("ftbench.training.predict.predict_texts", lambda *_, **options: seen.update(options))
    work.predict(work.find_trained(str(keep())), (("good",),), max_length=asked, device="cpu")
    assert seen == {"max_length": length, "precision": "bf16", "device": "cpu"}


def test_a_run_of_a_declared_task_knows_it(keep: Keep) -> None:
    found = work.find_trained(str(keep("mrpc", text=("sentence1", "sentence2"))))
    assert found.task is TASKS["mrpc"] and found.columns == ("sentence1", "sentence2")
    packaged = work.find_trained(str(keep("news-topic", text=())))
    assert packaged.columns == TASKS["news-topic"].inputs


def test_a_plain_model_folder_has_the_usual_settings(tiny_model: Path) -> None:
    found = work.find_trained(str(tiny_model))
    assert (found.task, found.columns, found.spec) == (None, (), None)
    assert (found.max_length, found.precision) == (work.DEFAULT_LENGTH, "fp32")
    assert work.find_trained(str(tiny_model), task=TASKS["rte"]).columns == ("sentence1", "sentence2")


def test_a_copied_model_folder_is_a_plain_model(keep: Keep, tmp_path: Path) -> None:
    copied = shutil.copytree(keep() / "model", tmp_path / "elsewhere" / "model")
    assert work.find_trained(str(copied)).spec is None


def test_a_run_without_weights_says_the_command_that_keeps_them(keep: Keep) -> None:
    folder = keep(weights=False)
    with pytest.raises(UsageError, match=r"kept no weights.*: ftbench finetune --task 'my reviews\.csv' --seeds 0-2 "
                                         r"--save-model all$"):  # fmt: skip
        work.find_trained(str(folder))


@pytest.mark.parametrize("given", [["--save-model", "best"], ["--save-model=best"]])
def test_the_command_says_save_model_once(keep: Keep, given: list[str]) -> None:
    folder = keep(weights=False)
    (folder / "environment.json").write_text(json.dumps({"command": ["ftbench", "finetune", *given, "--seeds", "0"]}))
    with pytest.raises(UsageError, match=r": ftbench finetune --seeds 0 --save-model all$"):
        work.find_trained(str(folder))


def test_no_flag_is_added_to_a_command_that_lacks_it(keep: Keep) -> None:
    folder = keep(weights=False)
    (folder / "environment.json").write_text(json.dumps({"command": ["ftbench", "probe", "--task", "rte"]}))
    with pytest.raises(UsageError, match=r": ftbench probe --task rte$"):
        work.find_trained(str(folder))


@pytest.mark.parametrize(("fields", "kind"), [
    ({"kind": "reference", "steps": 0}, "a reference"), ({"kind": "probe", "repeats": 1}, "a probe"),
    ({"seed": TRIAL_SEED}, "a trial of a search"),
])  # fmt: skip
def test_a_run_that_has_no_weights_to_keep(keep: Keep, fields: dict[str, Any], kind: str) -> None:
    folder = keep(weights=False, **fields)
    with pytest.raises(UsageError, match=rf"run '.*' is {kind}, which keeps no weights") as error:
        work.find_trained(str(folder))
    assert "--save-model" not in str(error.value)


@pytest.mark.parametrize("damage", ["lost", "{", "[]", "{}"])
def test_the_command_of_a_run_whose_record_of_it_is_damaged(keep: Keep, damage: str) -> None:
    folder = keep(weights=False)
    path = folder / "environment.json"
    path.unlink() if damage == "lost" else path.write_text(damage)
    with pytest.raises(UsageError, match=r"kept no weights.*ftbench finetune --save-model all$"):
        work.find_trained(str(folder))


def test_a_study_without_weights_says_how_to_keep_them(keep: Keep, tmp_path: Path) -> None:
    keep(weights=False)
    with pytest.raises(UsageError, match=r"no run with weights in '.*runs': fine-tune with --save-model best"):
        work.find_trained(str(tmp_path / "runs"))


def test_a_folder_with_several_runs_lists_them(keep: Keep, tmp_path: Path) -> None:
    """With their scores, to choose by."""
    folders = [keep(seed=seed, score=0.25 * seed if seed else None) for seed in range(3)]
    keep(seed=9, weights=False)
    with pytest.raises(UsageError, match=r"has 3 runs with weights: name one of") as error:
        work.find_trained(str(tmp_path / "runs"))
    listed = str(error.value).splitlines()[1:]
    said = [f"{folders[0]}", f"{folders[1]} (accuracy 0.250)", f"{folders[2]} (accuracy 0.500)"]
    assert [line.strip() for line in listed] == sorted(said)


def test_a_long_list_of_runs_is_cut(keep: Keep, tmp_path: Path) -> None:
    for seed in range(11):
        keep(seed=seed)
    with pytest.raises(UsageError, match="has 11 runs") as error:
        work.find_trained(str(tmp_path / "runs"))
    listed = str(error.value).splitlines()[1:]
    assert len(listed) == 11 and listed[-1].strip() == "…"


def test_a_damaged_run_is_one_message(keep: Keep) -> None:
    folder = keep()
    (folder / "result.json").write_text("{")
    with pytest.raises(UsageError, match=r"run '.*' cannot be read: result\.json cannot be read"):
        work.find_trained(str(folder))


def test_a_revision_is_for_the_hub(keep: Keep) -> None:
    folder = keep()
    for named in (folder, folder / "model"):
        with pytest.raises(UsageError, match="--revision is for models of the hub"):
            work.find_trained(str(named), revision="main")


# ------------------------------------------------------------------------------------- the new table


def test_the_columns_trained_on_are_read(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("id,review\n7,good\n8,NA\n")
    table, texts = work.read_new(tmp_path / "new.csv", trained(columns=("review",)))
    assert texts == (("good", "NA"),) and list(table.columns) == ["id", "review"]


def test_named_columns_win(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("review,a,b\nx,one,two\n")
    assert work.read_new(tmp_path / "new.csv", trained(columns=("review",)), ("a", "b"))[1] == (("one",), ("two",))


def test_the_flag_for_another_column_is_said_where_none_is_given(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("review,stars\ngood,5\n")
    said = r"no text column 'headline'\..* Columns: review, stars \(another: --text COLUMN\)"
    with pytest.raises(UsageError, match=said):
        work.read_new(tmp_path / "new.csv", trained(columns=("headline",)))
    with pytest.raises(UsageError, match=r"Did you mean 'review'.*stars$"):
        work.read_new(tmp_path / "new.csv", trained(columns=("headline",)), ("revew",))


@pytest.mark.parametrize("name", ["new.csv", "new.txt"])
def test_another_encoding(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(f"{'review' * name.endswith('csv')}\ncaf\xe9\n".lstrip().encode("cp1252"))
    model = trained(columns=("review",))
    with pytest.raises(UsageError, match="or say its encoding, such as --encoding cp1252"):
        work.read_new(path, model)
    assert work.read_new(path, model, encoding="cp1252")[1] == (("caf\xe9",),)
    with pytest.raises(UsageError, match=r"--encoding 'cp125x': .*Expected a name such as cp1252"):
        work.read_new(path, model, encoding="cp125x")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("new.csv", "revue\ngood\n", r"'.*new\.csv' has no text column 'review'\. Did you mean 'revue'\?"),
        ("new.csv", "review\n", r"'.*new\.csv' has no rows"),
        ("new.csv", "", r"'.*new\.csv' is empty"),
        ("new.md", "good", r"new\.md' is of no known kind: expected a file named \.csv, \.tsv, \.jsonl"),
        ("new.jsonl", '{"review": ["a"]}', r"column 'review' holds list, not text, in row 1"),
        ("new.jsonl", "{", r"is not JSON lines: row 1"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        work.read_new(tmp_path / name, trained(columns=("review",)))


def test_no_such_table(tmp_path: Path) -> None:
    (tmp_path / "news.csv").write_text("review\n")
    with pytest.raises(UsageError, match=r"no file '.*new\.csv'\. Did you mean 'news\.csv'\?"):
        work.read_new(tmp_path / "new.csv", trained(columns=("review",)))


def test_a_foreign_model_must_be_told_the_column(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"which column of '.*' holds the text\? Say it with --text COLUMN\. .*: a, b"):
        work.read_new(tmp_path / "new.csv", trained())


def test_the_official_columns_of_a_task(tmp_path: Path) -> None:
    """The file keeps its columns, the texts are those of the task."""
    (tmp_path / "test.tsv").write_text('index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tsaid "hi\tsaid hi"\n')
    table, texts = work.read_new(tmp_path / "test.tsv", trained("mrpc"))
    assert texts == (('said "hi',), ('said hi"',))
    assert list(table.columns) == ["index", "#1 ID", "#2 ID", "#1 String", "#2 String"]


def test_a_missing_column_is_named_as_in_the_file_and_as_in_the_task(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("#1 String,second\na,b\n")
    expected = r"no text column '#2 String' or 'sentence2'.* Columns: #1 String, second"
    with pytest.raises(UsageError, match=expected):
        work.read_new(tmp_path / "new.csv", trained("mrpc"))


def test_official_files_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("gj04\t1\t\tThey drank.\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tThey drank.\n")
    assert work.read_new(tmp_path / "dev.tsv", trained("cola"))[1] == (("They drank.",),)
    assert work.read_new(tmp_path / "test.tsv", trained("cola"))[1] == (("They drank.",),)


# ----------------------------------------------------------------------------------------- the answer


def predicted(values: Any, classes: int = 0) -> Predicted:
    numbers = np.asarray(values)
    probabilities = np.full((len(numbers), classes), 1 / classes) if classes else None
    return Predicted(("x",) * classes, numbers, probabilities, 0)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), ["contradiction", "neutral", "entailment"]),
        (("entailment", "neutral", "contradiction"), ["entailment", "neutral", "contradiction"]),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ["entailment", "neutral", "contradiction"]),
        (("label_0", "label_1", "label_2"), ["entailment", "neutral", "contradiction"]),
    ],
)
def test_names_of_classes_are_those_of_the_task(names: tuple[str, ...], expected: list[str]) -> None:
    assert work.task_labels(names, TASKS["mnli"]) == expected


def test_hyphens_and_spaces_do_not_matter() -> None:
    assert work.task_labels(("Not-Entailment", "Entailment"), TASKS["rte"]) == ["not_entailment", "entailment"]
    assert work.task_labels(("not entailment", "entailment"), TASKS["rte"]) == ["not_entailment", "entailment"]


@pytest.mark.parametrize(
    "names",
    [
        ("yes", "no", "maybe"),
        ("entailment", "neutral"),
        ("LABEL_0", "LABEL_1"),
        ("LABEL_2", "LABEL_1", "LABEL_0"),
        ("entailment", "entailment", "contradiction"),
        (),
    ],
    ids=str,
)
def test_foreign_names_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="task 'mnli' has entailment, neutral, contradiction: they cannot be matched"):
        work.task_labels(names, TASKS["mnli"])


def test_a_classifier_is_no_regression() -> None:
    """Class names would stand where the server expects numbers."""
    with pytest.raises(UsageError, match="stsb"):
        work.task_labels(("negative", "positive"), TASKS["stsb"])


def test_without_a_task_names_stay() -> None:
    assert work.task_labels(("LABEL_0", "LABEL_1"), None) == ["LABEL_0", "LABEL_1"]


def test_predictions_are_the_last_columns(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("id,review\n7,good\n8,bad\n")
    table, _ = work.read_new(tmp_path / "new.csv", trained(columns=("review",)))
    found = dataclasses.replace(predicted([1, 0], 2), probabilities=np.array([[0.1, 0.9], [2 / 3, 1 / 3]]))
    out = work.with_predictions(table, found, ["no", "yes"])
    assert list(out.columns) == ["id", "review", "prediction", "probability_no", "probability_yes"]
    assert out["prediction"].tolist() == ["yes", "no"] and out["probability_no"].tolist() == [0.1, 0.666667]
    assert list(table.columns) == ["id", "review"], "the table that was read is left alone"
    numbers = work.with_predictions(table, predicted([0.25, 4.5]), [])
    assert list(numbers.columns) == ["id", "review", "prediction"] and numbers["prediction"].tolist() == [0.25, 4.5]


#: task -> test file -> submission file, and what stands there for the task's class 1
OFFICIAL = [
    ("cola", "test.tsv", "CoLA.tsv", "1"), ("sst2", "test.tsv", "SST-2.tsv", "1"),
    ("mrpc", "test.tsv", "MRPC.tsv", "1"), ("qqp", "test.tsv", "QQP.tsv", "1"), ("wnli", "test.tsv", "WNLI.tsv", "1"),
    ("mnli", "test_matched.tsv", "MNLI-m.tsv", "neutral"), ("mnli", "test_mismatched.tsv", "MNLI-mm.tsv", "neutral"),
    ("mnli", "diagnostic.tsv", "AX.tsv", "neutral"), ("qnli", "test.tsv", "QNLI.tsv", "not_entailment"),
    ("rte", "test.tsv", "RTE.tsv", "not_entailment"),
]  # fmt: skip


def frame(**columns: list[Any]) -> Any:
    import pandas

    return pandas.DataFrame(columns)


@pytest.mark.parametrize(("task", "file", "name", "word"), OFFICIAL)
def test_submissions_have_ids_or_names(task: str, file: str, name: str, word: str) -> None:
    declared = TASKS[task]
    found = predicted([1, 0, 1], len(declared.labels))
    table = frame(index=["5", "3", "9"], text=["a", "b", "c"])
    written, content = work.submission(Path(file), table, found, list(declared.labels), declared)
    lines = content.split("\n")
    assert written == name and lines[0] == "index\tprediction" and lines[-1] == ""
    assert [line.split("\t")[0] for line in lines[1:-1]] == ["5", "3", "9"]
    other = "0" if word == "1" else declared.labels[0]
    assert [line.split("\t")[1] for line in lines[1:-1]] == [word, other, word]


def test_a_submission_in_the_order_of_the_model_s_own_classes() -> None:
    """Ids are the task's, whatever the order of the model's outputs."""
    found = predicted([0, 1], 2)
    _, content = work.submission(
        Path("test.tsv"), frame(a=["", ""]), found, ["equivalent", "not_equivalent"], TASKS["mrpc"]
    )
    assert content == "index\tprediction\n0\t1\n1\t0\n", "and rows are counted where there is no index"


def test_scores_of_stsb_are_kept_within_their_scale() -> None:
    table = frame(index=list("0123"))
    name, content = work.submission(Path("test.tsv"), table, predicted([-0.5, 5.2, 3.14159, 0.0]), [], TASKS["stsb"])
    assert name == "STS-B.tsv" and content == "index\tprediction\n0\t0.000\n1\t5.000\n2\t3.142\n3\t0.000\n"


@pytest.mark.parametrize(("task", "file"), [("mrpc", "dev.tsv"), ("mnli", "test.tsv"), ("stsb", "test.csv")])
def test_a_file_that_is_no_test_file_is_refused(task: str, file: str) -> None:
    known = ", ".join(TASKS[task].layout.tests)  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=rf"'{file}' is no test file of task '{task}'\. Expected {known}"):
        work.submission(Path(file), frame(index=["0"]), predicted([0], 2), list(TASKS[task].labels), TASKS[task])


def test_every_declared_test_file_is_in_the_list_above() -> None:
    declared = {(task.name, file) for task in TASKS.values() if task.layout for file in task.layout.tests}
    assert declared == {(task, file) for task, file, *_ in OFFICIAL} | {("stsb", "test.tsv")}
