"""What tuning few layers saves, counted and measured, beside the cost model that counts blocks.

    python benchmarks/layers.py [--rows 96] [--tokens 64] [--rounds 3] [--threads 1] [--json FILE]

Each choice of layers is prepared as `ftbench finetune` does, on texts of news-article cut at --tokens, in batches of
16, float32; without the prefix cache and with it. Columns, each but the parameters as a ratio to plain fine-tuning:

step     process CPU time of an optimizer step: the median over rounds in which all choices take turns
FLOPs    of a step, by torch's counter (training.flops)
model    head + (head - bottom + 1) + (top - bottom + 1) over 3 x blocks (types.layers.cost_share)
memory   what the step needs beside weights and optimizer state: the peak of the resident set less what it was before
scoring  CPU time of scoring the rows; the model says head / blocks

Last, what nu itself takes: the pass over the rows and all measures without the probe, in steps of plain fine-tuning.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from ftbench.methods import parse_stack
from ftbench.models import backbone as models
from ftbench.models.locate import locate
from ftbench.runs.auto import measure
from ftbench.tasks import TASKS
from ftbench.tasks.perturb import perturb
from ftbench.tasks.sources import load
from ftbench.training import run as runs
from ftbench.training import variability
from ftbench.training.cost import Meter
from ftbench.training.engine import Training, optimizer_step
from ftbench.training.evaluate import predict
from ftbench.training.watch import Control
from ftbench.types import Cost, Data, RunSpec
from ftbench.types.layers import Layers, cost_share

BLOCKS = 6
#: layers, method, whether the states below are kept
CHOICES = [
    ("", "std", False),
    ("1:4:4", "std", False),
    ("3:4:4", "std", False), ("3:4:4", "std", True),
    ("3:4:6", "std", False), ("3:4:6", "std", True),
    ("5:6:6", "std", False), ("5:6:6", "std", True),
    ("6:6:6", "std", False), ("6:6:6", "std", True),
    ("", "adapter", False),
    ("3:4:4", "adapter", False), ("3:4:4", "adapter", True),
    ("5:6:6", "adapter", False), ("5:6:6", "adapter", True),
]  # fmt: skip


class Choice:
    """One choice of layers, ready to step."""

    def __init__(self, data: Data, layers: str, method: str, cached: bool, tokens: int, folder: Path) -> None:
        source = locate("minilm")
        spec = RunSpec(
            kind="finetune", task="bench", data="", weights=source.fingerprint, steps=10_000, layers=layers,
            methods=parse_stack(method), max_length=tokens, batch_size=16,
        )  # fmt: skip
        tokenizer = models.load_tokenizer(source)
        place = runs.Place(folder, torch.device("cpu"), folder / "cache", "on" if cached else "off")
        self.tokens = runs.tokenize_splits(spec, data, source, tokenizer, place)["train"]
        meter = Meter(Cost(), place.device)
        self.run: Training = runs._prepare(spec, data, source, tokenizer, self.tokens, place, meter)
        self.prepared = meter.cost.process_seconds
        self.layers, self.method, self.cached = layers, method, cached
        self.run.backbone.model.train()
        self.times: list[float] = []
        self.scoring: list[float] = []
        self.flops = self.memory = 0

    def step(self, number: int) -> None:
        """One step and one scoring; the first is not kept."""
        meter = self.run.meter
        meter.reset_peak()
        resident = psutil.Process().memory_info().rss
        before, began = meter.cost.flops, time.process_time()
        optimizer_step(self.run, number)
        took = time.process_time() - began
        meter.cost.peak_memory = 0
        meter.record_peak()
        flops = meter.cost.flops - before
        began = time.process_time()
        predict(self.run.backbone, self.tokens)
        if number > 1:
            self.times.append(took)
            self.scoring.append(time.process_time() - began)
            self.flops, self.memory = max(self.flops, flops), max(self.memory, meter.cost.peak_memory - resident)


def row(choice: Choice, plain: Choice) -> dict[str, Any]:
    """Ratios to plain fine-tuning, medians of ratios of the same round."""
    place = Layers.parse(choice.layers) if choice.layers else Layers(1, BLOCKS, BLOCKS)
    weights = choice.method == "std"
    below = place.bottom - 1 if choice.cached else 0
    return {
        "layers": choice.layers or "all", "tuned": choice.method, "cache": "on" if choice.cached else "off",
        "parameters": choice.run.meter.cost.trained_parameters,
        "step": statistics.median(a / b for a, b in zip(choice.times, plain.times, strict=True)),
        "flops": choice.flops / plain.flops,
        "model": cost_share(place, BLOCKS, weights=weights) - below / (3 * BLOCKS),
        "memory": choice.memory / plain.memory,
        "scoring": statistics.median(a / b for a, b in zip(choice.scoring, plain.scoring, strict=True)),
        "scoring_model": place.head / BLOCKS,
        "once": choice.prepared / statistics.median(plain.times),
    }  # fmt: skip


def cost_of_nu(data: Data, tokens: int, folder: Path, step: float) -> None:
    """nu of all layers on the same rows."""
    source = locate("minilm")
    spec = measure(data, source, {"max_length": tokens}, 0)
    began = time.process_time()
    outcome = variability.measure(spec, data, source, runs.Place(folder, torch.device("cpu")), Control())
    rows = outcome.result.facts["rows"]["train"]
    print(
        f"nu of {rows} rows: the pass {outcome.cost.process_seconds / step:.2f} steps, all of it "
        f"{(time.process_time() - began) / step:.2f} steps of plain fine-tuning on 16 rows ({step:.2f} s)"
    )


def main() -> None:
    """Measures all choices in one process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    data = perturb(load(TASKS["news-article"]), limit=asked.rows)
    with tempfile.TemporaryDirectory() as folder:
        choices = [Choice(data, *choice, asked.tokens, Path(folder) / str(i)) for i, choice in enumerate(CHOICES)]
        for number in range(1, asked.rounds + 2):
            for choice in choices:
                choice.step(number)
        plain = choices[0]
        seconds = statistics.median(plain.times)
        print(f"plain step {seconds:.2f} s, {plain.flops / 1e9:.1f} GFLOP, {plain.memory / 2**20:.0f} MiB")
        print("| layers | tuned | cache | params | step | FLOPs | model | memory | scoring | its model |")
        print("|---|---|---|---:|---:|---:|---:|---:|---:|---:|")
        rows = [row(choice, plain) for choice in choices]
        for found in rows:
            print(
                "| {layers} | {tuned} | {cache} | {millions:.2f} M | {step:.2f} | {flops:.2f} | {model:.2f} "
                "| {memory:.2f} | {scoring:.2f} | {scoring_model:.2f} |".format(
                    **found, millions=found["parameters"] / 1e6
                ),
                flush=True,
            )
        cost_of_nu(data, asked.tokens, Path(folder), statistics.median(plain.times))
        if asked.json:
            asked.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
