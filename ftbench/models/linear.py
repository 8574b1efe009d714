"""A linear model on the frozen encoder as a network of its own: what the reference ``linear`` predicts, kept and used
again.

Its folder is the encoder as plain ``AutoModel.from_pretrained`` loads it, and ``linear.safetensors`` beside it with
``weight`` (outputs, width) and ``bias`` (outputs,). There is no classification head in it that plain transformers could
mistake for a trained one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftbench.models import anatomy
from ftbench.models.backbone import Backbone, Out
from ftbench.models.pooling import mean
from ftbench.models.quiet import quiet

FILE = "linear.safetensors"
Array = np.ndarray[Any, np.dtype[Any]]


class LinearOnFrozen(Backbone):
    """The encoder of ``model`` under a linear layer on the mean of its last hidden states; the model's own head is not
    used."""

    def __init__(self, model: Any, tokenizer: Any, weight: Tensor, bias: Tensor) -> None:
        super().__init__(model, tokenizer)
        self.weight, self.bias = weight, bias

    def forward(self, inputs: dict[str, Tensor], *arguments: Any, **named: Any) -> Out:
        """Logits (rows, outputs) in float32."""
        with anatomy.recording([self.model.base_model]) as states:
            out = super().forward(inputs, *arguments, **named)
        pooled = mean(states[0], inputs["attention_mask"])
        logits = pooled @ self.weight.to(pooled.device).T + self.bias.to(pooled.device)
        return Out(logits, out.states)

    def save(self, folder: Path) -> None:
        """See the module."""
        with quiet():
            self.model.base_model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        save_file({"weight": self.weight.contiguous(), "bias": self.bias}, folder / FILE)


def on_frozen(network: Backbone, weight: Array, bias: Array) -> LinearOnFrozen:
    """The encoder of ``network`` under the layer with these coefficients, (outputs, width) and (outputs,)."""
    tensors = (torch.tensor(values, dtype=torch.float32) for values in (weight, bias))
    return LinearOnFrozen(network.model, network.tokenizer, *tensors)


def read_linear(folder: Path) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of a folder that ``LinearOnFrozen.save`` wrote; None of any other."""
    if not (folder / FILE).is_file():
        return None
    found = load_file(folder / FILE)
    return found["weight"], found["bias"]
