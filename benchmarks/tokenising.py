"""How fast and in how much memory a large task is tokenised, against the tokenizer alone.

    python benchmarks/tokenising.py [--rows 400000] [--threads 2] [--rounds 3]

Rows are 4 to 40 words of the embedded corpus at random. Both ways tokenise the same rows in one process, taking
turns; the tokenizer alone is called with the same 4,096 texts at a time and its ids are thrown away, ftbench also
names and writes the file of its cache. Time is the process's CPU time, which other processes disturb least; memory is
the largest resident set that the process ever had, with the texts, torch and the tokenizer in it.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from ftbench.models.locate import locate
from ftbench.tasks import TASKS
from ftbench.tasks.sources import load
from ftbench.types import Rows


def made_up(rows: int) -> Rows:
    """``rows`` texts drawn from the words of the news headlines."""
    words = sorted({word for text in load(TASKS["news-article"]).splits["train"].texts[0] for word in text.split()})
    generator = np.random.default_rng(0)
    lengths = generator.integers(4, 41, rows)
    drawn = iter(generator.integers(0, len(words), int(lengths.sum())).tolist())
    texts = tuple(" ".join(words[next(drawn)] for _ in range(length)) for length in lengths)
    return Rows((texts,), np.zeros(rows, dtype=np.int64), np.arange(rows, dtype=np.int64))


def main() -> None:
    """Measures and prints ratios of the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(asked.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from ftbench.models.tokenizer import load_tokenizer
    from ftbench.training.batches import CHUNK, tokenize

    rows = made_up(asked.rows)
    source = locate("minilm")
    tokenizer = load_tokenizer(source)
    texts = list(rows.texts[0])
    ours, alone = [], []
    for _ in range(asked.rounds):
        began = time.process_time()
        for start in range(0, len(texts), CHUNK):
            tokenizer(texts[start : start + CHUNK], truncation=True, max_length=128, return_attention_mask=False)
        alone.append(time.process_time() - began)
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            tokens = tokenize(rows, tokenizer, 128, key=source.fingerprint, cache=Path(folder))
            ours.append(time.process_time() - began)
    print(f"{asked.rows:,} rows, {int(tokens.lengths.sum()):,} tokens, {asked.threads} threads, {asked.rounds} rounds")
    print(f"CPU time: tokenizer alone {np.median(alone):.1f} s, ftbench {np.median(ours):.1f} s")
    ratios = np.divide(alone, ours)
    print(f"speed relative to the tokenizer alone: {np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
