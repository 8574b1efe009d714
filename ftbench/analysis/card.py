"""What is said of every collapse metric, beside the function that computes it.

In the formulas X (n, width) are the features of one layer, l_1 >= l_2 >= ... the eigenvalues of the covariance
X^T X / n of the centred ones, u = x / ||x|| an example at length 1, Y the features of the network compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ftbench.analysis.layer import Layer

Change = Literal["rotation", "scaling", "shift", "order"]
ANY: frozenset[Change] = frozenset({"rotation", "scaling", "shift", "order"})


@dataclass(frozen=True, kw_only=True)
class Card:
    """One metric.

    function:  one layer to a float
    means:     what the number says
    formula:   in the letters of this module
    range:     the values it can have
    collapse:  the side on which collapsed features lie
    invariant: what may happen to X and leave the value alone: rotation (of the width), scaling (by one number), shift
               (by one vector), order (of the examples, their labels and their reference). What is not named moves it.
    traps:     how it misleads
    cite:      source
    needs:     class labels or the features of the network compared with
    examples:  fewest examples
    width:     smallest width
    constant:  its value where all examples are one vector that is not zero
    """

    function: Callable[[Layer], float]
    means: str
    formula: str
    range: str
    collapse: Literal["low", "high"]
    invariant: frozenset[Change]
    traps: str
    cite: str
    needs: Literal["", "labels", "reference"] = ""
    examples: int = 2
    width: int = 1
    constant: float = 0.0
