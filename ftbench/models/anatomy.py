"""Where a network's parameters lie: its blocks in the order in which they run, and the depth of every parameter.

Nothing here knows a family by name. Blocks are the entries of the base model's ``ModuleList``; what lies before,
between and behind them is seen in one traced pass over a few tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftbench.errors import FtbenchError

#: marks a block whose outputs are (tokens, rows, width), as XLNet's; on the module, so that copies have it too
_TURNED = "ftbench_tokens_first"


@dataclass(frozen=True)
class Anatomy:
    """What lies where in a network.

    blocks: the transformer layers, lowest first, the encoder's before the decoder's. A layer that runs several
        times (ALBERT's) is one block.
    depths: name of every parameter -> 0 in the head (poolers too; where nothing is called the base, what runs after the
        last stack of blocks), 1 in the topmost block and in norms behind it, ...,
        ``len(blocks)`` in the lowest, one more in the embeddings and in whatever else runs before the first block or
        is shared by all. T5's relative positions lie in its lowest blocks.
    """

    blocks: tuple[nn.Module, ...]
    depths: dict[str, int]


@dataclass
class _Trace:
    """started: modules in the order of their first call, with its number. pooled: gave one vector a row, (1, width).
    turned: gave (tokens, 1, width)."""

    started: dict[nn.Module, int]
    pooled: set[nn.Module]
    turned: set[nn.Module]


def dissect(model: Any, inputs: dict[str, Tensor]) -> Anatomy:
    """The anatomy of a model of transformers with a head. ``inputs``: any one row of several tokens, (1, tokens).

    Runs one pass without dropout or gradients; draws no random numbers. Marks blocks that give tokens before rows.
    Raises FtbenchError for a model whose blocks are not one list in each of its stacks.
    """
    trace = _run(model, inputs)
    names = {module: name for name, module in model.named_modules()}
    stacks = _stacks(model, trace, names)
    blocks = sorted((block for stack in stacks.values() for block in stack), key=trace.started.__getitem__)
    for block in trace.turned.intersection(blocks):
        setattr(block, _TURNED, True)
    depth_of = {block: len(blocks) - number for number, block in enumerate(blocks)}
    inside = {names[block]: depth for block, depth in depth_of.items()}
    base = names[model.base_model]

    def depth(name: str) -> int:
        if base and not name.startswith(f"{base}."):
            return 0
        around = next((d for block, d in inside.items() if name.startswith(f"{block}.")), None)
        if around is not None:
            return around
        owner = model.get_submodule(name.rpartition(".")[0])
        start = trace.started.get(owner, -1)  # never called: its weights are read by the blocks
        if owner in trace.pooled:
            return 0
        own = next((stack for place, stack in stacks.items() if name.startswith(f"{place}.")), blocks)
        if not base and own is blocks and start > trace.started[blocks[-1]]:
            return 0
        passed = [block for block in own if trace.started[block] < start]
        return min((depth_of[block] for block in passed), default=len(blocks) + 1)

    return Anatomy(tuple(blocks), {name: depth(name) for name, _ in model.named_parameters()})


def depth_around(depths: Mapping[str, int], name: str) -> int:
    """The depth of a parameter that is none of ``depths``: that of the nearest module around it that has some."""
    around = name.rpartition(".")[0]
    while around:
        inside = [depth for known, depth in depths.items() if known.startswith(f"{around}.")]
        if inside:
            return inside[0]
        around = around.rpartition(".")[0]
    return 0


def _run(model: Any, inputs: dict[str, Tensor]) -> _Trace:
    trace = _Trace({}, set(), set())
    tokens = inputs["input_ids"].shape[1]

    def enter(module: nn.Module, _: Any) -> None:
        trace.started.setdefault(module, len(trace.started))

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 2 and len(output) == 1:
            trace.pooled.add(module)
        state = output[0] if isinstance(output, tuple) and output else output
        if isinstance(state, Tensor) and state.ndim == 3 and state.shape[:2] == (tokens, 1) and tokens > 1:
            trace.turned.add(module)

    training = {module: module.training for module in model.modules()}
    # older torch: autocast would keep the casts of this pass, which have no gradient, for the next
    whole = torch.autocast(inputs["input_ids"].device.type, enabled=False)
    with contextlib.ExitStack() as undo, torch.no_grad(), whole:
        for module in training:
            undo.enter_context(_removed(module.register_forward_pre_hook(enter)))
            undo.enter_context(_removed(module.register_forward_hook(leave)))
            undo.callback(setattr, module, "training", training[module])
        model.eval()
        model(**inputs)
    return trace


def _stacks(model: Any, trace: _Trace, names: dict[nn.Module, str]) -> dict[str, list[nn.Module]]:
    """Name of the module that runs a list of blocks -> the blocks. A list inside a block is none of these."""
    kind = model.config.model_type
    stacks: dict[str, list[nn.Module]] = {}
    seen: list[str] = []
    for module in model.base_model.modules():
        name = names[module]
        run = [entry for entry in module if entry in trace.started] if isinstance(module, nn.ModuleList) else []
        if not run or any(name.startswith(f"{other}.") for other in seen):
            continue
        seen.append(name)
        place = name.rpartition(".")[0]
        if place in stacks:
            raise FtbenchError(
                f"a {kind} model has several lists of blocks in {place} ({', '.join(seen)}): expected one. "
                "Methods that tell layers apart cannot be used with it"
            )
        stacks[place] = run
    if not stacks:
        raise FtbenchError(
            f"a {kind} model has no list of blocks; methods that tell layers apart cannot be used with it"
        )
    return stacks


@contextlib.contextmanager
def watching(blocks: Iterable[nn.Module], see: Callable[[Tensor], None]) -> Iterator[None]:
    """Within: ``see`` is given the output of every run of a block, (rows, tokens, width), in the order of the runs."""

    def show(block: nn.Module, _: Any, output: Any) -> Any:
        state = output if isinstance(output, Tensor) else output[0]
        turned = getattr(block, _TURNED, False)
        seen = state.transpose(0, 1) if turned else state
        see(seen)
        if not turned:
            return None
        state = seen.transpose(0, 1)  # the pass goes on from what was seen, so that this has a gradient
        return state if isinstance(output, Tensor) else (state, *output[1:])

    with contextlib.ExitStack() as undo:
        for block in blocks:
            undo.enter_context(_removed(block.register_forward_hook(show)))
        yield


@contextlib.contextmanager
def recording(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Within: every run of a block appends its output, (rows, tokens, width), in the order of the runs."""
    states: list[Tensor] = []
    with watching(blocks, states.append):
        yield states


@contextlib.contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
