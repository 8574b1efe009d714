"""What each method costs: a step of its training against one of plain fine-tuning, in one run.

    python benchmarks/methods.py                                # every method of the table
    python benchmarks/methods.py --only mixout,l2sp --pairs 5
    python benchmarks/methods.py --section memory               # peak memory alone
    python benchmarks/methods.py --section gpu                  # batch 16 and 32 in bf16, needs CUDA

Batches of 32 rows of 64 tokens (openings of the embedded news articles), MiniLM, float32, one thread. Blocks of std
and of the method alternate, the order flips every pair; printed are the median ratio of process CPU time over the pairs
with the middle half of the ratios, passes a step, peak memory against std (processes of their own), and trained
parameters. What happens once before training (targets, Fisher information, a probe) is not in the ratio.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine import timed

from ftbench.methods import METHODS, make, parse_stack
from ftbench.models import backbone as models
from ftbench.models.locate import locate
from ftbench.tasks import TASKS
from ftbench.tasks.sources import read_packaged
from ftbench.training.batches import Tokens, tokenize
from ftbench.training.cost import Meter
from ftbench.training.engine import Training, optimizer_step
from ftbench.training.optim import make_optimizer, parameter_groups
from ftbench.training.start import start_of
from ftbench.types import Cost, Rows, RunSpec

ROWS, LENGTH, BATCH, STEPS = 256, 64, 32, 2
#: what the ratio should be at most; FreeLB has three passes at its defaults
TARGETS = {
    "capcort-i": 1.10, "l2sp": 1.10, "llrd": 1.10, "reinit": 1.10, "ema": 1.10, "noisytune": 1.10, "neftune": 1.10,
    "hype": 1.10, "mixout": 1.25, "child-tuning:mode=F": 1.20, "r3f": 2.05, "rdrop": 2.05, "sam": 2.05, "smart": 3.2,
    "freelb": 3.1,
}  # fmt: skip
#: forms beside the defaults: the one with a target, or with another cost
FORMS = {
    "child-tuning": ["child-tuning:mode=F", "child-tuning:rows=32"], "capcort-i": ["capcort-i", "capcort-i:cache=off"],
    "mixout": ["mixout", "mixout:unit=weight"], "l2sp": ["l2sp", "l2sp:mode=decoupled"], "std++": [],
}  # fmt: skip


def arms(names: list[str] | None) -> list[str]:
    """The methods of the table in their forms; those of ``names`` (a method, or a form) where it is given."""
    every = [form for name in METHODS for form in FORMS.get(name, [name])]
    if names is None:
        return every
    return [form for form in every if form in names or form.partition(":")[0] in names]


def articles() -> Rows:
    """Openings of articles of more than ``LENGTH`` tokens, with their topic."""
    labels = TASKS["news-topic"].labels
    documents = read_packaged(TASKS["news-topic"].source)  # type: ignore[arg-type]
    long = [d for d in documents if len(d.body.split()) >= 2 * LENGTH][:: len(documents) // ROWS - 1][:ROWS]
    texts = tuple(" ".join(d.body.split()[: 2 * LENGTH]) for d in long)
    return Rows((texts,), np.array([labels.index(d.label) for d in long]), np.arange(len(long)))


def training(method: str, cache: Path, *, device: str = "cpu", **fields: Any) -> Training:
    """A run as ``finetune`` prepares it, ready to step."""
    source, rows = locate("minilm"), articles()
    spec = RunSpec(
        kind="finetune", task="bench", data="", weights=source.fingerprint, steps=100_000, max_length=LENGTH,
        methods=parse_stack(method), **{"batch_size": BATCH, **fields},
    )  # fmt: skip
    tokenizer = models.load_tokenizer(source)
    tokens: Tokens = tokenize(rows, tokenizer, LENGTH, key=source.fingerprint)
    assert (tokens.lengths == LENGTH).all(), "every row has the whole length"
    network = models.load(source, tokenizer, TASKS["news-topic"].labels, regression=False, seed=0)
    network.model.to(device)
    methods = make(spec.methods)
    start = start_of(spec, network, tokens, rows, cache, original=lambda: network, regression=False)
    for each in methods:
        each.prepare(start)
    network.model.train()
    optimizer = make_optimizer(parameter_groups(network, methods, spec.weight_decay), spec.lr)
    meter = Meter(Cost(), network.device)
    return Training(spec, network, methods, tokens, rows.labels, rows.index, False, optimizer, meter)


def block(run: Training, steps: int = STEPS) -> Callable[[], float | None]:
    """Trains ``steps`` further steps, none of them diagnosed; on a GPU it returns the wall seconds."""

    def go() -> float | None:
        cuda = run.backbone.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            run.window.add(optimizer_step(run, 1 + run.state.step % (run.spec.steps - 2)))
            run.state.step += 1
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began if cuda else None

    return go


def ratios(method: str, std: Training, cache: Path, pairs: int, **fields: Any) -> tuple[dict[str, Any], Training]:
    """Time of a step over std's: median and middle half over the pairs, after one pair that is not counted."""
    run = training(method, cache, **fields)
    ours, theirs = block(run), block(std)
    timed(ours), timed(theirs)
    found = []
    for number in range(pairs):
        first, second = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        a, b = timed(first), timed(second)
        found.append(a / b if number % 2 == 0 else b / a)
    low, middle, high = (float(q) for q in np.percentile(found, [25, 50, 75]))
    cost = run.meter.cost
    card = {
        "method": method, "ratio": middle, "low": low, "high": high, "pairs": pairs, "target": TARGETS.get(method),
        "forward": cost.forward_passes / cost.steps, "backward": cost.backward_passes / cost.steps,
        "trained": sum(p.numel() for p in run.parameters),
    }  # fmt: skip
    return card, run


