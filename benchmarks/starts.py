"""What a run costs before its first step, in CPU seconds of this process: medians, the ways interleaved.

    python benchmarks/starts.py                     # MiniLM
    python benchmarks/starts.py --model ./folder    # another one

Weights: read anew (as ftbench does), a kept model copied, kept weights copied into a new module. Garbage: one
collection as it is after the imports of a run, and with these set aside. A run: one step of 16 rows.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ftbench.models import backbone
from ftbench.models.locate import Checkpoint, locate, weight_files
from ftbench.models.quiet import quiet
from ftbench.runs.stages import identity
from ftbench.tasks import resolve
from ftbench.tasks.sources import load
from ftbench.training.cost import Meter
from ftbench.training.run import Place, finetune
from ftbench.training.watch import Control
from ftbench.types import Cost, RunSpec

LABELS = ("a", "b", "c")


def took(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def interleaved(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each way; the first round does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, work in ways.items():
            found[name].append(took(work))
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def weights(checkpoint: Checkpoint, rounds: int) -> dict[str, float]:
    tokenizer = backbone.load_tokenizer(checkpoint)

    def read() -> Any:
        return backbone.load(checkpoint, tokenizer, LABELS, regression=False, seed=0).model

    kept = read()
    tensors = {name: value for path in weight_files(checkpoint.folder) for name, value in load_file(path).items()}

    def built() -> None:
        mine = {name: value.clone() for name, value in tensors.items()}
        with quiet():
            type(kept).from_pretrained(None, config=copy.deepcopy(kept.config), state_dict=mine, dtype=torch.float32)

    ways = {"read anew": read, "kept model, copied": lambda: copy.deepcopy(kept), "kept weights, copied": built}
    return interleaved({**ways, "tokenizer": lambda: backbone.load_tokenizer(checkpoint)}, rounds)


def garbage(rounds: int) -> dict[str, float]:
    found = {"collecting garbage": statistics.median(took(gc.collect) for _ in range(rounds))}
    Meter(Cost(), torch.device("cpu")).reset_peak()
    return {**found, "imports set aside": statistics.median(took(gc.collect) for _ in range(rounds))}


def whole_run(checkpoint: Checkpoint, rounds: int) -> float:
    data = load(resolve("news-topic"))
    spec = RunSpec(kind="finetune", **identity(data, checkpoint), steps=1, evaluations=1, limit=16, max_length=32)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            finetune(spec, data, checkpoint, Place(Path(folder), torch.device("cpu")), Control())

    return interleaved({"run": run}, rounds)["run"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = locate(asked.model)
    measured = {**weights(checkpoint, asked.rounds), **garbage(asked.rounds)}
    measured["a run of one step"] = whole_run(checkpoint, asked.rounds)
    for name, seconds in measured.items():
        print(f"{name:24} {seconds:.3f} s")


if __name__ == "__main__":
    main()
