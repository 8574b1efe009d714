"""A run's checkpoint: one safetensors file, replaced atomically.

Tensors: ``model.<name>``, ``optimizer.<i>.<key>`` and ``method.<i>.<key>``. Everything else (step,
history, sums, cost, loss scale) is JSON in the file's header. Random numbers need no state: they are
a function of (seed, step, micro-batch), and the schedule is a function of the step.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ftbench.errors import StoreError, explain
from ftbench.methods.method import Method
from ftbench.types.run import CHECKPOINT

log = logging.getLogger(__name__)


def software() -> str:
    """What computes a run's numbers here."""
    return f"torch {torch.__version__}, transformers {transformers.__version__}"


@dataclass
class State:
    """Where a run is: optimizer steps done, and all that is not a tensor.

    micro_batch: rows in memory at once, where those that the spec asks for were too many
    software:    what computed the steps; several where the run went on under other versions
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False
    micro_batch: int | None = None
    software: list[str] = field(default_factory=lambda: [software()])

    def facts(self) -> dict[str, Any]:
        """What a result has to say of how it came about, where that was not as asked."""
        mixed = {"software": self.software} if len(self.software) > 1 else {}
        return mixed | ({"micro_batch_used": self.micro_batch} if self.micro_batch else {})


def save(
    folder: Path, state: State, model: torch.nn.Module, optimizer: torch.optim.Optimizer, methods: Sequence[Method]
) -> None:
    """Writes the checkpoint of ``folder``. Raises StoreError when the disk is full or not writable."""
    tensors = {f"model.{name}": value for name, value in _model_state(model).items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items()}
    for index, method in enumerate(methods):
        tensors |= {f"method.{index}.{key}": value for key, value in method.state_dict().items()}
    temporary = folder / f".{CHECKPOINT}.{os.getpid()}"
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, {"state": _dump(state)})
        os.replace(temporary, folder / CHECKPOINT)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write the checkpoint in {folder}: {explain(error)}") from error


def load(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, methods: Sequence[Method]
) -> State | None:
    """Puts weights, optimizer and methods back and returns the State.

    None when there is no readable checkpoint of this very model (another version may name weights otherwise).
    """
    try:
        with safe_open(folder / CHECKPOINT, framework="pt") as file:
            state = State(**json.loads(file.metadata()["state"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    if weights.keys() != _model_state(model).keys():
        return None
    model.load_state_dict(weights, strict=False)  # names that share a tensor are kept once
    packed = optimizer.state_dict()
    packed["state"] = _by_index(tensors, "optimizer.")
    optimizer.load_state_dict(packed)
    for index, values in _by_index(tensors, "method.").items():
        methods[index].load_state_dict(values)
    if (now := software()) != state.software[-1]:
        log.warning("a run goes on under %s that began under %s, which its result says", now, state.software[0])
        state.software.append(now)
    return state


def _model_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers; a tensor that two names share is kept once."""
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            seen.add(tensor.data_ptr())
            kept[name] = tensor
    return kept


def _by_index(tensors: dict[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    out: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            index, _, key = name.removeprefix(prefix).partition(".")
            out.setdefault(int(index), {})[key] = tensor
    return out


def _dump(state: State) -> str:
    return json.dumps(state.__dict__)
