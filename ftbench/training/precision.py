"""Devices and precision: weights stay float32, autocast decides what a pass computes in."""

from __future__ import annotations

import torch

from ftbench.errors import UsageError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of every pass; does nothing in fp32."""
    kind = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None)


def choose_device(name: str) -> torch.device:
    """``auto`` is a CUDA GPU where there is one, else the CPU (never MPS: it has trained BERT silently wrong).

    Raises UsageError for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(f"device '{name}' cannot be used: {first}. Expected auto, cpu, cuda or cuda:N") from error
    return device


def make_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Loss scaling, on in fp16 only."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
