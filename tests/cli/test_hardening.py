"""The command line where things are wrong or odd: data folders, texts, checkpoints, runs that fail beside others.

What is wrong is one message and exit code 2; what is merely odd trains and is scored.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ftbench, Said
from tests.cli.conftest import refused as is_refused

RECIPE = ("--steps", 3, "--batch-size", 8, "--max-length", 16, "--threads", 1, "--device", "cpu")


@pytest.fixture
def finetune(ftbench: Ftbench, tiny_model: Path) -> Ftbench:
    """Three steps of one seed on the tiny model without reference rows, as JSON, unless told otherwise."""

    def run(*arguments: object) -> Said:
        model = () if "--model" in arguments else ("--model", tiny_model)
        seeds = () if "--seeds" in arguments else ("--seeds", 0)
        return ftbench("finetune", *RECIPE, *model, *seeds, "--no-references", "--json", *arguments)

    return run


def refused(said: Said, *named: str) -> None:
    """One line on stderr, and nothing else anywhere, that names each of ``named``."""
    is_refused(said, *named)
    assert said.err.startswith("error: ") and len(said.err.strip().splitlines()) == 1, said.err
    assert not list(Path("runs").rglob("result.json"))


def write_pairs(folder: Path, train: str = "train.tsv", dev: str = "dev.tsv") -> Path:
    """RTE as GLUE's official script leaves it, in 16 and 8 rows; returns the folder of all tasks."""
    folder.mkdir(parents=True)
    for name, n in ((train, 16), (dev, 8)):
        rows = [f'{i}\tgoal " {i}\tteam {i}\t{("entailment", "not_entailment")[i % 2]}\n' for i in range(n)]
        (folder / name).write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(rows))
    return folder.parent


