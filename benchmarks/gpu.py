"""R3F on a GPU: RoBERTa-large shape with random weights, bf16, separate and joined passes.

For batch 8, 16 and 32 of 128 tokens: tokens of training rows per second, time relative to std, and the
share of the device's own bf16 matrix-product rate (measured first) that std reaches.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from ftbench.methods import make, parse_stack
from ftbench.models.backbone import Backbone
from ftbench.training.batches import Tokens
from ftbench.training.cost import Meter
from ftbench.training.engine import Training, optimizer_step
from ftbench.training.optim import make_optimizer
from ftbench.types import Cost, RunSpec

LENGTH, VOCABULARY, STEPS = 128, 50_265, 10


class _Tokenizer:
    """What the engine asks of a tokenizer."""

    padding_side, pad_token_id = "right", 1


def network() -> Backbone:
    """RoBERTa-large with random weights, on the GPU."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=VOCABULARY, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
        intermediate_size=4096, max_position_embeddings=514, type_vocab_size=1, num_labels=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return Backbone(RobertaForSequenceClassification(config).cuda(), _Tokenizer())


def training(backbone: Backbone, method: str, batch: int, passes: str) -> Training:
    """The engine over random tokens of full length."""
    rows = batch * 8
    ids = np.random.default_rng(0).integers(4, VOCABULARY, rows * LENGTH).astype(np.int32)
    tokens = Tokens(ids, None, np.full(rows, LENGTH, dtype=np.int32), 0)
    spec = RunSpec(
        kind="finetune", task="bench", data="", weights="", steps=100_000, batch_size=batch, precision="bf16",
        methods=parse_stack(method), passes=passes,  # type: ignore[arg-type]
    )  # fmt: skip
    optimizer = make_optimizer(backbone.model, spec.lr, spec.weight_decay)
    labels = np.arange(rows) % 2
    meter = Meter(Cost(), backbone.device)
    return Training(spec, backbone, make(spec.methods), tokens, labels, np.arange(rows), False, optimizer, meter)


def seconds_per_step(run: Training, steps: int = STEPS) -> float:
    """Wall seconds of a step, the device waited for at both ends."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        run.window.add(optimizer_step(run, 1 + run.state.step % 7))
        run.state.step += 1
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def matmul_rate(size: int = 8192) -> float:
    """bf16 matrix products, FLOP/s."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 2 * size**3 * 20 / (time.perf_counter() - began)


def measure(pairs: int) -> list[dict[str, Any]]:
    """One line for each batch size and arm."""
    rate = matmul_rate()
    print(f"{torch.cuda.get_device_name()}: bf16 matmul {rate / 1e12:.0f} TFLOP/s")
    backbone = network()
    body = sum(p.numel() for n, p in backbone.model.named_parameters() if "embeddings" not in n)
    out = []
    for batch in (8, 16, 32):
        arms = {
            "std": training(backbone, "std", batch, "separate"),
            "r3f separate": training(backbone, "r3f", batch, "separate"),
            "r3f joined": training(backbone, "r3f", batch, "joined"),
        }
        for run in arms.values():
            seconds_per_step(run, 3)
        times: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(pairs):
            for name, run in arms.items():
                times[name].append(seconds_per_step(run))
        std = float(np.median(times["std"]))
        for name, samples in times.items():
            step = float(np.median(samples))
            passes = 1 if name == "std" else 2
            share = 6 * body * batch * LENGTH * passes / step / rate
            speed = batch * LENGTH / step
            low, high = np.percentile(samples, [25, 75]) / std
            print(
                f"batch {batch:>2} {name:<13} {speed:>9,.0f} tokens/s  x{step / std:.2f} std [{low:.2f}, {high:.2f}]  "
                f"{share:.0%} of matmul"
            )
            out.append(
                {"what": f"gpu batch {batch} {name}", "tokens_per_second": speed, "ratio": step / std, "share": share}
            )
    return out
