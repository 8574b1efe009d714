"""``ftbench choose`` against the oracle: how much worse is its choice than the best of all candidates, in truth?

For each task: ROWS rows of train as somebody's own table; ``ftbench choose`` on it with BUDGET; then every candidate
trained on the same pool with SEEDS and scored on up to HELDOUT rows of the task's train and validation that the table
does not have. Regret is the best candidate's mean there less the choice's. All runs are kept and resumed.

    python benchmarks/choose.py trec mr --data-dir $FTBENCH_DATA/extra --budget 20m --output runs-choose
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from ftbench.cli.choose import to_candidates, to_choosing, to_seconds
from ftbench.cli.options import parse_seeds
from ftbench.cli.progress import Lines
from ftbench.models.locate import locate
from ftbench.runs.grid import Grid
from ftbench.runs.store import Store
from ftbench.runs.work import Options
from ftbench.tasks import from_folder, resolve
from ftbench.tasks.perturb import perturb
from ftbench.tasks.sources import load
from ftbench.types import Data, Rows


def main() -> None:
    """Prints a row of a Markdown table for each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--data-dir")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--heldout", type=int, default=2000)
    parser.add_argument("--budget", default="20m")
    parser.add_argument("--methods", default="lora,llrd,wise-ft,mixout,r3f")
    parser.add_argument("--layers", default="auto,top:half")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--output", type=Path, default=Path("runs-choose"))
    asked = parser.parse_args()
    print("| task | choice | its mean | std | linear | best of all | its mean | regret, points |")
    print("|---|---|---:|---:|---:|---|---:|---:|")
    for name in asked.tasks:
        print(one(name, asked), flush=True)


def one(name: str, asked: argparse.Namespace) -> str:
    """Chooses, then asks the oracle."""
    task = resolve(name)
    data = load(from_folder([task], asked.data_dir)[0] if asked.data_dir else task)
    table, rest = apart(data, asked.rows, asked.heldout)
    file = asked.output / f"{name}-{asked.rows}.csv"
    write(file, data, table)
    texts = [option for column in data.task.inputs for option in ("--text", column)]
    flags = ["--methods", asked.methods, "--layers", asked.layers, "--precision", asked.precision, "--threads", "1"]
    store = asked.output / "runs"
    command = ["choose", str(file), *texts, *flags, "--budget", asked.budget, "-o", str(store), "--json"]
    done = subprocess.run([sys.executable, "-m", "ftbench", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    chosen = json.loads(done.stdout)["choice"]
    found = oracle(file, data, rest, asked, store)
    best = max(found, key=found.__getitem__)
    cells = (
        name, chosen, f"{found[chosen]:.3f}", f"{found['std']:.3f}", f"{found['linear']:.3f}", best,
        f"{found[best]:.3f}", f"{100 * (found[best] - found[chosen]):.1f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def apart(data: Data, rows: int, heldout: int) -> tuple[Rows, Rows]:
    """The table's rows, and others of the same task: of train, then of validation."""
    train = data.splits["train"]
    table = perturb(data, train_size=rows).splits["train"]
    left = train.take(np.setdiff1d(np.arange(len(train)), np.searchsorted(train.index, table.index)))
    generator = np.random.default_rng(0)
    rest = left.take(generator.permutation(len(left))[:heldout])
    return table, rest if len(rest) == heldout else data.splits["validation"]


def write(file: Path, data: Data, rows: Rows) -> None:
    """The rows as a CSV."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow([*data.task.inputs, "label"])
        named = [data.labels[label] for label in rows.labels.tolist()]
        table.writerows(zip(*rows.texts, named, strict=True))


def oracle(file: Path, data: Data, rest: Rows, asked: argparse.Namespace, store: Path) -> dict[str, float]:
    """Mean score of every candidate, trained on the pool of the table, on ``rest``."""
    own = load(resolve(str(file), data.task.inputs, "label"))
    model = locate("minilm")
    raced = to_candidates(own, [model], [asked.methods], asked.layers)
    fixed = {"max_length": 128, "precision": asked.precision}
    choosing = to_choosing(own, raced, Store(store), to_seconds(asked.budget), fixed, margin=1.0, device="cpu")
    order = [own.labels.index(label) for label in data.labels]  # the same names, perhaps in another order
    scored = rest.with_labels(np.array(order)[rest.labels])
    whole = choosing.parts.whole
    choosing.parts = replace(choosing.parts, whole=replace(whole, splits={**whole.splits, "validation": scored}))
    big = choosing.parts.whole
    grid = Grid(
        choosing.store, {big.fingerprint: big}, {model.fingerprint: model}, Lines(quiet=True),
        Options(device="cpu", threads=1),
    )  # fmt: skip
    found = {}
    for name, candidate in choosing.by_name.items():
        if first := choosing.measured_by_whole(name):
            grid.run([lambda records, first=first: [first]])
        seeds = [0] if candidate.reference else parse_seeds(asked.seeds, "--seeds")
        specs = [replace(choosing.last(name), seed=seed) for seed in seeds]
        before = len(grid.records)
        grid.run([lambda records, specs=specs: specs])
        selection = candidate.reference or "last"
        found[name] = float(np.mean([r.result.score("accuracy", selection) for r in grid.records[before:]]))
    return found


if __name__ == "__main__":
    main()
