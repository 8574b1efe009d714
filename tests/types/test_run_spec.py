"""The id identifies the numbers: what moves it, what never may."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ftbench.errors import UsageError
from ftbench.types import MethodSpec, Result, RunSpec

FIELDS = {item.name: item for item in dataclasses.fields(RunSpec)}
R3F = MethodSpec("r3f", 1, {"weight": 0.5, "noise": "normal"})
#: another valid value for every field
OTHER: dict[str, Any] = {
    "kind": "reference", "task": "other", "data": "d2", "weights": "w2", "model": "elsewhere",
    "source": {"path": "a.csv"},
    "task_revision": 2, "engine_revision": 2, "methods": (R3F,), "seed": 1, "data_seed": 1, "train_size": 200,
    "label_noise": 0.2, "select_on": 0.1, "limit": 50, "folds": 4, "max_length": 64, "steps": 11, "batch_size": 8,
    "micro_batch": 4,
    "lr": 1e-4, "warmup": 0.0, "weight_decay": 0.0, "clip": 0.0, "batching": "bucket", "passes": "joined",
    "precision": "bf16", "evaluations": 3, "imbalance": 0.5, "head": "kept",
    "encoder": "sst2>rte", "parents": ("b277b76aaa5e",), "pooling": "cls", "repeats": 3,
    "layers": "2:3:3", "frozen_dropout": True, "bins": 5, "permutations": 20, "resamples": 100, "weighting": "sample",
    "dtype": "paper", "probe": True, "checkpoint": "best", "remote_code": True,
    "source_prefix": "summarize: ", "max_target_length": 32, "label_smoothing": 0.1, "smoothed_over": "others",
    "num_beams": 4, "length_penalty": 2.0, "min_new_tokens": 3, "max_new_tokens": 30, "no_repeat_ngram_size": 3,
    "early_stopping": True, "evaluation_rows": 100,
}  # fmt: skip


def spec(**changed: Any) -> RunSpec:
    return RunSpec(**{"kind": "finetune", "task": "news-topic", "data": "d1", "weights": "w1", "steps": 10, **changed})


# Never edit these: a run that somebody has on disk would be done again, or found under another's name.
GOLDEN = {
    "std": (spec(), "b277b76aaa5e"),
    "r3f": (spec(methods=(R3F,), seed=3, lr=2e-5, train_size=500), "be4cfccff09c"),
    "reference": (spec(kind="reference", steps=0), "ed52250a37c0"),
    "noise": (spec(label_noise=0.2, data_seed=1, select_on=0.1, precision="bf16"), "881b0861b806"),
    "summarize": (
        spec(kind="summarize", max_target_length=32, max_new_tokens=32, num_beams=4, label_smoothing=0.1),
        "21225a76fd8b",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_ids(name: str) -> None:
    made, identity = GOLDEN[name]
    assert made.id == identity


def test_golden_ids_differ() -> None:
    assert len({made.id for made, _ in GOLDEN.values()}) == len(GOLDEN)


def test_every_field_has_another_value_here() -> None:
    assert set(OTHER) == set(FIELDS)


@pytest.mark.parametrize("name", [name for name, item in FIELDS.items() if "introduced" in item.metadata])
def test_a_field_at_its_introduced_value_does_not_change_the_id(name: str) -> None:
    made = RunSpec(kind="reference", task="t", data="d", weights="w")
    same = dataclasses.replace(made, **{name: FIELDS[name].metadata["introduced"]})
    assert name not in same.hashed() and same.id == made.id


@pytest.mark.parametrize("name", FIELDS)
def test_another_value_is_another_id_but_for_labels(name: str) -> None:
    changed = dataclasses.replace(spec(), **{name: OTHER[name]})
    is_label = bool(FIELDS[name].metadata.get("label"))
    assert (changed.id == spec().id) == is_label


def test_the_labels_are_model_and_source() -> None:
    assert {name for name, item in FIELDS.items() if item.metadata.get("label")} == {"model", "source"}


def test_every_default_is_the_introduced_value() -> None:
    """Or an old spec.json would load with one value and a new run would have another."""
    for name, item in FIELDS.items():
        if "introduced" in item.metadata:
            assert (
                getattr(RunSpec(kind="reference", task="t", data="d", weights="w"), name) == item.metadata["introduced"]
            )


@pytest.mark.parametrize("changed", [
    {"methods": (MethodSpec("r3f", 2, R3F.fields),)},
    {"methods": (MethodSpec("r3f", 1, {**R3F.fields, "weight": 0.6}),)},
    {"methods": (R3F, MethodSpec("llrd"))},
    {"methods": (R3F,), "task_revision": 2},
    {"methods": (R3F,), "engine_revision": 2},
], ids=["method revision", "method field", "longer stack", "task revision", "engine revision"])  # fmt: skip
def test_a_raised_revision_is_a_new_run(changed: dict[str, Any]) -> None:
    assert spec(**changed).id != spec(methods=(R3F,)).id


def test_the_order_of_fields_does_not_matter_that_of_a_stack_does() -> None:
    turned = MethodSpec("r3f", 1, dict(reversed(R3F.fields.items())))
    assert spec(methods=(turned,)).id == spec(methods=(R3F,)).id
    other = MethodSpec("llrd")
    assert spec(methods=(other, R3F)).id != spec(methods=(R3F, other)).id


def test_the_same_number_written_as_an_integer_is_the_same_run() -> None:
    assert spec(lr=1, clip=2, warmup=0).id == spec(lr=1.0, clip=2.0, warmup=0.0).id


@pytest.mark.parametrize("name", GOLDEN)
def test_round_trip_through_json(name: str) -> None:
    made = GOLDEN[name][0]
    read = RunSpec.from_json(json.loads(json.dumps(made.to_json())))
    assert read == made and read.id == made.id


def test_to_json_holds_every_field() -> None:
    assert set(spec().to_json()) == set(FIELDS)


@pytest.mark.parametrize("lacking", [name for name, item in FIELDS.items() if "introduced" in item.metadata])
def test_an_older_file_without_a_field(lacking: str) -> None:
    made = spec(methods=(R3F,), seed=2, steps=10)
    older = {key: value for key, value in made.to_json().items() if key != lacking}
    if lacking == "steps":  # finetune was never without steps
        older["kind"], made = "reference", dataclasses.replace(made, kind="reference", steps=0)
    read = RunSpec.from_json(older)
    assert getattr(read, lacking) == FIELDS[lacking].metadata["introduced"]
    assert read.id == dataclasses.replace(made, **{lacking: FIELDS[lacking].metadata["introduced"]}).id


def test_the_oldest_file_of_all() -> None:
    read = RunSpec.from_json({"kind": "finetune", "task": "news-topic", "data": "d1", "weights": "w1", "steps": 10})
    assert read == spec() and read.id == spec().id


def test_a_changed_default_does_not_reach_older_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that lacks a field has the introduced value, whatever the default is today."""
    monkeypatch.setitem(RunSpec.__init__.__kwdefaults__, "lr", 1e-3)
    read = RunSpec.from_json({"kind": "finetune", "task": "t", "data": "d", "weights": "w", "steps": 1})
    assert read.lr == FIELDS["lr"].metadata["introduced"]


