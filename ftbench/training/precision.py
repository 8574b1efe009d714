"""Devices and precision: weights stay float32, autocast decides what a pass computes in."""

from __future__ import annotations

import functools
import logging
import time

import torch

from ftbench.errors import UsageError

log = logging.getLogger(__name__)

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: times fp32's seconds from which a precision that is to save time is said to cost it
SLOW = 2.0


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


@functools.cache
def warn_if_slow(device: torch.device, precision: str) -> None:
    """Says, once a process, that the CPU has no instructions for a precision: it takes tens of times as long then."""
    if device.type != "cpu" or precision not in AUTOCAST:
        return
    ratio = product_seconds(AUTOCAST[precision]) / product_seconds(torch.float32)
    if ratio > SLOW:
        log.warning("%s is slow on this CPU: a matrix product takes %.0f times as long as in fp32", precision, ratio)


def product_seconds(kind: torch.dtype) -> float:
    """Seconds of a product of two matrices of 256 x 256 on the CPU, the shortest of three."""
    left = right = torch.ones(256, 256, dtype=kind)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        _ = left @ right
        times.append(time.perf_counter() - began)
    return min(times)
