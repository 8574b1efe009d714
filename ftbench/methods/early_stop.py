"""Early stopping: end when the score on the rows to select on no longer rises, and go back to the best weights.

    stop after ``patience`` evaluations in a row without  score > best + min_delta;   w <- argmax over evaluations

Prechelt: Early Stopping - But When? 1998; for fine-tuning Dodge et al. 2020, arXiv 2002.06305 (ending hopeless runs),
and, against it on small data, Mosbach et al. 2021, arXiv 2006.04884 (train long). Defaults: patience 3, min_delta 0,
ours. Evaluations are at the end of an epoch and at the last step, at most 10 (``evaluations``): with more epochs, of
every second, third, ... one. So patience counts epochs in a short run. The first one always counts as better: a run is
stopped early only where it has patience + 2 evaluations or more, which is said where it has not.

The result (selection ``last``) is the best weights, those at the end are scored as ``raw``. The learning rate falls
as planned for the whole run, so a run that is stopped early has never had a small one. The score is chosen on the
rows it is reported for, unless rows are held out (``select_on``).

Cost: a part of plain fine-tuning's, a copy of the weights. Where paper and released code differ: nothing is released.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ftbench.methods.method import Method
from ftbench.models.backbone import Backbone

log = logging.getLogger(__name__)


@dataclass
class EarlyStop(Method):
    """patience: evaluations without a better score. min_delta: what counts as better. keep: the weights to end with."""

    patience: int = 3
    min_delta: float = 0.0
    keep: Literal["best", "last"] = "best"

    name: ClassVar[str] = "early-stop"
    family: ClassVar[str] = "trajectory"
    summary: ClassVar[str] = "stops when the score no longer rises; keeps the best weights"
    cite: ClassVar[str] = "Prechelt 1998"
    cost: ClassVar[str] = "1 forward, 1 backward; fewer steps"
    neutral: ClassVar[Mapping[str, Any] | None] = {"patience": 1_000_000, "keep": "last"}
    moves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require("patience", self.patience >= 1, "1 or more")
        self.require_nonnegative("min_delta")
        self._best, self._waited = float("-inf"), 0
        self._weights: dict[str, Tensor] = {}

    @property
    def replaces(self) -> bool:
        return self.keep == "best"

    def evaluated(self, backbone: Backbone, step: int, score: float) -> bool:
        if score > self._best + self.min_delta:
            self._best, self._waited = score, 0
            if self.keep == "best":
                self._weights = {name: w.detach().clone() for name, w in backbone.model.state_dict().items()}
        else:
            self._waited += 1
        return self._waited >= self.patience

    def warn_if_idle(self, evaluations: int) -> None:
        """Says, once a process, that a run of so many evaluations cannot be stopped."""
        if evaluations < self.patience + 2:
            _say(self.patience, evaluations)

    def finish(self, backbone: Backbone) -> None:
        if self._weights:
            backbone.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Tensor]:
        counts = {"best": torch.tensor(self._best, dtype=torch.float64), "waited": torch.tensor(self._waited)}
        return counts | {f"weights.{name}": w for name, w in self._weights.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._best, self._waited = state["best"].item(), int(state["waited"])
        own = "weights."
        self._weights = {name.removeprefix(own): w for name, w in state.items() if name.startswith(own)}


@functools.cache
def _say(patience: int, evaluations: int) -> None:
    log.warning(
        "early-stop:patience=%d cannot stop a run of %d evaluation%s, at the ends of epochs: it takes %d or more",
        patience, evaluations, "s" * (evaluations > 1), patience + 2,
    )  # fmt: skip
