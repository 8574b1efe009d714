"""Features of ftbench's own tokens, padded by the tokenizer's side, in the run's precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.models.backbone import Backbone, load, load_tokenizer
from ftbench.models.locate import locate
from ftbench.training.batches import Tokens, tokenize
from ftbench.training.features import extract, stream
from ftbench.training.reference import pooled
from ftbench.types import Rows


def network_and_tokens(folder: Path, rows: Rows) -> tuple[Backbone, Tokens]:
    source = locate(str(folder))
    tokenizer = load_tokenizer(source)
    network = load(source, tokenizer, ["a", "b"], regression=False, seed=0)
    return network, tokenize(rows, tokenizer, 32, key="")


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_features_are_in_the_rows_order(
    family: str, tiny_data: Callable[..., Any], tiny_family: Callable[[str], Path]
) -> None:
    rows = tiny_data(8, 70, 2).splits["validation"]
    network, tokens = network_and_tokens(tiny_family(family), rows)
    found = extract(network, tokens, rows.labels, ["mean", "last"])
    assert found["mean"].hidden.shape == (2, 70, 32) and found["mean"].labels is rows.labels
    for row in (0, 41, 69):
        states = network.block_outputs(dict(network.tokenizer(rows.texts[0][row], return_tensors="pt")))
        for layer, state in enumerate(states):
            alone = state[0].detach().numpy()
            np.testing.assert_allclose(found["mean"].hidden[layer, row], alone.mean(0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found["last"].hidden[layer, row], alone[-1], rtol=1e-4, atol=1e-5)
    if family == "bert":  # no norm behind its last block
        np.testing.assert_allclose(found["mean"].hidden[-1], pooled(network, tokens), atol=1e-6)


def test_the_precision_is_the_passs_and_not_the_features(tiny_data: Callable[..., Any], tiny_model: Path) -> None:
    rows = tiny_data(8, 20, 2).splits["validation"]
    network, tokens = network_and_tokens(tiny_model, rows)
    exact, rounded = (extract(network, tokens, rows.labels, precision=kind)["mean"].hidden for kind in ("fp32", "bf16"))
    assert rounded.dtype == np.float32 and 0 < np.abs(rounded - exact).max() < 0.05
    seen = np.empty_like(rounded)

    def each(positions: np.ndarray[Any, Any], vectors: dict[Any, Any]) -> None:
        seen[:, positions] = vectors["mean"].numpy()

    stream(network, tokens, ["mean"], each, precision="bf16")
    assert np.array_equal(seen, rounded)
