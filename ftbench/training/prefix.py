"""The prefix cache: what enters the lowest tuned block, for every training row, computed once and trained from.

What lies below is frozen and still (``models.prefix.Still``), so it gives the same states in every epoch, and with
every seed. States are kept row after row, real tokens only, in float32, and read memory-mapped. Passes that change the
embeddings, and those of evaluations, run the whole network.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftbench.errors import FtbenchError, explain
from ftbench.methods.method import Batch, Method, Start
from ftbench.models.backbone import Backbone
from ftbench.models.entry import Entry
from ftbench.models.modes import evaluating
from ftbench.training.batches import Tokens
from ftbench.training.precision import autocast
from ftbench.types import RunSpec
from ftbench.types.layers import Layers

#: more bytes than this are cached only where it is asked for
LARGEST = 4 * 2**30
log = logging.getLogger(__name__)
Array = np.ndarray[Any, np.dtype[Any]]


@functools.cache
def _say(reason: str) -> None:
    """On stderr, once."""
    log.warning("no prefix cache: %s", reason)


def is_useful(spec: RunSpec, tokens: Tokens, width: int, use: str) -> bool:
    """Whether a cache may be made for a run, and, under ``auto``, saves something: frozen blocks, more than one epoch,
    and no more than ``LARGEST`` bytes. Of the embeddings alone it saves next to nothing."""
    if use == "off" or not spec.layers or spec.frozen_dropout:
        return False
    epochs = spec.steps / math.ceil(len(tokens.lengths) / spec.batch_size)
    size = 4 * width * int(tokens.offsets[-1])
    return use == "on" or (Layers.parse(spec.layers).bottom > 1 and epochs > 1 and size <= LARGEST)


def prefix_of(spec: RunSpec, start: Start, tokens: Tokens, methods: Sequence[Method], use: str) -> Prefix | None:
    """The cache of a run, still empty, before any method is prepared; None where there is none, and why on stderr.

    use: ``auto``, ``on`` or ``off``; see ``is_useful``.
    """
    network = start.backbone
    width = network.model.config.get_text_config().hidden_size
    if not is_useful(spec, tokens, width, use):
        return None
    if reader := next((method.name for method in methods if method.wants_states), None):
        _say(f"{reader} reads the states of all blocks")
        return None
    block = network.blocks[Layers.parse(spec.layers).bottom - 1]
    inputs = next(start.batches()).inputs
    lengths = inputs["attention_mask"].sum(1)
    two = torch.stack([lengths.argmax(), lengths.argmin()])
    try:
        entry = Entry(network, block, {name: tensor[two] for name, tensor in inputs.items()})
    except FtbenchError as error:
        _say(str(error))
        return None
    return Prefix(network, entry, tokens, spec.precision, below=network.blocks.index(block))


class Prefix:
    """The states of every training row, once ``filled``. below: blocks under the one that is entered."""

    def __init__(self, network: Backbone, entry: Entry, tokens: Tokens, precision: str, below: int) -> None:
        self._network, self._entry, self._tokens, self._precision = network, entry, tokens, precision
        self._below = below
        self._table: Array = np.empty((0, 0), dtype=np.float32)
        self._kind = torch.float32
        self._proven = False

    def filled(self, start: Start) -> Prefix | None:
        """With the states of the network as it now is; None, and why on stderr, where they cannot be kept."""
        path = start.cache / f"prefix-{self._key(start)}.npy" if start.cache else None
        shape = (int(self._tokens.offsets[-1]), self._states(next(start.batches())).shape[-1])
        table = _load(path, shape) if path else None
        try:
            if table is None and path:
                _write(path, shape, self._pieces(start))
                table = _load(path, shape)
        except OSError as error:
            _say(f"it cannot be written ({explain(error)})")
            return None
        self._table = np.concatenate(list(self._pieces(start))) if table is None else table
        return self

    def entered(self, batch: Batch) -> contextlib.AbstractContextManager[None]:
        """For ``Backbone.forward``: the next pass over the batch begins at the lowest tuned block."""
        return self._entry.entered(self(batch))

    def __call__(self, batch: Batch) -> Tensor:
        """(rows, tokens, width) in the type that the network computes in, zeros at the padding; no gradient."""
        mask = batch.inputs["attention_mask"]
        states = np.zeros((*mask.shape, self._table.shape[1]), dtype=np.float32)
        left = self._network.tokenizer.padding_side == "left"
        for row, position in enumerate(batch.positions.tolist()):
            start, end = self._tokens.offsets[position : position + 2]
            where = slice(-(end - start), None) if left else slice(0, end - start)
            states[row, where] = self._table[start:end]
        return torch.from_numpy(states).to(mask.device, self._kind, non_blocking=True)

    def proven(self, batch: Batch) -> Prefix | None:
        """Itself where a training pass over ``batch``, about to be trained on, comes to the states that are kept, and
        does so twice: a method may have put noise below. Else None, and why on stderr. Looked at once."""
        if self._proven:
            return self
        self._proven = True
        state = batch.generator.get_state()
        first, again = self._states(batch), self._states(batch)
        batch.generator.set_state(state)
        real = batch.inputs["attention_mask"].bool()
        kept = self(batch).float()[real]
        most = 1e-4 if self._precision == "fp32" else 0.05  # other batches, other rounding
        near = (kept - first.float()[real]).norm() <= most * kept.norm()
        if torch.equal(first[real], again[real]) and near:
            return self
        _say("a method changes what the frozen layers give")
        return None

    @torch.no_grad()
    def _states(self, batch: Batch) -> Tensor:
        with autocast(self._network.device, self._precision):
            states = self._entry.reach(batch.inputs)
        self._kind = states.dtype
        return states

    def _pieces(self, start: Start) -> Iterator[Array]:
        """All states in the order of the rows, (some tokens, width) each."""
        with evaluating(self._network.model):
            for batch in start.batches():
                yield self._states(batch)[batch.inputs["attention_mask"].bool()].float().cpu().numpy()

    def _key(self, start: Start) -> str:
        """Stands for the rows, and for the network below as it is: a method may have changed its weights."""
        import transformers

        network, versions = self._network, (torch.__version__, transformers.__version__)
        place = (self._below, self._precision, network.device.type)
        digest = hashlib.sha256(repr((start.key(), *place, *versions)).encode())
        depths, blocks = network.depths(), len(network.blocks)
        for name, parameter in network.model.named_parameters():
            if depths[name] > blocks - self._below:
                exact = parameter.detach().double()
                digest.update(repr((name, exact.sum().item(), exact.square().sum().item())).encode())
        return digest.hexdigest()[:32]


def _load(path: Path, shape: tuple[int, int]) -> Array | None:
    """Memory-mapped; None where the file is missing, damaged or another's."""
    try:
        table = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return table if table.shape == shape and table.dtype == np.float32 else None


def _write(path: Path, shape: tuple[int, int], pieces: Iterator[Array]) -> None:
    """Written aside, on the disk, and then renamed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".prefix-") as aside:
        part = Path(aside) / path.name
        with part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, dtype="<f4").data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
