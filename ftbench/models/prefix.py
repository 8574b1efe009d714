"""What runs before the lowest tuned block: frozen, so it can be still."""

from __future__ import annotations

from typing import Any

from torch import nn


class Still:
    """In training passes of ``model`` everything that runs before ``block`` acts as in evaluation.

    Modules are switched when a pass begins and switched back when it enters the block, so dropout that a family keeps
    in functions is off as well, and a module that runs on both sides is still on one. ``model`` itself always says
    whether this is training.
    """

    def __init__(self, model: nn.Module, block: nn.Module) -> None:
        self._still: list[nn.Module] = []
        model.register_forward_pre_hook(self._begin)
        block.register_forward_pre_hook(self._end)
        model.register_forward_hook(self._end, always_call=True)  # a pass that never came so far

    def _begin(self, model: nn.Module, arguments: Any) -> None:
        if model.training:
            self._still = [module for module in model.modules() if module.training and module is not model]
            _switch(self._still, training=False)

    def _end(self, *hooked: Any) -> None:
        _switch(self._still, training=True)
        self._still = []


def _switch(modules: list[nn.Module], *, training: bool) -> None:
    for module in modules:
        module.training = training
