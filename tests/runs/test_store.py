"""The store: whole or absent, never mislabelled, never lost."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ftbench.errors import StoreError, explain
from ftbench.runs import store as stores
from ftbench.runs.files import slug, to_json, write_atomic
from ftbench.runs.store import Store, read, read_all
from ftbench.types import Cost, MethodSpec, Record, Result, RunSpec
from ftbench.types.run import CHECKPOINT

R3F = MethodSpec("r3f", 1, {"weight": 0.5})


def spec(**changed: Any) -> RunSpec:
    return RunSpec(**{"kind": "finetune", "task": "news", "data": "d1", "weights": "w1", "steps": 10, **changed})


def result(of: RunSpec) -> Result:
    metrics = {"last": {"validation": {"accuracy": 0.5}}, "best": {"validation": {"accuracy": 0.75}}}
    return Result(spec=of, status="ok", metrics=metrics, facts={"headline": "accuracy", "rows": {"train": 10}})


def save(store: Store, of: RunSpec, **more: Any) -> Record:
    claim = store.claim(of)
    assert claim is not None
    try:
        return store.save(result(of), Cost(steps=10, device="cpu"), environment={"host": "here"}, **more)
    finally:
        claim.release()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.mark.parametrize("of", [spec(), spec(methods=(R3F,), seed=3), spec(kind="reference", steps=0)])
def test_what_is_saved_is_found_and_read(store: Store, of: RunSpec) -> None:
    assert store.find(of) is None
    saved = save(store, of)
    assert store.find(of) == saved == read(saved.folder)
    assert saved.result == result(of) and saved.cost.steps == 10
    assert saved.folder.name.endswith(of.id)
    assert [record.result.spec.id for record in read_all([store.root]).records] == [of.id]


def test_every_file_of_a_run(store: Store) -> None:
    predictions = {"example": np.arange(3), "probabilities": np.full((3, 2), 0.5, dtype=np.float32)}
    folder = save(store, spec(), predictions=predictions, history=[{"step": 1, "loss": float("nan")}]).folder
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "spec.json", "result.json", "cost.json", "history.jsonl", "predictions.parquet", "environment.json"
    }  # fmt: skip
    assert json.loads((folder / "spec.json").read_text())["id"] == spec().id
    assert json.loads((folder / "history.jsonl").read_text()) == {"step": 1, "loss": None}
    assert pq.read_table(folder / "predictions.parquet").column("probabilities").to_pylist() == [[0.5, 0.5]] * 3


def test_a_result_holds_neither_time_nor_machine(store: Store, tmp_path: Path) -> None:
    first = save(store, spec(methods=(R3F,)))
    other = Store(tmp_path / "elsewhere")
    assert other.claim(spec(methods=(R3F,)))
    again = other.save(
        result(spec(methods=(R3F,))), Cost(wall_seconds=99, device="cuda"), environment={"host": "there"}
    )
    text = (first.folder / "result.json").read_bytes()
    assert text == (again.folder / "result.json").read_bytes()
    assert str(tmp_path).encode() not in text
    assert not re.search(rb"second|host|device|time|date", text)


def test_a_run_under_another_name_is_found_by_its_id(store: Store) -> None:
    folder = save(store, spec()).folder
    folder.rename(folder.with_name(f"my-favourite-{spec().id}"))
    assert store.find(spec()) is not None


@pytest.mark.parametrize(("status", "stays"), [("ok", False), ("diverged", False), ("failed", True)])
def test_the_checkpoint_of_a_failed_run_stays(store: Store, status: Any, stays: bool) -> None:
    """Tried again, it continues; a good result has no reason of failure beside it."""
    folder = store.folder(spec())
    folder.mkdir(parents=True)
    for name in (CHECKPOINT, "error.txt"):
        (folder / name).write_text("old")
    store.save(Result(spec=spec(), status=status), Cost())
    assert [(folder / name).exists() for name in (CHECKPOINT, "error.txt")] == [stays, stays]


def test_a_result_that_cannot_be_read_just_now_is_not_damaged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk or network that stumbles must not make a finished run unfinished."""
    path = save(store, spec()).folder / "result.json"
    whole = path.read_bytes()

    def stumble(self: Path, *args: Any, **kwargs: Any) -> str:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", stumble)
        with pytest.raises(StoreError, match="Input/output error"):
            store.find(spec())
    assert path.read_bytes() == whole and store.find(spec()) is not None


