"""The study behind the default recipe: learning rate x updates, scored on a slice of train.

    python benchmarks/recipe.py runs         # do the runs that are missing, then print the table
    python benchmarks/recipe.py --print benchmarks/results/recipe

200 rows are trained on and 800 others of train are scored (``--train-size 1000 --select-on train:0.8``);
validation is never looked at. TREC and SST-2 are read from FTBENCH_DATA where it is set.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ftbench.runs.store import read_all

RATES, STEPS = ("2e-5", "5e-5", "1e-4"), ("39", "100", "150", "200", "400")


def tasks() -> list[list[str]]:
    """The tasks as options of ``ftbench finetune``."""
    found = [["--task", "news-topic"]]
    if data := os.environ.get("FTBENCH_DATA"):
        columns = ["--text", "sentence", "--label", "label"]
        found += [["--task", f"{data}/{folder}", *columns] for folder in ("extra/TREC", "glue/SST-2")]
    return found


def run(folder: Path) -> None:
    """Does what is missing, one task after the other."""
    options = ["--seeds", "0", "--train-size", "1000", "--select-on", "train:0.8", "--evaluations", "1"]
    grid = ["--lr", ",".join(RATES), "--steps", ",".join(STEPS), "--no-references", "--quiet"]
    for task in tasks():
        command = [sys.executable, "-m", "ftbench", "finetune", *task, *options, *grid, "-o", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def table(folder: Path) -> str:
    """Accuracy on the slice, a row for each task and learning rate, a column for each number of updates."""
    records = [r.result for r in read_all([folder]).records if r.result.spec.kind == "finetune"]
    lines = ["| task | lr | " + " | ".join(f"{s} updates" for s in STEPS) + " |", "|---|---|" + "---:|" * len(STEPS)]
    for task in dict.fromkeys(result.spec.task for result in records):
        for rate in RATES:
            cells = []
            for steps in STEPS:
                wanted = (task, float(rate), int(steps))
                scores = [
                    result.score(result.facts["headline"], split="selection")
                    for result in records
                    if (result.spec.task, result.spec.lr, result.spec.steps) == wanted
                ]
                cells.append(f"{scores[0]:.3f}" if scores and scores[0] is not None else "–")
            lines.append(f"| {task} | {rate} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    target = Path(sys.argv[-1])
    if "--print" not in sys.argv:
        run(target)
    print(table(target))
