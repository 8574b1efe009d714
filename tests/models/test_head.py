"""A checkpoint's own head: whose output stands for which label, and when there is none to keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ftbench.errors import UsageError
from ftbench.models import backbone as models
from ftbench.models.locate import locate

NLI = ("Entailment", "not-entailment", "no_idea")


def load(folder: Path, labels: Sequence[str] = (), head: str = "kept") -> models.Backbone:
    """Labels or, without any, a regression."""
    source = locate(str(folder))
    return models.load(source, models.load_tokenizer(source), labels, regression=not labels, seed=3, head=head)


def logits(network: models.Backbone) -> Tensor:
    inputs = dict(network.tokenizer(["goal match", "bank stock the"], padding=True, return_tensors="pt"))
    return network.forward(inputs).logits


def save(folder: Path, labels: Sequence[str], model: Path) -> Tensor:
    """Saves a fresh classifier; its logits."""
    network = load(model, labels, "fresh")
    network.save(folder)
    return logits(network)


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        (("no idea", "ENTAILMENT", "Not_Entailment"), [2, 0, 1]),
        (("entailment", "not entailment", "no-idea"), [0, 1, 2]),
    ],
)
def test_outputs_are_found_by_name(wanted: Sequence[str], order: list[int], tiny_model: Path, tmp_path: Path) -> None:
    theirs = save(tmp_path / "nli", NLI, tiny_model)
    network = load(tmp_path / "nli", wanted)
    torch.testing.assert_close(logits(network), theirs[:, order])
    network.save(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert tuple(config["id2label"].values()) == NLI, "the checkpoint's own order and names"
    torch.testing.assert_close(logits(load(tmp_path / "again", wanted)), theirs[:, order])


def test_a_permuted_head_learns_the_label_that_it_is_told(tiny_model: Path, tmp_path: Path) -> None:
    save(tmp_path, NLI, tiny_model)
    network = load(tmp_path, ("no idea", "entailment", "not entailment"))
    torch.nn.functional.cross_entropy(logits(network), torch.tensor([0, 0])).backward()
    assert (network.model.classifier.bias.grad < 0).tolist() == [False, False, True]


def test_names_that_say_nothing_are_in_the_tasks_order(tiny_model: Path, tmp_path: Path) -> None:
    theirs = save(tmp_path, ("LABEL_0", "LABEL_1"), tiny_model)
    network = load(tmp_path, ("zebra", "ant"))
    torch.testing.assert_close(logits(network), theirs)
    assert network.model.config.id2label == {0: "zebra", 1: "ant"}
    assert network.model.config.label2id == {"zebra": 0, "ant": 1}


def test_a_regression_keeps_its_one_output(tiny_model: Path, tmp_path: Path) -> None:
    theirs = save(tmp_path, (), tiny_model)
    torch.testing.assert_close(logits(load(tmp_path)), theirs)
    with pytest.raises(UsageError, match=r"has 1 outputs \(LABEL_0\), the task 2 labels \(yes, no\)"):
        load(tmp_path, ("yes", "no"))


def test_other_names_and_numbers_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    save(tmp_path, NLI, tiny_model)
    with pytest.raises(
        UsageError, match=r"labels .*\(Entailment, not-entailment, no_idea\) .* task \(yes, no, maybe\)"
    ):
        load(tmp_path, ("yes", "no", "maybe"))
    with pytest.raises(UsageError, match="are not those of the task"):
        load(tmp_path, ("entailment", "ENTAILMENT", "no idea"))
    with pytest.raises(UsageError, match=r"has 3 outputs \(Entailment, .*\), the task 2 labels \(yes, no\)"):
        load(tmp_path, ("yes", "no"))
    with pytest.raises(UsageError, match=r"has 3 outputs .*, the task a regression"):
        load(tmp_path)


def test_a_checkpoint_without_a_head_has_none_to_keep(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"has no trained head to keep: .*classifier\.bias.*Use a fresh head"):
        load(tiny_model, ("yes", "no"))
