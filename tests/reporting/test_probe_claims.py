"""Claims on what is left in encoders: probes of one recipe, in their protocols, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from ftbench.cli.output import print_records
from ftbench.reporting.findings import of_probes
from ftbench.reporting.judging import judge
from ftbench.reporting.probe_claims import EXPRESSIVE, protocols
from ftbench.reporting.probed import group, recipe_text
from ftbench.reporting.probes import probe_tables
from ftbench.reporting.render import FORMS, render
from ftbench.reporting.study import Study
from ftbench.types import Cost, MethodSpec, Record, Result, RunSpec
from tests.reporting.conftest import run

#: what the pretrained and the random encoder score on a probed task
ENDS = {"": 0.8, "random": 0.4}


def probed(
    score: float, encoder: str, method: str, seed: int = 0, *, task: str = "trec", parent: str = "",
    collapse: Mapping[str, float] | None = None, **spec: Any,
) -> Record:  # fmt: skip
    methods = () if method == "std" else (MethodSpec(method),)
    parents = () if encoder in ENDS else (parent or f"{encoder}-{method}-{seed}",)
    asked = RunSpec(kind="probe", task=task, data=task, weights="w", model="minilm", methods=methods, seed=seed,
                    encoder=encoder, parents=parents, repeats=1, **spec)  # fmt: skip
    splits = {"validation": {"accuracy": score}, "control": {"accuracy": 0.2}, "collapse": dict(collapse or {})}
    facts = {"headline": "accuracy", "layers": 1, "kind": "classification", "lower_is_better": False}
    return Record(Path("p"), Result(spec=asked, status="ok", metrics={"last": splits, "layer 1": splits}, facts=facts),
                  Cost())  # fmt: skip


def references(*tasks: str) -> list[Record]:
    return [probed(score, name, "std", task=task) for task in tasks for name, score in ENDS.items()]


def everywhere(method: str, gain: float, seeds: int = 6) -> list[Record]:
    """The method in each protocol, ``gain`` above std's score, give or take a little by seed."""
    return [
        probed(0.6 + gain + 0.001 * ((3 * s) % 5) * bool(gain), encoder, method, s)
        for encoder in ("sst2", "sst2>qnli", "sst2>qnli>sst2")
        for s in range(seeds)
    ]


@pytest.mark.parametrize(
    ("encoder", "task", "wanted"),
    [("sst2", "trec", ["generalization"]), ("sst2", "sst2", []), ("sst2>qnli", "sst2", ["chain"]),
     ("sst2>qnli>sst2", "qnli", ["cycle"])],
)  # fmt: skip
def test_protocols_are_read_off_the_tasks(encoder: str, task: str, wanted: list[str]) -> None:
    assert list(protocols(encoder, task)) == wanted


def test_more_kept_in_each_protocol_supports() -> None:
    both = [*everywhere("r3f", 0.1), *everywhere("r4f", 0.1)]
    found = judge(Study([*references("trec"), *everywhere("std", 0.0), *both]), "4")
    assert found.verdict == "supported" and "std kept 50% of the lead" in found.why and "missing" not in found.why
    assert {row["task"] for row in found.rows} == {"generalization", "chain", "cycle"}
    assert found.rows[0]["difference"] == pytest.approx((0.1 + 0.001 * np.mean([0, 3, 1, 4, 2, 0])) / 0.4)
    assert "minilm, probed on trec" in found.about


def test_a_lead_in_squared_errors_is_a_lower_score() -> None:
    records = [*references("trec"), *(probed(0.5, "sst2", "r3f", s) for s in range(2))]
    for record in records:  # 0.8 of the pretrained encoder, 0.4 of the random one: now the other way round
        record.result.facts.update(headline="accuracy", lower_is_better=True)
    (said,) = of_probes(Study(records))
    assert "without a lead nothing can be kept of it" in said
    ends = {"": 0.4, "random": 0.8}
    turned = [probed(ends.get(r.result.spec.encoder, 0.5), r.result.spec.encoder, r.result.spec.method,
                     r.result.spec.seed) for r in records]  # fmt: skip
    for record in turned:
        record.result.facts.update(lower_is_better=True)
    (said,) = of_probes(Study(turned))
    assert "kept of that lead (seeds in brackets): r3f 75% (2)" in said


