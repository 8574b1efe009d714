"""Whether the figures in the documentation are those of the stored results.

    python benchmarks/figures.py      # lists every cell that is not; exits with 1 when there is one

A table is checked where a comment stands before it, ``<!-- figures: benchmarks/results/headlines -->``: each row is
looked up by its cells under task, train, noise, steps and method, and what is under n, mean, sd, max, "vs std", cost,
memory, KL and gradient ratio is computed again from ``result.json`` and ``cost.json``, by the formulas here and not by
those of ``ftbench report``. Other columns are not looked at. The table of ``docs/recipe.md`` must be the one that
``recipe.py`` prints.
"""

from __future__ import annotations

import math
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from recipe import table as recipe_table  # beside this file
from scipy import stats

from ftbench.runs.store import read_all
from ftbench.types import Record

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"<!-- figures: (\S+) -->")
REFERENCES = ("majority", "cosine", "linear")
Row = Mapping[str, str]


def tables(text: str) -> Iterator[tuple[str, list[Row]]]:
    """The folder and the rows (column to cell) of every marked table."""
    for mark in MARK.finditer(text):
        lines = [line for line in text[mark.end() :].lstrip().split("\n\n")[0].splitlines() if line.startswith("|")]
        cells = [[cell.strip().strip("*") for cell in line.strip()[1:-1].split("|")] for line in lines]
        yield mark[1], [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def is_meant(row: Row, record: Record) -> bool:
    """Whether the record belongs to the arm that the row names."""
    spec, wanted = record.result.spec, row["method"]
    asked: dict[str, Callable[[str], bool]] = {
        "task": lambda cell: spec.task == cell,
        "train": lambda cell: spec.train_size == int(cell.replace(",", "")),
        "noise": lambda cell: spec.label_noise == float(cell),
        "steps": lambda cell: spec.kind == "reference" or record.cost.steps == int(cell),
    }
    if wanted in REFERENCES:
        named = spec.kind == "reference" and wanted in record.result.metrics
    else:
        named = spec.kind == "finetune" and spec.method == wanted
    return named and all(test(row[name]) for name, test in asked.items() if row.get(name))


def score(row: Row, record: Record) -> float:
    """The headline of the last weights, or of the reference row."""
    metric = record.result.facts["headline"]
    if row["method"] in REFERENCES:
        return float(record.result.metrics[row["method"]]["validation"][metric])
    return float(record.result.metrics["last"]["validation"][metric])


def difference(row: Row, ours: Sequence[Record], plain: Sequence[Record]) -> str:
    """Mean over the seeds that both have, with its 95 % t interval from three pairs on."""
    theirs = {record.result.spec.seed: score({"method": "std"}, record) for record in plain}
    pairs = [score(row, r) - theirs[r.result.spec.seed] for r in ours if r.result.spec.seed in theirs]
    if not any(pairs):
        return "0 exactly"
    mean = statistics.fmean(pairs)
    if len(pairs) < 3:
        return f"{mean:+.3f}"
    half = float(stats.t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(pairs) / math.sqrt(len(pairs))
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


def recomputed(row: Row, records: Sequence[Record]) -> dict[str, str]:
    """Every cell of the row that can be computed, as the documentation writes it."""
    ours = [record for record in records if is_meant(row, record)]
    if not ours:
        return {"method": "no such runs"}
    scores = [score(row, record) for record in ours]
    found = {"mean": f"{statistics.fmean(scores):.3f}", "metric": str(ours[0].result.facts["headline"])}
    if row["method"] in REFERENCES:
        return found
    plain = [record for record in records if is_meant({**row, "method": "std", "steps": ""}, record)]
    found |= {"n": str(len(ours)), "max": f"{max(scores):.3f}", "vs std": difference(row, ours, plain)}
    found["sd"] = f"{statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
    for name, value in (("cost", "process_seconds"), ("memory", "peak_memory")):
        ratio = _mean(ours, value) / _mean(plain, value)
        found[name] = f"{ratio:.2f}x"
    terms = [record.result.facts.get("terms", {}) for record in ours]
    for name, term in (("KL", "kl"), ("gradient ratio", "kl_gradient_ratio")):
        if all(term in each for each in terms):
            found[name] = f"{statistics.fmean(each[term] for each in terms):.4g}"
    return found


def _mean(records: Sequence[Record], name: str) -> float:
    return statistics.fmean(getattr(record.cost, name) for record in records)


def agrees(said: str, found: str) -> bool:
    """The same text, or the same number to the digits that are said."""
    if said == found:
        return True
    try:
        digits = len(said.split("e")[0].replace(".", "").lstrip("-+0"))
        return float(f"{float(found):.{max(digits - 1, 0)}e}") == float(said)
    except ValueError:
        return False


def main() -> int:
    """Prints what does not agree, and how many cells were looked at."""
    looked, wrong = 0, 0
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for folder, rows in tables(page.read_text(encoding="utf-8")):
            records = read_all([ROOT / folder]).records
            for row in rows:
                for name, value in recomputed(row, records).items():
                    said = row.get(name, "")
                    if name != "method" and (not said or "did not learn" in said):
                        continue
                    looked += 1
                    if name == "method" or not agrees(said, value):
                        wrong += 1
                        where = ", ".join(row[key] for key in ("task", "train", "noise", "method") if row.get(key))
                        print(f"{page.relative_to(ROOT)}: {where}: {name} is '{said}', {folder} gives '{value}'")
    page = (ROOT / "docs/recipe.md").read_text(encoding="utf-8").replace("**", "")
    for line in recipe_table(ROOT / "benchmarks/results/recipe").splitlines():
        looked += line.count("0.")
        if line not in page:
            wrong += 1
            print(f"docs/recipe.md lacks '{line}'")
    print(f"{looked} figures looked at, {wrong} wrong")
    return 1 if wrong or not looked else 0


if __name__ == "__main__":
    sys.exit(main())
