"""Which blocks are tuned, and which one the head reads: ``bottom:top:head``, numbered from 1; or the rule that finds
them once it is known which layer the task needs."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from ftbench.errors import UsageError

FORMS = "all, top:COUNT, BOTTOM:TOP:HEAD, auto[:COUNT], l*-down[:COUNT][:top] or l*-up[:COUNT][:top]; such as 2:4:4"


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


@dataclass(frozen=True)
class LayerRule:
    """Layers in relation to l*, the layer that separates the classes best before training.

    way:   ``down``: l* is the topmost one that is tuned; ``up``: the lowest one lies above it
    count: tune so many, or as many as there are in that direction; all of them where None
    head:  ``near``: on the topmost tuned block, and what lies above is not loaded; ``top``: on the model's topmost

    Xie et al. 2022 (arXiv 2210.10041) name the triples (l_bottom, l_top, l_head); ``down`` and ``up`` are their l*-down
    and l*-up.
    """

    way: Literal["down", "up"]
    count: int | None = None
    head: Literal["near", "top"] = "near"

    def __str__(self) -> str:
        parts = [f"l*-{self.way}", *([str(self.count)] if self.count else []), *(["top"] if self.head == "top" else [])]
        return ":".join(parts)

    def place(self, best: int, blocks: int) -> Layers | None:
        """The layers where l* is ``best`` (from 1) of so many blocks; None for ``up`` where none lies above it."""
        if self.way == "up" and best >= blocks:
            return None
        count = self.count or blocks
        bottom, top = (max(1, best - count + 1), best) if self.way == "down" else (best + 1, min(blocks, best + count))
        return Layers(bottom, top, blocks if self.head == "top" else top)

    @classmethod
    def parse(cls, text: str) -> LayerRule | None:
        """``auto:2``, which is ``l*-down:2``, or ``l*-up:2:top``. None for a text that is no rule.

        Raises UsageError for a count of 0.
        """
        found = re.fullmatch(r"(auto|l\*-down|l\*-up)(?::(\d+))?(:top)?", text)
        if not found or (found[1] == "auto" and found[3]):
            return None
        if found[2] and not int(found[2]):
            raise UsageError(f"layers '{text}': expected at least 1 layer")
        return cls("up" if found[1] == "l*-up" else "down", int(found[2] or 0) or None, "top" if found[3] else "near")


def rules(count: int) -> list[LayerRule]:
    """The strategies of Xie et al. with so many blocks."""
    return [
        LayerRule("down", count),
        LayerRule("down", count, "top"),
        LayerRule("up", count),
        LayerRule("up", count, "top"),
    ]


def places_of(count: int, blocks: int) -> list[Layers]:
    """So many neighbouring blocks at every place, lowest first, the head on the topmost of them."""
    return [Layers(top - count + 1, top, top) for top in range(count, blocks + 1)]


def random_place(count: int, blocks: int, seed: int) -> Layers:
    """One of ``places_of``, drawn by a run's seed."""
    return random.Random(f"{seed} {count} {blocks}").choice(places_of(count, blocks))


def cost_share(layers: Layers, blocks: int, *, weights: bool = True) -> float:
    """What a training step takes of that of plain fine-tuning, counting blocks: one unit for a block's forward pass,
    one for the gradient of its input, one for that of its weights (without ``weights`` next to nothing: adapters).

    head + (head - bottom + 1) + (top - bottom + 1), over 3 blocks; without embeddings, head and a prefix cache.
    """
    gradients = layers.top - layers.bottom + 1 if weights else 0
    return (layers.head + layers.head - layers.bottom + 1 + gradients) / (3 * blocks)


def resolve_layers(text: str, blocks: int, model: str) -> str:
    """``all``, ``top:3`` or ``2:4:4`` as RunSpec has it, for ``model`` of so many blocks: a triple, or empty where
    every block is tuned under a head on the topmost one, which is plain fine-tuning.

    Raises UsageError for anything else, and for blocks that the model does not have.
    """
    if text in ("", "all"):
        return ""
    if LayerRule.parse(text):
        raise UsageError(
            f"layers '{text}' has to be measured first, which only a plain study does: `ftbench variability` says "
            f"which layers they are; expected {FORMS.partition(', auto')[0]}"
        )
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
