"""A way into a network above its lowest blocks: their modules are passed over, and what they would give is given.

The model's own forward runs all the same, so attention masks, positions and heads stay each family's own business. A
pass over the lower part costs one Python call a module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ftbench.errors import FtbenchError
from ftbench.models.backbone import Backbone
from ftbench.models.modes import evaluating


class Entry:
    """The way into ``network`` at ``block``. ``inputs``: a few rows of different lengths, looked at once.

    Raises FtbenchError where that is no way in: something above reads more of the lower blocks than what enters (in T5
    the relative positions, in a decoder the encoder's output), or what comes out is not what the whole network gives.
    """

    def __init__(self, network: Backbone, block: nn.Module, inputs: dict[str, Tensor]) -> None:
        self._network, self._block = network, block
        self._given: Tensor | None = None
        self._stops = False
        block.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True)
        self._passed: dict[nn.Module, _Blank] = {}
        with evaluating(network.model), torch.no_grad():
            self._passed = self._find(inputs)
            self._check(inputs)

    def reach(self, inputs: dict[str, Tensor]) -> Tensor:
        """What enters the block, (rows, tokens, width); the pass ends there."""
        self._stops = True
        try:
            self._network.forward(inputs)
        except _Reached as reached:
            return reached.states
        finally:
            self._stops = False
        raise FtbenchError("the pass did not come to the block that it should enter")

    @contextlib.contextmanager
    def entered(self, states: Tensor) -> Iterator[None]:
        """Within: the next pass begins at the block, with ``states`` (rows, tokens, width)."""
        self._given = states
        for module, blank in self._passed.items():
            module.forward = partial(_pass_over, blank, states)
        try:
            yield
        finally:
            self._restore()

    def _restore(self) -> None:
        self._given = None
        for module in self._passed:
            vars(module).pop("forward", None)

    def _enter(self, block: nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if self._stops:
            raise _Reached(arguments[0] if arguments else named["hidden_states"])
        if self._given is None:
            return None
        states = self._given
        self._restore()  # a block or table that is used again above is itself again
        return ((states, *arguments[1:]), named) if arguments else (arguments, {**named, "hidden_states": states})

    def _find(self, inputs: dict[str, Tensor]) -> dict[nn.Module, _Blank]:
        """The outermost modules that run before the block, and give states of the rows' tokens and nothing else."""
        model, shape = self._network.model, inputs["input_ids"].shape
        around = {module for module in model.modules() if self._block in module.modules()}
        outputs: dict[nn.Module, list[Any]] = {}
        inside: list[nn.Module] = []

        def enter(module: nn.Module, _: Any) -> None:
            inside.append(module)

        def leave(module: nn.Module, _: Any, output: Any) -> None:
            inside.pop()
            if not inside:
                outputs.setdefault(module, []).append(output)

        with contextlib.ExitStack() as undo:
            for module in model.modules():
                if module not in around:
                    undo.callback(module.register_forward_pre_hook(enter).remove)
                    undo.callback(module.register_forward_hook(leave).remove)
            self.reach(inputs)
        blanks = {module: {_blank(output, shape) for output in given} for module, given in outputs.items()}
        alike = ((module, found.pop()) for module, found in blanks.items() if len(found) == 1)
        return {module: blank for module, blank in alike if blank is not None}

    def _check(self, inputs: dict[str, Tensor]) -> None:
        kind, network = self._network.model.config.model_type, self._network
        states, mask = self.reach(inputs), inputs["attention_mask"]
        if states.shape[:2] != mask.shape:  # XLNet's are tokens first, Longformer pads inside
            raise FtbenchError(f"a {kind} model's states are not (rows, tokens, width) where it would be entered")
        states = states * mask.unsqueeze(-1)
        number = network.blocks.index(self._block)
        if not self._passed.keys() >= set(network.blocks[:number]):
            raise FtbenchError(f"a {kind} model reads more of its lowest {number} blocks than what the last one gives")
        whole = network.forward(inputs).logits
        try:
            found = network.forward(inputs, entry=self.entered(states)).logits
        except (RuntimeError, ValueError, TypeError) as error:
            raise FtbenchError(f"a {kind} model cannot be entered above its lower part ({error})") from error
        if not torch.allclose(found, whole, rtol=1e-4, atol=1e-5):
            raise FtbenchError(f"a {kind} model gives something else when it is entered above its lower part")


class _Reached(Exception):
    """Ends a pass at the block."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


@dataclass(frozen=True)
class _Blank:
    """What stands in an output's place: zeros (rows, tokens, width) that take no memory.

    others: how many times None comes after them in a tuple; no tuple where None
    """

    width: int
    others: int | None

    def __call__(self, states: Tensor) -> Any:
        zeros = states.new_zeros(()).expand(*states.shape[:2], self.width)
        return zeros if self.others is None else (zeros, *[None] * self.others)


def _blank(output: Any, shape: torch.Size) -> _Blank | None:
    """None for an output that is not states of ``shape`` (rows, tokens) alone."""
    first, *others = output if isinstance(output, tuple) else (output,)
    is_states = isinstance(first, Tensor) and first.ndim == 3 and first.shape[:2] == shape and first.is_floating_point()
    if not is_states or any(other is not None for other in others):
        return None
    return _Blank(first.shape[2], len(others) if isinstance(output, tuple) else None)


def _pass_over(blank: _Blank, states: Tensor, *arguments: Any, **named: Any) -> Any:
    return blank(states)