def test_a_field_of_a_newer_version_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown fields colour, shape: written by a newer ftbench"):
        RunSpec.from_json({**spec().to_json(), "shape": 1, "colour": 2})


@pytest.mark.parametrize(("name", "value"), [
    ("seed", -1), ("seed", 2**32), ("data_seed", -1), ("data_seed", 2**32), ("train_size", 0), ("train_size", -5),
    ("label_noise", -0.1), ("label_noise", 1.0), ("label_noise", float("nan")), ("select_on", -0.1), ("select_on", 1.0),
    ("limit", 0), ("max_length", 3), ("steps", 0), ("steps", -1), ("batch_size", 0), ("micro_batch", 0),
    ("micro_batch", 17), ("lr", 0.0), ("lr", -1.0), ("lr", float("nan")), ("lr", float("inf")), ("warmup", -0.1),
    ("warmup", 1.0), ("weight_decay", -0.1), ("weight_decay", float("nan")), ("weight_decay", float("inf")),
    ("clip", -1.0), ("clip", float("nan")), ("batching", "sorted"), ("passes", "both"), ("precision", "fp8"),
    ("evaluations", 0),
])  # fmt: skip
def test_values_out_of_range_name_the_field_and_the_value(name: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        spec(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name.replace('_', '-')} is {value!r}: expected ")


def test_every_checked_field_is_a_field() -> None:
    """References have no steps; all else is refused alike."""
    assert RunSpec(kind="reference", task="t", data="d", weights="w").steps == 0
    with pytest.raises(UsageError, match="steps is -1"):
        RunSpec(kind="reference", task="t", data="d", weights="w", steps=-1)


@pytest.mark.parametrize(("name", "value"), [
    ("seed", 2**32 - 1), ("label_noise", 0.999), ("micro_batch", 16), ("warmup", 0.0), ("clip", 0.0), ("max_length", 4),
    ("select_on", 0.999), ("train_size", 1), ("limit", 1), ("steps", 1), ("weight_decay", 0.0), ("evaluations", 1),
])  # fmt: skip
def test_the_edges_are_inside(name: str, value: Any) -> None:
    assert getattr(spec(**{name: value}), name) == value


def test_a_spec_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(("methods", "text"), [
    ((), "std"), ((R3F,), "r3f:noise=normal,weight=0.5"), ((MethodSpec("r3f"), MethodSpec("llrd")), "r3f+llrd"),
    ((MethodSpec("a", 1, {"flag": True, "eps": 1e-5, "n": 3}),), "a:eps=1e-05,flag=on,n=3"),
])  # fmt: skip
def test_the_method_as_a_user_types_it(methods: tuple[MethodSpec, ...], text: str) -> None:
    assert spec(methods=methods).method == text


def test_an_arm_is_all_but_the_seeds() -> None:
    assert spec(seed=1, data_seed=2).arm() == spec(seed=3, data_seed=4).arm()
    assert spec(lr=1e-4).arm() != spec().arm()


@pytest.mark.parametrize("name", FIELDS)
def test_rows_are_shared_over_recipes_and_seeds(name: str) -> None:
    of_rows = {
        "task", "data", "task_revision", "weights", "train_size", "label_noise", "select_on", "limit", "max_length",
            "imbalance", "encoder", "folds",
    }  # fmt: skip
    changed = dataclasses.replace(spec(), **{name: OTHER[name]})
    assert (changed.rows_key() != spec().rows_key()) == (name in of_rows)


def test_a_score_that_is_not_there_is_none() -> None:
    result = Result(spec=spec(), status="ok", metrics={"last": {"validation": {"accuracy": 0.5}}})
    assert result.score("accuracy") == 0.5
    assert result.score("f1") is None and result.score("accuracy", "best") is None
    assert result.score("accuracy", "last", "selection") is None


@pytest.mark.parametrize(("field", "value", "expected"), [
    ("max_target_length", 0, "at least 2 tokens"),
    ("max_new_tokens", 5, "at least min-new-tokens, which is 9"),
    ("num_beams", 0, "at least 1"),
    ("label_smoothing", 1.0, "from 0 to below 1"),
    ("length_penalty", float("inf"), "a number"),
    ("evaluation_rows", 0, "at least 1"),
])  # fmt: skip
def test_how_summaries_are_written_is_checked(field: str, value: Any, expected: str) -> None:
    good = {"kind": "summarize", "max_target_length": 32, "max_new_tokens": 32, "min_new_tokens": 9}
    spec(**good)
    with pytest.raises(UsageError, match=f"{field.replace('_', '-')} is {value!r}: expected .*{expected}"):
        spec(**{**good, field: value})
