"""Floating-point operations of training, counted by torch: 2 for a multiply-add in matrix products, convolutions and
attention. What works on single elements (normalisation, dropout, the optimizer) counts nothing, as torch has it.

Counting slows a pass, so it is done where something new is seen. FLOPs of a micro-batch, a row, are a polynomial of
second degree in the padded lengths of its texts; once enough lengths were counted, those between them are read off the
polynomial, and only longer and shorter ones are counted again. Terms that grow with the square of the rows (CKA's) are
taken to be as large, a row, in a smaller last batch.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ftbench.training.cost import Meter

#: padded lengths of a micro-batch's texts: one for each sequence that the model reads
Lengths = tuple[int, ...]


@dataclass
class Flops:
    """Adds to the cost of ``meter``.

    known: for passes of one kind, lengths -> FLOPs a row that were counted
    """

    meter: Meter
    known: dict[Hashable, dict[Lengths, float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def counted(self) -> Iterator[FlopCounterMode]:
        """All that happens inside goes to the cost, but for what happens while the meter pauses."""
        counter = FlopCounterMode(display=False, custom_mapping=_ON_CPU)
        counter.mod_tracker = _NoModules()  # type: ignore[assignment]
        with counter, self.meter.leaving_out(counter.get_total_flops) as left_out:
            yield counter
            total = counter.get_total_flops() - left_out()
        self.meter.cost.flops += total

    @contextlib.contextmanager
    def estimated(self, kind: Hashable, inputs: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """All that happens inside goes to the cost: counted, or read off what was counted for other lengths.

        kind: what else decides the FLOPs of a row; inputs: of the micro-batch, each (rows, tokens)
        """
        known = self.known.setdefault(kind, {})
        shapes = [tensor.shape for name, tensor in sorted(inputs.items()) if name.endswith("input_ids")]
        rows, lengths = int(shapes[0][0]), tuple(int(shape[1]) for shape in shapes)
        if lengths in known or _is_between(known, lengths):
            yield
            self.meter.cost.flops += round(rows * _read_off(known, lengths))
            return
        before = self.meter.cost.flops
        with self.counted():
            yield
        known[lengths] = (self.meter.cost.flops - before) / rows


class _NoModules(contextlib.nullcontext[None]):
    """In place of torch's record of which module runs: its hooks refuse ``autograd.grad``."""

    parents = frozenset({"Global"})


def _is_between(known: Mapping[Lengths, float], lengths: Lengths) -> bool:
    """Whether enough was counted to read ``lengths`` off, without leaving the range of it."""
    if len(known) < len(_monomials(lengths)):
        return False
    counted = np.array(list(known))
    return bool(np.all(counted.min(0) <= lengths) and np.all(lengths <= counted.max(0)))


def _read_off(known: Mapping[Lengths, float], lengths: Lengths) -> float:
    """FLOPs a row: what was counted, else the value of the polynomial through it."""
    if lengths in known:
        return known[lengths]
    largest = np.max(list(known), axis=0)
    scaled = np.array([_monomials(tuple(one / largest)) for one in np.array(list(known))])
    weights = np.linalg.lstsq(scaled, np.array(list(known.values())), rcond=None)[0]
    return float(_monomials(tuple(np.array(lengths) / largest)) @ weights)


def _monomials(lengths: tuple[Any, ...]) -> np.ndarray[Any, np.dtype[Any]]:
    """Of degree 0 to 2: (1, a, a^2) of one length, (1, a, b, a^2, ab, b^2) of two."""
    pairs = itertools.combinations_with_replacement((1.0, *lengths), 2)
    return np.array([first * second for first, second in pairs])


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    """The scores again, and the gradients of scores, values, queries and keys."""
    return int(sdpa_flop_count(query, key, value) * 5 // 2)


_aten = torch.ops.aten
#: torch's own list has the kernels of GPUs only
_ON_CPU = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
