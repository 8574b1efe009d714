"""Plain fine-tuning: the baseline that every method is compared with.

    L = mean over rows of CE(f(x), y)        (squared error in regression)

AdamW with bias correction, linear warm-up and decay, clipping: the recipe that Mosbach et al. (2021,
arXiv 2006.04884) and Zhang et al. (2021, arXiv 2006.05987) found stable on small data, with enough
updates to converge. R3F's paper calls the short recipe without these STD.

Defaults: steps, learning rate and warm-up are ours, from slices of train of several tasks (docs/recipe.md).
Cost: a forward and a backward pass, the unit that all other costs are given in.
Where this and those papers differ: their recipes are for BERT and models of its size, ours is by width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ftbench.methods.method import Method


@dataclass
class Std(Method):
    """No term, no hook."""

    name: ClassVar[str] = "std"
    family: ClassVar[str] = "baseline"
    summary: ClassVar[str] = "plain fine-tuning; runs beside every other method"
    cite: ClassVar[str] = "Mosbach et al. 2021, arXiv 2006.04884; Zhang et al. 2021, arXiv 2006.05987"
    neutral: ClassVar[Mapping[str, Any] | None] = {}
