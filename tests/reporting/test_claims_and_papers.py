"""Claims and published figures: what is said of them, and what is never set side by side."""

from __future__ import annotations

from typing import Any

import pytest

from ftbench.errors import UsageError
from ftbench.reporting import claims, papers
from ftbench.reporting.judging import JUDGES, judge
from ftbench.reporting.render import FORMS, render
from ftbench.reporting.reports import claim_names, make
from ftbench.reporting.study import Study
from ftbench.types import Cost, MethodSpec, Record
from tests.reporting.conftest import R3F, run


def named(name: str, **fields: Any) -> tuple[MethodSpec, ...]:
    return (MethodSpec(name, 1, fields),) if name != "std" else ()


def arm(name: str, scores: list[float], seconds: float = 10.0, **spec: Any) -> list[Record]:
    cost = Cost(process_seconds=seconds, steps=100, forward_passes=100)
    fields = spec.pop("fields", {})
    return [run(s, i, named(name, **fields), cost=cost, **spec) for i, s in enumerate(scores)]


def line(start: float, n: int = 20) -> list[float]:
    return [start + 0.001 * ((7 * i) % 5) for i in range(n)]


def test_the_data_are_whole() -> None:
    every = claims.claims()
    assert [claim.number for claim in every] == list(range(1, 13))
    for claim in every:
        assert claim.kind in JUDGES or (claim.kind == "" and claim.needs)
        assert bool(claim.better) == bool(claim.than) and (claim.contradicted_if or not claim.kind)
        assert claim.text and claim.source and claim.supported_if


@pytest.mark.parametrize("form", FORMS)
def test_every_claim_has_a_verdict_on_no_runs(form: str) -> None:
    for name in claim_names(["all"]):
        table = make(Study([]), name)
        assert (table and "UNDECIDED" in render(table, form)) or form == "csv"


def test_claim_names() -> None:
    assert claim_names(["3", "3"]) == ["claim:3"] and len(claim_names(["all"])) == 12
    with pytest.raises(UsageError, match="unknown claim '13'"):
        judge(Study([]), "13")


# claim 1: R3F better than std on small GLUE tasks


def test_superiority_is_supported_by_every_task() -> None:
    better = [*arm("std", line(0.70)), *arm("r3f", line(0.75))]
    found = judge(Study(better), "1")
    assert (found.verdict, found.why) == ("supported", "1 of 1 comparisons support it")
    worse = [*arm("std", line(0.70), task="cola", data="d2"), *arm("r3f", line(0.65), task="cola", data="d2")]
    mixed = judge(Study([*better, *worse]), "1")
    assert mixed.verdict == "contradicted" and [row["verdict"] for row in mixed.rows] == ["contradicted", "supported"]


def test_a_gain_that_cannot_matter_contradicts() -> None:
    tiny = [score + 0.0001 * (-1) ** i for i, score in enumerate(line(0.70))]
    assert judge(Study([*arm("std", line(0.70)), *arm("r3f", tiny)]), "1").verdict == "contradicted"


def test_few_seeds_decide_nothing() -> None:
    found = judge(Study([*arm("std", line(0.70, 6)), *arm("r3f", line(0.75, 6))]), "1")
    assert found.verdict == "undecided" and "fewer than 20 pairs" in found.why


def test_other_tasks_are_not_the_claims() -> None:
    other = {"task": "sst2", "data": "d2"}
    assert judge(Study([*arm("std", line(0.70), **other), *arm("r3f", line(0.75), **other)]), "1").rows == ()


def test_the_table_names_model_and_sizes() -> None:
    records = [
        *arm("std", line(0.70), model="minilm", train_size=500),
        *arm("r3f", line(0.75), model="minilm", train_size=500),
    ]
    table = make(Study(records), "claim:1")
    assert table and table.notes[0].startswith("SUPPORTED: 1 of 1 comparisons")
    assert "On minilm, rte with 500 rows: nothing is said of others." in table.notes[0]
    assert table.rows[0]["than"] == "std" and table.rows[0]["difference"] == pytest.approx(0.05)


def test_noise_is_judged_with_shared_masks() -> None:
    shared = {"dropout": "shared"}
    records = [*arm("std", line(0.70)), *arm("r3f", line(0.75), fields=shared)]
    records += arm("r3f", line(0.70), fields={**shared, "eps": 0})
    found = judge(Study(records), "3")
    assert found.verdict == "supported" and found.rows[0]["than"] == "r3f:dropout=shared,eps=0"


@pytest.mark.parametrize(
    ("score", "seconds", "verdict"),
    [(0.75, 15, "supported"), (0.75, 25, "contradicted"), (0.70, 15, "contradicted"), (0.748, 15, "supported")],
)
def test_not_worse_and_cheaper(score: float, seconds: float, verdict: str) -> None:
    records = [*arm("std", line(0.70)), *arm("smart", line(0.75), 20), *arm("r3f", line(score), seconds)]
    assert judge(Study(records), "2").verdict == verdict