def write_mnli(folder: Path, *, mismatched: bool = True) -> Path:
    """MNLI in 18 train, 9 matched and 6 mismatched rows; returns the folder of all tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, n in (("train", 18), ("dev_matched", 9), *((("dev_mismatched", 6),) if mismatched else ())):
        labels = ("entailment", "neutral", "contradiction")
        rows = [f"{i}\tgoal {i}\tteam {i}\t-\t{labels[i % 3]}\n" for i in range(n)]
        (folder / f"{name}.tsv").write_text("index\tsentence1\tsentence2\tlabel1\tgold_label\n" + "".join(rows))
    return folder.parent


# ------------------------------------------------------------------------------------ data folders

Spoil = Callable[[Path], Any]
#: what is done to glue/RTE/train.tsv -> what the message names
FOLDERS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "no such folder": (lambda path: shutil.rmtree(path.parents[1]), ("--data-dir 'glue' is not a folder",)),
    "a file for a folder": (
        lambda path: (shutil.rmtree(path.parents[1]), Path("glue").write_text("")), ("'glue' is not a folder",),
    ),
    "no such task": (
        lambda path: path.parent.rename("glue/rte_"), ("--data-dir 'glue'", "no folder RTE", "Did you mean 'rte_'?"),
    ),
    "no such file": (lambda path: path.rename("glue/RTE/trian.tsv"), ("no file 'glue/RTE/train.tsv'", "'trian.tsv'?")),
    "a folder for a file": (lambda path: (path.unlink(), path.mkdir()), ("glue/RTE/train.tsv",)),
    "an empty file": (lambda path: path.write_text(""), ("'glue/RTE/train.tsv' is empty",)),
    "no rows": (lambda path: path.write_text(path.read_text().split("\n")[0]), ("RTE", "train", "no rows")),
    "a missing column": (
        lambda path: path.write_text(path.read_text().replace("sentence2", "second")),
        ("'glue/RTE/train.tsv'", "no text column 'sentence2'", "Columns: index, sentence1, second, label"),
    ),
    "another label": (
        lambda path: path.write_text(path.read_text().replace("not_entailment", "neutral", 1)),
        ("RTE", "'neutral' in column 'label' is none of entailment, not_entailment"),
    ),
    "not UTF-8": (
        lambda path: path.write_bytes(path.read_bytes() + "99\té\tü\tentailment\n".encode("latin-1")),
        ("'glue/RTE/train.tsv' is not UTF-8", "save it as UTF-8"),
    ),
    "a row too wide": (
        lambda path: path.write_text(path.read_text() + "99\ta\tb\tc\tentailment\n"), ("RTE/train.tsv'", "columns"),
    ),
    "hidden labels": (
        lambda path: path.write_text(path.read_text().replace("not_entailment", "-1").replace("entailment", "-1")),
        ("RTE", "hidden (-1)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_a_data_folder_that_is_wrong(case: str, finetune: Ftbench) -> None:
    spoil, named = FOLDERS[case]
    write_pairs(Path("glue/RTE"))
    spoil(Path("glue/RTE/train.tsv"))
    refused(finetune("--task", "rte", "--data-dir", "glue"), *named)


def test_a_data_folder_is_read_before_anything_is_trained(finetune: Ftbench) -> None:
    write_pairs(Path("glue/RTE"))
    refused(finetune("--task", "rte,qnli", "--data-dir", "glue"), "no folder QNLI for task 'qnli'", "It holds RTE")
    refused(finetune("--task", "glue", "--data-dir", "glue"), "no folder CoLA for task 'cola'")


def test_a_data_folder_for_a_task_that_has_none(finetune: Ftbench) -> None:
    write_pairs(Path("glue/RTE"))
    refused(finetune("--task", "news-topic", "--data-dir", "glue"), "--data-dir is for cola", "news-topic")


def test_an_empty_data_folder_is_not_the_hub(finetune: Ftbench) -> None:
    """As --data-dir "$GLUE" is when the variable is not set."""
    refused(finetune("--task", "rte", "--data-dir", ""), "--data-dir")


@pytest.mark.parametrize(("name", "content", "named"), [
    ("t.csv", b"text,label\n" + b"caf\xe9,a\nbar,b\n" * 9, "not UTF-8"),
    ("t.jsonl", b'{"text": "a", "label": 1}\n{"text": \n', "t.jsonl' is not JSON lines: row 2"),
    ("t.parquet", b"PAR1 and no more", "t.parquet' is not a Parquet file"),
    ("t.xlsx", b"PK", "expected a file named .csv"),
])  # fmt: skip
def test_a_table_of_ones_own_that_is_wrong(name: str, content: bytes, named: str, finetune: Ftbench) -> None:
    Path(name).write_bytes(content)
    refused(finetune("--task", name, "--text", "text"), name, named)


# -------------------------------------------------------------------------------------- odd texts

ODD = {
    "50,000 words": "goal team " * 25_000,
    "one endless word": "x" * 200_000,
    "emoji only": "\U0001f600\U0001f44d\U0001f3fd\u200d\U0001f680",
    "empty": "",
    "spaces only": " \u00a0\u3000 ",
    "right to left": "\u05d2\u05d5\u05dc \u0647\u062f\u0641",
    "combining marks": "e" + "\u0301" * 300,
    "control characters": "goal\x0bteam\x1f\x7f\u2028bank",
    "markup": "[CLS] [SEP] <s> </s> <pad> [MASK] <|endoftext|>",
}


def write_odd(path: Path, *names: str) -> Path:
    """20 rows as JSON lines, the odd ones of ``names`` at the start of both classes."""
    texts = [ODD[name] for name in names for _ in range(2)]
    rows = [*texts, *[f"goal {i}" if i % 2 == 0 else f"bank {i}" for i in range(20)]]
    path.write_text("".join(json.dumps({"text": t, "label": "ab"[i % 2]}) + "\n" for i, t in enumerate(rows)))
    return path


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_odd_texts_train_and_are_scored(family: str, finetune: Ftbench, tiny_family: Callable[[str], Path]) -> None:
    table = write_odd(Path("odd.jsonl"), *ODD)
    runs = finetune("--task", table, "--model", tiny_family(family), "--method", "r3f").runs()
    assert [run["status"] for run in runs] == ["ok", "ok"]
    for run in runs:
        assert 0 <= run["metrics"]["last"]["validation"]["accuracy"] <= 1
        result = json.loads(Path(run["folder"], "result.json").read_text())
        assert sum(result["facts"]["truncated"].values()) >= 2, "the long ones are cut, and counted"


def test_odd_texts_are_reference_rows_too(ftbench: Ftbench, tiny_model: Path) -> None:
    table = write_odd(Path("odd.jsonl"), *ODD)
    said = ftbench("finetune", *RECIPE, "--task", table, "--model", tiny_model, "--seeds", 0, "--json")
    assert {"majority", "linear"} <= {row["method"] for row in json.loads(said.out)["table"]["rows"]}


def test_a_decoder_without_marks_around_a_text(finetune: Ftbench, tiny_family: Callable[[str], Path]) -> None:
    """All but texts of which no token is left: there is nothing that it could read the class off."""
    odd = [name for name in ODD if name not in ("empty", "spaces only")]
    model = tiny_family("gpt2")
    assert finetune("--task", write_odd(Path("odd.jsonl"), *odd), "--model", model).runs()[0]["status"] == "ok"
    said = finetune("--task", write_odd(Path("empty.jsonl"), "empty"), "--model", model)
    assert said.code == 2 and "Traceback" not in said.err
    assert said.err.splitlines()[-1].startswith("error: ") and "its text is empty" in said.err


def test_half_a_character(finetune: Ftbench) -> None:
    """JSON can say half of an emoji, which no UTF-8 can hold: refused or read, never a traceback."""
    rows = [{"text": "goal \ud83d" if i < 4 else f"goal {i}", "label": i % 2} for i in range(20)]
    Path("half.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    said = finetune("--task", "half.jsonl")
    assert "Traceback" not in said.err
    if said.code:
        refused(said, "half.jsonl")


def test_most_texts_empty_is_a_mistake(finetune: Ftbench) -> None:
    Path("t.csv").write_text("text,label\n" + "".join(f",{i % 2}\n" for i in range(20)) + "goal,1\n")
    refused(finetune("--task", "t.csv"), "t.csv", "20 of", "texts are empty")


# ------------------------------------------------------------------------------------- checkpoints


def with_head(folder: Path, encoder: Path, classes: int, seed: int) -> Path:
    """The encoder with a trained-looking head of so many classes, as ``save_pretrained`` leaves a classifier."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=classes)
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.classifier.weight, std=3.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder.resolve()


