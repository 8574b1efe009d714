"""``ftbench probe``: its tables, what it refuses, and encoders that are given."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbench.cli import probing
from tests.cli.conftest import Ftbench, refused
from tests.conftest import save_tiny

RECIPE = ("--steps", 3, "--batch-size", 8, "--lr", "1e-3", "--max-length", 32, "--seeds", "0-1", "--threads", 1)


@pytest.fixture
def folders(tiny_folder: Callable[..., Path]) -> tuple[Path, Path]:
    """Two tasks of the user's own."""
    return tiny_folder(40, 48), tiny_folder(44, 48, 3)


@pytest.fixture
def probe(ftbench: Ftbench, tiny_model: Path) -> Callable[..., Any]:
    def run(*arguments: object) -> Any:
        return ftbench("probe", "--model", tiny_model, "--no-reference-text", "--repeats", 1, *RECIPE, *arguments)

    return run


def test_generalization_prints_the_references_and_every_arm(probe: Any, folders: tuple[Path, Path]) -> None:
    a, b = folders
    said = probe("--source", a, "--targets", b, "--method", "r3f", "--json", "--figure", "probes.svg").json()
    rows = said["probe"]["rows"]
    assert [(row["encoder"], row["method"], row["n"]) for row in rows] == [
        ("random", None, 1), ("pretrained", None, 1), (a.name, "std", 2), (a.name, "r3f", 2),
    ]  # fmt: skip
    random, pretrained, std, _ = (row["score"] for row in rows)
    lead = pretrained - random
    expected = (std - random) / lead if lead else None
    assert rows[2]["kept"] == (None if expected is None else pytest.approx(expected))
    assert [row["layer_2"] for row in said["layers"]["rows"]] == [row["score"] for row in rows]
    assert {row["metric"] for row in said["collapse"]["rows"]} >= {"effective_rank", "anisotropy", "nc1"}
    assert [row["pairs"] for row in said["between"]["rows"]] == [1, 1]
    assert Path("probes.svg").read_text().lstrip().startswith("<?xml")


def test_what_people_see(probe: Any, folders: tuple[Path, Path]) -> None:
    a, b = folders
    said = probe("--protocol", "cycle", "--tasks", f"{a},{b}", "--cycles", 2)
    assert said.code == 0, said.err
    for words in ("What is left in the encoder", "pretrained", "random", "Between seeds", f"{a.name}>{b.name}", "kept"):
        assert words in said.out
    assert "gm_10" not in said.out  # hundreds of rows: for scripts


def test_a_run_and_a_model_folder_are_probed_as_they_are(
    probe: Any, ftbench: Ftbench, folders: tuple[Path, Path], tiny_model: Path
) -> None:
    a, b = folders
    trained = ftbench("finetune", "--task", a, "--model", tiny_model, *RECIPE, "--save-model", "all", "--json")
    run = Path(next(r["folder"] for r in trained.runs() if r["kind"] == "finetune"))
    shutil.copytree(run / "model", "mine")
    rows = probe("--encoder", run, "--encoder", "mine", "--targets", b, "--json").json()["probe"]["rows"]
    assert [row["encoder"] for row in rows] == ["random", "pretrained", a.name, "mine"]
    assert rows[2]["score"] == rows[3]["score"] and rows[2]["effective_rank"] == rows[3]["effective_rank"]


