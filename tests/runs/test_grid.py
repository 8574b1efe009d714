"""A study loses no run and does none twice. Real runs of a tiny model."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbench.errors import Interrupted, OneRowTooMuch
from ftbench.methods import METHODS, method_class
from ftbench.methods.r3f import R3F
from ftbench.runs import grid as grids
from ftbench.runs.claim import NAME
from ftbench.runs.grid import choose
from ftbench.runs.store import read_all
from ftbench.runs.work import explain_failure, smaller_micro_batch
from ftbench.tasks import resolve
from ftbench.tasks.sources import load
from ftbench.training import watch
from ftbench.types import Cost, Data, Record, Result, RunSpec
from ftbench.types.run import CHECKPOINT

#: a user's own method, as a module of its own: does what it is told to
PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar

from ftbench.methods.method import Method


@dataclass
class Trouble(Method):
    name: ClassVar[str] = "trouble"
    family: ClassVar[str] = "tests"
    summary: ClassVar[str] = "raises"
    error: ClassVar[Exception | None] = None

    def penalty(self, batch, out, views):
        if self.error:
            raise self.error
"""


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Exception | None], None]]:
    """Puts the method ``trouble`` into the table; calling it says what the method raises."""
    (tmp_path / "plugin_of_tests.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(METHODS, "trouble", "plugin_of_tests:Trouble")
    yield lambda error: setattr(method_class("trouble"), "error", error)
    sys.modules.pop("plugin_of_tests", None)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Modification time and bytes of every file."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run_folders(root: Path) -> set[Path]:
    return {path.parent for path in root.rglob("result.json")}


def test_a_finished_run_is_skipped_untouched(study: Callable[..., Any], tmp_path: Path) -> None:
    first = study("r3f", baseline=True, seeds=[0, 1], references=True)
    assert len(first.records) == 5 == len(first.heard.begun) == first.heard.total
    assert [r.result.status for r in first.records] == ["ok"] * 5
    before = snapshot(tmp_path / "runs")
    again = study("r3f", baseline=True, seeds=[0, 1], references=True)
    assert snapshot(tmp_path / "runs") == before
    assert again.heard.begun == [] and len(again.heard.skipped) == 5
    assert again.records == first.records


def test_a_study_that_grows_does_the_new_runs_only(study: Callable[..., Any]) -> None:
    first = study("std", seeds=[0])
    grown = study("std", seeds=[0, 1])
    assert grown.heard.skipped == [first.records[0].result.spec.id]
    assert grown.heard.begun == [grown.records[1].result.spec.id]


def test_nothing_of_the_work_is_left(study: Callable[..., Any], tmp_path: Path) -> None:
    study("std", checkpoint_every=1)
    names = {path.name for path in (tmp_path / "runs" / "tiny").rglob("*") if path.is_file()}
    assert names == {
        "spec.json", "result.json", "cost.json", "history.jsonl", "predictions.parquet", "environment.json"
    }  # fmt: skip


def test_force_does_it_again_to_the_same_bytes(study: Callable[..., Any]) -> None:
    first = study("std")
    path = first.records[0].folder / "result.json"
    old = path.stat().st_mtime_ns, path.read_bytes()
    again = study("std", force=True)
    assert again.heard.begun == first.heard.begun
    assert path.read_bytes() == old[1] and path.stat().st_mtime_ns > old[0]


def test_a_truncated_result_is_done_again(study: Callable[..., Any]) -> None:
    path = study("std").records[0].folder / "result.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert len(study("std").heard.begun) == 1
    assert path.read_bytes() == whole


def test_a_checkpoint_of_rubbish_is_passed_over(study: Callable[..., Any]) -> None:
    path = study("std").records[0].folder / "result.json"
    whole = path.read_bytes()
    path.unlink()
    (path.parent / "checkpoint.safetensors").write_bytes(b"\0" * 50)
    study("std")
    assert path.read_bytes() == whole


# ----------------------------------------------------------------------------------- failures


def test_a_failing_run_spares_the_others(
    study: Callable[..., Any], trouble: Callable[[Exception | None], None]
) -> None:
    trouble(RuntimeError("the probe came loose\nsecond line"))
    done = study("trouble", baseline=True, seeds=[0, 1])
    assert [(r.result.spec.method, r.result.status) for r in done.records] == [
        ("std", "ok"), ("trouble", "failed"), ("std", "ok"), ("trouble", "failed"),
    ]  # fmt: skip
    failed = done.records[1]
    assert failed.result.error == "RuntimeError: the probe came loose"
    assert json.loads((failed.folder / "result.json").read_text())["status"] == "failed"
    text = (failed.folder / "error.txt").read_text()
    assert "Traceback" in text and "second line" in text and "penalty" in text
    assert not (failed.folder / NAME).exists()

    again = study("trouble", baseline=True, seeds=[0, 1])
    assert again.heard.begun == [], "a failure is a result: it is not repeated unasked"


def test_retry_failed_repeats_failures_only(
    study: Callable[..., Any], trouble: Callable[[Exception | None], None]
) -> None:
    trouble(RuntimeError("loose"))
    failed = study("trouble", baseline=True).records[1]
    trouble(None)
    done = study("trouble", baseline=True, retry_failed=True)
    assert done.heard.begun == [failed.result.spec.id]
    assert done.records[1].result.status == "ok"
    assert not (failed.folder / "error.txt").exists(), "no reason of failure beside a good result"


@pytest.mark.parametrize("how", [{"force": True}, {"keep": "all"}])
def test_a_good_result_outlives_a_redo_that_fails(
    study: Callable[..., Any], trouble: Callable[[Exception | None], None], how: dict[str, Any]
) -> None:
    trouble(None)
    good = study("trouble").records[0]
    whole = (good.folder / "result.json").read_bytes()
    trouble(RuntimeError("loose"))
    assert [r.result.status for r in study("trouble", **how).records] == ["failed"], "the command must not end well"
    assert (good.folder / "result.json").read_bytes() == whole
    assert study("trouble").records[0].result.status == "ok"


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
], ids=["cuda", "cpu", "python"])  # fmt: skip
def test_out_of_memory_says_what_to_try(
    study: Callable[..., Any], trouble: Callable[[Exception | None], None], error: Exception
) -> None:
    trouble(error)
    (record,) = study("trouble").records
    assert record.result.status == "failed"
    for hint in ("out of memory", "micro-batches of 1 row ", "--max-length", "--precision bf16"):
        assert hint in record.result.error