@pytest.mark.parametrize("classes", [2, 5])
def test_a_head_that_another_task_left_is_drawn_anew(
    classes: int, finetune: Ftbench, tiny_model: Path, tiny_folder: Callable[..., Path]
) -> None:
    """Of the task's own size or of another one: whatever was in it, the run of two classes is the same."""
    found = []
    for seed in (1, 2):
        model = with_head(Path(f"head-{seed}"), tiny_model, classes, seed)
        (run,) = finetune("--task", tiny_folder(), "--model", model, "-o", f"runs-{seed}").runs()
        history = map(json.loads, Path(run["folder"], "history.jsonl").read_text().splitlines())
        found.append((run["metrics"], [row["loss"] for row in history if "loss" in row]))
    assert Path("head-1/model.safetensors").read_bytes() != Path("head-2/model.safetensors").read_bytes()
    assert found[0][1] and found[0] == found[1]


def cut_tokens(folder: Path, *names: str) -> None:
    """Takes special tokens out of a saved tokenizer, as GPT-2's has none to pad with."""
    for path in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        if path.exists():
            said = json.loads(path.read_text())
            path.write_text(json.dumps({key: value for key, value in said.items() if key not in names}))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "pad_token_id"}))


def test_a_tokenizer_without_a_padding_token(
    finetune: Ftbench, tiny_family: Callable[[str], Path], tiny_folder: Callable[..., Path]
) -> None:
    model = Path(shutil.copytree(tiny_family("gpt2"), "gpt2"))
    cut_tokens(model, "pad_token")
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "[SEP]"}))
    said = finetune("--task", tiny_folder(), "--model", "./gpt2", "--method", "r3f", "--save-model", "all")
    assert [run["status"] for run in said.runs()] == ["ok", "ok"]
    assert all(f"`ftbench predict {run['folder']} FILE`" in said.err for run in said.runs()), "weights kept, and where"
    cut_tokens(model, "pad_token", "eos_token")
    said = finetune("--task", tiny_folder(), "--model", "./gpt2", "-o", "other")
    assert said.code == 2 and "neither a pad nor an end token" in said.err and "Traceback" not in said.err


CHECKPOINTS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "a pickle only": (
        lambda model: (model / "model.safetensors").rename(model / "pytorch_model.bin"),
        ("pickled weights only (pytorch_model.bin)", "save_pretrained"),
    ),
    "config is not JSON": (lambda model: (model / "config.json").write_text("{"), ("config.json", "is not JSON")),
    "config is not an object": (lambda model: (model / "config.json").write_text("[]"), ("is not a JSON object",)),
    "config is not text": (lambda model: (model / "config.json").write_bytes(b"\xff\xfe\x80"), ("config.json",)),
    "config of nothing": (lambda model: (model / "config.json").write_text("{}"), ("model",)),
    "config of no known model": (
        lambda model: (model / "config.json").write_text('{"model_type": "mamushka"}'), ("mamushka",),
    ),
    "config of a wider model": (
        lambda model: (model / "config.json").write_text(
            (model / "config.json").read_text().replace('"hidden_size": 32', '"hidden_size": 48')
        ),
        ("weights of the encoder", "another shape"),
    ),
    "config of a deeper model": (
        lambda model: (model / "config.json").write_text(
            (model / "config.json").read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
        ),
        ("weights of the encoder", "not in the checkpoint"),
    ),
    "half the weights": (
        lambda model: (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:5000]),
        ("cannot be loaded",),
    ),
    "no vocabulary": (lambda model: (model / "tokenizer.json").write_text("{}"), ("tokenizer",)),
}  # fmt: skip


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_that_is_wrong(
    case: str, finetune: Ftbench, tiny_model: Path, tiny_folder: Callable[..., Path]
) -> None:
    spoil, named = CHECKPOINTS[case]
    spoil(Path(shutil.copytree(tiny_model, "mine")))
    said = finetune("--task", tiny_folder(), "--model", "./mine", "--quiet")
    refused(said, "mine", *named)