@pytest.mark.parametrize("lower", [False, True])
def test_selectivity_is_positive_where_shuffled_labels_are_beaten(lower: bool) -> None:
    records = references("trec")
    for record in records:
        record.result.facts.update(lower_is_better=lower)
    table = probe_tables(records)["probe"]
    assert table is not None
    side = -1 if lower else 1
    assert [row["selectivity"] for row in table.rows] == pytest.approx(
        [side * (row["score"] - 0.2) for row in table.rows]
    )


def test_no_share_is_kept_of_a_lead_that_is_none() -> None:
    behind = [probed(score, name, "std", task="rte") for name, score in (("", 0.4), ("random", 0.5))]
    tuned = [probed(0.6, "sst2", method, s, task="rte") for method in ("std", "r3f") for s in range(6)]
    table = probe_tables([*behind, *tuned])["probe"]
    assert table is not None and {row["kept"] for row in table.rows} == {None}
    assert judge(Study([*behind, *tuned]), "4").verdict == "undecided"
    better = [*references("trec"), *everywhere("std", 0.0), *everywhere("r3f", 0.1)]
    alone, beside = judge(Study(better), "4"), judge(Study([*better, *behind, *tuned]), "4")
    assert [row["difference"] for row in alone.rows] == [row["difference"] for row in beside.rows]


def in_mse(record: Record) -> Record:
    """The same probe where lower is better, with the same lead: 2 less its score."""
    facts = {**record.result.facts, "headline": "mse", "kind": "regression", "lower_is_better": True}
    splits = {
        name: {**of, "validation": {"mse": 2 - of["validation"]["accuracy"]}}
        for name, of in record.result.metrics.items()
    }
    return replace(record, result=replace(record.result, facts=facts, metrics=splits))


@pytest.mark.parametrize("number", ["4", "7"])
def test_lower_is_better_is_judged_as_its_mirror_image(number: str) -> None:
    ours = {"4": "r3f", "7": "capcort-i"}[number]
    records = [*references("trec"), *everywhere("std", 0.0), *everywhere(ours, 0.1)]
    up, down = judge(Study(records), number), judge(Study([in_mse(r) for r in records]), number)
    assert down.verdict == up.verdict and len(down.rows) == len(up.rows) > 0
    assert [r["difference"] for r in down.rows] == pytest.approx([r["difference"] for r in up.rows])
    ahead = [in_mse(probed(score, name, "std")) for name, score in (("", 0.4), ("random", 0.8))]
    assert judge(Study([*ahead, *map(in_mse, records[2:])]), number).rows == ()  # the random encoder leads


def test_revisions_of_a_method_are_never_one_line() -> None:
    records = [*references("trec"), *everywhere("std", 0.0), *everywhere("r3f", 0.1)]
    old = [replace(r, result=replace(r.result, spec=replace(r.result.spec, methods=(MethodSpec("r3f", 2),))))
           for r in everywhere("r3f", -0.1)]  # fmt: skip
    found = judge(Study([*records, *old]), "4")
    assert sorted(row["difference"] > 0 for row in found.rows) == 3 * [False] + 3 * [True]
    assert found.verdict == "contradicted"


