"""The documentation's figures are those of the stored results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_figure_of_a_marked_table_is_in_the_stored_results() -> None:
    done = subprocess.run([sys.executable, ROOT / "benchmarks/figures.py"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