@pytest.mark.parametrize("content", ["", "[]", '{"steps": 3, "other": 1}', None])
def test_a_damaged_cost_is_not_a_damaged_result(store: Store, content: str | None) -> None:
    path = save(store, spec()).folder / "cost.json"
    path.unlink() if content is None else path.write_text(content)
    record = store.find(spec())
    assert record is not None and record.cost == (Cost(steps=3) if content and "steps" in content else Cost())


def edited(text: str, change: Callable[[dict[str, Any]], object]) -> str:
    raw = json.loads(text)
    change(raw)
    return json.dumps(raw)


#: ways in which a result.json is not what was written; the reason that reading it names
DAMAGES: dict[str, tuple[Callable[[str], str], str]] = {
    "truncated": (lambda text: text[: len(text) // 2], "cannot be read"),
    "empty": (lambda text: "", "cannot be read"),
    "zeros": (lambda text: "\0" * len(text), "cannot be read"),
    "a list": (lambda text: "[1, 2]", "not a JSON object"),
    "foreign": (lambda text: '{"epoch": 3, "eval_loss": 0.1}', "schema None"),
    "foreign with a schema": (lambda text: '{"schema": 1, "score": 0.1}', "not of ftbench"),
    "no spec": (lambda text: edited(text, lambda raw: raw.pop("spec")), "not of ftbench"),
    "spec is a number": (lambda text: edited(text, lambda raw: raw.update(spec=3)), "not of ftbench"),
    "another seed": (lambda text: edited(text, lambda raw: raw["spec"].update(seed=7)), "edited by hand"),
    "a flipped bit": (lambda text: text.replace('"data": "d1"', '"data": "d0"'), "edited by hand"),
    "another id": (lambda text: edited(text, lambda raw: raw.update(id="0" * 12)), "edited by hand"),
    "a value that no run has": (lambda text: edited(text, lambda raw: raw["spec"].update(lr=-1)), "lr is -1"),
    "a field of tomorrow": (lambda text: edited(text, lambda raw: raw["spec"].update(colour=1)), "newer ftbench"),
    "a word for a number": (lambda text: edited(text, lambda raw: raw["spec"].update(seed="x")), "not of ftbench"),
    "metrics are a list": (lambda text: edited(text, lambda raw: raw.update(metrics=[1])), "not of ftbench"),
    "an unknown status": (lambda text: edited(text, lambda raw: raw.update(status="fine")), "not of ftbench"),
    "an unknown field": (lambda text: edited(text, lambda raw: raw.update(colour=1)), "not of ftbench"),
    "schema 0": (lambda text: edited(text, lambda raw: raw.update(schema=0)), "schema 0"),
    "schema in words": (lambda text: edited(text, lambda raw: raw.update(schema="one")), "schema one"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_set_aside_named_and_counted(store: Store, damage: str) -> None:
    change, reason = DAMAGES[damage]
    good, bad = save(store, spec(seed=1)), save(store, spec()).folder
    path = bad / "result.json"
    original = path.read_text()
    path.write_text(change(original))
    assert path.read_text() != original, "the damage did nothing"
    with pytest.raises(ValueError, match=reason):
        read(bad)

    found = read_all([store.root])
    assert found.records == [good]
    assert len(found.skipped) == 1 and str(path) in found.skipped[0] and reason in found.skipped[0]

    assert store.find(spec()) is None
    assert not path.exists()
    assert [p.read_text() for p in bad.glob("result.json.damaged-*")] == [change(original)]
    assert save(store, spec()).result == result(spec()), "and it can be done again"
    assert read_all([store.root]).skipped == []


def test_bytes_that_are_no_text_are_damage_too(store: Store) -> None:
    path = save(store, spec()).folder / "result.json"
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    assert len(read_all([store.root]).skipped) == 1
    assert store.find(spec()) is None


def test_every_truncation_is_noticed(store: Store) -> None:
    path = save(store, spec(methods=(R3F,))).folder / "result.json"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):  # the last byte is a newline
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be read"):
            read(path.parent)


def test_a_newer_schema_is_refused_and_left_alone(store: Store) -> None:
    path = save(store, spec()).folder / "result.json"
    newer = edited(path.read_text(), lambda raw: raw.update(schema=stores.SCHEMA + 1))
    path.write_text(newer)
    reason = f"schema {stores.SCHEMA + 1}, this ftbench reads up to {stores.SCHEMA}"
    with pytest.raises(ValueError, match=reason):
        read(path.parent)
    assert reason in read_all([store.root]).skipped[0]
    with pytest.raises(StoreError, match=reason):  # a whole result of a newer ftbench is nobody's to throw away
        store.find(spec())
    assert path.read_text() == newer


def test_a_whole_result_with_settings_of_tomorrow_is_left_alone(store: Store) -> None:
    """Fields are added without another schema: an older ftbench knows the run's id, not what it was."""
    path = save(store, spec()).folder / "result.json"
    raw = json.loads(path.read_text())
    raw["spec"]["colour"] = 1
    del raw["checksum"]
    newer = json.dumps({**raw, "checksum": stores._checksum(raw)})
    path.write_text(newer)
    with pytest.raises(StoreError, match="unknown settings colour: a newer ftbench wrote it"):
        store.find(spec())
    assert path.read_text() == newer and "colour" in read_all([store.root]).skipped[0]


def test_an_older_schema_is_upgraded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(store, spec()).folder / "result.json"

    def one_to_two(raw: dict[str, Any]) -> dict[str, Any]:
        return {**raw, "facts": {**raw["facts"], "headline": "from one"}}

    def two_to_three(raw: dict[str, Any]) -> dict[str, Any]:
        return {**raw, "facts": {**raw["facts"], "headline": raw["facts"]["headline"] + " to three"}}

    monkeypatch.setattr(stores, "SCHEMA", 3)
    monkeypatch.setattr(stores, "UPGRADES", {1: one_to_two, 2: two_to_three})
    found = store.find(spec())
    assert found is not None and found.result.facts["headline"] == "from one to three"
    assert json.loads(path.read_text())["schema"] == 1, "reading does not rewrite"


def test_an_upgrade_that_is_missing_is_a_reason(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(store, spec()).folder
    monkeypatch.setattr(stores, "SCHEMA", 2)
    with pytest.raises(ValueError, match="schema 1"):
        read(folder)


def test_the_same_run_in_two_folders_counts_once(store: Store, tmp_path: Path) -> None:
    save(store, spec())
    save(Store(tmp_path / "copy"), spec())
    found = read_all([store.root, tmp_path / "copy"])
    assert len(found.records) == 1 and found.skipped == []


# ------------------------------------------------------------------------------------- writing


def fail_with(number: int) -> Callable[..., None]:
    def fail(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, call, fail_with(errno.ENOSPC))
    with pytest.raises(StoreError, match=r"a\.json: the disk is full: free some space"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_run_that_cannot_be_written_is_not_finished(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of its files fails: ``result.json`` comes last."""
    real, calls = os.replace, 0

    def fail_at(nth: int) -> Callable[[Any, Any], None]:
        def replace(source: Any, target: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == nth:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(source, target)

        return replace

    of = spec()
    for nth in range(1, 6):
        calls = 0
        monkeypatch.setattr(os, "replace", fail_at(nth))
        with pytest.raises(StoreError, match="the disk is full"):
            save(store, of, history=[{"step": 1}])
        monkeypatch.undo()
        assert store.find(of) is None
        assert not [path for path in store.folder(of).iterdir() if path.name.startswith(".")]
    save(store, of)
    assert store.find(of) is not None


def test_a_model_that_cannot_be_written_leaves_no_half(store: Store) -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"cannot save the model in .*: the disk is full"):
        save(store, spec(), save_model=write)
    assert store.find(spec()) is None
    assert not any("model" in path.name for path in store.folder(spec()).iterdir())


@pytest.mark.parametrize(("number", "hint"), [
    (errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EACCES, "choose another place with -o"),
    (errno.EROFS, "read-only"), (errno.EFBIG, "larger than allowed"), (errno.EIO, "Input/output error"),
])  # fmt: skip
def test_reasons_say_what_to_do(number: int, hint: str) -> None:
    assert hint in explain(OSError(number, os.strerror(number)))
    assert explain(OSError("odd")) == "odd"


def test_a_folder_below_a_file_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot make the output folder .*: Not a directory"):
        Store(tmp_path / "file" / "runs").claim(spec())


def test_json_has_one_form() -> None:
    text = to_json({"b": (1, float("inf")), "a": {2: float("nan")}})
    assert text == b'{\n  "a": {\n    "2": null\n  },\n  "b": [\n    1,\n    null\n  ]\n}\n'


# --------------------------------------------------------------------------------------- names


NASTY = [
    "../../x", "..", ".", "...", "/etc", "/etc/passwd", "a\0b", "", " ", "\n", "отзывы", "日本語", "~", "a/b\\c",
    "C:\\x",
    "-rf", ".hidden", "x" * 500, "..a..", "con\x1b[31m", "\N{RIGHT-TO-LEFT OVERRIDE}gpj",
    "r3f:weight=0.5,eps=1e-05", "%2e%2e/",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_a_slug_is_one_harmless_name(text: str) -> None:
    name = slug(text)
    assert re.fullmatch(r"[A-Za-z0-9=_+][A-Za-z0-9=._+-]*", name)
    assert len(name) <= 60


def test_slugs_stay_readable() -> None:
    assert slug("news-topic") == "news-topic" and slug("std++") == "std++"
    assert slug("r3f:weight=0.5,eps=1e-05") == "r3f-weight=0.5-eps=1e-05"


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_names_from_data_never_leave_the_folder(store: Store, text: str) -> None:
    of = spec(task=text, methods=(MethodSpec(text),))
    folder = save(store, of).folder
    assert folder.parent.parent == store.root
    assert folder.resolve().is_relative_to(store.root.resolve())
    assert store.find(of) is not None
    assert {path.name for path in store.root.parent.iterdir()} == {store.root.name}


def test_names_that_slug_alike_are_two_runs(store: Store) -> None:
    one, other = spec(task="日本語"), spec(task="отзывы")
    save(store, one)
    assert store.find(other) is None
    save(store, other)
    assert {r.result.spec.task for r in read_all([store.root]).records} == {one.task, other.task}


def test_cost_of_a_newer_version_is_read_as_far_as_known(store: Store) -> None:
    path = save(store, spec()).folder / "cost.json"
    path.write_text(edited(path.read_text(), lambda raw: raw.update(joules=5)))
    found = store.find(spec())
    assert found is not None and found.cost == Cost(steps=10, device="cpu")
    assert "joules" not in {item.name for item in dataclasses.fields(Cost)}


def test_a_changed_digit_in_a_score_is_noticed(store: Store) -> None:
    """The spec is untouched, so only the checksum can tell."""
    folder = save(store, spec()).folder
    path = folder / "result.json"
    raw = json.loads(path.read_text())
    raw["facts"]["added"] = 1
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="checksum"):
        read(folder)
    raw.pop("checksum")  # written before there were checksums
    path.write_text(json.dumps(raw))
    assert read(folder).result.facts["added"] == 1
