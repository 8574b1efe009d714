"""Training and writing of summaries against transformers, and what R3F costs there.

    python benchmarks/summarize.py memory     # peak memory of a step, each arm in a process of its own
    python benchmarks/summarize.py step       # CPU time of a step of each arm over that of std
    python benchmarks/summarize.py train      # CPU time of an epoch over Seq2SeqTrainer's, as it comes and by length
    python benchmarks/summarize.py write      # CPU time of writing, Seq2SeqTrainer's predict_with_generate over ours

Weights are random and sizes are given: what is measured does not depend on what was learned. ``memory`` and ``step``
have documents of 512 tokens, summaries of 128 and 50,265 words, four rows a step. ``train`` and ``write`` have the
articles of news-headline, cut at 512 tokens, and the embedded model's tokenizer; the peer gets the same rows, batch
size, learning rate, smoothing and beams. Times are CPU times of the process, the two taken in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftbench.methods import parse_stack
from ftbench.models.backbone import load_tokenizer
from ftbench.models.locate import locate
from ftbench.models.quiet import quiet
from ftbench.tasks import TASKS
from ftbench.tasks.sources import load
from ftbench.training.cost import Meter
from ftbench.training.engine import Training, optimizer_step
from ftbench.training.run import Place, ready
from ftbench.training.start import network_of
from ftbench.training.summaries import document_tokens, target_tokens
from ftbench.training.writing import write_summaries
from ftbench.types import Cost, Data, Rows, RunSpec

WORDS, DOCUMENT, SUMMARY = 50_265, 512, 128
ARMS = ("std", "r3f", "r3f:variant=released", "rdrop", "smart")


def bart(folder: Path, words: int, width: int, layers: int) -> Path:
    """A BART of random weights with the embedded model's tokenizer."""
    from transformers import BartConfig, BartForConditionalGeneration

    tokenizer = load_tokenizer(locate("minilm"))
    fields = {f"{stack}_{name}": value for stack in ("encoder", "decoder") for name, value in (
        ("layers", layers), ("attention_heads", width // 64), ("ffn_dim", 4 * width),
    )}  # fmt: skip
    marks = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.cls_token_id}
    ends = {"eos_token_id": tokenizer.sep_token_id, "decoder_start_token_id": tokenizer.sep_token_id}
    config = BartConfig(vocab_size=words, d_model=width, **fields, **marks, **ends, forced_eos_token_id=None)
    torch.manual_seed(0)
    BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def made_up(rows: int) -> Data:
    """Documents and summaries of exactly the tokens that are kept."""
    generator = np.random.default_rng(0)
    known = ["the", "of", "and", "in", "to", "was", "on", "for", "said", "year", "people", "market", "film", "game"]

    def text(words: int) -> str:
        return " ".join(generator.choice(known, words))

    documents = tuple(text(DOCUMENT) for _ in range(rows))
    summaries = tuple((text(SUMMARY),) for _ in range(rows))
    whole = Rows((documents,), np.zeros(rows, dtype=np.int64), np.arange(rows), summaries=summaries)
    return Data(TASKS["news-headline"], {"train": whole, "validation": whole}, ())


def training(model: Path, data: Data, arm: str, **fields: Any) -> Training:
    """One arm, ready to take steps."""
    source = locate(str(model))
    tokenizer = load_tokenizer(source)
    spec = RunSpec(
        kind="summarize", task="benchmark", data="", weights="", methods=parse_stack(arm), label_smoothing=0.1,
        **{"lr": 1e-4, "max_new_tokens": 24, **fields},
    )  # fmt: skip
    network, place = network_of(spec, data, source, tokenizer), Place(Path(tempfile.mkdtemp()), torch.device("cpu"))
    documents, targets = (make(data.splits["train"], network, spec, "") for make in (document_tokens, target_tokens))
    run = ready(spec, data, source, network, documents, place, Meter(Cost(), place.device), targets)
    run.backbone.model.train()
    return run


def step(run: Training) -> None:
    """The next optimizer step."""
    optimizer_step(run, run.state.step)
    run.state.step += 1


def seconds(work: Callable[[], None]) -> float:
    """CPU time of the process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def wide(folder: Path, width: int, layers: int, arm: str) -> Training:
    """An arm at the sizes of ``memory`` and ``step``."""
    model = bart(folder / "model", WORDS, width, layers) if not (folder / "model").exists() else folder / "model"
    fields = {"max_length": DOCUMENT, "max_target_length": SUMMARY, "batch_size": 4, "steps": 100}
    return training(model, made_up(8), arm, **fields)


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory of three steps, without what the process took before the first."""
    if options.arm:
        with tempfile.TemporaryDirectory() as folder:
            run = wide(Path(folder), options.width, options.layers, options.arm)
            before = run.meter
            before.reset_peak()
            for _ in range(3):
                step(run)
            before.record_peak()
        return {"arm": options.arm, "bytes": before.cost.peak_memory}
    found = {}
    for arm in options.arms:
        command = [sys.executable, __file__, "memory", "--arm", arm, "--width", str(options.width)]
        said = subprocess.run([*command, "--layers", str(options.layers)], capture_output=True, text=True, check=True)
        found[arm] = json.loads(said.stdout.splitlines()[-1])["bytes"]
    return {arm: {"MiB": round(size / 2**20), "over std": size / found["std"]} for arm, size in found.items()}


