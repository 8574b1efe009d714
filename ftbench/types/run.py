"""One run: what was asked (RunSpec), what came out (Result), what it took (Cost)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from ftbench.errors import UsageError
from ftbench.types.layers import Layers

Status = Literal["ok", "diverged", "failed"]
#: seeds from here on are those of trials: runs that only choose a configuration, see ``Search``
TRIAL_SEED = 2**31
#: the file in a run's folder that training writes and the store takes away
CHECKPOINT = "checkpoint.safetensors"
#: methods that choose which parameters are tuned, the first of their stack; ``Method.tunes`` is the same
TUNING = ("bitfit", "lora", "adapter")
#: kinds of runs that train a network on a task: those that methods are compared by
TUNED = ("finetune", "summarize")
#: behind the name of a split of which only some rows were scored, while training
PART = "-part"
#: metrics[selection][split][metric]; selections are last, best; splits are validation, selection
Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]


def _since(value: Any, *, label: bool = False) -> Any:
    """A field that was introduced with ``value``: left out of the id while it has that value.

    ``label`` fields say where things came from; fingerprints stand for them in the id.
    """
    make = {"default_factory": lambda: value} if isinstance(value, dict) else {"default": value}
    return field(**make, metadata={"introduced": value, "label": label})


@dataclass(frozen=True)
class MethodSpec:
    """One method of a stack: its canonical name, its revision, and the fields that were set."""

    name: str
    revision: int = 1
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``"r3f:weight=0.5"``: what a user would type."""
        if not self.fields:
            return self.name
        return f"{self.name}:" + ",".join(f"{key}={text_of(value)}" for key, value in sorted(self.fields.items()))


