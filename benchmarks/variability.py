"""What nu costs beside the pass it needs, and its thin form beside the full pseudo-inverse.

    python benchmarks/variability.py [--only pass,thin,floor,memory] [--rows 1000] [--threads 1] [--rounds 3]

pass    a plain pass of the embedded model over rows of news-article (what `predict` does), against extracting all
        blocks over the same batches and nu of every layer from them; and against all that `variability` computes
thin    nu of 4,000 states of width 768: the thin form against covariances and scipy's pseudo-inverse, both float64
floor   20 permutations, then 100 resamples, of 12 layers of 4,000 states of width 768
memory  400,000 generated states of width 768: 12 layers streamed batch by batch through `Moments`, nothing kept; and
        one layer on disk through all of `variability`

Times are the process's CPU time, the median over rounds that take turns; each memory is of a process of its own: the
largest resident set for the stream, the largest anonymous part of it (without pages of the file) for the layer on disk.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROWS, WIDTH, LAYERS = 4000, 768, 12
MANY = 400_000


def seconds(work: Callable[[], Any]) -> float:
    """CPU time of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def ratios(ours: Callable[[], Any], peer: Callable[[], Any], rounds: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median ratio, over rounds that take turns after one to warm up."""
    ours(), peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    return (*(statistics.median(side) for side in zip(*pairs, strict=True)), statistics.median(a / b for a, b in pairs))


def states(classes: int, seed: int = 0, rows: int = ROWS) -> tuple[Any, Any]:
    """Float32 states (rows, WIDTH) of unequal classes, with a common mean and outlier dimensions."""
    generator = np.random.default_rng(seed)
    labels = np.minimum(generator.integers(0, classes, rows), generator.integers(0, classes, rows))
    x = generator.normal(size=(rows, WIDTH)) * np.geomspace(1, 10, WIDTH)
    return (x + 0.3 * generator.normal(size=(classes, WIDTH))[labels] + 5).astype(np.float32), labels


def measure_pass(rows: int, rounds: int) -> None:
    """nu of all layers against one plain pass over the same batches."""
    from ftbench.analysis.grouping import classes_of
    from ftbench.analysis.thin import thin
    from ftbench.analysis.transferability import companions
    from ftbench.analysis.variability import variability
    from ftbench.models import backbone as models
    from ftbench.models.locate import locate
    from ftbench.tasks import TASKS
    from ftbench.tasks.perturb import perturb
    from ftbench.tasks.sources import load
    from ftbench.training.batches import tokenize
    from ftbench.training.evaluate import predict
    from ftbench.training.features import extract

    source = locate("minilm")
    tokenizer = models.load_tokenizer(source)
    data = perturb(load(TASKS["news-article"]), limit=rows)
    train = data.splits["train"]
    network = models.load(source, tokenizer, data.labels, regression=False, seed=0)
    tokens = tokenize(train, tokenizer, 128, key="")
    classes = classes_of(train.labels)

    def with_nu() -> None:
        found = extract(network, tokens, train.labels, ("ordinary",))["ordinary"]
        for hidden in found.hidden:
            thin(hidden, classes)

    def with_everything() -> None:
        found = extract(network, tokens, train.labels, ("ordinary",))["ordinary"]
        variability(found)
        companions(found)

    shape = f"{len(train):,} texts of {tokens.lengths.mean():.0f} tokens, 6 layers of width 384"
    for name, work in (("nu of all layers", with_nu), ("floor, resamples and companions too", with_everything)):
        ours, plain, ratio = ratios(work, lambda: predict(network, tokens), rounds)
        print(
            f"pass, {name}: {ratio:.3f} of a plain pass ({ours:.1f} s, {plain:.1f} s; target 1.15; {shape})", flush=True
        )


def measure_thin(rounds: int) -> None:
    """The thin form against the full one."""
    from scipy.linalg import pinvh

    from ftbench.analysis.grouping import classes_of
    from ftbench.analysis.thin import thin

    def full(x: Any, labels: Any) -> float:
        parts = [x[labels == c].astype(np.float64) for c in np.unique(labels)]
        within = sum(np.cov(part.T, bias=True) for part in parts) / len(parts)
        between = np.cov(np.stack([part.mean(0) for part in parts]).T, bias=True)
        return float(np.trace(within @ pinvh(between)) / len(parts))

    for classes in (2, 3, 10):
        x, labels = states(classes)
        groups = classes_of(labels)
        ours, peer, ratio = ratios(lambda: thin(x, groups), lambda: full(x, labels), rounds)  # noqa: B023
        apart = abs(thin(x, groups).nu / full(x, labels) - 1)
        print(
            f"thin, {classes} classes: {1 / ratio:.1f} times as fast ({ours * 1e3:.0f} ms, {peer * 1e3:.0f} ms; "
            f"target 10), relative difference {apart:.1e} (target 1e-12)",
            flush=True,
        )


def measure_floor() -> None:
    """Permutations and resamples of all layers."""
    from ftbench.analysis.grouping import classes_of
    from ftbench.analysis.thin import redrawn
    from ftbench.analysis.variability import permute, resample

    for classes in (2, 10):
        layers = [states(classes, seed)[0] for seed in range(LAYERS)]
        groups = classes_of(states(classes)[1])
        permuted, counts = permute(groups, 20, 0), resample(groups, 100, 0)
        own = np.broadcast_to(groups.ids, counts.shape)
        once = np.ones_like(permuted)
        began = time.perf_counter()
        floor = seconds(lambda: [redrawn(x, groups, permuted, once) for x in layers])  # noqa: B023
        wall = time.perf_counter() - began
        spread = seconds(lambda: [redrawn(x, groups, own, counts) for x in layers])  # noqa: B023
        print(
            f"floor, {classes} classes, {LAYERS} layers: 20 permutations {floor:.1f} s of CPU, {wall:.1f} s of wall "
            f"(target 10), 100 resamples {spread:.1f} s of CPU",
            flush=True,
        )


def stream() -> None:
    """In a process of its own: 12 layers, batches made and forgotten."""
    import resource

    from ftbench.analysis.moments import Moments

    counts = np.array([MANY // 2, MANY // 2])
    layers = [Moments(counts, np.array([0.5, 0.5]), WIDTH) for _ in range(LAYERS)]
    generator = np.random.default_rng(0)
    size = 4000
    labels = np.tile([0, 1], size // 2)
    for _ in range(MANY // size):
        x = generator.normal(size=(size, WIDTH)) + 0.1 * labels[:, None]
        for number, layer in enumerate(layers):
            layer.add(x * (1 + number), labels)
    found = {round(layer.nu().nu, 9) for layer in layers}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"memory, {LAYERS} layers of {MANY:,} rows streamed: {peak:.2f} GiB (target 1); nu {found}")


def on_disk(path: str) -> None:
    """In a process of its own: one layer in a file, measured with floor and resamples."""
    from ftbench.analysis.variability import variability
    from ftbench.types import Features

    held = [0.0]

    def watch() -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            held[0] = max(held[0], int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 2**20)
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()
    hidden = np.load(path, mmap_mode="r")
    found = variability(Features(hidden, np.tile([0, 1], MANY // 2)))
    print(f"memory, a layer of {MANY:,} rows on disk, floor and resamples: {held[0]:.2f} GiB (target 1); nu {found.nu}")


def measure_memory() -> None:
    """Both processes."""
    subprocess.run([sys.executable, __file__, "--only", "stream"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hidden.npy"
        hidden = np.lib.format.open_memmap(path, "w+", np.float32, (1, MANY, WIDTH))
        generator = np.random.default_rng(0)
        for start in range(0, MANY, 10_000):
            hidden[0, start : start + 10_000] = (
                generator.normal(size=(10_000, WIDTH)) + 0.1 * np.tile([0, 1], 5000)[:, None]
            )
        hidden.flush()
        del hidden
        subprocess.run([sys.executable, __file__, "--only", f"disk:{path}"], check=True)


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="pass,thin,floor,memory")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.only == "stream":
        return stream()
    if asked.only.startswith("disk:"):
        return on_disk(asked.only.removeprefix("disk:"))
    from threadpoolctl import threadpool_limits

    wanted = asked.only.split(",")
    with threadpool_limits(asked.threads):
        if "pass" in wanted:
            import torch

            torch.set_num_threads(asked.threads)
            measure_pass(asked.rows, asked.rounds)
        if "thin" in wanted:
            measure_thin(asked.rounds)
        if "floor" in wanted:
            measure_floor()
    if "memory" in wanted:
        measure_memory()


if __name__ == "__main__":
    main()
