"""Protocols: who is tuned on what, from whom, and what is probed. Real runs of a tiny model."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ftbench.errors import Interrupted, UsageError
from ftbench.models import backbone
from ftbench.models.locate import locate
from ftbench.runs import protocols
from ftbench.runs.grid import Grid
from ftbench.runs.protocols import Move, Protocol
from ftbench.runs.stages import Request, parse_arms
from ftbench.runs.store import Store
from ftbench.runs.work import Options
from ftbench.types import Cost, Data, Record, Result, RunSpec

PROBING = {"repeats": 1, "max_length": 32}


@dataclass
class Given:
    """A protocol on the tiny model, planned and carried out."""

    tmp_path: Path
    model: Path
    data: dict[str, Data]

    def plan(self, moves: Sequence[Move], *methods: str, **changed: Any) -> Protocol:
        fixed = {"batch_size": 8, "lr": 1e-3, "max_length": 32, **changed.pop("fixed", {})}
        axes = changed.pop("axes", {"steps": [3]})
        arms = parse_arms(methods, baseline=True)
        seeds = changed.pop("seeds", [0])
        models = [locate(str(self.model))]
        tuning = Request(data=(), models=models, arms=arms, seeds=seeds, fixed=fixed, axes=axes, references=False)
        return Protocol(tuning=tuning, moves=moves, probing=PROBING)

    def specs(self, protocol: Protocol) -> list[list[RunSpec]]:
        """What each stage would do if all went well."""
        records: list[Record] = []
        found = []
        for stage in protocols.stages(protocol):
            found.append(stage(records))
            records += [Record(Path(), Result(spec=spec, status="ok"), Cost()) for spec in found[-1]]
        return found

    def run(self, protocol: Protocol, heard: Any, **options: Any) -> list[Record]:
        data = {one.fingerprint: one for one in self.data.values()}
        models = {one.fingerprint: one for one in protocol.tuning.models}
        how = Options(device="cpu", threads=1, keep_model=True, need_models=True, **options)
        grid = Grid(Store(self.tmp_path / "runs"), data, models, heard, how)
        return grid.run(protocols.stages(protocol))


def named(data: Data, name: str) -> Data:
    return replace(data, task=replace(data.task, name=name))


@pytest.fixture
def given(tmp_path: Path, tiny_model: Path, tiny_data: Callable[..., Data]) -> Given:
    sizes = {"alpha": 40, "beta": 44, "gamma": 48}
    data = {name: named(tiny_data(n_train=size), name) for name, size in sizes.items()}
    return Given(tmp_path, tiny_model, data)


def test_generalization(given: Given) -> None:
    a, b, c = given.data.values()
    references, tuned, probed = given.specs(given.plan(protocols.generalization(a, [b, c]), "r3f", seeds=[0, 1]))
    assert [(spec.task, spec.encoder) for spec in references] == [
        ("beta", ""), ("beta", "random"), ("gamma", ""), ("gamma", "random"),
    ]  # fmt: skip
    assert [(s.method, s.seed, s.encoder, s.parents) for s in tuned] == [
        (method, seed, "", ()) for seed in (0, 1) for method in ("std", "r3f")
    ]
    assert len(probed) == 8 and {spec.encoder for spec in probed} == {"alpha"}
    assert {spec.parents[0] for spec in probed} == {spec.id for spec in tuned}
    assert all(spec.method == next(t for t in tuned if t.id == spec.parents[0]).method for spec in probed)


def test_a_chain_goes_on_from_the_last_encoder(given: Given) -> None:
    a, b, c = given.data.values()
    _, *moves = given.specs(given.plan(protocols.chain([a, b, c], [a]), "r3f"))
    tunes, probes = moves[::2], moves[1::2]
    assert [[spec.encoder for spec in stage] for stage in tunes] == [[""] * 2, ["alpha"] * 2, ["alpha>beta"] * 2]
    assert [stage[0].encoder for stage in probes] == ["alpha", "alpha>beta", "alpha>beta>gamma"]
    for before, after in itertools.pairwise(tunes):
        for spec in after:
            (parent,) = (one for one in before if one.id == spec.parents[0])
            assert parent.methods == spec.methods and parent.seed == spec.seed


def test_a_cycle_probes_each_task_before_it_is_tuned_again(given: Given) -> None:
    a, b, _ = given.data.values()
    references, *moves = given.specs(given.plan(protocols.cycle([a, b], 2)))
    assert {spec.task for spec in references} == {"alpha", "beta"}
    done = [(stage[0].kind, stage[0].task, stage[0].encoder) for stage in moves if stage]
    assert done == [  # the first probe of all is of the pretrained encoder: a reference
        ("finetune", "alpha", ""),
        ("probe", "beta", "alpha"),
        ("finetune", "beta", "alpha"),
        ("probe", "alpha", "alpha>beta"),
        ("finetune", "alpha", "alpha>beta"),
        ("probe", "beta", "alpha>beta>alpha"),
        ("finetune", "beta", "alpha>beta>alpha"),
    ]


def test_a_cycle_probes_the_reference_texts_after_each_tuning(given: Given) -> None:
    a, b, c = given.data.values()
    references, *moves = given.specs(given.plan(protocols.cycle([a, b], 2, c)))
    assert {(spec.task, spec.encoder) for spec in references if spec.task == "gamma"} == {
        ("gamma", ""), ("gamma", "random"),
    }  # fmt: skip
    found = [spec for stage in moves for spec in stage]
    tuned = ["alpha", "alpha>beta", "alpha>beta>alpha", "alpha>beta>alpha>beta"]
    assert [spec.encoder for spec in found if spec.task == "gamma"] == tuned
    without = {spec.id for stage in given.specs(given.plan(protocols.cycle([a, b], 2))) for spec in stage}
    assert without == {spec.id for spec in (*references, *found) if spec.task != "gamma"}


def test_reference_texts_that_are_tuned_on_are_probed_once(given: Given) -> None:
    a, b, _ = given.data.values()
    _, *moves = given.specs(given.plan(protocols.cycle([a, b], 2, b)))
    found = [spec for stage in moves for spec in stage]
    assert len({spec.id for spec in found}) == len(found)
    tuned = {protocols.tuned_on(spec) for spec in found if spec.kind == "finetune"}
    assert {spec.encoder for spec in found if spec.kind == "probe" and spec.task == "beta"} == tuned


def test_the_best_weights_go_on_where_that_is_asked(given: Given, heard: Any) -> None:
    a, b, _ = given.data.values()
    protocol = given.plan(protocols.chain([a, b], [a]), "ema", fixed={"checkpoint": "best"})
    _, tuned, _, later, _ = given.specs(protocol)
    assert [(spec.method, spec.checkpoint) for spec in (*tuned, *later)] == [("std", "best"), ("ema", "last")] * 2
    last = given.specs(given.plan(protocols.chain([a, b], [a]), "ema"))[1]
    assert tuned[0].id != last[0].id and tuned[1].id == last[1].id


def test_an_edit_of_the_first_task_makes_all_later_runs_others(given: Given, tiny_data: Any) -> None:
    a, b, c = given.data.values()
    first = given.specs(given.plan(protocols.chain([a, b, c], [c])))
    edited = named(tiny_data(n_train=52), "alpha")
    second = given.specs(given.plan(protocols.chain([edited, b, c], [c])))
    assert {s.id for s in first[0]} == {s.id for s in second[0]}  # references do not depend on it
    for one, other in zip(first[1:], second[1:], strict=True):
        assert not {s.id for s in one} & {s.id for s in other}


def test_seeds_of_a_chain_are_one_arm(given: Given) -> None:
    a, b, _ = given.data.values()
    *_, tuned, probed = given.specs(given.plan(protocols.chain([a, b], [a]), seeds=[0, 1]))
    for specs in (tuned, probed):
        assert len({spec.id for spec in specs}) == 2 and specs[0].arm() == specs[1].arm()


def test_the_child_of_a_failed_run_is_left_out(given: Given) -> None:
    a, b, _ = given.data.values()
    stages = protocols.stages(given.plan(protocols.chain([a, b], [a]), "r3f"))
    tuned = stages[1]([])
    statuses = {"std": "ok", "r3f": "diverged"}
    records = [Record(Path(), Result(spec=s, status=statuses[s.method]), Cost()) for s in tuned]
    assert [spec.method for spec in stages[2](records)] == ["std"]
    assert [spec.method for spec in stages[3](records)] == ["std"]


@pytest.mark.parametrize(
    ("methods", "axes", "message"),
    [
        (["r3f"], {"steps": [3], "lr": [1e-3, 1e-4]}, "--lr: a protocol has one recipe"),
        (["std++:compute=r3f"], {"steps": [3]}, "add --method r3f to the same command"),
        (["adapter:width=8"], {"steps": [3]}, "adapter: an encoder that has adapters cannot get them once more"),
        (["adapter+r3f"], {"steps": [3]}, "adapter: .* --protocol generalization"),
    ],
)
def test_what_a_protocol_cannot_have(given: Given, methods: list[str], axes: dict[str, Any], message: str) -> None:
    a, b, _ = given.data.values()
    with pytest.raises(UsageError, match=message):
        protocols.stages(given.plan(protocols.chain([a, b], [a]), *methods, axes=axes))


def test_std_plus_plus_has_the_steps_that_costs_buy_in_each_move(given: Given) -> None:
    """On the second task r3f costs three times as much as std; the factor needs no costs."""
    a, b, _ = given.data.values()
    stages = protocols.stages(
        given.plan(protocols.chain([a, b], [a]), "r3f", "std++", "std++:compute=1.5", seeds=[0, 1])
    )
    costs = {("", "std"): 10.0, ("", "r3f"): 21.0, ("alpha", "std"): 1.0, ("alpha", "r3f"): 3.0}
    records: list[Record] = []
    found = []
    for stage in stages:
        found.append(stage(records))
        records += [
            Record(Path(), Result(spec=s, status="ok"), Cost(process_seconds=costs.get((s.encoder, s.method), 9.0)))
            for s in found[-1]
        ]
    _, first, first_plus, probes, second, second_plus, last = found
    assert {spec.method for spec in (*first, *second)} == {"std", "r3f"}
    assert [(s.method, s.seed, s.steps) for s in first_plus] == [
        ("std++", 0, 6), ("std++", 1, 6), ("std++:compute=1.5", 0, 4), ("std++:compute=1.5", 1, 4),
    ]  # fmt: skip
    assert [(s.method, s.seed, s.steps) for s in second_plus] == [
        ("std++", 0, 9), ("std++", 1, 9), ("std++:compute=1.5", 0, 4), ("std++:compute=1.5", 1, 4),
    ]  # fmt: skip
    assert [s.parents for s in second_plus] == [(s.id,) for s in first_plus]
    assert {s.parents[0] for s in probes} == {s.id for s in (*first, *first_plus)}
    assert {s.parents[0] for s in last} == {s.id for s in (*second, *second_plus)}


def test_std_plus_plus_is_left_out_where_nothing_says_what_the_other_costs(
    given: Given, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, _ = given.data.values()
    stages = protocols.stages(given.plan(protocols.chain([a, b], [a]), "r3f", "std++"))
    records: list[Record] = []
    for stage in stages:
        specs = stage(records)
        assert "std++" not in {spec.method for spec in specs}
        status = {"r3f": "diverged"}
        records += [
            Record(Path(), Result(spec=s, status=status.get(s.method, "ok")), Cost(process_seconds=1)) for s in specs
        ]
    assert [r.message for r in caplog.records] == ["no std++: r3f and std have no finished seed in common"]


def test_std_plus_plus_is_tuned_and_probed(given: Given, heard: Any) -> None:
    a, b, _ = given.data.values()
    protocol = given.plan(protocols.chain([a, b], [a]), "r3f", "std++", fixed={"checkpoint": "best"})
    records = given.run(protocol, heard)
    plus = [record.result.spec for record in records if record.result.spec.method == "std++"]
    assert [(spec.kind, spec.encoder) for spec in plus] == [
        ("finetune", ""), ("probe", "alpha"), ("finetune", "alpha"), ("probe", "alpha>beta"),
    ]  # fmt: skip
    assert all(record.result.status == "ok" for record in records) and all(s.steps >= 3 for s in plus[::2])
    heard.begun.clear()
    given.run(protocol, heard)
    assert not heard.begun


def test_a_chain_equals_the_same_runs_trained_by_hand(given: Given, heard: Any, finetune_tiny: Any) -> None:
    a, b, _ = given.data.values()
    records = given.run(given.plan(protocols.chain([a, b], [a])), heard)
    tuned = [record for record in records if record.result.spec.kind == "finetune"]
    first, second = sorted(tuned, key=lambda record: len(record.result.spec.encoder))
    by_hand = finetune_tiny(b, first.folder / "model", given.tmp_path / "by-hand", steps=3, batch_size=8, lr=1e-3)
    assert second.result.metrics == by_hand.result.metrics
    own = load_file(second.folder / "model" / "model.safetensors")
    theirs = by_hand.backbone.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in own.items())


def test_every_probe_is_measured_and_nothing_is_done_twice(given: Given, heard: Any) -> None:
    a, b, _ = given.data.values()
    protocol = given.plan(protocols.generalization(a, [b]), "r3f")
    records = given.run(protocol, heard)
    probes = [record for record in records if record.result.spec.kind == "probe"]
    assert [(r.result.spec.encoder, r.result.spec.method) for r in probes] == [
        ("", "std"), ("random", "std"), ("alpha", "std"), ("alpha", "r3f"),
    ]  # fmt: skip
    for record in probes:
        metrics, layers = record.result.metrics, record.result.facts["layers"]
        assert metrics["last"] == metrics[f"layer {layers}"]
        for layer in range(1, layers + 1):
            found = metrics[f"layer {layer}"]
            assert 0 <= found["validation"]["accuracy"] <= 1 and 0 <= found["control"]["accuracy"] <= 1
            assert 0 <= found["collapse"]["anisotropy"] <= 1 and found["collapse"]["effective_rank"] >= 1
            assert ("cka" in found["collapse"]) == (record.result.spec.encoder != "")
    before = {record.folder: (record.folder / "result.json").read_bytes() for record in records}
    heard.begun.clear()
    again = given.run(protocol, heard)
    assert not heard.begun
    assert {record.folder: (record.folder / "result.json").read_bytes() for record in again} == before
    assert not list(given.tmp_path.rglob(".features-*"))


def test_a_run_that_kept_no_weights_is_trained_once_more_where_they_are_needed(given: Given, heard: Any) -> None:
    """And not where everything that starts from them is done; to the same numbers."""
    a, b, _ = given.data.values()
    protocol = given.plan(protocols.chain([a, b], [a]))
    records = given.run(protocol, heard)
    before = {record.result.spec.id: (record.folder / "result.json").read_bytes() for record in records}
    tuned = [record for record in records if record.result.spec.kind == "finetune"]
    for record in tuned:
        shutil.rmtree(record.folder / "model")
    heard.begun.clear()
    given.run(protocol, heard)
    assert heard.begun == [] and not list(given.tmp_path.rglob("runs/*/*/model"))
    last = next(record for record in reversed(records) if record.result.spec.kind == "probe")
    (last.folder / "result.json").unlink()
    again = given.run(protocol, heard)
    assert heard.begun == [*(record.result.spec.id for record in tuned), last.result.spec.id]
    assert {r.result.spec.id: (r.folder / "result.json").read_bytes() for r in again} == before
    assert heard.total == len(records) + 2


def test_a_chain_killed_in_the_middle_goes_on(given: Given, heard: Any) -> None:
    a, b, _ = given.data.values()
    protocol = given.plan(protocols.cycle([a, b], 2), "r3f")
    whole = given.run(protocol, heard)
    expected = {r.result.spec.id: (r.folder / "result.json").read_bytes() for r in whole}
    shutil.rmtree(given.tmp_path / "runs")
    stops = iter([False] * 9 + [True] * 1000)
    with pytest.raises(Interrupted):
        given.run(protocol, heard, should_stop=lambda: next(stops))
    done = set((given.tmp_path / "runs").rglob("result.json"))
    assert 0 < len(done) < len(whole)
    heard.begun.clear()
    again = given.run(protocol, heard)
    assert {r.result.spec.id: (r.folder / "result.json").read_bytes() for r in again} == expected
    assert not {path.parent.name.rpartition("-")[2] for path in done} & set(heard.begun)


def test_targets_of_the_original_and_of_the_last_stage_differ(given: Given, heard: Any) -> None:
    a, b, _ = given.data.values()
    methods = ("capcort-i:weight=10", "capcort-i:weight=10,target=original")
    records = given.run(given.plan(protocols.chain([a, b], [a]), *methods), heard)
    scores: dict[str, list[dict[str, Any]]] = {"": [], "alpha": []}
    for record in records:
        spec = record.result.spec
        if spec.kind == "finetune" and spec.methods:
            scores[spec.encoder].append(record.result.facts["terms"])
    assert scores[""][0] == scores[""][1]  # where the chain begins, both are the pretrained network
    assert scores["alpha"][0] != scores["alpha"][1]
    assert scores["alpha"][1]["drift"] > scores["alpha"][0]["drift"]  # what the first task did counts too


def test_a_random_encoder_has_other_weights_for_another_seed(tiny_model: Path) -> None:
    checkpoint = locate(str(tiny_model))

    def drawn(seed: int | None) -> dict[str, torch.Tensor]:
        network = backbone.load(checkpoint, backbone.load_tokenizer(checkpoint), ("a", "b"), regression=False, seed=0)
        if seed is not None:
            network.randomise(seed)
        return {name: p.clone() for name, p in network.model.named_parameters() if p.ndim > 1}

    pretrained, one, same, other = drawn(None), drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) or torch.equal(one[name], pretrained[name]) for name in one)


def test_one_tuning_may_have_adapters(given: Given) -> None:
    a, b, _ = given.data.values()
    _, tuned, probed = given.specs(given.plan(protocols.generalization(a, [b]), "adapter:width=8"))
    assert [spec.method for spec in tuned] == [spec.method for spec in probed] == ["std", "adapter:width=8"]
