"""Pretrained targets: looked up and computed online they agree under any padding; the file; what stands for a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.methods.features import HeadInput, head_linears, reader_of
from ftbench.methods.frozen import FrozenTargets
from ftbench.methods.method import Start
from ftbench.models.pooling import at_token
from ftbench.training.engine import make_batch, optimizer_step
from ftbench.training.start import start_of

FAMILIES = ("bert", "gpt2", "bart")  # reads its first token; its last, padded left; its last, of the decoder
#: rows of another order and company than in the pass that fills the table, so padded to other lengths
PARTS = ([5], [17, 0, 5], list(range(30, 10, -1)))


@pytest.fixture
def run_of(tiny_data: Any, tiny_family: Any, training_of: Any, tmp_path: Path) -> Callable[[str], Any]:
    return lambda family: training_of(tiny_data(40, 8, 2), tiny_family(family), tmp_path)


def start_from(run: Any, data: Any, cache: Path | None = None) -> Start:
    return start_of(
        run.spec, run.backbone, run.tokens, data.splits["train"], cache, original=lambda: run.backbone, regression=False
    )


@pytest.fixture
def start(run_of: Any, tiny_data: Any, tmp_path: Path) -> Start:
    return start_from(run_of("bert"), tiny_data(40, 8, 2), tmp_path / "cache")


@pytest.mark.parametrize("token", ["cls", "mean", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_looked_up_and_online_targets_agree_under_any_padding(
    family: str, token: Any, run_of: Any, tiny_data: Any, tmp_path: Path
) -> None:
    run = run_of(family)
    start = start_from(run, tiny_data(40, 8, 2), tmp_path)
    on, off = (
        FrozenTargets(start, start.backbone, 1, token, "on"),
        FrozenTargets(start, start.backbone, 1, token, "off"),
    )
    widths = set()
    for part in PARTS:
        batch = make_batch(run, 0, 0, np.array(part))
        mask = batch.inputs["attention_mask"]
        widths.add(mask.shape[1])
        looked_up, online = on(batch), off(batch)
        assert looked_up.shape == online.shape == (len(part), mask.shape[1] if token == "all" else 1, 32)
        torch.testing.assert_close(looked_up, online, rtol=0, atol=1e-5)
        assert not looked_up.requires_grad and not online.requires_grad
        by_hand = run.backbone.block_outputs(batch.inputs)[0]
        for row, (state, real) in enumerate(zip(by_hand, mask.bool(), strict=True)):
            at = {"cls": slice(0, 1) if family == "bert" else slice(-1, None)}.get(token, slice(None))
            expected = state[real][at] if token != "mean" else state[real].mean(0, keepdim=True)
            mine = looked_up[row][real] if token == "all" else looked_up[row]
            torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)
    assert len(widths) > 1


def test_online_targets_stay_float32_and_pretrained(run_of: Any, tiny_data: Any) -> None:
    run = run_of("bert")
    start = start_from(run, tiny_data(40, 8, 2))
    targets = {cache: FrozenTargets(start, start.backbone, "top", "cls", cache) for cache in ("on", "off")}
    before = [p.clone() for p in targets["off"]._frozen.model.parameters()]  # type: ignore[union-attr]
    run.backbone.model.train()
    for step in range(3):
        optimizer_step(run, step)
    batch = make_batch(run, 0, 0, np.arange(6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(targets["on"](batch), targets["off"](batch), rtol=0, atol=1e-5)
    trained = run.backbone.block_outputs(batch.inputs)[-1][:, :1]
    assert not torch.allclose(trained, targets["on"](batch), atol=1e-2)
    after = list(targets["off"]._frozen.model.parameters())  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(p.requires_grad for p in after)


# ------------------------------------------------------------------------------------------------- file


def files(start: Start) -> list[Path]:
    assert start.cache is not None
    return sorted(start.cache.iterdir())


def table(start: Start) -> Tensor:
    return FrozenTargets(start, start.backbone, "top", "cls", "on")._table


def test_the_table_is_computed_once_and_memory_mapped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    first = table(start)
    (path,) = files(start)
    monkeypatch.setattr(FrozenTargets, "_pieces", lambda self: pytest.fail("computed again"))
    again = table(start)
    assert torch.equal(first, again)
    if Path("/proc/self/maps").exists():
        assert path.name in Path("/proc/self/maps").read_text()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, lambda path: path.write_text("no table")])
def test_a_damaged_or_missing_file_is_computed_again(damage: Callable[[Path], Any], start: Start) -> None:
    expected = table(start).clone()
    (path,) = files(start)
    intact = path.read_bytes()
    damage(path)
    assert torch.equal(table(start), expected)
    assert files(start) == [path] and path.read_bytes() == intact


def test_every_reading_and_every_encoder_has_its_own_file(start: Start) -> None:
    table(start)
    FrozenTargets(start, start.backbone, 1, "cls", "on")
    FrozenTargets(start, start.backbone, "top", "mean", "on")
    FrozenTargets(start, start.backbone, 2, "cls", "on")  # the top one
    assert len(files(start)) == 3
    with torch.no_grad():
        start.backbone.model.classifier.weight.mul_(2)  # another seed's head
    table(start)
    assert len(files(start)) == 3
    with torch.no_grad():
        start.backbone.blocks[0].attention.self.query.weight[0, 0] += 0.5  # type: ignore[operator,union-attr,index]
    table(start)
    assert len(files(start)) == 4


def test_without_a_folder_or_with_one_that_cannot_be_written(start: Start, run_of: Any, tiny_data: Any) -> None:
    expected = table(start)
    assert torch.equal(table(start_from(run_of("bert"), tiny_data(40, 8, 2))), expected)
    assert start.cache is not None
    blocked = start.cache / "file"
    blocked.write_text("")
    assert torch.equal(table(start_from(run_of("bert"), tiny_data(40, 8, 2), blocked / "below")), expected)


@pytest.mark.parametrize("token", ["cls", "all"])
def test_the_variance(token: Any, start: Start) -> None:
    on, off = (FrozenTargets(start, start.backbone, "top", token, cache) for cache in ("on", "off"))
    expected = on._table.double().numpy().var(axis=0).mean()
    assert on.variance() == pytest.approx(expected) and off.variance() == pytest.approx(expected, rel=1e-5)
    assert expected > 0


# ------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "distilbert", "modernbert", "deberta-v2", "gpt2", "llama", "bart", "t5"]
)
def test_the_token_that_the_head_reads(family: str, run_of: Any) -> None:
    run, last = run_of(family), family in ("gpt2", "llama", "bart", "t5")
    batch = make_batch(run, 0, 0, np.array([3, 4, 9]))
    random = torch.get_rng_state()
    reader = reader_of(run.backbone, batch.inputs, "top", "cls")
    assert reader.last == last and reader.width == 32
    assert torch.equal(random, torch.get_rng_state()) and not run.backbone.model.training
    assert all(p.grad is None for p in run.backbone.model.parameters())


def test_padding_on_either_side() -> None:
    state = torch.arange(8.0).view(2, 4, 1)
    for mask, first, last in (([[0, 0, 1, 1]] * 2, 2, 3), ([[1, 1, 1, 0]] * 2, 0, 2)):
        assert at_token(state, torch.tensor(mask), last=False).flatten().tolist() == [first, 4 + first]
        assert at_token(state, torch.tensor(mask), last=True).flatten().tolist() == [last, 4 + last]


def test_a_block_that_is_not_there_is_refused(start: Start) -> None:
    with pytest.raises(UsageError, match="capcort-i:layer=3: the model has 2 blocks"):
        FrozenTargets(start, start.backbone, 3, "cls", "on", "capcort-i")


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "bart", "gpt2"])
def test_the_last_layer_makes_the_logits_of_the_head_s_input(family: str, run_of: Any) -> None:
    run = run_of(family)
    batch = make_batch(run, 0, 0, np.arange(4))
    head = HeadInput(run.backbone)
    logits = run.backbone.forward(batch.inputs).logits
    (read,) = head.taken
    if read.ndim == 3:
        read = at_token(read, batch.inputs["attention_mask"], last=True)
    torch.testing.assert_close(head_linears(run.backbone)[-1](read), logits)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_head_s_input_is_that_before_its_dropout(family: str, run_of: Any) -> None:
    run = run_of(family)
    batch, model = make_batch(run, 0, 0, np.arange(4)), run.backbone.model
    head = HeadInput(run.backbone, training=True)
    run.backbone.forward(batch.inputs)
    assert head.taken == [], "an evaluation"
    model.train()
    dropout = model.classifier.dropout if family == "roberta" else model.dropout
    dropout.p = 0.6
    kept: list[Tensor] = []
    head_linears(run.backbone)[-1].register_forward_pre_hook(lambda _, arguments: kept.append(arguments[0]))
    run.backbone.forward(batch.inputs)
    (read,), (dropped,) = head.taken, kept
    zero = dropped == 0
    assert 0.4 < zero.float().mean() < 0.8
    assert read[zero].abs().max() > 0.1
    torch.testing.assert_close(read[~zero] / 0.4, dropped[~zero])
    head.remove()
    run.backbone.forward(batch.inputs)
    assert head.taken == []


@pytest.mark.parametrize("method", ["capcort-i", "cka", "capcort-mlp"])
def test_the_original_is_cut_where_the_run_s_network_is(
    method: str, tiny_data: Any, tiny_model: Path, training_of: Any, tmp_path: Path
) -> None:
    """``--layers`` leaves out what is above the head: the top that is compared is that of both."""
    arm, fields = f"{method}:target=original", {"layers": "1:1:1", "steps": 1}
    run = training_of(tiny_data(), tiny_model, tmp_path, arm, **fields)
    assert run.methods[0].targets.read.block < len(run.backbone.blocks) == 1
    assert np.isfinite(float(optimizer_step(run, 0)["loss"]))
