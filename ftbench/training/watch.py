"""What happens between steps: evaluate, keep the best, show progress, save, stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ftbench.errors import Interrupted
from ftbench.metrics import LOWER_IS_BETTER
from ftbench.training import checkpoint
from ftbench.training.batches import Tokens
from ftbench.training.cost import together
from ftbench.training.distributed import require_equal
from ftbench.training.engine import Diverged, Training, evaluation_steps
from ftbench.training.evaluate import decide, predict, probabilities, score_split
from ftbench.types import Rows

SAVE_SECONDS = 60.0
Array = np.ndarray[Any, Any]


class Progress(Protocol):
    """Told what a run does; never asked for anything. Counts are optimizer steps, of ``wrote`` summaries."""

    def step(self, done: int, total: int, loss: float | None) -> None: ...

    def evaluated(self, done: int, metric: str, value: float) -> None: ...

    def wrote(self, done: int, total: int) -> None: ...


class Silent:
    """Shows nothing."""

    def step(self, done: int, total: int, loss: float | None) -> None: ...

    def evaluated(self, done: int, metric: str, value: float) -> None: ...

    def wrote(self, done: int, total: int) -> None: ...


@dataclass
class Control:
    """How a run is attended; none of it changes a number.

    checkpoint_every: optimizer steps between checkpoints; 0 saves by the clock, about once a minute.
    should_stop:      true once the user asked to stop.
    """

    progress: Progress = field(default_factory=Silent)
    checkpoint_every: int = 0
    should_stop: Callable[[], bool] = lambda: False


@dataclass
class Split:
    """Rows to score, and their tokens."""

    tokens: Tokens
    rows: Rows


class Watch:
    """Called after every optimizer step of a run."""

    def __init__(
        self, folder: Path, splits: Mapping[str, Split], metrics: tuple[str, ...], control: Control, run: Training
    ) -> None:
        self.folder, self.splits, self.metrics, self.control = folder, splits, metrics, control
        self.chosen_on = "selection" if "selection" in splits else "validation"
        self.shown = "validation"
        self.due = set(evaluation_steps(run.spec.steps, run.per_epoch, run.spec.evaluations))
        #: what the last evaluation of validation gave, for the record: logits, or summaries
        self.predicted: Any = None
        self._saved_at = time.monotonic()
        self._saved_step = run.state.step

    def __call__(self, run: Training) -> None:
        control, state, total = self.control, run.state, run.spec.steps
        control.progress.step(state.step, total, state.history[-1].get("loss") if state.history else None)
        if state.step in self.due:
            with run.meter.pause():
                self.evaluate(run)
        if run.finished:
            return
        asked = run.group.each(lambda: (control.should_stop(), self._save_is_due(state.step)))
        if any(stop for stop, _ in asked):
            self.save(run)
            raise Interrupted(f"stopped after step {state.step} of {total}; run the same command to continue")
        if asked[0][1]:
            with run.meter.pause():
                self.save(run)

    def evaluate(self, run: Training) -> None:
        """Scores every split with the present weights; keeps the best by the headline metric. Raises Diverged."""
        require_equal(run.group, run.state.step, run.parameters)
        self.note(run, self.score(run))

    def note(self, run: Training, scores: dict[str, dict[str, float]]) -> None:
        """Writes an evaluation into the history, and tells the methods and whoever watches."""
        self._keep_best(run, scores)
        headline = self.metrics[0]
        run.state.history.append({"step": run.state.step, "evaluation": scores})
        self.control.progress.evaluated(run.state.step, headline, scores[self.shown][headline])
        sign = -1 if headline in LOWER_IS_BETTER else 1
        for method in run.methods:
            if method.evaluated(run.backbone, run.state.step, sign * scores[self.chosen_on][headline]):
                run.state.stopped = True

    def score(self, run: Training, weights: str = "last") -> dict[str, dict[str, float]]:
        """Every split with the present weights, which are called ``weights``: ``[split][metric]``; the first process
        does it. Raises Diverged."""
        scores, self.predicted = run.group.first(lambda: self._score(run, weights))
        return scores

    def _score(self, run: Training, weights: str) -> tuple[dict[str, dict[str, float]], Any]:
        """The scores, and what was predicted of the validation rows."""
        scores: dict[str, dict[str, float]] = {}
        validation = self.predicted
        for name, split in self.splits.items():
            logits = predict(run.backbone, split.tokens, run.spec.precision)
            if not np.isfinite(logits).all():  # the weights broke after the last loss that was looked at
                raise Diverged(f"predictions are not finite at step {run.state.step} of {run.spec.steps}")
            chances = None if run.regression else probabilities(logits)
            scores |= score_split(name, split.rows, decide(logits, regression=run.regression), self.metrics, chances)
            if name == "validation":
                validation = logits
        return scores, validation

    def _keep_best(self, run: Training, scores: dict[str, dict[str, float]]) -> None:
        """The earliest of equals, chosen on the slice of train where there is one."""
        headline = self.metrics[0]
        sign = -1 if headline in LOWER_IS_BETTER else 1
        best = run.state.best
        new = scores[self.chosen_on][headline]
        if not best or sign * new > sign * best["scores"][self.chosen_on][headline]:
            run.state.best = {"step": run.state.step, "scores": scores}

    def save(self, run: Training) -> None:
        """Writes a checkpoint that continues exactly here; the first process does it."""
        run.meter.stop()
        run.meter.record_peak()
        state = run.state
        state.sums = run.window.to_json()
        state.scaler = run.scaler.state_dict()
        state.cost = dataclasses.asdict(together(run.group.each(lambda: run.meter.cost)))
        run.group.first(lambda: checkpoint.save(self.folder, state, run.backbone.model, run.optimizer, run.methods))
        self._saved_at, self._saved_step = time.monotonic(), state.step

    def _save_is_due(self, step: int) -> bool:
        if self.control.checkpoint_every:
            return step - self._saved_step >= self.control.checkpoint_every
        return time.monotonic() - self._saved_at >= SAVE_SECONDS
