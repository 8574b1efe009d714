"""What a run ran on: versions and machine, no secrets."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import ftbench
from ftbench.runs import team
from ftbench.types import Record

#: tokens of the hub and of other services by their beginning, and what stands before the host of an address
_SECRET = re.compile(r"\b(?:hf_|sk-|ghp_|github_pat_|glpat-|xox[bp]-)[A-Za-z0-9_-]{8,}|(?<=://)[^/@\s]+(?=@)")
PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "scipy", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """Installed versions of what can move a number."""
    found = {"ftbench": ftbench.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def command() -> list[str]:
    """The command as it was typed, without what looks like a token or a password."""
    return ["ftbench", *(_SECRET.sub("***", word) for word in sys.argv[1:])]


def environment(device: str) -> dict[str, Any]:
    """For ``environment.json``; needs torch."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "CPU"
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "device": device,
        "device_name": name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": team.size(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "command": command(),
    }


def done_under_others(records: Iterable[Record]) -> str:
    """Of finished runs, how many were done under other versions than those installed, and which; else empty."""
    here = versions()
    found: Counter[str] = Counter()
    for record in records:
        try:
            then = json.loads((record.folder / "environment.json").read_text("utf-8"))["versions"]
            other = [f"{name} {then[name]}" for name in here if name in then and then[name] != here[name]]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if other:
            found[", ".join(other)] += 1
    return "; ".join(f"{number} run{'s' * (number > 1)} under {which}" for which, number in found.most_common())