def test_less_kept_contradicts_and_few_seeds_or_protocols_decide_nothing() -> None:
    base = [*references("trec"), *everywhere("std", 0.0)]
    assert judge(Study([*base, *everywhere("r3f", -0.1)]), "4").verdict == "contradicted"
    few = judge(Study([*base, *everywhere("r3f", 0.1, seeds=3)]), "4")
    assert few.verdict == "undecided" and "3 of 3 comparisons have fewer than 5 pairs" in few.why
    one = [r for r in (*base, *everywhere("r3f", 0.1), *everywhere("r4f", 0.1)) if ">" not in r.result.spec.encoder]
    found = judge(Study(one), "4")
    assert found.verdict == "undecided" and "missing: r3f in chain, cycle; r4f in chain, cycle" in found.why
    found = judge(Study([*base, *everywhere("r3f", 0.1)]), "4")
    assert found.verdict == "undecided" and "missing: r4f in generalization, chain, cycle" in found.why
    assert judge(Study(references("trec")), "4").why.startswith("no probes of r3f or r4f beside std")


def test_the_share_is_of_the_lead_over_all_tasks() -> None:
    """By hand: two tasks with leads 0.4 and 0.2, three seeds; Student's t over the seeds."""
    gains = {"trec": [0.10, 0.04, 0.06], "mrpc": [0.00, 0.02, -0.02]}
    records = [*references("trec"), probed(0.6, "", "std", task="mrpc"), probed(0.4, "random", "std", task="mrpc")]
    for task, of in gains.items():
        for seed, gain in enumerate(of):
            records += [probed(0.5, "sst2", "std", seed, task=task), probed(0.5 + gain, "sst2", "r3f", seed, task=task)]
    (row,) = judge(Study(records), "4").rows
    values = np.sum(list(gains.values()), axis=0) / 0.6
    assert row["difference"] == pytest.approx(values.mean()) and row["pairs"] == 3
    assert row["p_holm"] == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue)
    low, high = scipy_stats.t.interval(0.95, 2, values.mean(), scipy_stats.sem(values))
    assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))


def test_expressive_power_needs_std_plus_and_reports_where_metrics_disagree() -> None:
    def arm(method: str, r2: float, score: float, rank: float) -> list[Record]:
        return [
            probed(score * (1 + 0.001 * ((3 * s) % 4)), "sst2", method, s,
                   collapse={"ridge_r2": r2 * (1 + 0.001 * s * s), "effective_rank": rank, "gm_5": -rank})
            for s in range(6)
        ]  # fmt: skip

    base = [*references("trec"), *arm("std", 0.5, 0.5, 10.0)]
    one, ours = (
        arm("capcort-i", 0.7, 0.65, 20.0),
        [*arm("capcort-i", 0.7, 0.65, 20.0), *arm("capcort-mlp", 0.7, 0.65, 20.0)],
    )
    alone = judge(Study([*base, *ours]), "7")
    assert (
        alone.verdict == "undecided" and "missing: capcort-i beside std++ in probe, ridge_r2; capcort-mlp" in alone.why
    )
    half = judge(Study([*base, *arm("std++", 0.55, 0.55, 11.0), *one]), "7")
    assert half.verdict == "undecided"
    assert "missing: capcort-mlp beside std++ in probe, ridge_r2; capcort-mlp beside std in probe" in half.why
    found = judge(Study([*base, *arm("std++", 0.55, 0.55, 11.0), *ours]), "7")
    assert found.verdict == "supported"
    assert "of 8 other comparisons of metrics 4 have the higher mean and 4 do not" in found.why
    worse = judge(Study([*base, *arm("std++", 0.9, 0.55, 11.0), *ours]), "7")
    assert worse.verdict == "contradicted"
    assert {row["metric"] for row in found.rows} == {"probe", "ridge_r2", "effective_rank", "gm_5"} <= {
        "probe", *EXPRESSIVE}  # fmt: skip


def in_steps(method: str, gain: float, steps: Mapping[str, int]) -> list[Record]:
    """A chain over tasks of unequal size: the runs that tuned, each with its own steps, and their probes."""
    found = []
    for encoder, number in steps.items():
        *before, task = encoder.split(">")
        for seed in range(6):
            one = run(0.7, seed, (MethodSpec(method),) if method != "std" else (), task=task, steps=number)
            spec = replace(one.result.spec, encoder=">".join(before))
            score = 0.6 + gain + 0.001 * ((3 * seed) % 5) * bool(gain)
            found += [
                replace(one, result=replace(one.result, spec=spec)),
                probed(score, encoder, method, seed, parent=spec.id),
            ]
    return found


