"""How long ``ftbench report`` takes, on runs that are made up: a store of results with predictions of 277 rows.

    python benchmarks/report.py [--runs 1000,10000] [--rows 277] [--rounds 3] [--browser]

Ten tasks with a reference run each, ten methods, as many seeds as make up the number. Each command is a process of its
own; its CPU time (user and system, all threads) and wall time are taken, the best of several rounds, and that it loaded
no torch is checked. The peer is what any report must do: reading every ``result.json`` with ``json``. ``--browser``
opens the page in headless Chromium, where that is installed, and says when it was ready: after its scripts ran, and
after a click that sorts the longest table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ftbench.runs.store import Store
from ftbench.types import Cost, MethodSpec, Result, RunSpec

TASKS, METHODS = 10, 10
FORMS: dict[str, tuple[str, ...]] = {
    "terminal": (),
    "json": ("--json",),
    "csv-long": ("--format", "csv-long"),
    "html": ("--html", "page.html", "--table", "runs"),
}
READ = "import json, pathlib; [json.loads(p.read_bytes()) for p in pathlib.Path('runs').rglob('result.json')]"
PROBE = """<script>
window.addEventListener("load", () => {
  const ready = performance.now();
  const table = [...document.querySelectorAll("table")].sort((a, b) => b.rows.length - a.rows.length)[0];
  table.querySelector("th button").click();
  table.getBoundingClientRect();
  const out = {ready, sorted: performance.now() - ready, rows: table.rows.length};
  document.body.setAttribute("data-probe", JSON.stringify(out));
});
</script>"""


def made_up(root: Path, runs: int, rows: int) -> None:
    """A store with ``runs`` fine-tuning runs and a reference run for each task."""
    generator = np.random.default_rng(0)
    store, seeds = Store(root), runs // (TASKS * METHODS)
    for t in range(TASKS):
        task = {"task": f"task-{t}", "data": f"data-{t}", "weights": "w", "model": "made-up"}
        labels, skill = generator.integers(0, 2, rows), generator.random(rows)
        _save(store, RunSpec(kind="reference", **task), {"linear": {"validation": {"accuracy": 0.6}}}, {})
        for m in range(METHODS):
            methods = (MethodSpec(f"method{m}"),) if m else ()
            likes = generator.normal(0, 0.05, rows)
            for seed in range(seeds):
                right = skill + likes + generator.normal(0, 0.1, rows) < 0.75
                said = np.where(right, labels, 1 - labels)
                score = float(np.mean(said == labels))
                chance = np.where(said[:, None] == [0, 1], 0.9, 0.1)
                metrics = {"last": {"validation": {"accuracy": score, "macro_f1": score}}}
                columns = {
                    "example": np.arange(rows),
                    "label": labels,
                    "prediction": said,
                    "probabilities": list(chance),
                }
                spec = RunSpec(kind="finetune", methods=methods, seed=seed, steps=100, **task)
                _save(store, spec, metrics, columns)


def _save(
    store: Store, spec: RunSpec, metrics: dict[str, dict[str, dict[str, float]]], columns: dict[str, object]
) -> None:
    """As ``Store.save`` leaves a run, without its fsync."""
    store.folder(spec).mkdir(parents=True)
    fsync, os.fsync = os.fsync, lambda handle: None
    facts = {"headline": "accuracy", "majority_score": 0.5, "distinct_predictions": 2, "lower_is_better": False,
             "kind": "classification", "rows": {"train": 1000, "validation": 277}}  # fmt: skip
    cost = Cost(process_seconds=10.0 + spec.seed % 7, steps=100, forward_passes=100, flops=10**12, peak_memory=10**9,
                trained_parameters=10**8, device="cpu", threads=1)  # fmt: skip
    history = [{"step": n, "evaluation": {"validation": {"accuracy": 0.5 + n / 500}}} for n in range(10, 101, 10)]
    where = {"command": ["ftbench", "finetune"], "device": "cpu", "versions": {"torch": "2.13"}}
    result = Result(spec=spec, status="ok", metrics=metrics, facts=facts)
    store.save(result, cost, history=history if columns else (), environment=where)
    if columns:
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        pq.write_table(table, store.folder(spec) / "predictions.parquet")
    os.fsync = fsync


def timed(command: Sequence[str], folder: Path, rounds: int) -> tuple[float, float]:
    """CPU and wall seconds of a process, the best of ``rounds``."""
    found = []
    for _ in range(rounds):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall))
    return min(cpu for cpu, _ in found), min(wall for _, wall in found)


def without_torch(folder: Path) -> bool:
    """Whether a report of everything leaves torch alone."""
    code = (
        "import sys; from ftbench.cli.app import main\n"
        "sys.argv = ['ftbench', 'report', 'runs', '--table', 'all', '--html', 'page.html']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stderr.strip().endswith("False")


def browse(page: Path) -> dict[str, float]:
    """Milliseconds until the page was ready and its longest table sorted; empty without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return {}
    watched = page.with_name("watched.html")
    watched.write_text(page.read_text("utf-8").replace("</head>", PROBE + "</head>"), encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    done = subprocess.run(
        [chromium, *flags, "--dump-dom", watched.as_uri()], capture_output=True, text=True, check=False
    )
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    return json.loads(found[1].replace("&quot;", '"')) if found else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="1000,10000")
    parser.add_argument("--rows", type=int, default=277)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--browser", action="store_true")
    options = parser.parse_args()
    program = [sys.executable, "-m", "ftbench", "report", "runs"]
    for runs in map(int, options.runs.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            made_up(folder / "runs", runs, options.rows)
            peer, _ = timed([sys.executable, "-c", READ], folder, options.rounds)
            print(f"{runs:,} runs: reading their JSON takes {peer:.2f} s of CPU; no torch: {without_torch(folder)}")
            for name, words in FORMS.items():
                cpu, wall = timed([*program, *words], folder, options.rounds)
                print(f"  {name:9} {cpu:6.2f} s CPU {wall:6.2f} s wall  ratio {cpu / peer:5.1f}", flush=True)
            page = folder / "page.html"
            print(f"  the page has {page.stat().st_size / 1e6:.2f} MB", browse(page) if options.browser else "")


if __name__ == "__main__":
    main()
