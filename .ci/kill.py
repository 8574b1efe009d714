"""Kills a small grid with SIGKILL at moments spread from its first step to its last, restarts it, compares.

The moment is found by polling the checkpoints' headers, never by sleeping through a guess. Every
result.json must equal the undisturbed grid's, byte for byte.

    python .ci/kill.py [--moments 10] [-- further finetune options]
"""

from __future__ import annotations

import argparse
import json
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 40
GRID = ["--method", "r3f", "--seeds", "0", "--steps", str(STEPS), "--checkpoint-every", "2", "--evaluations", "2"]


def command(folder: Path, options: list[str]) -> list[str]:
    return [sys.executable, "-m", "ftbench", "finetune", *GRID, *options, "-o", str(folder), "--quiet"]


def progress(folder: Path) -> int:
    """Optimizer steps that are safe on disk, over all runs of the grid."""
    done = 0
    for run in folder.glob("*/*"):
        if run.name.startswith("reference"):
            continue
        done += STEPS if (run / "result.json").exists() else checkpoint_step(run / "checkpoint.safetensors")
    return done


def checkpoint_step(path: Path) -> int:
    """The step in a checkpoint's header; 0 when there is none (a rename may happen while we look)."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            return int(json.loads(json.loads(stream.read(length))["__metadata__"]["state"])["step"])
    except (OSError, ValueError, KeyError, struct.error):
        return 0


def results(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("result.json"))}


def kill_at(target: int, folder: Path, options: list[str]) -> int:
    """Runs the grid until ``target`` steps are on disk, kills it, and says how many were."""
    process = subprocess.Popen(command(folder, options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and progress(folder) < target:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit(f"the grid ended before it could be killed at {target} steps")
    return progress(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("options", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "undisturbed"
        subprocess.run(command(whole, arguments.options), check=True, stdout=subprocess.DEVNULL)
        expected = results(whole)
        total, wrong = 2 * STEPS, 0
        for moment in range(arguments.moments):
            target = 1 + round(moment * (total - 3) / max(1, arguments.moments - 1))
            folder = Path(scratch) / f"killed-{moment}"
            at = kill_at(target, folder, arguments.options)
            unfinished = len(expected) - len(results(folder))
            subprocess.run(command(folder, arguments.options), check=True, stdout=subprocess.DEVNULL)
            same = unfinished > 0 and results(folder) == expected
            wrong += not same
            verdict = "equal" if same else "DIFFERENT"
            print(
                f"killed at {at:>2} of {total} steps, {unfinished} of {len(expected)} runs unfinished: {verdict}",
                flush=True,
            )
        print(f"{arguments.moments - wrong} of {arguments.moments} restarts gave equal bytes")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
