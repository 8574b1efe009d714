"""What a trained model costs to use: time for one text, texts a second, size. Measured, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ftbench.models.backbone import load_tokenizer
from ftbench.models.locate import Checkpoint
from ftbench.models.trained import load_trained
from ftbench.training.batches import tokenize
from ftbench.training.evaluate import predict
from ftbench.training.precision import choose_device
from ftbench.types import Rows

#: texts of one measurement, and how often it is repeated
TEXTS, REPEATS = 64, 5


def serving(source: Checkpoint, rows: Rows, *, max_length: int, precision: str, device: str) -> dict[str, float]:
    """milliseconds: median time for one text, tokenising included; per_second: texts in batches; parameters; bytes: of
    the model's folder. Medians of ``REPEATS`` after a first pass that does not count; at most ``TEXTS`` of ``rows``."""
    tokenizer = load_tokenizer(source)
    network, _ = load_trained(source, tokenizer)
    network.model.to(choose_device(device))
    some = rows.take(np.arange(min(TEXTS, len(rows))))

    def use(asked: Rows) -> None:
        predict(network, tokenize(asked, tokenizer, max_length, key=source.fingerprint), precision)

    def alone() -> None:
        for place in range(min(8, len(some))):
            use(some.take(np.array([place])))

    return {
        "milliseconds": 1000 * _median(alone) / min(8, len(some)),
        "per_second": len(some) / _median(lambda: use(some)),
        "parameters": float(sum(p.numel() for p in network.model.parameters())),
        "bytes": float(sum(path.stat().st_size for path in source.folder.iterdir() if path.is_file())),
    }


def _median(work: Callable[[], Any]) -> float:
    """Seconds."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
