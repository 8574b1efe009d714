"""What a precision costs where the machine has no instructions for it."""

from __future__ import annotations

import pytest
import torch

from ftbench.training import precision

CPU = torch.device("cpu")


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> dict[torch.dtype, float]:
    """Of a product, by kind; a test may change them."""
    found = {torch.float32: 1.0, torch.bfloat16: 55.0, torch.float16: 0.6}
    monkeypatch.setattr(precision, "product_seconds", found.__getitem__)
    precision.warn_if_slow.cache_clear()
    return found


def test_slow_precision_is_said_once(seconds: dict[torch.dtype, float], caplog: pytest.LogCaptureFixture) -> None:
    precision.warn_if_slow(CPU, "bf16")
    precision.warn_if_slow(CPU, "bf16")
    assert caplog.messages == ["bf16 is slow on this CPU: a matrix product takes 55 times as long as in fp32"]


def test_nothing_is_said_where_nothing_is_slow(
    seconds: dict[torch.dtype, float], caplog: pytest.LogCaptureFixture
) -> None:
    for device, kind in ((CPU, "fp32"), (CPU, "fp16"), (torch.device("cuda"), "bf16")):
        precision.warn_if_slow(device, kind)
    assert not caplog.messages


@pytest.mark.parametrize("kind", [torch.float32, *precision.AUTOCAST.values()])
def test_a_product_is_timed(kind: torch.dtype) -> None:
    assert 0 < precision.product_seconds(kind) < 60
