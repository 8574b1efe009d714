"""A checkpoint continues exactly, is ignored when it cannot be read, and survives a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ftbench.errors import Interrupted, StoreError
from ftbench.training import checkpoint
from ftbench.training.checkpoint import State
from ftbench.training.engine import train
from ftbench.training.watch import Control
from ftbench.types.run import CHECKPOINT


@pytest.fixture(scope="module")
def data(tiny_data: Callable[..., Any]) -> Any:
    return tiny_data(20, 12, 2)


def stop_after(steps: int) -> Control:
    seen = iter(range(1, 10_000))
    return Control(should_stop=lambda: next(seen) >= steps)


def test_weights_optimizer_and_state_come_back(
    data: Any, tiny_model: Path, training_of: Callable[..., Any], tmp_path: Path
) -> None:
    run = training_of(data, tiny_model, tmp_path, steps=3)
    train(run, lambda run: None)
    run.state.best = {"step": 2, "scores": {"validation": {"accuracy": 0.1 + 0.2}}}
    run.state.cost = {"steps": 3}
    checkpoint.save(tmp_path, run.state, run.backbone.model, run.optimizer, [])
    other = training_of(data, tiny_model, tmp_path / "none", steps=3, seed=9)
    state = checkpoint.load(tmp_path, other.backbone.model, other.optimizer, [])
    assert state == run.state and state is not run.state
    for a, b in zip(run.parameters, other.parameters, strict=True):
        assert torch.equal(a, b)
    ours, theirs = (r.optimizer.state_dict()["state"] for r in (run, other))
    assert ours.keys() == theirs.keys() and len(ours) == len(run.parameters)
    for index, values in ours.items():
        assert all(torch.equal(value, theirs[index][key]) for key, value in values.items())
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize("damage", ["empty", "text", "half", "header", "a folder"])
def test_a_corrupt_checkpoint_is_ignored(
    damage: str, data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        finetune_tiny(data, tiny_model, tmp_path / "cut", "r3f", stop_after(2), steps=4)
    path = tmp_path / "cut" / CHECKPOINT
    whole = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        header = whole.replace(b'\\"step\\"', b'\\"stop\\"', 1)
        assert header != whole
        path.write_bytes({"empty": b"", "text": b"hello", "half": whole[: len(whole) // 2], "header": header}[damage])
    outcome = finetune_tiny(data, tiny_model, tmp_path / "cut", "r3f", steps=4)
    fresh = finetune_tiny(data, tiny_model, tmp_path / "fresh", "r3f", steps=4)
    assert outcome.result == fresh.result and outcome.history == fresh.history
    assert outcome.cost.interruptions == 0


def test_a_checkpoint_that_names_its_weights_otherwise_is_not_half_loaded(
    data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """As another version of transformers might: to go on with pretrained weights would be a wrong number."""
    with pytest.raises(Interrupted):
        finetune_tiny(data, tiny_model, tmp_path / "cut", "std", stop_after(2), steps=4)
    path = tmp_path / "cut" / CHECKPOINT
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
        tensors = {name.replace("classifier", "score"): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, header)
    again = finetune_tiny(data, tiny_model, tmp_path / "cut", "std", steps=4)
    whole = finetune_tiny(data, tiny_model, tmp_path / "whole", "std", steps=4)
    assert again.result.metrics == whole.result.metrics and again.cost.steps == 4


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    with pytest.raises(StoreError, match=r"cannot write the checkpoint in .*nowhere"):
        checkpoint.save(tmp_path / "nowhere", State(), model, optimizer, [])
    assert checkpoint.load(tmp_path / "nowhere", model, optimizer, []) is None


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    """A file size limit stands for the full disk: an error with a message, and the last checkpoint still loads."""
    code = f"""
import resource
from pathlib import Path
import torch
from ftbench.errors import StoreError
from ftbench.training import checkpoint
folder = Path({str(tmp_path)!r})
model = torch.nn.Linear(300, 300)
optimizer = torch.optim.AdamW(model.parameters(), 0.1)
checkpoint.save(folder, checkpoint.State(step=1), model, optimizer, [])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(folder, checkpoint.State(step=2), model, optimizer, [])
except StoreError as error:
    print("StoreError", "cannot write the checkpoint" in str(error))
print(checkpoint.load(folder, model, optimizer, []).step)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["StoreError", "True", "1"], done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_tensor_of_two_names_is_stored_once(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(50, 50, bias=False), torch.nn.Linear(50, 50, bias=False))
    model[1].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    checkpoint.save(tmp_path, State(step=1), model, optimizer, [])
    assert os.path.getsize(tmp_path / CHECKPOINT) < 1.5 * 4 * 50 * 50
    expected = model[0].weight.detach().clone()
    torch.nn.init.zeros_(model[0].weight)
    assert checkpoint.load(tmp_path, model, optimizer, []) is not None
    assert torch.equal(model[1].weight, expected) and model[1].weight is model[0].weight


def test_checkpoints_by_step_count(
    data: Any, tiny_model: Path, finetune_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved: list[int] = []
    save = checkpoint.save

    def recording(folder: Path, state: State, *rest: Any) -> None:
        saved.append(state.step)
        save(folder, state, *rest)

    monkeypatch.setattr(checkpoint, "save", recording)
    plain = finetune_tiny(data, tiny_model, tmp_path / "none", steps=8)
    assert saved == [], "a run of seconds writes none"
    often = finetune_tiny(data, tiny_model, tmp_path / "often", "std", Control(checkpoint_every=3), steps=8)
    assert saved == [3, 6]
    assert often.result == plain.result and often.history == plain.history
