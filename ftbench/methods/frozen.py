"""What the pretrained encoder made of every training row: computed once and looked up, or computed at every step.

Targets are float32, in evaluation mode, of the weights as ``prepare`` found them.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ftbench.methods.features import Token, reader_of
from ftbench.methods.method import Batch, Method, Start
from ftbench.models.backbone import Backbone
from ftbench.models.modes import evaluating

CHUNK = 4096


@dataclass
class AgainstPretrained(Method):
    """weight: lambda. layer: ``top`` or the number of a block from 1. token: see ``features.Reader``.
    cache: targets computed once (``on``), or at every step by a frozen copy of the network (``off``).
    target: the network as the run finds it (``start``: in a chain of tasks what the task before left, in a stack what
    methods before made of it), or as it was pretrained (``original``)."""

    weight: float = 1.0
    layer: int | str = "top"
    token: Token = "cls"
    cache: Literal["on", "off"] = "on"
    target: Literal["start", "original"] = "start"

    wants_states: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require_nonnegative("weight")
        known = self.layer == "top" or (isinstance(self.layer, int) and self.layer >= 1)
        self.require("layer", known, "top or the number of a block from 1")

    def prepare(self, start: Start) -> None:
        network = start.original() if self.target == "original" else start.backbone
        self.targets = FrozenTargets(start, network, self.layer, self.token, self.cache, self.name)


class FrozenTargets:
    """``targets(batch)``: the pretrained vectors of the batch's rows, laid out as ``read`` lays out those of a pass."""

    def __init__(
        self, start: Start, network: Backbone, layer: int | str, token: Token, cache: str, method: str = ""
    ) -> None:
        self.read = reader_of(network, next(start.batches()).inputs, layer, token, method)
        self._start = start
        self._frozen: Backbone | None = None
        if cache == "off":
            self._frozen = copy.deepcopy(network, {id(network.tokenizer): network.tokenizer})
            self._frozen.model.eval().requires_grad_(False)
            return
        lengths = [batch.inputs["attention_mask"].sum(1).cpu() for batch in start.batches()] if token == "all" else []
        counts = torch.cat(lengths) if lengths else torch.ones(start.rows, dtype=torch.int64)
        self._ends = counts.cumsum(0)
        self._table = self._stored(network, int(self._ends[-1]))

    def __call__(self, batch: Batch) -> Tensor:
        """(rows, 1 or tokens, width) float32, zeros at the padding; no gradient."""
        mask = batch.inputs["attention_mask"]
        if self._frozen is not None:
            batch.elsewhere()
            return self._computed(self._frozen, batch)
        if self.read.token != "all":
            return self._table[batch.positions].unsqueeze(1).to(mask.device)
        ends, counts = self._ends[batch.positions], mask.sum(1).cpu()
        rows = [self._table[end - count : end] for end, count in zip(ends, counts, strict=True)]
        target = torch.zeros(*mask.shape, self.read.width, device=mask.device)
        target[mask.bool()] = torch.cat(rows).to(mask.device)
        return target

    def variance(self) -> float:
        """Mean over dimensions of the variance over rows (over real tokens for ``all``)."""
        pieces = self._pieces(self._frozen) if self._frozen is not None else self._table.split(CHUNK)
        sums = [(len(piece), piece.double().sum(0), piece.double().square().sum(0)) for piece in pieces]
        count = sum(size for size, _, _ in sums)
        mean = torch.stack([total for _, total, _ in sums]).sum(0) / count
        square = torch.stack([squares for _, _, squares in sums]).sum(0) / count
        return float((square - mean.square()).mean())

    @torch.no_grad()
    def _computed(self, backbone: Backbone, batch: Batch) -> Tensor:
        mask = batch.inputs["attention_mask"]
        with torch.autocast(mask.device.type, enabled=False):
            return self.read(backbone.forward(batch.inputs, states=True).states, mask)

    def _pieces(self, backbone: Backbone) -> Iterator[Tensor]:
        """All vectors in the order of the rows, (some, width) each, on the CPU."""
        with evaluating(backbone.model):
            for batch in self._start.batches():
                vectors = self._computed(backbone, batch)
                keep = self.read.shares(batch.inputs["attention_mask"]) > 0
                yield vectors[keep].cpu()

    def _stored(self, network: Backbone, rows: int) -> Tensor:
        """(rows, width), memory-mapped where there is a cache folder that can be written."""
        if self._start.cache is None:
            return torch.cat(list(self._pieces(network)))
        path = self._start.cache / f"targets-{self._key(network)}.safetensors"
        table = _load(path, (rows, self.read.width))
        if table is None:
            table = torch.cat(list(self._pieces(network)))
            _save(path, table)
        return table

    def _key(self, backbone: Backbone) -> str:
        """Stands for the rows, what is read of them, and the encoder as it is: a method before may have changed it."""
        depths = backbone.depths()
        digest = hashlib.sha256(repr((self._start.key(), self.read, backbone.device.type)).encode())
        for name, parameter in backbone.model.named_parameters():
            if depths.get(name, 0) > 0:
                exact = parameter.detach().double()
                digest.update(repr((name, exact.sum().item(), exact.square().sum().item())).encode())
        return digest.hexdigest()[:32]


def _load(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The table, memory-mapped; None where the file is missing, damaged or another's."""
    try:
        with safe_open(path, framework="pt") as file:
            table: Tensor = file.get_tensor("targets")
            check = (file.metadata() or {}).get("crc32")
    except (OSError, SafetensorError, ValueError):
        return None
    fits = table.shape == shape and table.dtype == torch.float32
    return table if fits and str(zlib.crc32(table.numpy().data)) == check else None


def _save(path: Path, table: Tensor) -> None:
    """Written aside and renamed; a folder that cannot be written is passed over."""
    with contextlib.suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".targets-") as aside:
            written = Path(aside) / path.name
            save_file({"targets": table}, written, {"crc32": str(zlib.crc32(table.numpy().data))})
            os.replace(written, path)
