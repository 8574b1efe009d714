"""``ftbench summarize`` as a user meets it, on a tiny T5 and a table of their own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from tests.cli.conftest import Ftbench, Said, refused
from tests.conftest import tiny_summaries_of


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for split, rows in tiny_summaries_of(16, 8).splits.items():
        with (folder / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["article", "title"])
            writer.writerows(zip(rows.texts[0], (several[0] for several in rows.summaries), strict=True))
    return folder


@pytest.fixture
def summarize(ftbench: Ftbench, tiny_family: Callable[[str], Path], table: Path) -> Ftbench:
    """Three steps on a tiny T5 and table."""
    usual = ("--threads", 1, "--device", "cpu", "--steps", 3, "--max-new-tokens", 4, "--num-beams", 1)

    def run(*arguments: object, model: object = None) -> Said:
        own = ("--task", table, "--text", "article", "--summary", "title", "--model", model or tiny_family("t5"))
        return ftbench("summarize", *own, *usual, *arguments)

    return run


def test_a_study_with_floors_and_examples(summarize: Ftbench, ftbench: Ftbench) -> None:
    said = summarize("--method", "r3f", "--label-smoothing", "0.2", "--save-model", "all", "--seeds", "0,1")
    assert said.code == 0, said.err
    assert "lead" in said.out and "What was written" in said.out and "reference" in said.out
    assert "`ftbench predict runs/" in said.err and "Each run's scores" in said.out
    shown = summarize("--method", "r3f", "--label-smoothing", "0.2", "--seeds", "0,1", "--json")
    runs = shown.runs()
    assert [(run["kind"], run["method"], run["seed"]) for run in runs[1:]] == [
        ("summarize", "std", 0), ("summarize", "r3f", 0), ("summarize", "std", 1), ("summarize", "r3f", 1),
    ]  # fmt: skip
    assert shown.err.count("done before") == 5, "nothing is done twice"
    rows = shown.json()["written"]["rows"]
    assert [row["by"] for row in rows] == ["reference", "std", "r3f"] * 3
    spec = json.loads(Path(runs[1]["folder"], "spec.json").read_text())
    assert spec["label_smoothing"] == 0.2 and spec["num_beams"] == 1 and spec["max_new_tokens"] == 4
    assert (Path(runs[1]["folder"]) / "summaries" / "validation.jsonl").exists()
    again = ftbench("report", "runs")
    assert again.code == 0 and "r3f" in again.out, again.err


def test_a_kept_run_writes_summaries_of_new_documents(summarize: Ftbench, ftbench: Ftbench, table: Path) -> None:
    """Of the validation rows those that the run wrote; from a table or lines, into a table, JSON lines or lines."""
    settings = ("--num-beams", 2, "--length-penalty", 2, "--source-prefix", "new ", "--max-source-length", 16)
    settings += ("--min-new-tokens", 3, "--lr", "1e-2", "--steps", 12)
    said = summarize(*settings, "--no-references", "--save-model", "all", "--json")
    (run,) = said.runs()
    written = pandas.read_parquet(Path(run["folder"]) / "predictions.parquet")["prediction"].tolist()
    assert len(set(written)) > 1, "or nothing is shown here"

    def predict(*arguments: object) -> Said:
        return ftbench("predict", run["folder"], *arguments, "--device", "cpu")

    plain = predict(table / "validation.csv")
    assert plain.code == 0, plain.err
    found = pandas.read_csv(io.StringIO(plain.out), keep_default_na=False)
    assert list(found.columns) == ["article", "title", "prediction"] and found["prediction"].tolist() == written
    Path("new.txt").write_text("".join(f"{text}\n" for text in found["article"]))
    lines = predict("new.txt", "--json")
    assert [json.loads(line) for line in lines.out.splitlines()] == [
        {"article": text, "prediction": summary} for text, summary in zip(found["article"], written, strict=True)
    ]
    found.rename(columns={"article": "body"}).drop(columns="prediction").to_json(
        "new.jsonl", orient="records", lines=True
    )
    refused(predict("new.jsonl"), "'new.jsonl' has no text column 'article'", "Columns: body, title")
    assert predict("new.jsonl", "--text", "body", "-o", "written.txt").code == 0
    assert Path("written.txt").read_text() == "".join(f"{summary}\n" for summary in written)
    cut = predict("new.txt", "--max-length", 4)
    assert cut.code == 0 and "8 of 8 rows were cut" in cut.err
    refused(predict("new.jsonl", "--text", "body,title"), "summaries are written of one column")
    refused(predict("new.txt", "--glue"), "--glue is for labels")
    refused(ftbench("predict", "nowhere", "new.txt", "--task", "samsum"), "--task samsum", "`ftbench summarize`")


def test_perturbations_and_axes(summarize: Ftbench) -> None:
    runs = summarize("--train-size", "6,12", "--no-references", "--json").runs()
    assert len(runs) == 2
    facts = [json.loads(Path(run["folder"], "result.json").read_text())["facts"]["rows"]["train"] for run in runs]
    assert facts == [6, 12]


@pytest.mark.parametrize(("arguments", "expected"), [
    (("--method", "r4f"), "r4f does not apply to summarization: it normalises a classifier's head"),
    (("--min-new-tokens", 9), "max-new-tokens is 4: expected at least min-new-tokens, which is 9"),
    (("--label-smoothing", "1.5"), "label-smoothing is 1.5: expected from 0 to below 1"),
    (("--smoothed-over", "everyone"), "everyone"),
    (("--num-beams", "0"), "num-beams is 0: expected at least 1"),
    (("--method", "r3f:where=nowhere"), "where"),
])  # fmt: skip
def test_what_cannot_be_is_one_clear_message(arguments: tuple[object, ...], expected: str, summarize: Ftbench) -> None:
    refused(summarize(*arguments), expected)


def test_a_model_without_a_decoder(summarize: Ftbench, tiny_model: Path) -> None:
    refused(summarize(model=tiny_model), "(bert) has no decoder to write with", f"bert2bert:{tiny_model}")


def test_each_task_has_its_command(ftbench: Ftbench) -> None:
    refused(ftbench("finetune", "--task", "news-headline"), "use `ftbench summarize --task news-headline`")
    refused(ftbench("summarize", "--task", "news-topic"), "use `ftbench finetune --task news-topic`")
    refused(ftbench("finetune", "--task", "samsum"), "samsum", "use `ftbench summarize --task samsum`")
    refused(ftbench("summarize", "--task", "sst2"), "sst2", "use `ftbench finetune --task sst2`")
    refused(ftbench("finetune", "--method", "r3f:where=decoder"), "r3f:where=decoder: there is no decoder")


def test_every_method_but_those_that_do_not_apply(ftbench: Ftbench) -> None:
    from ftbench.runs.able import settle

    arms = settle(["all"], baseline=True, axes={}, writes=True)
    assert set(arms.left_out) == {"r4f", "bss", "lp-ft"} and len(arms.stacks) > 25
