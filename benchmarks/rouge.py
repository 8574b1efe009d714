"""ROUGE: how fast, and how far its variants lie apart.

    python benchmarks/rouge.py speed [--rows 11000] [--rounds 3]
    python benchmarks/rouge.py variants FILE [--prediction COLUMN | --lead N] [--reference COLUMN]

speed: rows made of the embedded BBC articles (three sentences against the next three) are scored by one process and
by two, which take turns, in wall time; and by rouge_score as it comes (its own tokenizer and stemmer), in CPU time of
the process. Wall time wants a machine with two cores to spare: the load is printed, and beside it what two free cores
would give by CPU time: one process / (the parent + half of what its two workers took, their imports included).

variants: one file of predictions and references (or documents, of which the first N sentences are the prediction) under
every option, and under what other scripts do: rougeL for R-L, a sentence at every full stop (files2rouge).
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ftbench.analysis.summaries import rouge_of
from ftbench.metrics.rouge import ROUGE, Options
from ftbench.metrics.sentences import split_sentences
from ftbench.tasks import TASKS
from ftbench.tasks.files import read_table
from ftbench.tasks.sources import load


def made_up(rows: int) -> tuple[list[str], list[tuple[str, ...]]]:
    """Three sentences of an article against its next three, from the start and from further on."""
    articles = [split_sentences(text) for text in load(TASKS["news-headline"]).splits["train"].texts[0]]
    pairs = [(each[i : i + 3], each[i + 3 : i + 6]) for i in range(60) for each in articles if len(each) >= i + 6]
    chosen = pairs[:rows]
    assert len(chosen) == rows, f"only {len(chosen)} rows can be made"
    return ["\n".join(a) for a, _ in chosen], [("\n".join(b),) for _, b in chosen]


def speed(rows: int, rounds: int) -> None:
    """Prints wall seconds of one and of two processes, CPU seconds of rouge_score, and ratios."""
    from rouge_score.rouge_scorer import RougeScorer

    predictions, references = made_up(rows)
    options = Options(tokenizer="ascii")
    words = np.mean([len(text.split()) for text in predictions])
    print(f"{rows:,} rows of {words:.0f} words, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    rouge_of(predictions[:50], references[:50], options)  # nltk is loaded, once, for all
    walls: dict[int, list[float]] = {1: [], 2: []}
    ours, theirs, free = [], [], []
    for number in range(rounds):
        for processes in walls:
            began, cpu, workers = time.perf_counter(), time.process_time(), children()
            rouge_of(predictions, references, options, processes=processes)
            walls[processes].append(time.perf_counter() - began)
            if processes == 1:
                ours.append(time.process_time() - cpu)
            else:
                free.append(ours[-1] / (time.process_time() - cpu + (children() - workers) / 2))
        scorer = RougeScorer(list(ROUGE), use_stemmer=True)
        cpu = time.process_time()
        for prediction, (reference,) in zip(predictions, references, strict=True):
            scorer.score(reference, prediction)
        theirs.append(time.process_time() - cpu)
        gain = walls[1][-1] / walls[2][-1]
        print(f"round {number + 1}: one {walls[1][-1]:.1f} s, two {walls[2][-1]:.1f} s: {gain:.2f} times as fast; CPU: "
              f"rouge_score {theirs[-1]:.1f} s, ours {ours[-1]:.1f} s, two free cores {free[-1]:.2f} times as fast; "
              f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    gains, ratios = np.divide(walls[1], walls[2]), np.divide(ours, theirs)
    print(
        f"two processes / one: {np.median(gains):.2f} [{gains.min():.2f}, {gains.max():.2f}] times as fast (target 1.7)"
    )
    print(f"the same by CPU time: {np.median(free):.2f} [{min(free):.2f}, {max(free):.2f}]")
    print(f"CPU time, ours / rouge_score: {np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]")


def children() -> float:
    """CPU seconds of the processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def variants(predictions: Sequence[str], references: Sequence[tuple[str, ...]]) -> None:
    """Prints a row a variant: ROUGE x 100 and seconds."""
    one_line = [" ".join(text.split("\n")) for text in predictions]
    flat = [tuple(" ".join(text.split("\n")) for text in each) for each in references]
    at_stops = [text.replace(".", ".\n") for text in one_line]
    stops = [tuple(text.replace(".", ".\n") for text in each) for each in flat]
    cases = {
        "as ftbench scores": (predictions, references, Options()),
        "without stemming": (predictions, references, Options(stem=False)),
        "lines lost, split again": (one_line, flat, Options()),
        "lines lost, not split": (one_line, flat, Options(sentences="lines")),
        "a sentence at every full stop": (at_stops, stops, Options(sentences="lines")),
        "references without unk": (predictions, references, Options(keep_unk=False)),
        "words of any script": (predictions, references, Options(tokenizer="unicode")),
    }
    print(f"| variant ({len(predictions):,} rows) | {' | '.join(ROUGE)} |\n|---|{'---:|' * len(ROUGE)}")
    for name, (texts, others, options) in cases.items():
        means = 100 * rouge_of(texts, others, options.fitted(others), processes=2)[0].mean(axis=0)
        print(f"| {name} | {' | '.join(f'{mean:.2f}' for mean in means)} |", flush=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=("speed", "variants"))
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, default=11_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prediction", default="summary")
    parser.add_argument("--reference", default="reference")
    parser.add_argument("--lead", type=int, help="score the first sentences of --prediction, a column of documents")
    asked = parser.parse_args()
    if asked.section == "speed":
        speed(asked.rows, asked.rounds)
        return
    table = read_table(asked.file)
    texts = [str(text) for text in table[asked.prediction]]
    if asked.lead:
        texts = ["\n".join(split_sentences(text)[: asked.lead]) for text in texts]
    variants(texts, [(str(text),) for text in table[asked.reference]])


if __name__ == "__main__":
    main()
