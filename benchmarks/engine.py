"""The training loop against its peers, as ratios of process CPU time in one run.

    python benchmarks/engine.py                        # all sections that this machine can run
    python benchmarks/engine.py --only r3f --pairs 30
    python benchmarks/engine.py --only gpu             # RoBERTa-large shape with random weights, needs CUDA

Blocks of the two sides alternate (the order flips every pair); printed are the median ratio over the
pairs, and the middle half of the ratios as its spread. Texts are sentences of the embedded news corpus,
whose lengths vary as real texts do (r3f: its headlines, as in the default run).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftbench.methods import make, parse_stack
from ftbench.models import backbone as models
from ftbench.models.locate import locate
from ftbench.tasks import TASKS
from ftbench.tasks.sources import load, read_packaged
from ftbench.training.batches import Tokens, plan, tokenize
from ftbench.training.cost import Meter
from ftbench.training.engine import Training, optimizer_step
from ftbench.training.evaluate import collate_for
from ftbench.training.optim import make_optimizer
from ftbench.types import Cost, Rows, RunSpec

ROWS, BATCH, STEPS = 2048, 16, 12
Side = Callable[[], None]


def sentences(count: int = ROWS) -> Rows:
    """Sentences of news articles with their topic, 3 to 80 words."""
    source = TASKS["news-topic"].source
    labels = TASKS["news-topic"].labels
    found = [
        (sentence, labels.index(document.label))
        for document in read_packaged(source)  # type: ignore[arg-type]
        for sentence in re.split(r"(?<=[.!?])\s+", document.body)
        if 3 <= len(sentence.split()) <= 80
    ]
    chosen = np.random.Generator(np.random.PCG64(0)).permutation(len(found))[:count]
    texts = (tuple(found[i][0] for i in chosen),)
    return Rows(texts, np.array([found[i][1] for i in chosen]), np.arange(count))


def headlines() -> Rows:
    return load(TASKS["news-topic"]).splits["train"]


def training(rows: Rows, method: str = "std", **fields: Any) -> Training:
    """Our engine on these rows, ready to step."""
    source = locate("minilm")
    spec = RunSpec(
        kind="finetune", task="bench", data="", weights=source.fingerprint, steps=100_000,
        methods=parse_stack(method), batch_size=BATCH, **fields,
    )  # fmt: skip
    tokenizer = models.load_tokenizer(source)
    tokens = tokenize(rows, tokenizer, spec.max_length, key=source.fingerprint)
    network = models.load(source, tokenizer, TASKS["news-topic"].labels, regression=False, seed=0)
    network.model.train()
    optimizer = make_optimizer(network.model, spec.lr, spec.weight_decay)
    meter = Meter(Cost(), network.device)
    return Training(spec, network, make(spec.methods), tokens, rows.labels, rows.index, False, optimizer, meter)


def block(run: Training, steps: int = STEPS) -> Side:
    """A function that trains ``steps`` further steps (no diagnoses: they are few in a run, and off its clock)."""

    def go() -> None:
        for _ in range(steps):
            number = 1 + run.state.step % (run.spec.steps - 2)
            run.window.add(optimizer_step(run, number))
            run.state.step += 1
        run.window.flush()

    return go


def bare(rows: Rows, steps: int = STEPS) -> Side:
    """The loop that one would write by hand, on the same batches as our engine."""
    run = training(rows, batching="bucket")
    network, model, optimizer = run.backbone, run.backbone.model, run.optimizer
    state = {"step": 0}
    batches = plan(run.tokens.lengths, BATCH, 0, 0, "bucket")

    def go() -> None:
        for _ in range(steps):
            part = batches[state["step"] % len(batches)]
            inputs = collate_for(network, run.tokens, part)
            labels = torch.as_tensor(rows.labels[part])
            loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            state["step"] += 1

    return go


def trainer(rows: Rows, strategy: str, steps: int = STEPS) -> Side:
    """``transformers.Trainer`` on the same rows; the clock runs inside its training loop only."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    run = training(rows)
    tokens, network = run.tokens, run.backbone
    data = [_example(tokens, rows, i) for i in range(len(rows))]
    seed = {"value": 0}

    def go() -> float:
        seed["value"] += 1
        arguments = TrainingArguments(
            output_dir=tempfile.gettempdir(), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=5e-5,
            save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
            seed=seed["value"], train_sampling_strategy=strategy,
        )  # fmt: skip
        own = Trainer(
            network.model, arguments, train_dataset=data, data_collator=DataCollatorWithPadding(network.tokenizer)
        )
        clock = _Clock()
        own.add_callback(clock)
        own.train()
        return clock.seconds

    return go  # type: ignore[return-value]