def text_of(value: Any) -> str:
    """A value as one types it: ``on``, ``0.5``, ``1e-05``, ``1e6``: a ``+`` would begin the next method of a stack."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return re.sub(r"e\+0*", "e", short if float(short := f"{value:g}") == value else repr(value))
    return str(value)


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Everything that decides a run's numbers, and nothing else.

    ``id`` hashes the fields that differ from the value they had when they were introduced; so a new
    field never changes an old run's id. ``data`` and ``weights`` are fingerprints of the rows and of
    the checkpoint, ``*_revision`` are raised whenever a number can move.

    layers:         ``Layers`` as text; empty: every block is tuned, and the embeddings
    frozen_dropout: whether what lies below the lowest tuned block drops as in plain fine-tuning, or not at all
    checkpoint:     the weights that fine-tuning ends with: of the last step, or of the best evaluation by the headline
                    on the slice ``select_on``, or on validation; a method that has other weights as its result ends
                    with those
    max_length:     tokens of a text, or of a document that is summarized; the same for references and runs
    max_target_length, label_smoothing, smoothed_over: what summaries are trained on, see ``training.summaries``
    num_beams to early_stopping: as ``generate`` of transformers has them; 0 is none
    """

    kind: Literal["finetune", "reference", "probe", "variability", "summarize"]
    task: str
    data: str
    weights: str
    model: str = _since("", label=True)
    source: Mapping[str, Any] = _since({}, label=True)
    task_revision: int = _since(1)
    engine_revision: int = _since(1)
    methods: tuple[MethodSpec, ...] = _since(())
    seed: int = _since(0)
    # rows
    data_seed: int = _since(0)
    train_size: int | None = _since(None)
    label_noise: float = _since(0.0)
    select_on: float = _since(0.0)
    limit: int | None = _since(None)
    folds: int = _since(0)
    max_length: int = _since(128)
    # recipe
    steps: int = _since(0)
    batch_size: int = _since(16)
    micro_batch: int | None = _since(None)
    lr: float = _since(5e-5)
    warmup: float = _since(0.1)
    weight_decay: float = _since(0.01)
    clip: float = _since(1.0)
    batching: Literal["random", "bucket"] = _since("random")
    passes: Literal["separate", "joined"] = _since("separate")
    precision: Literal["fp32", "bf16", "fp16"] = _since("fp32")
    evaluations: int = _since(10)
    imbalance: float | None = _since(None)
    head: Literal["fresh", "kept"] = _since("fresh")
    # what the encoder was before: "" as pretrained, "random", or tuned on tasks, "sst2>qnli"; by which run
    encoder: str = _since("")
    parents: tuple[str, ...] = _since(())
    # probes
    pooling: Literal["mean", "ordinary", "cls", "last"] = _since("mean")
    repeats: int = _since(0)
    layers: str = _since("")
    frozen_dropout: bool = _since(False)
    checkpoint: Literal["last", "best"] = _since("last")
    # layers measured without training; see analysis.variability
    bins: int | None = _since(None)
    permutations: int = _since(0)
    resamples: int = _since(0)
    weighting: Literal["class", "sample"] = _since("class")
    dtype: Literal["fp64", "paper"] = _since("fp64")
    probe: bool = _since(False)
    # whether Python files of the checkpoint were run
    remote_code: bool = _since(False)
    # summaries: what is trained on
    source_prefix: str = _since("")
    max_target_length: int = _since(0)
    label_smoothing: float = _since(0.0)
    smoothed_over: Literal["all", "others"] = _since("all")
    # summaries: how they are written, and on how many rows while training
    num_beams: int = _since(1)
    length_penalty: float = _since(1.0)
    min_new_tokens: int = _since(0)
    max_new_tokens: int = _since(0)
    no_repeat_ngram_size: int = _since(0)
    early_stopping: bool = _since(False)
    evaluation_rows: int | None = _since(None)

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def id(self) -> str:
        """12 hex digits that identify the numbers."""
        return hashlib.sha256(_encode(self._hashed).encode()).hexdigest()[:12]

    def hashed(self) -> dict[str, Any]:
        """The fields that the id is made of."""
        return dict(self._hashed)

    @cached_property
    def _hashed(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, number, introduced in _id_fields():
            value = getattr(self, name)
            if value == introduced:
                continue
            if number:  # 1 and 1.0 are one number
                value = float(value)
            out[name] = [{**vars(m), "fields": dict(m.fields)} for m in value] if name == "methods" else value
        return out

    @property
    def method(self) -> str:
        """The stack as a user would type it; the empty stack is ``std``."""
        return "+".join(m.label for m in self.methods) or "std"

    @property
    def tuning(self) -> tuple[MethodSpec, ...]:
        """The method that chooses which parameters are tuned, where there is one."""
        return tuple(m for m in self.methods[:1] if m.name in TUNING)

    @property
    def is_trial(self) -> bool:
        """Whether the run was made to choose a configuration: it is in no mean."""
        return self.kind in TUNED and self.seed >= TRIAL_SEED

    @property
    def length_flag(self) -> str:
        """The flag that sets ``max_length``."""
        return "--max-source-length" if self.kind == "summarize" else "--max-length"

    def arm(self) -> dict[str, Any]:
        """Everything in the id but the seeds and what differs with them: runs that share it are averaged."""
        return {key: value for key, value in self.hashed().items() if key not in ("seed", "data_seed", "parents")}

    def rows_key(self) -> tuple[Any, ...]:
        """The rows and the model: references and methods that share it can be compared."""
        return (
            self.task, self.data, self.task_revision, self.weights, self.train_size, self.label_noise,
            self.select_on, self.limit, self.max_length, self.imbalance, self.encoder, self.folds,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """All fields, for ``spec.json``."""
        return {**dataclasses.asdict(self), "source": dict(self.source)}

    @classmethod
    def unknown(cls, data: object) -> list[str]:
        """The fields that this version does not know; none where ``data`` is no spec at all."""
        return sorted(map(str, data.keys() - cls.__dataclass_fields__)) if isinstance(data, Mapping) else []

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunSpec:
        """Reads ``spec.json`` of this or an older version: fields it lacks have their introduced value.

        Raises ValueError for a field that this version does not know.
        """
        if unknown := cls.unknown(data):
            raise ValueError(f"unknown fields {', '.join(unknown)}: written by a newer ftbench?")
        introduced = _introduced()
        methods = tuple(MethodSpec(**m) for m in data.get("methods", ()))
        return cls(**{**introduced, **data, "methods": methods, "parents": tuple(data.get("parents", ()))})


@cache
def _introduced() -> dict[str, Any]:
    fields = dataclasses.fields(RunSpec)
    return {item.name: item.metadata["introduced"] for item in fields if "introduced" in item.metadata}


@cache
def _id_fields() -> tuple[tuple[str, bool, Any], ...]:
    """Name, whether it is a float, and the value with which it is left out (one that none equals where it never is)."""
    return tuple(
        (item.name, item.type == "float", item.metadata.get("introduced", object()))
        for item in dataclasses.fields(RunSpec)
        if not item.metadata.get("label")
    )


#: canonical JSON; kept, since json.dumps makes an encoder at every call
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def _check(spec: RunSpec) -> None:
    """Refuses values that no run can have. Raises UsageError naming the field."""
    rules = [
        ("seed", 0 <= spec.seed < 2**32, f"a whole number from 0 to {2**32 - 1}"),
        ("data_seed", 0 <= spec.data_seed < 2**32, f"a whole number from 0 to {2**32 - 1}"),
        ("train_size", spec.train_size is None or spec.train_size >= 1, "at least 1"),
        ("label_noise", 0 <= spec.label_noise < 1, "from 0 to below 1"),
        ("imbalance", spec.imbalance is None or 0 < spec.imbalance <= 1, "above 0, at most 1"),
        ("select_on", 0 <= spec.select_on < 1, "a fraction from 0 to below 1"),
        ("folds", spec.folds == 0 or spec.folds >= 2, "at least 2, or 0 for none"),
        ("limit", spec.limit is None or spec.limit >= 1, "at least 1"),
        ("max_length", spec.max_length >= 4, "at least 4 tokens"),
        ("steps", spec.steps >= (spec.kind in TUNED), "at least 1"),
        ("batch_size", spec.batch_size >= 1, "at least 1"),
        ("micro_batch", spec.micro_batch is None or 1 <= spec.micro_batch <= spec.batch_size, "1 to the batch size"),
        ("lr", 0 < spec.lr < float("inf"), "above 0"),
        ("warmup", 0 <= spec.warmup < 1, "a fraction from 0 to below 1"),
        ("weight_decay", 0 <= spec.weight_decay < float("inf"), "0 or more"),
        ("clip", 0 <= spec.clip < float("inf"), "0 (off) or more"),
        ("batching", spec.batching in ("random", "bucket"), "random or bucket"),
        ("passes", spec.passes in ("separate", "joined"), "separate or joined"),
        ("precision", spec.precision in ("fp32", "bf16", "fp16"), "fp32, bf16 or fp16"),
        ("evaluations", spec.evaluations >= 1, "at least 1"),
        ("head", spec.head in ("fresh", "kept"), "fresh or kept"),
        ("checkpoint", spec.checkpoint in ("last", "best"), "last or best"),
        ("pooling", spec.pooling in ("mean", "ordinary", "cls", "last"), "mean, ordinary, cls or last"),
        ("repeats", spec.repeats >= (spec.kind == "probe"), "at least 1"),
        ("bins", spec.bins is None or spec.bins == 0 or spec.bins >= 2, "at least 2, or 0 for none"),
        ("permutations", spec.permutations == 0 or spec.permutations >= 19, "at least 19, to tell signal from chance"),
        ("resamples", spec.resamples >= 0, "0 or more"),
        ("weighting", spec.weighting in ("class", "sample"), "class or sample"),
        ("dtype", spec.dtype in ("fp64", "paper"), "fp64 or paper"),
        *_writing_rules(spec),
    ]
    if spec.layers:
        Layers.parse(spec.layers)
    for name, good, expected in rules:
        if not good:
            shown = name.replace("_", "-")
            raise UsageError(f"{shown} is {getattr(spec, name)!r}: expected {expected}")


def _writing_rules(spec: RunSpec) -> list[tuple[str, bool, str]]:
    """Of the fields that only summaries have; see ``_check``."""
    wanted = spec.kind == "summarize"
    return [
        ("max_target_length", spec.max_target_length >= 2 * wanted, "at least 2 tokens"),
        ("label_smoothing", 0 <= spec.label_smoothing < 1, "from 0 to below 1"),
        ("smoothed_over", spec.smoothed_over in ("all", "others"), "all or others"),
        ("num_beams", spec.num_beams >= 1, "at least 1"),
        ("length_penalty", abs(spec.length_penalty) < float("inf"), "a number; above 1 favours long summaries"),
        ("min_new_tokens", spec.min_new_tokens >= 0, "0 (none) or more"),
        ("max_new_tokens", spec.max_new_tokens >= 2 * wanted, "at least 2 tokens"),
        (
            "max_new_tokens",
            not wanted or spec.max_new_tokens >= spec.min_new_tokens,
            f"at least min-new-tokens, which is {spec.min_new_tokens}",
        ),
        ("no_repeat_ngram_size", spec.no_repeat_ngram_size >= 0, "0 (none) or more"),
        ("evaluation_rows", spec.evaluation_rows is None or spec.evaluation_rows >= 1, "at least 1"),
    ]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out. Holds nothing that time or machine decide, so two results compare with ``cmp``.

    ``facts`` are whole numbers and scores that later verdicts need: rows, steps, updates per epoch,
    the majority score, the number of distinct predictions, the epoch of the best score.
    """

    spec: RunSpec
    status: Status
    metrics: Metrics = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    def score(self, metric: str, selection: str = "last", split: str = "validation") -> float | None:
        """One number, or None where the run has none."""
        return self.metrics.get(selection, {}).get(split, {}).get(metric)


@dataclass(kw_only=True)
class Cost:
    """What a run took, summed over its interruptions. Seconds are of training only: no loading, no
    evaluation, no diagnostics. ``process_seconds`` is CPU time of all threads of all ``processes`` that shared the run;
    memory is in bytes, that of the largest process. ``flops`` of the same stretch, see ``training.flops``; 0 in runs of
    before it was counted."""

    process_seconds: float = 0.0
    wall_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    steps: int = 0
    forward_passes: int = 0
    backward_passes: int = 0
    tokens: int = 0
    flops: int = 0
    peak_memory: int = 0
    memory_of: str = ""
    trained_parameters: int = 0
    device: str = ""
    threads: int = 0
    interruptions: int = 0
    processes: int = 1

    @property
    def training_seconds(self) -> float:
        """What costs are compared by: CPU time on the CPU, wall time of each GPU where those do the work."""
        return self.wall_seconds * self.processes if self.device.startswith("cuda") else self.process_seconds


@dataclass(frozen=True)
class Record:
    """One finished run in the store."""

    folder: Path
    result: Result
    cost: Cost
