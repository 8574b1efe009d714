"""Plain fine-tuning with as much compute as another method: the equal-compute baseline.

    L = mean over rows of CE(f(x), y),  steps = round(steps of std * ratio)

``compute=r3f`` takes the ratio from the runs at hand: training time of r3f over that of std (CPU time on a
CPU, wall time on a GPU) at the first seed, rounded to 0.1 so that a noisy clock does not make new runs.
A number is the ratio itself. The warm-up and decay stretch with the steps.

Cost: that of the other method, by construction; the passes of a step are those of plain fine-tuning.
Where the source differs: R3F's STD++ is "longer fine-tuning and bias correction" (arXiv 2008.03156,
section 3); how much longer could not be verified. Bias correction is already in ``std`` here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ftbench.methods.method import Method


@dataclass
class StdPlusPlus(Method):
    """compute: the name of an arm of the same command, or a factor of at least 1 (``1.7``)."""

    compute: str = "r3f"

    name: ClassVar[str] = "std++"
    family: ClassVar[str] = "baseline"
    summary: ClassVar[str] = "plain fine-tuning with as many steps as another method's cost buys"
    cite: ClassVar[str] = "after Aghajanyan et al. 2021, arXiv 2008.03156, section 3"
    cost: ClassVar[str] = "1 forward, 1 backward, more steps"
    no_neutral: ClassVar[str] = "it is std by construction; only the number of steps differs"

    def __post_init__(self) -> None:
        factor = self.factor
        if factor is not None:
            self.compute = f"{factor:g}"  # 2 and 2.0 are one arm
        self.require("compute", factor is None or 1 <= factor <= 100, "a method's name or a factor from 1 to 100")

    @property
    def factor(self) -> float | None:
        """The ratio where it is given as a number."""
        try:
            return float(self.compute)
        except ValueError:
            return None
