"""Bottleneck adapters inside a block: two small networks, one behind attention and one behind the feed-forward part.

    y = x + U relu(D x),   D (bottleneck, width), U (width, bottleneck), both with a bias

An adapter is a submodule ``adapter`` of the module whose output it changes. So all other weights keep their names, and
``config.json`` says where adapters are (``FIELD``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ftbench.errors import UsageError

FIELD = "ftbench_adapters"
#: where the adapters of a block read, before the residual connection: behind attention, behind the feed-forward part
_BERT = ("attention.output.dense", "output.dropout")
_DECODER = ("self_attn.o_proj", "mlp.down_proj")
PLACES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra", "deberta", "deberta-v2"), _BERT),
    **dict.fromkeys(("llama", "qwen2", "qwen3"), _DECODER),
    "albert": ("albert_layers.*.attention.dense", "albert_layers.*.ffn_output"),
    "bart": ("self_attn.out_proj", "fc2"),
    "distilbert": ("attention.out_lin", "ffn.dropout"),
    "gpt2": ("attn.c_proj", "mlp.dropout"),
    "modernbert": ("attn.Wo", "mlp.Wo"),
    "mpnet": ("attention.attn.o", "output.dropout"),
    "t5": ("layer.0.SelfAttention.o", "layer.*.DenseReluDense"),
}
#: names of the rate of dropout on hidden states, in the configurations of the families
RATES = ("hidden_dropout_prob", "resid_pdrop", "dropout_rate", "dropout", "mlp_dropout")


def family(config: Any) -> str:
    """What a configuration is of; where an encoder and a decoder were put together, what the encoder is of."""
    own = config.encoder if config.model_type == "encoder-decoder" else config
    return str(own.model_type)


class Bottleneck(nn.Module):
    """y = x + U dropout(relu(D x)); (rows, tokens, width) to the same shape. Weights N(0, deviation^2), biases 0."""

    def __init__(self, width: int, bottleneck: int, dropout: float, deviation: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(bottleneck, width)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=deviation)
            nn.init.zeros_(linear.bias)

    def forward(self, states: Tensor) -> Tensor:
        """See the class."""
        changed: Tensor = self.up(self.dropout(torch.relu(self.down(states))))
        return states + changed


def places_in(model: Any, blocks: Iterable[nn.Module]) -> list[str]:
    """Names of the modules behind which the adapters of ``blocks`` go. Raises UsageError for an unknown family."""
    kind = family(model.config)
    if kind not in PLACES:
        raise UsageError(
            f"adapter: where adapters go in a {kind} model is not known. Known: {', '.join(sorted(PLACES))}"
        )
    names = {module: name for name, module in model.named_modules()}
    inside = [(names[block], name) for block in blocks for name, _ in block.named_modules()]
    return [f"{block}.{name}" for block, name in inside if any(fnmatchcase(name, place) for place in PLACES[kind])]


def insert(
    model: Any, places: Sequence[str], bottleneck: int, dropout: float | None = None, deviation: float = 0.02
) -> None:
    """Puts an adapter behind each module of ``places``, drawn from torch's own generator on the CPU.

    dropout: the model's own rate on hidden states where None. ``model.config`` is told. Raises UsageError for a
    model that has adapters already.
    """
    if getattr(model.config, FIELD, None):
        raise UsageError("adapter: the model has adapters already; it can be tuned whole, or with another method")
    _insert(model, places, bottleneck, _rate(model.config) if dropout is None else dropout, deviation)


def restore(model: Any, files: Iterable[Path]) -> None:
    """Puts back the adapters that the configuration tells of, with their weights in the safetensors ``files``.

    Those of blocks that were not loaded are passed over. Raises UsageError where weights are missing.
    """
    recipe = getattr(model.config, FIELD, None)
    if not recipe:
        return
    present = {name for name, _ in model.named_modules()}
    kept = [place for place in recipe["places"] if place in present]
    _insert(model, kept, recipe["bottleneck"], recipe["dropout"], 0.0)
    wanted = {
        f"{place}.adapter.{name}" for place in kept for name in model.get_submodule(f"{place}.adapter").state_dict()
    }
    found: dict[str, Tensor] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in wanted.intersection(file.keys())}
    if missing := sorted(wanted - found.keys()):
        raise UsageError(f"the model's configuration tells of adapters, but {missing[0]} is not in its weights")
    model.load_state_dict(found, strict=False)


def _insert(model: Any, places: Sequence[str], bottleneck: int, dropout: float, deviation: float) -> None:
    width, device = model.config.get_text_config().hidden_size, next(model.parameters()).device
    for place in places:
        module = model.get_submodule(place)
        module.add_module("adapter", Bottleneck(width, bottleneck, dropout, deviation).to(device))
        module.adapter.train(module.training)
        module.register_forward_hook(_adapt)
    setattr(model.config, FIELD, {"places": list(places), "bottleneck": bottleneck, "dropout": dropout})


def _adapt(module: Any, arguments: Any, output: Tensor) -> Tensor:
    adapted: Tensor = module.adapter(output)
    return adapted


def _rate(config: Any) -> float:
    text = config.get_text_config()
    return next((float(value) for name in RATES if isinstance(value := getattr(text, name, None), int | float)), 0.0)
