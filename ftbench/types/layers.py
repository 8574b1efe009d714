"""Which blocks are tuned, and which one the head reads: ``bottom:top:head``, numbered from 1."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ftbench.errors import UsageError

FORMS = "all, top:COUNT or BOTTOM:TOP:HEAD, such as top:3 or 2:4:4"


@dataclass(frozen=True)
class Layers:
    """The blocks ``bottom`` to ``top`` are tuned, and the head sits on ``head``: blocks above that do not exist.

    Raises UsageError unless 1 <= bottom <= top <= head.
    """

    bottom: int
    top: int
    head: int

    def __post_init__(self) -> None:
        if not 1 <= self.bottom <= self.top:
            raise UsageError(f"layers {self}: expected a bottom from 1 to the top, {self.top}")
        if self.head < self.top:
            raise UsageError(f"layers {self}: the head is below the top: expected a head from {self.top} on")

    def __str__(self) -> str:
        return f"{self.bottom}:{self.top}:{self.head}"

    @classmethod
    def parse(cls, text: str) -> Layers:
        """``"2:4:4"``. Raises UsageError for anything else."""
        if not re.fullmatch(r"\d+:\d+:\d+", text):
            raise UsageError(f"layers '{text}': expected {FORMS}")
        return cls(*map(int, text.split(":")))


def resolve_layers(text: str, blocks: int, model: str) -> str:
    """``all``, ``top:3`` or ``2:4:4`` as RunSpec has it, for ``model`` of so many blocks: a triple, or empty where
    every block is tuned under a head on the topmost one, which is plain fine-tuning.

    Raises UsageError for anything else, and for blocks that the model does not have.
    """
    if text in ("", "all"):
        return ""
    if not blocks:
        raise UsageError(f"layers '{text}': the configuration of model '{model}' does not say how many blocks it has")
    if found := re.fullmatch(r"top:(\d+)", text):
        count = int(found[1])
        if not 1 <= count <= blocks:
            raise UsageError(f"layers '{text}': model '{model}' has {blocks} blocks; expected top:1 to top:{blocks}")
        layers = Layers(blocks - count + 1, blocks, blocks)
    else:
        layers = Layers.parse(text)
    if layers.head > blocks:
        raise UsageError(f"layers '{text}': model '{model}' has {blocks} blocks; expected numbers from 1 to {blocks}")
    return "" if layers == Layers(1, blocks, blocks) else str(layers)