def test_out_of_memory_halves_the_micro_batch_at_an_equal_batch(
    study: Callable[..., Any], trouble: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble(None)
    rows: list[int] = []

    def penalty(self: Any, batch: Any, out: Any, views: Any) -> None:
        rows.append(len(batch.labels))
        if len(batch.labels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(method_class("trouble"), "penalty", penalty)
    (record,) = study("trouble").records
    assert rows[:2] == [8, 4] and set(rows[2:]) == {2} and len(rows[2:]) == 4 * 4
    assert record.result.status == "ok" and record.result.facts["micro_batch_used"] == 2
    small = study("trouble", fixed={"micro_batch": 2}).records[0]
    assert small.result.metrics == record.result.metrics and "micro_batch_used" not in small.result.facts
    assert small.result.spec.id != record.result.spec.id


@pytest.mark.parametrize("arm", ["cka", "bss", "rdrop:variant=bert", "r3f+cka"])
def test_out_of_memory_does_not_make_another_term(
    arm: str, study: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A micro-batch is not halved where its rows depend on each other: the run fails, and says so."""
    cls, rows = method_class(arm.rpartition("+")[2].partition(":")[0]), []

    def penalty(self: Any, batch: Any, out: Any, views: Any) -> None:
        rows.append(len(batch.labels))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(cls, "penalty", penalty)
    (record,) = study(arm).records
    assert rows == [8] and record.result.status == "failed"
    for said in (
        f"micro-batches of 8 rows, not halved because the term of {cls.name} needs the whole micro-batch",
        "for all arms a smaller --batch-size or --micro-batch", "--max-length", "--precision bf16",
    ):  # fmt: skip
        assert said in record.result.error


def test_what_is_summed_over_padding_is_not_halved_where_summaries_are_written(
    tiny_summaries: Callable[..., Data], tiny_data: Callable[..., Data], make_spec: Any, tiny_model: Path
) -> None:
    error = MemoryError()
    for data, expected in ((tiny_summaries(), None), (tiny_data(), 4)):
        spec = make_spec(data, tiny_model, "r3f:variant=released")
        assert smaller_micro_batch(spec, None, error) == expected
        assert smaller_micro_batch(make_spec(data, tiny_model, "r3f"), None, error) == 4


def test_a_run_that_was_interrupted_keeps_its_smaller_micro_batch(
    study: Callable[..., Any], trouble: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trouble(None)
    full = [True]

    def penalty(self: Any, batch: Any, out: Any, views: Any) -> None:
        if full[0] and len(batch.labels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(method_class("trouble"), "penalty", penalty)
    whole = (study("trouble").records[0].folder / "result.json").read_bytes()
    asked = iter([False] * 3 + [True] * 9)
    with pytest.raises(Interrupted):
        study("trouble", root=tmp_path / "other", checkpoint_every=1, should_stop=lambda: next(asked))
    full[0] = False
    again = study("trouble", root=tmp_path / "other").records[0]
    assert (again.folder / "result.json").read_bytes() == whole


def test_a_row_too_large_to_evaluate_costs_no_training(
    study: Callable[..., Any], trouble: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller micro-batches would not help: the checkpoint stays for the command that is tried next."""
    trouble(None)
    begun: list[int] = []

    def penalty(self: Any, batch: Any, out: Any, views: Any) -> None:
        begun.append(len(batch.labels))

    monkeypatch.setattr(method_class("trouble"), "penalty", penalty)
    predict = watch.predict

    def too_large(*given: Any, **more: Any) -> Any:
        raise OneRowTooMuch("out of memory at a single row, in an evaluation: CUDA out of memory")

    monkeypatch.setattr(watch, "predict", too_large)
    (record,) = study("trouble", checkpoint_every=1).records
    assert set(begun) == {8}, "at no other micro-batch"
    assert record.result.error.startswith("out of memory at a single row") and "--max-length" in record.result.error
    assert (record.folder / CHECKPOINT).exists()
    steps = len(begun)
    monkeypatch.setattr(watch, "predict", predict)
    (record,) = study("trouble", retry_failed=True).records
    assert record.result.status == "ok" and len(begun) < 2 * steps


def test_retries_repeat_a_failure(
    study: Callable[..., Any], trouble: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble(None)
    calls: list[int] = []

    def penalty(self: Any, batch: Any, out: Any, views: Any) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("loose")

    monkeypatch.setattr(method_class("trouble"), "penalty", penalty)
    assert study("trouble", retries=1).records[0].result.status == "failed" and len(calls) == 2
    calls.clear()
    assert study("trouble", retries=2, retry_failed=True).records[0].result.status == "ok"


def test_a_failure_without_a_message_still_has_its_name(tiny_data: Callable[..., Data]) -> None:
    spec = RunSpec(kind="reference", task="t", data="d", weights="w")
    assert explain_failure(spec, AssertionError()) == "AssertionError: "
    assert explain_failure(spec, KeyError("x")) == "KeyError: 'x'"


@pytest.mark.filterwarnings("ignore")
def test_a_diverged_run_is_a_result(study: Callable[..., Any]) -> None:
    (record,) = study("std", fixed={"lr": 1e30, "clip": 0.0, "warmup": 0.0, "steps": 30}).records
    assert record.result.status == "diverged"
    assert "the loss is nan" in record.result.error and "of 30" in record.result.error
    assert read_all([record.folder.parent.parent]).records[0].result.status == "diverged"


def test_stopping_between_runs_keeps_what_is_done(study: Callable[..., Any], tmp_path: Path) -> None:
    asked: list[bool] = []

    def stop_at_the_second() -> bool:
        asked.append(True)
        return bool(run_folders(tmp_path / "runs"))

    with pytest.raises(Interrupted, match="run the same command to continue"):
        study("std", seeds=[0, 1, 2], should_stop=stop_at_the_second)
    assert asked and len(run_folders(tmp_path / "runs")) == 1
    assert not list(tmp_path.rglob(NAME))
    assert len(study("std", seeds=[0, 1, 2]).heard.begun) == 2


# ------------------------------------------------------------------------------- other numbers


def test_an_edited_row_is_another_run(study: Callable[..., Any], tiny_folder: Callable[..., Path]) -> None:
    folder = tiny_folder()

    def ids() -> set[str]:
        return {r.result.spec.id for r in study("std", data=load(resolve(str(folder))), references=True).records}

    first = ids()
    table = folder / "train.csv"
    lines = table.read_text().splitlines()
    lines[1] = f"one {lines[1]}"
    table.write_text("\n".join(lines))
    second = ids()
    assert not first & second
    lines[1] = lines[1].removeprefix("one ")
    table.write_text("\n".join(lines))
    assert ids() == first


def test_another_weight_file_is_another_run(study: Callable[..., Any], tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    first = study("std", model=copy).records[0]
    assert first.folder == study("std", model=tiny_model).records[0].folder, "a path is no identity"
    weights = load_file(copy / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + 1e-3
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    second = study("std", model=copy)
    assert len(second.heard.begun) == 1 and second.records[0].folder != first.folder


def test_a_raised_method_revision_is_another_run(study: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = study("r3f").records[0]
    monkeypatch.setattr(R3F, "revision", R3F.revision + 1)
    second = study("r3f")
    assert len(second.heard.begun) == 1 and second.records[0].folder != first.folder
    assert first.folder.exists()


def test_a_raised_engine_revision_is_another_run(study: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from ftbench.runs import stages

    first = study("std", references=True)
    monkeypatch.setattr(stages, "ENGINE_REVISION", stages.ENGINE_REVISION + 1)
    assert len(study("std", references=True).heard.begun) == len(first.records)


# ------------------------------------------------------------------------------ several processes


def test_two_processes_share_a_study(command: Callable[..., Any], tmp_path: Path) -> None:
    arguments = ("--method", "r3f", "--seeds", "0-2", "--steps", "25", "-o", tmp_path / "runs")
    both = [command(*arguments), command(*arguments)]
    assert [each.wait() for each in both] == [0, 0]
    tables = [each.out.read_text() for each in both]
    assert tables[0] == tables[1] and "r3f" in tables[0]
    lines = [line for each in both for line in each.err.read_text().splitlines() if line.startswith("[")]
    assert len(lines) == 2 * 7
    done_before = sum("done before" in line or "references" in line for line in lines)
    assert len(run_folders(tmp_path / "runs")) == 7
    assert done_before >= 6, f"a run was done twice: {lines}"
    assert not list((tmp_path / "runs").rglob(NAME))


def test_a_claimed_run_is_waited_for(
    study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other runs are done first; the claimed one is found once its claimant has finished."""
    finished = study("std", seeds=[0]).records[0]
    result = (finished.folder / "result.json").read_bytes()
    (finished.folder / "result.json").unlink()
    from ftbench.runs.claim import take

    claim = take(finished.folder)
    assert claim is not None

    def the_other_finishes(seconds: float) -> None:
        (finished.folder / "result.json").write_bytes(result)
        claim.release()

    monkeypatch.setattr(grids.time, "sleep", the_other_finishes)
    done = study("std", seeds=[0, 1])
    assert [r.result.spec.seed for r in done.records] == [0, 1]
    assert len(done.heard.begun) == 1 and len(done.heard.waited) == 1 and "pid" in done.heard.waited[0]
    assert done.heard.skipped == [finished.result.spec.id]


# ---------------------------------------------------------------------------------- kept weights


def kept(records: list[Record]) -> list[int]:
    return [r.result.spec.seed for r in records if (r.folder / "model").is_dir()]


def ranked(records: list[Record]) -> list[int]:
    return [r.result.spec.seed for r in sorted(records, key=lambda r: r.result.score("accuracy") or 0.0)]


@pytest.mark.parametrize("which", ["best", "median", "all"])
def test_the_wanted_weights_are_kept(study: Callable[..., Any], which: str) -> None:
    records = study("std", seeds=[0, 1, 2], keep=which, fixed={"steps": 8}).records
    order = ranked(records)
    assert kept(records) == {"best": order[-1:], "median": order[1:2], "all": [0, 1, 2]}[which]
    again = study("std", seeds=[0, 1, 2], keep=which, fixed={"steps": 8})
    assert again.heard.begun == [] and kept(again.records) == kept(records)


def test_kept_weights_load_in_plain_transformers_and_predict_the_same(
    study: Callable[..., Any], tiny_data: Callable[..., Data]
) -> None:
    import pyarrow.parquet as pq
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    (record,) = study("r3f", keep="all", fixed={"steps": 10}).records
    folder = record.folder / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    data = tiny_data()
    assert [model.config.id2label[i] for i in range(len(data.labels))] == list(data.labels)
    texts = list(data.splits["validation"].texts[0])
    with torch.inference_mode():
        logits = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    stored = pq.read_table(record.folder / "predictions.parquet").to_pydict()
    assert logits.argmax(-1).tolist() == stored["prediction"]
    torch.testing.assert_close(logits.softmax(-1), torch.tensor(stored["probabilities"]), atol=1e-5, rtol=1e-5)


def test_weights_asked_for_later_are_trained_again_to_the_same_numbers(study: Callable[..., Any]) -> None:
    first = study("std", seeds=[0, 1, 2])
    before = {r.folder: (r.folder / "result.json").read_bytes() for r in first.records}
    later = study("std", seeds=[0, 1, 2], keep="best")
    assert len(later.heard.begun) == 1 and kept(later.records) == ranked(first.records)[-1:]
    assert {folder: (folder / "result.json").read_bytes() for folder in before} == before
    assert len(later.records) == 3


def test_weights_of_an_earlier_command_stay(study: Callable[..., Any]) -> None:
    study("std", seeds=[0, 1], keep="all")
    records = study("std", seeds=[0, 1], keep="best").records
    assert kept(records) == [0, 1]


def test_each_arm_has_its_best(study: Callable[..., Any]) -> None:
    records = study("r3f", baseline=True, seeds=[0, 1], keep="best", references=True).records
    arms = {r.result.spec.method for r in records if (r.folder / "model").is_dir()}
    assert arms == {"std", "r3f"} and len(kept(records)) == 2


def with_score(seed: int, value: float, *, lower: bool = False) -> Record:
    spec = RunSpec(kind="finetune", task="t", data="d", weights="w", steps=1, seed=seed)
    facts = {"headline": "mse" if lower else "accuracy", "lower_is_better": lower}
    result = Result(spec=spec, status="ok", metrics={"last": {"validation": {facts["headline"]: value}}}, facts=facts)
    return Record(Path(str(seed)), result, Cost())


@pytest.mark.parametrize(("which", "lower", "seeds"), [
    ("best", False, [2]), ("median", False, [0]), ("best", True, [1]), ("median", True, [0]), ("all", False, [1, 0, 2]),
])  # fmt: skip
def test_choose(which: str, lower: bool, seeds: list[int]) -> None:
    group = [with_score(seed, value, lower=lower) for seed, value in enumerate((0.5, 0.1, 0.9))]
    assert [record.result.spec.seed for record in choose(group, which)] == seeds


def test_the_median_of_two_is_the_lower_one() -> None:
    assert choose([with_score(0, 0.9), with_score(1, 0.1)], "median")[0].result.spec.seed == 1
