"""How long all collapse metrics of all layers take, and which of them.

    python benchmarks/collapse.py [--layers 12] [--examples 5000] [--width 768] [--threads 2]

Features are made up: variances that fall off as 1/i, a common mean and three classes, in memory-mapped float32 as
``probe`` writes them; the network compared with is a rotation of them with noise. Memory is the largest resident set
of the process less what it held before.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from ftbench.analysis import collapse as collapsing
from ftbench.analysis.card import Card
from ftbench.analysis.collapse import COLLAPSE, collapse
from ftbench.analysis.layer import Layer
from ftbench.types.features import Features

CLASSES = 3


def made_up(folder: Path, layers: int, examples: int, width: int) -> tuple[Features, Features]:
    """A network's features and the pretrained ones, on disk."""
    generator = np.random.default_rng(0)
    labels = np.arange(examples) % CLASSES
    found = []
    for name in ("own", "pretrained"):
        file = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (layers, examples, width))
        found.append(file)
    for layer in range(layers):
        centres = generator.normal(size=(CLASSES, width))
        x = generator.normal(size=(examples, width)) / np.sqrt(np.arange(1, width + 1)) + 0.2 * centres[labels] + 0.3
        turn = np.linalg.qr(generator.normal(size=(width, width)))[0]
        found[1][layer] = x @ turn
        found[0][layer] = x + 0.3 * x.std(axis=0) * generator.normal(size=x.shape)
    return Features(found[0], labels), Features(found[1], labels)


def timed(names: list[str]) -> dict[str, float]:
    """Replaces each metric by itself with a clock; what several share is paid by the first that asks."""
    seconds: dict[str, float] = defaultdict(float)

    def with_clock(name: str, card: Card) -> Card:
        def function(layer: Layer) -> float:
            began = time.perf_counter()
            value = card.function(layer)
            seconds[name] += time.perf_counter() - began
            return value

        return Card(**{**vars(card), "function": function})

    for name in names:
        collapsing.COLLAPSE[name] = with_clock(name, COLLAPSE[name])
    return seconds


def main() -> None:
    """Measures once and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(asked.threads):
        own, pretrained = made_up(Path(folder), asked.layers, asked.examples, asked.width)
        seconds, before = timed(list(COLLAPSE)), process.memory_info().rss
        began, cpu = time.perf_counter(), process.cpu_times()
        rows = collapse(own, pretrained)
        wall, used = time.perf_counter() - began, process.cpu_times()
    print(f"{asked.layers} layers, {asked.examples:,} examples, width {asked.width}, {asked.threads} threads")
    print(f"{len(rows)} numbers in {wall:.1f} s, {used.user + used.system - cpu.user - cpu.system:.1f} s of CPU")
    print(f"memory at the end: {(process.memory_info().rss - before) / 2**20:.0f} MiB more")
    for name, took in sorted(seconds.items(), key=lambda item: -item[1])[:12]:
        print(f"  {name:20s} {took:6.2f} s")


if __name__ == "__main__":
    main()
