"""The picture of probes is drawn whatever seeds say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftbench.reporting.probe_figure import draw_probes
from tests.reporting.test_probe_claims import probed, references

#: the mean of three of the first is above each, of three of the second below
ROUNDED = (0.7614678899082568, 0.1)


@pytest.mark.parametrize("score", ROUNDED)
@pytest.mark.parametrize("encoder", ["sst2", "sst2>qnli"])
def test_seeds_that_agree_to_the_digit_have_a_bar_of_no_length(tmp_path: Path, score: float, encoder: str) -> None:
    tuned = [probed(score, encoder, method, seed) for method in ("std", "r3f") for seed in range(3)]
    draw_probes([*references("trec"), *tuned], tmp_path / "probes.svg")
    assert "r3f" in (tmp_path / "probes.svg").read_text("utf-8")
