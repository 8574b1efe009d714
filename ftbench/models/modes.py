"""A network that is for a while something else: in evaluation mode, or with other weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from torch import Tensor, nn


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within: evaluation mode."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


@contextlib.contextmanager
def holding(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within: passes of ``model`` use the tensors ``weights``, by a parameter's name, in the parameters' place.

    The parameters are put aside, not written to: graphs that hold them stay good, and so do autocast's copies.
    """
    other = {id(parameter): weights[name] for name, parameter in model.named_parameters() if name in weights}
    places = [(m, key, p) for m in model.modules() for key, p in m._parameters.items() if id(p) in other]
    for module, key, parameter in places:
        module._parameters[key] = other[id(parameter)]  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, key, parameter in places:
            module._parameters[key] = parameter