def test_wins_need_all_tasks() -> None:
    def on(task: str, gain: float) -> list[Record]:
        names = ("std", "std++", "l2sp", "reinit", "r3f")
        rest = [record for name in names for record in arm(name, line(0.70, 10), task=task, data=task)]
        ours = [
            record
            for name in ("capcort-i", "capcort-mlp")
            for record in arm(name, line(0.70 + gain, 10), task=task, data=task)
        ]
        return [*rest, *ours]

    thirteen = [record for i in range(13) for record in on(f"t{i}", 0.02 if i < 8 else -0.02)]
    found = judge(Study(thirteen), "5")
    assert found.verdict == "supported" and found.why.startswith("best on 8 of 13 tasks")
    lost = [record for i in range(13) for record in on(f"t{i}", 0.02 if i < 3 else -0.02)]
    assert judge(Study(lost), "5").verdict == "contradicted"
    few = judge(Study(on("t0", 0.1)), "5")
    assert few.verdict == "undecided" and few.why.startswith("1 of 13 tasks")


def test_slopes_over_size() -> None:
    def at(size: int, gain: float) -> list[Record]:
        spec = {"train_size": size}
        noisy = [x + gain + 0.001 * ((3 * i) % 4) for i, x in enumerate(line(0.70, 25))]
        return [
            r
            for name, s in (("std", line(0.6, 25)), ("std++", line(0.70, 25)), ("capcort-i", noisy))
            for r in arm(name, s, **spec)
        ]

    falling = judge(Study([*at(100, 0.06), *at(200, 0.04), *at(400, 0.02)]), "6")
    assert falling.verdict == "supported" and falling.rows[0]["difference"] == pytest.approx(-0.02, abs=1e-3)
    assert judge(Study([*at(100, 0.02), *at(400, 0.06)]), "6").verdict == "contradicted"
    assert judge(Study(at(100, 0.02)), "6").verdict == "undecided"


def test_what_these_runs_cannot_tell_is_said() -> None:
    found = judge(Study(arm("std", line(0.7))), "4")
    assert found.verdict == "undecided" and "no probes of r3f" in found.why


# ---------------------------------------------------------------------------------------------- papers

LARGE = {"model": "FacebookAI/roberta-large"}


def beside(records: list[Record], paper: str = "r3f", **wanted: Any) -> dict[str, Any]:
    table = papers.paper_table(records, paper)
    assert all(render(table, form) for form in FORMS)
    found = [row for row in table.rows if wanted.items() <= row.items()]
    assert len(found) == 1, found
    return dict(found[0])


def test_published_figures_are_whole() -> None:
    every = papers.published()
    assert {figure.paper for figure in every} == {"r3f", "hype", "minilm"}
    assert all(0 < figure.value < 1 for figure in every)
    assert {figure.verified for figure in every if figure.paper == "minilm"} == {False}
    (rte,) = [f for f in every if (f.paper, f.task, f.method, f.statistic) == ("r3f", "rte", "r3f", "median")]
    assert (rte.value, rte.how, rte.metric) == (0.884, "median of 10", "accuracy")


def test_like_stands_beside_like() -> None:
    records = [run(s, i, R3F, **LARGE) for i, s in enumerate((0.85, 0.86, 0.90))]
    found = beside(records, method="r3f", statistic="median of 10")
    assert (found["published"], found["ours"], found["n"], found["why"]) == (0.884, 0.86, 3, "")
    best = beside(records, method="r3f", statistic="best of 10")
    assert best["ours"] is None and best["why"] == "best of 10 needs as many runs"
    ten = [run(0.80 + 0.01 * i, i, R3F, **LARGE) for i in range(10)]
    assert beside(ten, method="r3f", statistic="best of 10")["ours"] == pytest.approx(0.89)


@pytest.mark.parametrize(
    ("spec", "why"),
    [({"model": "minilm"}, "model minilm"), ({**LARGE, "train_size": 500}, "500 rows"),
     ({**LARGE, "label_noise": 0.1}, "other rows"), ({**LARGE, "metric": "f1"}, "no accuracy"), ({}, "model unnamed")],
)  # fmt: skip
def test_unlike_never_stands_beside(spec: dict[str, Any], why: str) -> None:
    found = beside([run(0.9, 0, R3F, **spec)], method="r3f", statistic="median of 10")
    assert (found["ours"], found["why"]) == (None, why)


def test_several_recipes_are_not_chosen_from() -> None:
    found = beside(
        [run(0.9, 0, R3F, **LARGE), run(0.9, 0, R3F, lr=1e-5, **LARGE)], method="r3f", statistic="median of 10"
    )
    assert found["ours"] is None and found["why"].startswith("several recipes")


def test_unverified_is_said_and_unknown_papers_are_named() -> None:
    assert beside([run(0.7, model="minilm")], "minilm")["statistic"] == "mean, unverified"
    with pytest.raises(UsageError, match="Did you mean 'r3f'"):
        papers.paper_table([], "r3")
    assert "no figure for nothing-known" in papers.paper_table([run(0.7, task="nothing-known")], "r3f").notes[1]
