"""What a run ran on: versions and machine, no secrets."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import Any

import ftbench
from ftbench.runs import team

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
        "command": ["ftbench", *sys.argv[1:]],
    }