def steps(options: argparse.Namespace) -> dict[str, Any]:
    """Median over rounds of an arm's step over std's of the same round."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {arm: wide(Path(folder), options.width, options.layers, arm) for arm in options.arms}
        for run in runs.values():
            step(run)
        rounds = []
        for _ in range(options.rounds):
            rounds.append({arm: seconds(lambda run=run: step(run)) for arm, run in runs.items()})
    return {arm: statistics.median(r[arm] / r["std"] for r in rounds) for arm in runs}


def headlines(rows: int) -> Data:
    """Some of news-headline."""
    data = load(TASKS["news-headline"])
    taken = {name: split.take(np.arange(min(rows, len(split)))) for name, split in data.splits.items()}
    return Data(data.task, taken, data.labels)


class Peer:
    """Seq2SeqTrainer on the rows of ``run``."""

    def __init__(self, folder: Path, model: Path, run: Training, data: Data, **arguments: Any) -> None:
        from transformers import AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

        spec, tokenizer = run.spec, run.backbone.tokenizer
        network = AutoModelForSeq2SeqLM.from_pretrained(model)

        def rows_of(rows: Rows) -> list[dict[str, Any]]:
            read = tokenizer(list(rows.texts[0]), truncation=True, max_length=spec.max_length)
            written = tokenizer([s[0] for s in rows.summaries], truncation=True, max_length=spec.max_target_length)
            pairs = zip(read["input_ids"], read["attention_mask"], written["input_ids"], strict=True)
            return [{"input_ids": a, "attention_mask": b, "labels": c} for a, b, c in pairs]

        self.rows = {name: rows_of(rows) for name, rows in data.splits.items()}
        self.trainer = Seq2SeqTrainer(
            model=network,
            args=Seq2SeqTrainingArguments(
                output_dir=str(folder), per_device_train_batch_size=spec.batch_size, learning_rate=spec.lr,
                per_device_eval_batch_size=32, label_smoothing_factor=spec.label_smoothing, max_steps=spec.steps,
                report_to=[], save_strategy="no", logging_strategy="no", use_cpu=True, disable_tqdm=True,
                predict_with_generate=True, generation_max_length=spec.max_new_tokens + 1,
                generation_num_beams=spec.num_beams, warmup_steps=0, **arguments,
            ),
            train_dataset=self.rows["train"],
            data_collator=DataCollatorForSeq2Seq(tokenizer, model=network),
            processing_class=tokenizer,
        )  # fmt: skip


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Median over rounds of our time over the peer's for an epoch: ours by length, as from 2,000 rows on, the peer's in
    its usual random order and by length."""
    data, found = headlines(options.rows), {}
    with tempfile.TemporaryDirectory() as folder:
        model = bart(Path(folder) / "model", 30_522, options.width, options.layers)
        count = -(-len(data.splits["train"]) // 16)
        for order, peer_fields in (("default", {}), ("length-grouped", {"train_sampling_strategy": "group_by_length"})):
            ratios = []
            for _ in range(options.rounds):
                fields = {"max_length": options.tokens, "max_target_length": 24, "batch_size": 16, "steps": count}
                run = training(model, data, "std", batching="bucket", **fields)
                peer = Peer(Path(folder) / "peer", model, run, data, **peer_fields)
                ours = seconds(lambda run=run: [step(run) for _ in range(count)] and None)
                theirs = seconds(lambda peer=peer: peer.trainer.train() and None)
                ratios.append(ours / theirs)
            found[order] = {"ours over theirs": statistics.median(ratios), "rounds": ratios}
    return found


def write(options: argparse.Namespace) -> dict[str, Any]:
    """Median over rounds of the peer's time over ours, for validation rows with four beams."""
    data, ratios = headlines(options.rows), []
    with tempfile.TemporaryDirectory() as folder:
        model = bart(Path(folder) / "model", 30_522, options.width, options.layers)
        fields = {"max_length": options.tokens, "max_target_length": 24, "batch_size": 16, "steps": 1, "num_beams": 4}
        run = training(model, data, "std", **fields)
        peer = Peer(Path(folder) / "peer", model, run, data)
        peer.trainer.model.generation_config.num_beams = 4
        documents = document_tokens(data.splits["validation"], run.backbone, run.spec, "")
        for _ in range(options.rounds):
            ours = seconds(lambda: write_summaries(run.backbone, documents, run.spec) and None)
            theirs = seconds(lambda: peer.trainer.predict(peer.rows["validation"]) and None)
            ratios.append(theirs / ours)
    return {"theirs over ours": statistics.median(ratios), "rounds": ratios}


SECTIONS = {"memory": memory, "step": steps, "train": train, "write": write}


def main() -> None:
    """Prints what one section found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2, help="of each stack")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=DOCUMENT, help="of an article in train and write, at most")
    parser.add_argument("--arm", default="", help=argparse.SUPPRESS)
    parser.add_argument("--arms", type=lambda text: text.split(), default=list(ARMS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with quiet():
        print(json.dumps(SECTIONS[options.section](options), indent=None if options.arm else 2))


if __name__ == "__main__":
    main()