# ------------------------------------------------------------------------ two splits, several runs


def test_both_splits_of_mnli_are_reported(ftbench: Ftbench, tiny_model: Path) -> None:
    folder = write_mnli(Path("glue/MNLI"))
    asked = ("finetune", *RECIPE, "--task", "mnli", "--data-dir", folder, "--model", tiny_model, "--seeds", 0)
    said = ftbench(*asked, "--method", "r3f", "--json")
    for run in said.runs():
        for scores in run["metrics"].values():
            assert {"validation", "mismatched"} <= set(scores), run["method"]
            assert all(0 <= scores[split]["accuracy"] <= 1 for split in ("validation", "mismatched"))
    result = json.loads(next(Path("runs").rglob("std-*/result.json")).read_text())
    assert result["facts"]["rows"] == {"train": 18, "validation": 9, "mismatched": 6}
    assert ftbench("report", "runs", "--json").code == 0


def test_without_the_mismatched_file_that_is_said(finetune: Ftbench) -> None:
    folder = write_mnli(Path("glue/MNLI"), mismatched=False)
    said = finetune("--task", "mnli", "--data-dir", folder)
    assert set(said.runs()[0]["metrics"]["last"]) == {"validation"}
    assert "note: task 'mnli' has no dev_mismatched.tsv" in said.err


def kept() -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in Path("runs").rglob("result.json")}


def test_a_method_that_would_have_no_term_is_refused(finetune: Ftbench) -> None:
    """With a row at a time CKA is plain fine-tuning under another name."""
    Path("t.csv").write_text("text,label\n" + "".join(f"goal {i},{i % 2}\n" for i in range(40)))
    said = finetune("--task", "t.csv", "--method", "cka", "--method", "r3f", "--micro-batch", 1)
    is_refused(said, "cka has no term on fewer than 2 rows", "--micro-batch")
    assert not list(Path("runs").rglob("result.json"))


def test_a_finished_run_outlives_a_checkpoint_that_cannot_be_loaded(
    finetune: Ftbench, ftbench: Ftbench, tiny_model: Path, tiny_folder: Callable[..., Path]
) -> None:
    """The second model is found wrong only when its turn comes."""
    broken = Path(shutil.copytree(tiny_model, "broken"))
    (broken / "model.safetensors").write_bytes(b"\0" * 99)
    said = finetune("--task", tiny_folder(), "--model", f"{tiny_model},./broken")
    assert said.code == 2 and "model './broken' cannot be loaded" in said.err and "Traceback" not in said.err
    assert len(kept()) == 1 and not list(Path("runs").rglob("claim.json"))
    before = kept()
    report = ftbench("report", "runs", "--json")
    assert [run["status"] for run in report.runs()] == ["ok"]
    again = finetune("--task", tiny_folder(), "--model", tiny_model)
    assert again.err.count("done before") == 1 and kept() == before


def test_a_finished_run_outlives_one_that_crashes_and_one_that_diverges(
    finetune: Ftbench, tiny_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftbench.methods.r3f import R3F

    asked = ("--task", tiny_folder(), "--method", "r3f")
    assert finetune("--task", tiny_folder()).runs()[0]["status"] == "ok"
    before = kept()

    def crash(*arguments: object) -> None:
        raise RuntimeError("no such kernel")

    with monkeypatch.context() as patch:
        patch.setattr(R3F, "penalty", crash)
        said = finetune(*asked, "--lr", "1e-3,1e30")
    assert said.code == 1 and "Traceback" not in said.err and "2 failed; --retry-failed" in said.err
    statuses = sorted((run["method"], run["status"]) for run in json.loads(said.out)["runs"])
    assert statuses == [("r3f", "failed"), ("r3f", "failed"), ("std", "diverged"), ("std", "ok")]
    assert before.items() <= kept().items()
    mended = finetune(*asked, "--retry-failed")
    assert {run["status"] for run in mended.runs()} == {"ok"} and before.items() <= kept().items()
