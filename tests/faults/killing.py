"""A grid of tiny runs on two workers is killed at random moments, restarted at once, killed again, until it is done.

Who dies is drawn too: a worker, the command, both, or the command is asked to stop (SIGTERM, SIGINT). After every
restart what was finished before must be there as it was; in the end every ``result.json`` must be that of a grid that
nobody disturbed. Then the next grid, until enough were killed.

    python -m tests.faults.killing --kills 50       # what .ci/deep does
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

VICTIMS = ("worker", "command", "both", "SIGTERM", "SIGINT")
#: a result.json: its bytes, and when it was written
Finished = dict[str, tuple[bytes, int]]


@dataclass
class Counts:
    """What was done to the grids, and what came of it."""

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    restarts: int = 0
    grids: int = 0
    lost: int = 0
    changed: int = 0
    different: int = 0
    tracebacks: int = 0

    @property
    def good(self) -> bool:
        """Whether nothing was lost, changed or done otherwise."""
        return not (self.lost or self.changed or self.different or self.tracebacks)


def finished(folder: Path) -> Finished:
    """Every result below ``folder``."""
    found = {}
    for path in sorted(folder.rglob("result.json")):
        with contextlib.suppress(FileNotFoundError):
            found[path.parent.name] = (path.read_bytes(), path.stat().st_mtime_ns)
    return found


def strike(process: subprocess.Popen[str], victim: str, chance: random.Random) -> bool:
    """Kills or signals; False where it was over before."""
    with contextlib.suppress(psutil.NoSuchProcess):
        workers = psutil.Process(process.pid).children(recursive=True)
        if victim == "worker":
            if not workers:
                return False
            chance.choice(workers).kill()
            return True
        if process.poll() is not None:
            return False
        if victim.startswith("SIG"):
            process.send_signal(signal.Signals[victim])
            process.wait(120)
            return True
        for one in workers if victim == "both" else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.kill()
        process.wait()
        return True
    return False


def kill_until(kills: int, command: Sequence[str], folder: Path, seed: int, say: Callable[[str], None]) -> Counts:
    """Kills grids of ``command`` (which takes ``-o``) in folders below ``folder`` until ``kills`` were."""
    began = time.monotonic()
    run([*command, "-o", str(folder / "undisturbed")]).wait(600)
    span = time.monotonic() - began
    expected = {name: content for name, (content, _) in finished(folder / "undisturbed").items()}
    counts, chance = Counts(), random.Random(seed)
    while counts.kills.total() < kills:
        place = folder / f"grid-{counts.grids}"
        _one_grid(kills, [*command, "-o", str(place)], place, span, counts, chance)
        now = {name: content for name, (content, _) in finished(place).items()}
        counts.different += sum(now.get(name) != content for name, content in expected.items())
        counts.grids += 1
        say(f"{counts.kills.total()} of {kills} killed, {counts.grids} grids: {'equal' if counts.good else counts}")
    return counts


def _one_grid(
    kills: int, command: Sequence[str], place: Path, span: float, counts: Counts, chance: random.Random
) -> None:
    before: Finished = {}
    while True:
        process = run(command)
        if counts.kills.total() >= kills:
            victim = ""
        else:
            victim = chance.choice(VICTIMS)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, span))
            counts.kills[victim] += strike(process, victim, chance)
        if victim in ("", "worker"):  # the command goes on without it
            process.wait(600)
        said = process.stderr.read() if process.stderr else ""
        counts.tracebacks += "Traceback" in said
        now = finished(place)
        counts.lost += len(before.keys() - now.keys())
        counts.changed += sum(now[name] != before[name] for name in before.keys() & now.keys())
        before = now
        if process.returncode in (0, 1):  # 1: a run was recorded as failed, so its result is another
            return
        counts.restarts += 1


def run(command: Sequence[str]) -> subprocess.Popen[str]:
    """The command, with its words on a pipe that is read at the end: it says little."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def grid(tiny_folder: Path, tiny_model: Path, *, steps: int = 60) -> list[str]:
    """The command of the grid: two methods, two seeds, two workers."""
    return [
        sys.executable, "-m", "ftbench", "finetune", "-t", str(tiny_folder), "-m", str(tiny_model), "--method", "r3f",
        "--seeds", "0,1", "--steps", str(steps), "--batch-size", "8", "--lr", "1e-3", "--max-length", "32",
        "--device", "cpu", "--checkpoint-every", "5", "--evaluations", "2", "--no-references", "--jobs", "2", "--quiet",
    ]  # fmt: skip


def main() -> int:
    """Prints the counts as JSON; 1 where a run was lost, changed or other than the undisturbed one."""
    from tests.conftest import save_tiny, write_tiny

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"FTBENCH_HOME": f"{scratch}/home", "HF_HUB_OFFLINE": "1"}
        command = grid(
            write_tiny(Path(scratch) / "data"), save_tiny(Path(scratch) / "model", "bert"), steps=asked.steps
        )
        counts = kill_until(asked.kills, command, Path(scratch), asked.seed, lambda text: print(text, flush=True))
    print(json.dumps(counts.__dict__))
    return not counts.good


if __name__ == "__main__":
    sys.exit(main())
