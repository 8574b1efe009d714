"""Which methods cannot work on a network, found out before a study runs: each is prepared once on a few rows."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from ftbench.errors import FtbenchError
from ftbench.methods import make
from ftbench.methods.method import Method
from ftbench.models import backbone as models
from ftbench.models.locate import Checkpoint
from ftbench.training.batches import tokenize
from ftbench.training.start import network_of, start_of
from ftbench.training.summaries import document_tokens, target_tokens
from ftbench.types import Data, Rows, RunSpec
from ftbench.types.run import TUNED

#: most rows of a rehearsal
ROWS = 16


def rehearse(
    runs: Iterable[tuple[str, RunSpec]], data: Mapping[str, Data], models_by_weights: Mapping[str, Checkpoint]
) -> dict[str, str]:
    """``prepare`` of each run's methods on the real network; runs come with a name. Once for each network and stack:
    the first task of a kind stands for the others.

    Returns name -> why it cannot be, or has no term with so few rows at once. Raises UsageError for a model that cannot
    be loaded. An error that is not ftbench's own is left to the run, which records it.
    """
    reasons: dict[str, str] = {}
    stages: dict[tuple[str, ...], _Stage] = {}
    seen: set[tuple[str, ...]] = set()
    for name, spec in runs:
        if why := _too_few(spec):
            reasons.setdefault(name, why)
            continue
        rows = data[spec.data]
        kept = rows.labels if spec.head == "kept" else ()
        place = (spec.weights, spec.head, spec.layers, rows.task.kind, *kept)
        acts = any(type(method).prepare is not Method.prepare for method in make(spec.methods))
        if not acts or (*place, spec.method) in seen:
            continue
        seen.add((*place, spec.method))
        if place not in stages:
            stages.clear()  # one network at a time: they are large
            stages[place] = _Stage(spec, rows, models_by_weights[spec.weights])
        try:
            stages[place].prepare(spec)
        except FtbenchError as error:
            reasons.setdefault(name, f"{error} (model {spec.model or spec.weights})")
        except Exception:
            continue
    return reasons


def _too_few(spec: RunSpec) -> str:
    """Why a method has no term at all with so few rows in a micro-batch; empty where it has."""
    size = spec.micro_batch or spec.batch_size
    for method in make(spec.methods) if spec.kind in TUNED else []:
        if method.fewest_rows > size:
            return (
                f"{method.name} has no term on fewer than {method.fewest_rows} rows: a micro-batch of {size} would be "
                "plain fine-tuning; give a larger --micro-batch or --batch-size"
            )
    return ""


class _Stage:
    """A network, and a few rows with every class among them."""

    def __init__(self, spec: RunSpec, data: Data, source: Checkpoint) -> None:
        self.regression = data.task.kind == "regression"
        self.rows, self.targets = few(data.splits["train"]), None
        tokenizer = models.load_tokenizer(source)
        self.network = network_of(spec, data, source, tokenizer)
        if self.network.writes:
            self.tokens = document_tokens(self.rows, self.network, spec, source.fingerprint)
            self.targets = target_tokens(self.rows, self.network, spec, source.fingerprint)
        else:
            self.tokens = tokenize(self.rows, tokenizer, spec.max_length, key=source.fingerprint)

    def prepare(self, spec: RunSpec) -> None:
        """On a copy: methods change what they prepare."""
        shared: dict[int, Any] = {id(self.network.tokenizer): self.network.tokenizer}
        network = copy.deepcopy(self.network, shared)
        torch.manual_seed(spec.seed)
        start = start_of(
            spec, network, self.tokens, self.rows, None,
            original=lambda: network, regression=self.regression, targets=self.targets,
        )  # fmt: skip
        for method in make(spec.methods):
            method.prepare(start)


def few(rows: Rows) -> Rows:
    """At most ``ROWS`` rows, with as many different labels as there are."""
    _, first = np.unique(rows.labels, return_index=True)
    spread = np.linspace(0, len(first) - 1, min(ROWS, len(first))).astype(int)
    more = np.setdiff1d(np.arange(len(rows)), first)[: max(0, ROWS - len(first))]
    return rows.take(np.sort(np.concatenate([first[spread], more])))
