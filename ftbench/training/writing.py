"""Summaries as a network writes them: beam search by transformers, batched by length, kept as they are made.

A file has a first line that says which weights wrote it and how; what an interrupted evaluation wrote before is taken
over where that is the same, batch by batch, so that the same batches are made again of the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftbench.errors import StoreError, explain
from ftbench.models.modes import evaluating
from ftbench.models.seq2seq import Seq2Seq
from ftbench.training.batches import Tokens
from ftbench.training.evaluate import collate_for
from ftbench.training.memory import in_halves
from ftbench.training.precision import autocast
from ftbench.types import RunSpec

#: documents that are read at once
BATCH = 32
#: fields of RunSpec that ``generate`` is given
SETTINGS = ("num_beams", "length_penalty", "min_new_tokens", "max_new_tokens", "no_repeat_ngram_size", "early_stopping")


def settings_of(spec: RunSpec) -> dict[str, Any]:
    """The settings of ``generate`` that mean something: without beams there is no penalty and nothing to stop early.

    0 is left out where it means "no limit"; a penalty of 0 is one.
    """
    beams, always = ("length_penalty", "early_stopping"), ("num_beams", "length_penalty")
    names = [name for name in SETTINGS if spec.num_beams > 1 or name not in beams]
    return {name: getattr(spec, name) for name in names if getattr(spec, name) or name in always}


def write_summaries(
    network: Seq2Seq,
    documents: Tokens,
    spec: RunSpec,
    path: Path | None = None,
    attend: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """One summary for each document, in their order.

    path:   a JSONL file that grows batch by batch, ``{"row": position, "summary": text}`` a line
    attend: told after every batch how many are written of how many; what it raises ends the writing

    Where memory ends, batches are halved. Raises StoreError where the file cannot be written, OneRowTooMuch.
    """
    settings = settings_of(spec)
    order = np.argsort(-documents.lengths, kind="stable")
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    file = _Kept(path, _key(network, documents, spec.precision, settings)) if path else None
    found: dict[int, str] = dict(file.found) if file else {}
    with evaluating(network.model):
        for batch in batches:
            if not all(int(position) in found for position in batch):
                parts = in_halves(lambda part: _write(network, documents, part, spec.precision, settings), batch)
                new = dict(zip(map(int, batch), chain.from_iterable(parts), strict=True))
                if file:
                    file.add(new)
                found |= new
            attend(sum(int(position) in found for position in order), len(order))
    return [found[position] for position in range(len(order))]


@torch.inference_mode()
def _write(network: Seq2Seq, documents: Tokens, batch: Any, precision: str, settings: Mapping[str, Any]) -> list[str]:
    inputs = collate_for(network, documents, batch)
    with autocast(network.device, precision):
        ids = network.generate(inputs, settings)
    texts = network.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
    return [text.strip() for text in texts]


class _Kept:
    """The file of one evaluation. found: what stands in it already, by position."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.found = _read(path, key)
        if not self.found:
            self._append(json.dumps({"key": key}) + "\n", anew=True)

    def add(self, summaries: Mapping[int, str]) -> None:
        """Appends the summaries of a batch in one write."""
        rows = ({"row": row, "summary": text} for row, text in summaries.items())
        self._append("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def _append(self, text: str, *, anew: bool = False) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("wb" if anew else "ab") as stream:
                stream.write(text.encode("utf-8", "surrogatepass"))
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {explain(error)}") from error


def _read(path: Path, key: str) -> dict[int, str]:
    """Position to summary; nothing where the file is another's, is not there, or cannot be read. A last line that was
    cut short is cut off."""
    try:
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        head, *rows = whole.decode("utf-8", "surrogatepass").split("\n")[:-1]
        if json.loads(head)["key"] != key:
            return {}
        if len(whole) < len(raw):
            with path.open("rb+") as stream:
                stream.truncate(len(whole))
        return {int(row["row"]): str(row["summary"]) for row in map(json.loads, rows)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _key(network: Seq2Seq, documents: Tokens, precision: str, settings: Mapping[str, Any]) -> str:
    """Stands for the weights, the documents and how they are summarized."""
    import transformers

    digest = hashlib.sha256(repr((precision, sorted(settings.items()), BATCH, transformers.__version__)).encode())
    digest.update(np.ascontiguousarray(documents.ids).tobytes() + np.ascontiguousarray(documents.lengths).tobytes())
    for name, parameter in network.model.named_parameters():
        exact = parameter.detach().double()
        digest.update(repr((name, exact.sum().item(), exact.square().sum().item())).encode())
    return digest.hexdigest()[:24]
