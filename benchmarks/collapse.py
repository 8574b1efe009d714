"""How long all collapse metrics of all layers take, and which of them.

    python benchmarks/collapse.py [--layers 12] [--examples 5000] [--width 768] [--threads 2]

Features are made up: variances that fall off as 1/i, a common mean and three classes, in memory-mapped float32 as
``probe`` writes them; the network compared with is a rotation of them with noise. The peers are the singular values of
each layer's centred features (numpy) and the two nearest neighbours of each example (scikit-learn, brute force), the
usual ways to a spectrum and to TwoNN, without any of the other metrics. Memory is the peak of what numpy and Python
allocated, without the pages of the mapped files. On a busy machine read the CPU time of one thread: BLAS with more
threads than free cores spends much of it waiting.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections import defaultdict
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors
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
    shape = (layers, examples, width)
    own, pretrained = (
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape) for name in ("own", "pretrained")
    )
    for layer in range(layers):
        centres = generator.normal(size=(CLASSES, width))
        x = generator.normal(size=(examples, width)) / np.sqrt(np.arange(1, width + 1)) + 0.2 * centres[labels] + 0.3
        turn = np.linalg.qr(generator.normal(size=(width, width)))[0]
        pretrained[layer] = x @ turn
        own[layer] = x + 0.3 * x.std(axis=0) * generator.normal(size=x.shape)
    return Features(own, labels), Features(pretrained, labels)


def timed(names: list[str]) -> dict[str, float]:
    """Replaces each metric by itself with a clock of CPU time; what several share is paid by the first that asks."""
    seconds: dict[str, float] = defaultdict(float)

    def with_clock(name: str, card: Card) -> Card:
        def function(layer: Layer) -> float:
            began = time.process_time()
            value = card.function(layer)
            seconds[name] += time.process_time() - began
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
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(asked.threads):
        own, pretrained = made_up(Path(folder), asked.layers, asked.examples, asked.width)
        seconds = timed(list(COLLAPSE))
        tracemalloc.start()
        began, cpu = time.perf_counter(), time.process_time()
        rows = collapse(own, pretrained)
        wall, ours = time.perf_counter() - began, time.process_time() - cpu
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        peers = {"singular values": 0.0, "nearest neighbours": 0.0}
        for hidden in own.hidden:
            x = hidden.astype(np.float64) - hidden.mean(axis=0, dtype=np.float64)
            cpu = time.process_time()
            np.linalg.svd(x, compute_uv=False)
            peers["singular values"] += time.process_time() - cpu
            cpu = time.process_time()
            NearestNeighbors(n_neighbors=2, algorithm="brute").fit(x).kneighbors()
            peers["nearest neighbours"] += time.process_time() - cpu
    print(f"{asked.layers} layers, {asked.examples:,} examples, width {asked.width}, {asked.threads} threads")
    print(f"{len(rows)} numbers in {wall:.1f} s, {ours:.1f} s of CPU; peak memory {memory / 2**20:.0f} MiB")
    print(f"CPU time of all metrics relative to both peers: {ours / sum(peers.values()):.2f}")
    print("peers: " + ", ".join(f"{name} {took:.1f} s" for name, took in peers.items()))
    for name, took in sorted(seconds.items(), key=lambda item: -item[1])[:8]:
        print(f"  {name:20s} {took:6.2f} s of CPU")


if __name__ == "__main__":
    main()