def peak(method: str) -> float:
    """Peak resident memory in MiB of a process that prepares the method and trains a few steps."""
    command = [sys.executable, __file__, "--peak", method]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(method: str) -> None:
    """Prints the peak of this process after its steps."""
    with tempfile.TemporaryDirectory() as folder:
        block(training(method, Path(folder)), 4)()
        meter = Meter(Cost(), torch.device("cpu"))
        meter.record_peak()
        print(meter.cost.peak_memory / 2**20)


def section_cpu(methods: list[str], pairs: int, *, memory: bool) -> list[dict[str, Any]]:
    """One line for each method."""
    print(
        f"{'method':<24} {'ratio':>6} {'middle half':>15} {'target':>7} {'fwd':>5} {'bwd':>5} {'mem':>6} "
        f"{'trained':>12}"
    )
    cards = []
    base = peak("std") if memory else 0.0
    with tempfile.TemporaryDirectory() as folder:
        std = training("std", Path(folder))
        for method in methods:
            card, _ = ratios(method, std, Path(folder), pairs)
            if memory:
                card["memory_ratio"] = peak(method) / base
            cards.append(card)
            print(line(card), flush=True)
    return cards


def section_memory(methods: list[str]) -> list[dict[str, Any]]:
    """Peak memory of each method's process over that of std's, and the difference."""
    base = peak("std")
    print(f"std {base:,.0f} MiB")
    cards = []
    for method in methods:
        found = peak(method)
        cards.append({"method": method, "memory": found, "memory_ratio": found / base})
        print(f"{method:<24} {found:8,.0f} MiB {found / base:6.2f} {found - base:+8,.0f} MiB", flush=True)
    return cards


def section_gpu(methods: list[str], pairs: int) -> list[dict[str, Any]]:
    """The same at batch 16 and 32 in bf16, wall time, and the allocator's peak."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA device here, not measured")
        return []
    print(torch.cuda.get_device_name())
    cards = []
    for batch in (16, 32):
        print(f"batch {batch}, bf16")
        fields = {"device": "cuda", "batch_size": batch, "precision": "bf16"}
        with tempfile.TemporaryDirectory() as folder:
            std = training("std", Path(folder), **fields)
            base = allocated(std)
            for method in methods:
                card, run = ratios(method, std, Path(folder), pairs, **fields)
                cards.append({**card, "batch": batch, "memory_ratio": allocated(run) / base})
                print(line(cards[-1]), flush=True)
                del run
                torch.cuda.empty_cache()
    return cards


def allocated(run: Training) -> int:
    """Bytes that a step needs at its peak, less what lay there before."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    block(run, 1)()
    return torch.cuda.max_memory_allocated() - before


def line(card: dict[str, Any]) -> str:
    """A row of the table."""
    target = f"{card['target']:.2f}" if card["target"] else ""
    missed = " MISSED" if card["target"] and card["ratio"] > card["target"] else ""
    memory = f"{card['memory_ratio']:.2f}" if "memory_ratio" in card else ""
    return (
        f"{card['method']:<24} {card['ratio']:6.3f} [{card['low']:6.3f},{card['high']:6.3f}] {target:>7} "
        f"{card['forward']:5.2f} {card['backward']:5.2f} {memory:>6} {card['trained']:>12,}{missed}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="comma list of methods")
    parser.add_argument("--section", choices=("cpu", "memory", "gpu"), default="cpu")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--no-memory", action="store_true", help="without the processes that measure peak memory")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        return print_peak(arguments.peak)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread, {torch.backends.cpu.get_cpu_capability()}")
    methods = arms(arguments.only.split(",") if arguments.only else None)
    if arguments.section == "gpu":
        cards = section_gpu(methods, arguments.pairs)
    elif arguments.section == "memory":
        cards = section_memory(methods)
    else:
        cards = section_cpu(methods, arguments.pairs, memory=not arguments.no_memory)
    if arguments.json:
        arguments.json.write_text(json.dumps(cards, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