def test_a_run_without_weights_says_the_flag(
    probe: Any, ftbench: Ftbench, folders: tuple[Path, Path], tiny_model: Path
) -> None:
    a, b = folders
    trained = ftbench("finetune", "--task", a, "--model", tiny_model, *RECIPE, "--json")
    run = next(r["folder"] for r in trained.runs() if r["kind"] == "finetune")
    refused(probe("--encoder", run, "--targets", b), run, "kept no weights", f"finetune --task {a}", "--save-model all")
    (Path(run) / "environment.json").unlink()
    refused(probe("--encoder", run, "--targets", b), run, "kept no weights", "`ftbench finetune`", "--save-model all")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--targets", "rte"), ("--source TASK",)),
        (("--source", "news-topic"), ("--targets is missing",)),
        (("--source", "news-topik", "--targets", "rte"), ("news-topik", "Did you mean", "news-topic")),
        (("--protocol", "chian"), ("chian", "chain")),
        (("--protocol", "chain", "--tasks", "rte"), ("two tasks or more",)),
        (("--protocol", "chain", "--preset", "r4f"), ("preset", "r4f", "r3f")),
        (("--protocol", "chain", "--source", "rte"), ("--source is for",)),
        (("--protocol", "chain", "--tasks", "news-topic,newsmatch"), ("newsmatch", "news-match")),
        (("--protocol", "cycle", "--preset", "r3f", "--targets", "rte"), ("leave out --targets",)),
        (("--source", "rte", "--tasks", "rte,mrpc", "--targets", "rte"), ("--protocol chain",)),
        (("--encoder", "x", "--source", "rte", "--targets", "rte"), ("leave out --source",)),
        (("--source", "news-topic", "--targets", "rte", "--pooling", "max"), ("pooling", "max")),
        (("--source", "news-topic", "--targets", "rte", "--figure", "x.gif"), ("--figure", "x.gif", ".png")),
        (("--source", "news-topic", "--targets", "rte", "--probe-size", "many"), ("--probe-size", "many")),
        (("--source", "news-topic", "--targets", "rte", "--probe-size", "10,20"), ("--probe-size 10,20", "one number")),
        (("--source", "news-topic", "--targets", "rte", "--probe-size", "0"), ("--probe-size 0", "at least 1")),
        (("--source", "news-topic", "--targets", "news-match", "--steps", "0"), ("steps is 0", "at least 1")),
        (("--source", "news-topic", "--targets", "news-match", "--lr", "0"), ("lr is 0",)),
        (("--source", "news-topic", "--targets", "news-headline"), ("news-headline", "summarization", "labels")),
        (("--source", "news-headline", "--targets", "news-topic"), ("news-headline", "summarization", "labels")),
        (("--encoder", "no-such-folder/", "--targets", "news-topic"), ("no-such-folder",)),
    ],
)
def test_wrong_flags(probe: Any, flags: tuple[str, ...], named: tuple[str, ...]) -> None:
    refused(probe(*flags), *named)


def test_probes_whose_predictions_are_gone_are_still_shown(probe: Any, folders: tuple[Path, Path]) -> None:
    """As in results that are kept without them."""
    a, b = folders
    first = probe("--source", a, "--targets", b, "--json").json()
    for path in Path("runs").glob(f"{b.name}/*/predictions.parquet"):
        path.unlink()
    again = probe("--source", a, "--targets", b, "--json").json()
    assert first["between"] and again["between"] is None and again["probe"] == first["probe"]


def test_one_class_is_a_failed_run_that_says_so(probe: Any, folders: tuple[Path, Path]) -> None:
    a, b = folders
    table = list(csv.reader(io.StringIO((b / "train.csv").read_text())))
    with (b / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([table[0], *[[text, table[1][1]] for text, _ in table[1:]]])
    refused(probe("--source", a, "--targets", b), "one class", "expected at least two")
    assert not Path("runs").exists(), "nothing was tuned before that was said"


def test_metrics_that_need_more_rows_are_left_out(probe: Any, tiny_folder: Callable[..., Path]) -> None:
    a, b = tiny_folder(40, 48), tiny_folder(30, 12)
    said = probe("--source", a, "--targets", b, "--json").json()
    found = {row["metric"] for row in said["collapse"]["rows"]}
    assert "gm_10" in found and "gm_20" not in found
    (note,) = (note for note in said["probe"]["notes"] if "left out" in note)
    assert note.startswith(f"{b.name}: gm_20, ") and "gm_10" not in note and "12 validation rows" in note


def test_an_encoder_of_another_width_is_refused(probe: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    wide = save_tiny(tmp_path / "wide", "bert", hidden_size=64)
    said = probe("--encoder", wide, "--targets", folders[1])
    refused(said, f"--encoder {wide} has width 64", "tiny-bert 32", "of the same width")


def test_a_cycle_measures_the_reference_texts_and_can_leave_them_out(
    probe: Any, folders: tuple[Path, Path], tiny_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (a, b), texts = folders, tiny_folder(36, 24)
    cycle = ("--protocol", "cycle", "--tasks", f"{a},{b}", "--cycles", 1, "--seeds", 0, "--json")
    monkeypatch.setattr(probing, "REFERENCE_TEXT", str(texts))
    rows = probe(*cycle, "--reference-text").json()["probe"]["rows"]
    measured = [row["encoder"] for row in rows if row["task"] == texts.name]
    assert measured == ["random", "pretrained", a.name, f"{a.name}>{b.name}"]
    monkeypatch.setattr(probing, "REFERENCE_TEXT", str(a))
    rows = probe(*cycle).json()["probe"]["rows"]
    assert f"{a.name}>{b.name}" not in [row["encoder"] for row in rows]
