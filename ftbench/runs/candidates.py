"""What ``ftbench choose`` compares, in the order in which it would rather use it: the first is the default.

std          plain fine-tuning with the default recipe
linear       logistic regression on the frozen encoder: nothing is fine-tuned
layers       the layers that variability recommends, and the upper half of the network
methods      those of ``--methods`` (``DEFAULT``) at their defaults, then each weaker and stronger
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftbench.lookup import build
from ftbench.methods import method_class, parse_stack
from ftbench.models.locate import Checkpoint
from ftbench.runs.matched import Stack, name_of
from ftbench.types import MethodSpec

STD, LINEAR = "std", "linear"
#: raced where ``--methods`` says nothing: one of each kind, all cheap to train and free to serve
DEFAULT = ("lora", "llrd", "wise-ft", "mixout", "r3f")
#: a method without ``weight``: the field that says how strong it is, with a weaker and a stronger value
STRENGTHS: dict[str, tuple[str, Any, Any]] = {
    "freelb": ("eps", 0.1, 1.0),
    "hype": ("eps", 1e-3, 1e-1),
    "neftune": ("alpha", 1.0, 15.0),
    "noisytune": ("intensity", 0.05, 0.3),
    "mixout": ("p", 0.5, 0.97),
    "reinit": ("layers", 1, 3),
    "llrd": ("decay", 0.98, 0.85),
    "child-tuning": ("p", 0.6, 0.1),
    "freeze": ("layers", 1, 4),
    "bitfit": ("lr", 3.0, 30.0),
    "lora": ("rank", 2, 32),
    "adapter": ("width", 64, 512),
    "sam": ("eps", 0.02, 0.1),
    "asam": ("eps", 0.2, 1.0),
    "ema": ("window", 0.05, 0.3),
    "lp-ft": ("share", 0.1, 0.5),
    "wise-ft": ("alpha", 0.75, 0.25),
}
#: how much weaker and stronger a ``weight`` is
FACTOR = 4.0
#: what a run is thought to take before one was measured, in runs of std
RATIOS = {"r3f": 2.0, "r4f": 2.0, "rdrop": 2.0, "smart": 3.5, "vat": 3.5, "freelb": 3.0, "sam": 2.0, "asam": 2.0}


@dataclass(frozen=True)
class Candidate:
    """One way to get a model. layers: as ``--layers``; reference: ``linear``, which is not fine-tuned."""

    name: str
    model: Checkpoint
    stack: Stack = ()
    layers: str = ""
    reference: str = ""

    @property
    def ratio(self) -> float:
        """What a run is thought to take, in runs of std."""
        if self.reference:
            return 0.3
        return max([RATIOS.get(method.name, 1.2) for method in self.stack] or [1.0])


def candidates(models: Sequence[Checkpoint], methods: Sequence[str], layers: Sequence[str]) -> list[Candidate]:
    """All of them for each model, those of one kind together; names bear the model's where there are several.

    Raises UsageError for a method or a field that is not there.
    """
    stacks = [parse_stack(text) for text in methods]
    strengths = [other for stack in stacks for other in (weaker(stack), stronger(stack)) if other]
    ways: list[tuple[str, Stack, str, str]] = [(STD, (), "", ""), (LINEAR, (), "", LINEAR)]
    ways += [(f"layers {text}", (), text, "") for text in layers]
    ways += [(name_of(stack), stack, "", "") for stack in [*stacks, *strengths] if stack]
    several = len(models) > 1
    found = [
        Candidate(f"{model.name} {name}" if several else name, model, stack, text, reference)
        for name, stack, text, reference in ways
        for model in models
    ]
    return list({one.name: one for one in found}.values())


def weaker(stack: Stack) -> Stack | None:
    """A single method at less than its default strength; None where it has none, or where fields were given."""
    return _at(stack, 1)


def stronger(stack: Stack) -> Stack | None:
    """A single method at more than its default strength; None as in ``weaker``."""
    return _at(stack, 2)


def _at(stack: Stack, place: int) -> Stack | None:
    if len(stack) != 1 or stack[0].fields:
        return None
    (method,) = stack
    defaults = {item.name: item.default for item in dataclasses.fields(method_class(method.name)) if item.init}
    if method.name in STRENGTHS:
        field, value = STRENGTHS[method.name][0], STRENGTHS[method.name][place]
    elif isinstance(weight := defaults.get("weight"), float):
        field, value = "weight", weight * (1 / FACTOR if place == 1 else FACTOR)
    else:
        return None
    made = build(method_class(method.name), {field: value}, method.name)
    return (MethodSpec(method.name, method.revision, made.set_fields()),)