def test_tasks_of_other_sizes_are_one_line_and_other_steps_on_one_task_are_not() -> None:
    """RTE has fewer rows than QNLI, so that its runs have fewer steps; and std++ has more than all."""
    chain = {"sst2>qnli": 60, "sst2>qnli>rte": 20}
    more = {encoder: 2 * steps for encoder, steps in chain.items()}
    base = [*references("trec"), *in_steps("std", 0.0, chain), *in_steps("std++", 0.05, more)]
    (row,) = judge(Study([*base, *in_steps("r3f", 0.1, chain)]), "4").rows
    assert (row["task"], row["than"], row["pairs"]) == ("chain", "std", 6)
    rows = judge(Study([*base, *in_steps("capcort-i", 0.1, chain)]), "7").rows
    assert {(row["than"], row["metric"]) for row in rows} == {("std++", "probe"), ("std", "probe")}
    assert {row["than"]: round(row["difference"], 2) for row in rows} == {"std++": 0.12, "std": 0.25}
    twice = [*base, *in_steps("std", 0.0, more), *in_steps("r3f", 0.1, chain)]
    assert judge(Study(twice), "4").rows == (), "which std is meant?"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_prints_the_finding(form: str) -> None:
    from ftbench.reporting.reports import make

    table = make(Study([*references("trec"), *everywhere("std", 0.0), *everywhere("r3f", 0.1)]), "claim:4")
    assert table and "generalization" in render(table, form)


# --------------------------------------------------------------- encoders of several recipes are never averaged


def tuned(lr: float) -> Record:
    return run(0.7, 0, task="sst2", lr=lr)


def test_encoders_of_several_recipes_stand_apart() -> None:
    parents = [tuned(1e-5), tuned(1e-4)]
    probes = [
        probed(score, "sst2", "std", parent=p.result.spec.id) for score, p in zip((0.5, 0.7), parents, strict=True)
    ]
    (found,) = group([*references("trec"), *probes], parents)
    ours = [one for one in found if not one.is_reference]
    assert [recipe_text(one, found) for one in ours] == ["lr 1e-05", "lr 0.0001"]
    table = probe_tables([*references("trec"), *probes], parents)["probe"]
    assert table and [row["score"] for row in table.rows] == [0.4, 0.8, 0.5, 0.7]
    assert "recipe" in [column.key for column in table.columns]
    unknown = group([*references("trec"), *probes])[0]
    assert [len(one.records) for one in unknown] == [1, 1, 1, 1]  # the runs that tuned them are not at hand


def test_seeds_of_one_recipe_are_averaged() -> None:
    parents = [replace(tuned(1e-5), result=run(0.7, s, task="sst2", lr=1e-5).result) for s in (0, 1)]
    probes = [probed(0.5, "sst2", "std", s, parent=parents[s].result.spec.id) for s in (0, 1)]
    (found,) = group([*references("trec"), *probes], parents)
    assert [len(one.records) for one in found] == [1, 1, 2] and recipe_text(found[2], found) == ""
    assert "recipe" not in [
        column.key for column in probe_tables([*references("trec"), *probes], parents)["probe"].columns
    ]  # type: ignore[union-attr]


def test_collapse_metrics_of_every_layer_are_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    records = [*references("trec"), probed(0.5, "sst2", "std", collapse={"effective_rank": 7.0})]
    print_records(records)
    printed = capsys.readouterr().out
    assert "What is left in the encoder" in printed and "Collapse metrics\n" not in printed
    print_records(records, form="json")
    assert "effective_rank" in capsys.readouterr().out
