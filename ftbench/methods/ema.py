"""EMA: the result is an exponential average of the weights along the run.

    a_1 = w_1,   a_t = d * a_{t-1} + (1 - d) * w_t

after every optimizer step t, for every trained parameter; the average is the run's result (selection ``last``), the
weights of the last step are scored as ``raw``. Training itself is plain.

Polyak, Juditsky: Acceleration of Stochastic Approximation by Averaging. SIAM J. Control and Optimization 1992, for
the idea; Izmailov et al. 2018 (SWA, arXiv 1803.05407) for the equal average. Default: d = 1 - 1 / (0.1 * steps), an
average over about the last tenth of the run (``window``), ours: the usual d = 0.999 averages 1000 steps, more than a
run on a small task has, and stays near the start. ``decay`` gives d itself.

Cost: plain fine-tuning's, a copy of the weights and a pass over them a step. With a learning rate that falls to 0 the
average is close to the last weights.

Where paper and released code differ: torch's AveragedModel with get_ema_multi_avg_fn (2.13) gives the same averages;
its first update takes the weights as they are, too. Buffers are those of the last step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ftbench.errors import FtbenchError
from ftbench.methods.method import Method, Step
from ftbench.models.backbone import Backbone


@dataclass
class EMA(Method):
    """window: what the average reaches back, as a share of the run's steps. decay: d, in place of ``window``."""

    window: float = 0.1
    decay: float | None = None

    name: ClassVar[str] = "ema"
    family: ClassVar[str] = "trajectory"
    summary: ClassVar[str] = "exponential average of the weights"
    cite: ClassVar[str] = "Polyak and Juditsky 1992"
    neutral: ClassVar[Mapping[str, Any] | None] = {"decay": 0.0}
    moves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require("window", 0 < self.window <= 1, "more than 0 and at most 1")
        self.require("decay", self.decay is None or 0 <= self.decay < 1, "0 or more and below 1")
        self._average: dict[str, Tensor] = {}

    @property
    def replaces(self) -> bool:
        return True

    @torch.no_grad()
    def after_step(self, backbone: Backbone, step: Step) -> None:
        decay = 1 - 1 / max(1.0, self.window * step.steps) if self.decay is None else self.decay
        for name, parameter in backbone.model.named_parameters():
            if parameter.requires_grad:
                if name not in self._average:
                    self._average[name] = parameter.detach().clone()
                average = self._average[name] = self._average[name].to(parameter.device)
                average.lerp_(parameter, 1 - decay)

    def finish(self, backbone: Backbone) -> None:
        """Raises FtbenchError where another method has renamed parameters since, as ``r4f`` does in its ``finish``."""
        named = dict(backbone.model.named_parameters())
        if renamed := sorted(self._average.keys() - named.keys()):
            raise FtbenchError(f"{self.name} comes too late to average {renamed[0]}: name it first in the stack")
        with torch.no_grad():
            for name, average in self._average.items():
                named[name].copy_(average)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._average = dict(state)
