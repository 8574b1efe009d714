"""What a probe costs: features of all layers against a plain pass, the solver against scikit-learn, memory and disk.

    python benchmarks/probe.py [--only pass,solver,memory] [--tasks trec,sst2 --data-dir FOLDER]

pass    features of every block (mean and cls at once) against scoring the same rows by the same network: process CPU
        time, alternating, the median of ``--rounds`` ratios; each task's train rows, ``--rows`` at most
solver  one probe of every layer (strength by fifths of train, refit, control) against scikit-learn on the same
        standardised features, layer by layer: LogisticRegressionCV with the same strengths, once with the same fifths,
        once as it comes (five folds of its own). Both fit all train rows at the end; the probe has the control besides
memory  a file of features as large as 400,000 texts in BERT base make it, written in the order in which a pass gives
        the batches (the numbers are random: no pass is measured here), and a probe fitted to 10,000 rows of it. In a
        process of its own: the largest resident set since its start, pages of the memory map included
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftbench.analysis.linear import standardiser
from ftbench.analysis.probing import STRENGTHS, draw, probe
from ftbench.models import backbone as models
from ftbench.models import features
from ftbench.models.feature_files import open_stores
from ftbench.models.locate import locate
from ftbench.tasks import TASKS, from_folder
from ftbench.tasks.sources import load
from ftbench.training.batches import Tokens, tokenize
from ftbench.training.evaluate import predict
from ftbench.training.features import extract
from ftbench.types import Data, Features

SHAPE = (12, 400_000, 768)


def seconds(work: Callable[..., Any], *given: Any, **how: Any) -> tuple[float, Any]:
    """Process CPU time of ``work`` and what it gives."""
    began = time.process_time()
    result = work(*given, **how)
    return time.process_time() - began, result


def loaded(asked: argparse.Namespace) -> list[Data]:
    """The tasks' rows, at most ``--rows`` of each split."""
    tasks = [TASKS[name] for name in asked.tasks.split(",")]
    found = []
    for data in map(load, from_folder(tasks, asked.data_dir) if asked.data_dir else tasks):
        drawn = {name: np.random.default_rng(0).permutation(len(rows)) for name, rows in data.splits.items()}
        kept = {name: rows.take(np.sort(drawn[name][: asked.rows])) for name, rows in data.splits.items()}
        found.append(replace(data, splits=kept))
    return found


def network_of(data: Data) -> tuple[models.Backbone, Callable[[str], Tokens]]:
    """MiniLM with a fresh head, and the tokens of a split."""
    source = locate("minilm")
    tokenizer = models.load_tokenizer(source)
    network = models.load(source, tokenizer, data.labels, regression=False, seed=0)
    return network, lambda split: tokenize(data.splits[split], tokenizer, 128, key=source.fingerprint)


def measure_pass(asked: argparse.Namespace) -> None:
    """Prints the ratio of features of all layers to a plain pass, all tasks together."""
    work = []
    for data in loaded(asked):
        network, tokens_of = network_of(data)
        work.append((network, tokens_of("train"), data.splits["train"].labels))
        predict(network, work[-1][1].take(np.arange(64)))
    ratios = []
    for _ in range(asked.rounds):
        plain = sum(seconds(predict, network, tokens)[0] for network, tokens, _ in work)
        ours = sum(seconds(extract, *given, ["mean", "cls"])[0] for given in work)
        ratios.append(ours / plain)
        print(f"  plain {plain:.1f} s, features {ours:.1f} s, ratio {ratios[-1]:.2f}", flush=True)
    rows = ", ".join(f"{len(labels):,}" for _, _, labels in work)
    print(f"pass: {len(work)} tasks ({rows} rows), all layers / plain passes: {np.median(ratios):.2f} (target 1.2)")


def scikit_learns(train: Features, scored: Features, **how: Any) -> np.ndarray[Any, Any]:
    """Accuracy of each layer. Standardised as the probe does it."""
    from sklearn.linear_model import LogisticRegressionCV

    scores = []
    for layer in range(train.layers):
        x, new = (torch.from_numpy(np.array(f.hidden[layer : layer + 1])) for f in (train, scored))
        mean, deviation = standardiser(x)
        x, new = (((part - mean) / deviation)[0].numpy() for part in (x, new))
        model = LogisticRegressionCV(Cs=list(STRENGTHS), max_iter=5000, scoring="accuracy", **how).fit(x, train.labels)
        scores.append(float(model.score(new, scored.labels)))
    return np.array(scores)


def measure_solver(asked: argparse.Namespace) -> None:
    """Prints CPU seconds and accuracy of both, task by task."""
    warnings.simplefilter("ignore")
    for data in loaded(asked):
        network, tokens_of = network_of(data)
        train, scored = (
            extract(network, tokens_of(split), data.splits[split].labels)["mean"] for split in ("train", "validation")
        )
        _, parts = draw(train.labels, None, 0, regression=False)
        same = [(np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(parts.max() + 1)]
        took, found = seconds(probe, train, scored, "accuracy")
        print(f"solver: {data.task.name}, {train.hidden.shape} train, {len(scored.labels):,} scored: {took:.2f} s")
        for name, how in ((f"the same {len(same)} of 5 parts", {"cv": same}), ("five folds", {})):
            theirs, accuracy = seconds(scikit_learns, train, scored, **how)
            gap = 100 * (found.scores[:, 0] - accuracy)
            print(
                f"  LogisticRegressionCV, {name}: {theirs:.2f} s, ratio {took / theirs:.2f} (target 0.5); accuracy of "
                f"ours less theirs {gap.mean():+.2f} points (by layer {', '.join(f'{g:+.1f}' for g in gap)})",
                flush=True,
            )


def fill(folder: Path) -> None:
    """Writes the file, probes it, and prints time and memory."""

    def largest() -> str:
        return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"

    generator = np.random.default_rng(0)
    layers, n, width = SHAPE
    lengths = generator.integers(5, 128, n)
    pooled = generator.normal(size=(layers, features.BATCH, width)).astype(np.float32)
    before = largest()
    (store,) = open_stores(["mean"], SHAPE, features.WINDOW, folder).values()
    took, _ = seconds(lambda: [store.add(rows, pooled[:, : len(rows)]) for rows in features.batches(lengths)])
    hidden = store.whole()
    size = (folder / "mean.npy").stat().st_size / 2**30
    print(f"memory: {n:,} x {layers} x {width}, {size:.1f} GiB on disk, written in {took:.0f} s of CPU time")
    print(f"  largest resident set {largest()} (before: {before}; target 4)", flush=True)
    labels = generator.integers(0, 2, n)
    few = Features(np.array(hidden[:, :1000]), labels[:1000])
    took, _ = seconds(probe, Features(hidden, labels), few, "accuracy", size=10_000)
    print(f"  with a probe of 10,000 of its rows ({took:.0f} s): {largest()}")


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="pass,solver,memory")
    parser.add_argument("--tasks", default="news-topic,news-article")
    parser.add_argument("--data-dir")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.fill:
        fill(asked.fill)
        return
    parts = asked.only.split(",")
    if "pass" in parts:
        measure_pass(asked)
    if "solver" in parts:
        measure_solver(asked)
    if "memory" in parts:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, __file__, "--fill", folder], check=True)


if __name__ == "__main__":
    main()
