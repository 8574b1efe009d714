"""RunSpec to Result where summaries are written: trained by the same engine, scored by what the network writes.

While training a part of the rows is written, by which the best step is told; at the end all of them, with the last
weights. What is written stands in ``summaries/`` of the run's folder, so an interrupted evaluation goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ftbench.analysis.summaries import score_summaries
from ftbench.errors import Interrupted
from ftbench.models import backbone as models
from ftbench.models.locate import Checkpoint
from ftbench.models.seq2seq import Seq2Seq
from ftbench.training.batches import Tokens
from ftbench.training.cost import Meter
from ftbench.training.distributed import require_equal
from ftbench.training.engine import Diverged, Training, train
from ftbench.training.run import Outcome, Place, apply_perturbations, cost_of, finish, ready, term_means
from ftbench.training.start import network_of
from ftbench.training.summaries import document_tokens, target_tokens
from ftbench.training.watch import Control, Split, Watch
from ftbench.training.writing import write_summaries
from ftbench.types import Cost, Data, Result, RunSpec
from ftbench.types.run import PART

FOLDER = "summaries"
Array = np.ndarray[Any, np.dtype[Any]]


def summarize(spec: RunSpec, data: Data, source: Checkpoint, place: Place, control: Control) -> Outcome:
    """Trains once and writes every summary, going on from the checkpoint and the summaries in ``place.folder``.

    Raises what ``run.finetune`` raises; a loss that is not finite gives a Result with status ``diverged``.
    """
    data = apply_perturbations(spec, data)
    meter = Meter(Cost(device=str(place.device), threads=torch.get_num_threads()), place.device)
    meter.reset_peak()
    tokenizer = models.load_tokenizer(source)
    network = place.group.together(lambda: network_of(spec, data, source, tokenizer))
    network.model.to(place.device)
    documents = {
        name: document_tokens(rows, network, spec, source.fingerprint, place.cache)
        for name, rows in data.splits.items()
    }
    targets = target_tokens(data.splits["train"], network, spec, source.fingerprint, place.cache)
    training = place.group.together(
        lambda: ready(spec, data, source, network, documents["train"], place, meter, targets)
    )
    require_equal(place.group, training.state.step, training.parameters)
    splits = {name: Split(documents[name], rows) for name, rows in data.splits.items() if name != "train"}
    watch = Writer(place.folder, splits, data.task.metrics, control, training)
    try:
        train(training, watch)
        meter.record_peak()
        watch.whole(training)
        scores = finish(training, watch)
    except Diverged as error:
        meter.stop()
        facts = _facts(training, data, documents)
        result = Result(spec=spec, status="diverged", facts=facts, error=str(error))
        return Outcome(result, cost_of(training), training.state.history)
    return _outcome(training, watch, data, documents, scores)


class Writer(Watch):
    """Evaluates by writing: some rows while training, all rows once ``whole`` was called."""

    def __init__(
        self, folder: Path, splits: Mapping[str, Split], metrics: tuple[str, ...], control: Control, run: Training
    ) -> None:
        asked = [name for name in ("validation", "selection") if name in splits]
        self._all = splits
        self._chosen = {name: some(len(splits[name].rows), run.spec.evaluation_rows) for name in asked}
        parts = {self._named(name): taken(splits[name], chosen) for name, chosen in self._chosen.items()}
        super().__init__(folder, parts, metrics, control, run)
        self.shown, self.chosen_on = self._named("validation"), self._named(asked[-1])

    def _named(self, name: str) -> str:
        return name if self._chosen[name] is None else f"{name}{PART}"

    def evaluate(self, run: Training) -> None:
        """As ``Watch.evaluate``, on a part of the rows."""
        if not run.finished:  # after the last step all rows are written, see ``whole``
            super().evaluate(run)

    def whole(self, run: Training) -> None:
        """From now on all rows are written: first with the weights of the last step, kept in a checkpoint before."""
        self.save(run)
        self.splits = self._all
        require_equal(run.group, run.state.step, run.parameters)
        with run.meter.pause():
            scores = self.score(run, "raw" if any(method.moves for method in run.methods) else "last")
        self.note(run, scores)

    def _score(self, run: Training, weights: str) -> tuple[dict[str, dict[str, float]], Any]:
        """The scores of what the network writes, and that with its scores on the validation rows."""
        step = f"-step{run.state.step}" if self.splits is not self._all else ""
        scores: dict[str, dict[str, float]] = {}
        validation = self.predicted
        for name, split in self.splits.items():
            texts = self._write(run, split, f"{name}{step}" if weights == "last" else f"{name}-{weights}")
            found = score_summaries(texts, split.rows.summaries, split.rows.texts[0])
            scores[name] = dict(found.means)
            if name == "validation":
                validation = texts, found
            chosen = self._chosen.get(name) if self.splits is self._all else None
            if chosen is not None:
                scores[self._named(name)] = scores_of(texts, taken(split, chosen), chosen)
        return scores, validation

    def _write(self, run: Training, split: Split, name: str) -> list[str]:
        def attend(done: int, total: int) -> None:
            self.control.progress.wrote(done, total)
            if self.control.should_stop():
                raise Interrupted(f"stopped after {done} of {total} summaries; run the same command to continue")

        network, path = cast(Seq2Seq, run.backbone), self.folder / FOLDER / f"{name}.jsonl"
        return write_summaries(network, split.tokens, run.spec, path, attend)


def some(rows: int, wanted: int | None) -> Array | None:
    """Evenly spaced positions (wanted,) of ``rows`` rows; None where all are wanted."""
    if wanted is None or wanted >= rows:
        return None
    return np.linspace(0, rows - 1, wanted).round().astype(np.int64)


def taken(split: Split, chosen: Array | None) -> Split:
    """The rows at ``chosen`` (k,) of the split; all where None."""
    return split if chosen is None else Split(split.tokens.take(chosen), split.rows.take(chosen))


def scores_of(texts: Sequence[str], split: Split, chosen: Array) -> dict[str, float]:
    """Of the summaries at ``chosen`` among ``texts``; ``split``: these rows alone."""
    found = score_summaries([texts[i] for i in chosen], split.rows.summaries, split.rows.texts[0])
    return dict(found.means)


def _outcome(
    training: Training, watch: Writer, data: Data, tokens: Mapping[str, Tokens], scores: dict[str, Any]
) -> Outcome:
    texts, scored = watch.predicted
    state, rows = training.state, data.splits["validation"]
    facts = _facts(training, data, tokens) | {
        "distinct_predictions": len(set(texts)),
        "best_step": state.best["step"],
        "selected_on": watch.chosen_on,
        "terms": term_means(state.history),
        "intervals": {name: list(interval) for name, interval in scored.intervals.items()},
    }
    predictions: dict[str, Any] = {
        "example": rows.index,
        "prediction": np.array(texts, dtype=object),
        "reference": np.array([summaries[0] for summaries in rows.summaries], dtype=object),
        **{name: scored.rows[name] for name in data.task.metrics},
    }
    metrics = {**scores, "best": state.best["scores"]}
    result = Result(spec=training.spec, status="ok", metrics=metrics, facts=facts)
    return Outcome(result, cost_of(training), state.history, predictions, training.backbone)


def _facts(training: Training, data: Data, tokens: Mapping[str, Tokens]) -> dict[str, Any]:
    targets = training.targets
    return {
        "headline": data.task.metrics[0],
        "lower_is_better": False,
        "kind": data.task.kind,
        "labels": [],
        "rows": {name: len(rows) for name, rows in data.splits.items()},
        "truncated": {name: split.truncated for name, split in tokens.items()},
        "truncated_summaries": targets.truncated if targets else 0,
        "steps_per_epoch": training.per_epoch,
        **training.state.facts(),
    }
