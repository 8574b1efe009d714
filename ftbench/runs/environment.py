"""What a run ran on: versions and machine, no secrets."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from typing import Any

import ftbench
from ftbench.runs import team

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
        "command": command(),
    }