def _example(tokens: Tokens, rows: Rows, number: int) -> dict[str, Any]:
    start, length = int(tokens.offsets[number]), int(tokens.lengths[number])
    ids = tokens.ids[start : start + length].tolist()
    return {"input_ids": ids, "attention_mask": [1] * length, "labels": int(rows.labels[number])}


def _Clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Process time between the begin and the end of training; made late, for the import."""

        seconds = 0.0

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.process_time()

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds = time.process_time() - self.began

    return Clock()


def timed(side: Callable[[], Any]) -> float:
    """Process seconds of a block; a side with a clock of its own returns its seconds."""
    began = time.process_time()
    own = side()
    return own if isinstance(own, float) else time.process_time() - began


def compare(name: str, ours: Side, peer: Side, pairs: int, target: float) -> dict[str, Any]:
    """Median ratio ours / peer over alternating pairs, after one pair that is not counted."""
    timed(ours), timed(peer)
    ratios = []
    for number in range(pairs):
        first, second = (ours, peer) if number % 2 == 0 else (peer, ours)
        a, b = timed(first), timed(second)
        ratios.append(a / b if number % 2 == 0 else b / a)
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return report(name, float(middle), target, f"[{low:.2f}, {high:.2f}] over {pairs} pairs")


def report(name: str, value: float, target: float, spread: str) -> dict[str, Any]:
    verdict = "ok" if value <= target else "MISSED"
    print(f"{name:<52} {value:6.3f}  target <= {target:<5} {verdict:<7} {spread}", flush=True)
    return {"what": name, "value": value, "target": target, "spread": spread}


def section_trainer(pairs: int) -> list[dict[str, Any]]:
    rows = sentences()
    ours = block(training(rows, batching="bucket"))
    return [
        compare("time / Trainer, default sampling", ours, trainer(rows, "random"), pairs, 0.8),
        compare("time / Trainer, length-grouped", ours, trainer(rows, "group_by_length"), pairs, 1.0),
    ]


def section_bare(pairs: int) -> list[dict[str, Any]]:
    rows = sentences()
    return [
        compare("time / bare loop, same batches", block(training(rows, batching="bucket")), bare(rows), pairs, 1.05)
    ]


def section_precision(pairs: int) -> list[dict[str, Any]]:
    rows = sentences()
    fast = block(training(rows, batching="bucket", precision="bf16"))
    return [compare("time bf16 / fp32", fast, block(training(rows, batching="bucket")), pairs, 0.65)]


def section_r3f(pairs: int) -> list[dict[str, Any]]:
    rows = headlines()
    out = []
    for name, fields in (("separate", {}), ("joined", {"passes": "joined"})):
        ours = block(training(rows, "r3f", **fields))
        out.append(compare(f"time r3f / std, {name} passes, headlines", ours, block(training(rows)), pairs, 1.8))
    return out


def section_help(pairs: int) -> list[dict[str, Any]]:
    def start() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ftbench", "--help"], check=True, capture_output=True)
        return time.perf_counter() - began

    seconds = [start() for _ in range(max(5, pairs // 2))]
    return [
        report("seconds of ftbench --help (median wall)", float(np.median(seconds)), 0.3, f"max {max(seconds):.2f}")
    ]


def section_memory(pairs: int) -> list[dict[str, Any]]:
    """Peak resident memory in processes of their own."""

    def peak(side: str) -> float:
        command = [sys.executable, __file__, "--peak", side]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    ratios = [peak("ours") / peak("bare") for _ in range(3)]
    return [report("peak memory / bare loop", float(np.median(ratios)), 1.05, f"max {max(ratios):.3f} of 3")]


def peak_of(side: str) -> None:
    """Prints the peak of this process after 40 steps."""
    rows = sentences(640)
    if side == "ours":
        block(training(rows, batching="bucket"), 40)()
    else:
        bare(rows, 40)()
    meter = Meter(Cost(), torch.device("cpu"))
    meter.record_peak()
    print(meter.cost.peak_memory)


def section_gpu(pairs: int) -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        print("gpu: no CUDA device here, not measured")
        return []
    from gpu import measure

    return measure(pairs)


SECTIONS = {
    "trainer": section_trainer, "bare": section_bare, "precision": section_precision, "r3f": section_r3f,
    "memory": section_memory, "help": section_help, "gpu": section_gpu,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="comma list of sections")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--peak", choices=("ours", "bare"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        return peak_of(arguments.peak)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    figures = [figure for name in arguments.only.split(",") for figure in SECTIONS[name](arguments.pairs)]
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
