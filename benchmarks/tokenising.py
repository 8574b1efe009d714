"""How fast and in how much memory a large task is tokenised, against the tokenizer alone.

    python benchmarks/tokenising.py [--rows 400000] [--threads 2]

Rows are 4 to 40 words of the embedded corpus at random. Both ways tokenise the same rows in one
process, alternating; the tokenizer alone is called with the same 4,096 texts at a time and its ids are thrown away.
Memory is the largest resident set of the process less what it held before tokenising.
"""

from __future__ import annotations

import argparse
import os
import threading
import time

import numpy as np
import psutil

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


class Peak:
    """The largest resident set while it runs, looked at every 10 ms."""

    def __enter__(self) -> Peak:
        self._process, self._on = psutil.Process(), True
        self.before = self.most = self._process.memory_info().rss
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._watch.join()

    def _look(self) -> None:
        while self._on:
            self.most = max(self.most, self._process.memory_info().rss)
            time.sleep(0.01)


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
    ours, alone, memory = [], [], []
    for _ in range(asked.rounds):
        began = time.perf_counter()
        for start in range(0, len(texts), CHUNK):
            tokenizer(texts[start : start + CHUNK], truncation=True, max_length=128, return_attention_mask=False)
        alone.append(time.perf_counter() - began)
        with Peak() as peak:
            began = time.perf_counter()
            tokens = tokenize(rows, tokenizer, 128, key=source.fingerprint)
            ours.append(time.perf_counter() - began)
        memory.append(peak.most - peak.before)
    print(f"{asked.rows:,} rows, {int(tokens.lengths.sum()):,} tokens, {asked.threads} threads")
    print(f"tokenizer alone {np.median(alone):.1f} s, ftbench {np.median(ours):.1f} s")
    print(f"speed relative to the tokenizer alone: {np.median(alone) / np.median(ours):.2f}")
    whole = psutil.Process().memory_info().rss / 2**30
    print(f"memory beyond the texts: {max(memory) / 2**20:.0f} MiB; whole process {whole:.2f} GiB")


if __name__ == "__main__":
    main()
