"""Methods against std: which interval the runs can give, what is concluded, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ftbench.reporting import crossed, predictions
from ftbench.reporting.contrasts import differences_table, further_table
from ftbench.reporting.differences import BOTH, Difference, compare
from ftbench.reporting.predictions import Kept, read_columns
from ftbench.reporting.render import render
from ftbench.reporting.reports import make
from ftbench.reporting.study import Study
from ftbench.reporting.words import cell_text
from ftbench.types import MethodSpec, Record
from tests.reporting.conftest import R3F, REFS, arms, references, row, run, study_on_disk


def only(records: list[Record], **how: str) -> Difference:
    (found,) = compare(records, Kept(), **how)
    return found


def test_with_predictions_seeds_and_examples_vary(tmp_path: Path) -> None:
    found = only(study_on_disk(tmp_path, gain=0.2))
    alone = found.seeds_only
    assert found.basis == "seeds x examples" and found.why == "" and found.headline and alone
    assert found.headline.mean == pytest.approx(alone.mean) and found.headline.se > alone.se
    assert found.verdict == "better" and found.p_holm == found.headline.p < 0.05
    assert found.headline.low < alone.low < found.headline.mean


def test_a_few_test_examples_do_not_decide_what_seeds_alone_would(tmp_path: Path) -> None:
    found = only(study_on_disk(tmp_path, seeds=20, rows=80, taste=0.2))
    assert found.seeds_only and found.seeds_only.p < 0.01
    assert found.verdict == "undecided"


def test_resamples_are_the_same_in_every_order(tmp_path: Path) -> None:
    records = study_on_disk(tmp_path, gain=0.1)
    assert only(records).headline == pytest.approx(only(records[::-1]).headline)
    more = [run(0.6, s, (MethodSpec("bss"),)) for s in range(6)]
    assert compare([*records, *more], Kept())[1].headline == only(records).headline


def test_without_predictions_seeds_vary_and_that_is_said() -> None:
    found = only(arms([0.70, 0.72, 0.74], [0.73, 0.75, 0.78]))
    assert (found.basis, found.why) == ("seeds", predictions.NOT_KEPT)
    assert found.headline == found.seeds_only == pytest.approx(crossed.seeds_only(np.array([0.03, 0.03, 0.04])))
    table = differences_table([found])
    assert table and any("Interval over seeds only" in n and predictions.NOT_KEPT in n for n in table.notes)


def test_each_revision_of_lora_stands_in_std_s_place_for_its_own_stacks() -> None:
    records = []
    for revision in (1, 2):
        lora = (MethodSpec("lora", revision),)
        for seed in range(3):
            records += [run(0.7 + revision / 10, seed, lora), run(0.71 + revision / 10, seed, lora + R3F)]
    found = compare(records, Kept())
    assert [(d.std.setting("method_revision"), d.cell.setting("method_revision")) for d in found] == [
        ("1", "1+1"), ("2", "2+1")]  # fmt: skip
    assert [float(np.mean(d.differences)) for d in found] == pytest.approx([0.01, 0.01])


def test_the_same_difference_in_few_seeds_decides_nothing() -> None:
    """On few test examples two pairs differ by the same amount by chance, and no correction could undo a p of 0."""
    found = only(arms([0.70, 0.71], [0.71, 0.72]))
    assert found.headline and found.headline.p == 0.5 and found.verdict == "undecided" and found.detectable is None
    shown = row(differences_table([found]), "r3f")
    assert cell_text(shown, "difference") == "+0.010 [\N{EN DASH}]"
    six = only(arms([0.70 + s / 100 for s in range(6)], [0.71 + s / 100 for s in range(6)]))
    assert six.headline and six.headline.p == 2**-5 and six.verdict == "better"
    assert (six.headline.low, six.headline.high) == (six.headline.mean, six.headline.mean)


def test_one_pair_of_seeds() -> None:
    found = only([run(0.7), run(0.8, 0, R3F)])
    assert found.headline is None and found.seeds_only is None and found.verdict == "undecided"
    shown = row(differences_table([found]), "r3f")
    assert shown["difference"] == pytest.approx(0.1) and shown["low"] is None and shown["p"] is None
    assert further_table([found], np.random.default_rng(0)) is None


def test_one_pair_with_predictions_lets_examples_vary(tmp_path: Path) -> None:
    found = only(study_on_disk(tmp_path, seeds=1, gain=0.2))
    assert found.basis == "examples" and found.headline and found.headline.df == 199


def test_best_weights_have_no_predictions(tmp_path: Path) -> None:
    records = []
    for record in study_on_disk(tmp_path):
        metrics = {**record.result.metrics, "best": record.result.metrics["last"]}
        records.append(dataclasses.replace(record, result=dataclasses.replace(record.result, metrics=metrics)))
    assert only(records, selection="best").why == predictions.NOT_LAST


@pytest.mark.parametrize("what", ["cut", "other labels", "other score", "nan", "missing column"])
def test_predictions_that_do_not_fit_are_not_used(tmp_path: Path, what: str) -> None:
    import pyarrow.parquet as pq

    records = study_on_disk(tmp_path)
    path = records[0].folder / "predictions.parquet"
    frame = pq.read_table(path).to_pandas()
    if what == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif what == "other labels":
        frame["label"] = 1 - frame["label"]
        frame.to_parquet(path)
    elif what == "other score":
        frame["prediction"] = frame["label"]
        frame.to_parquet(path)
    elif what == "nan":
        frame["prediction"] = float("nan")
        frame.to_parquet(path)
    else:
        frame.drop(columns="prediction").to_parquet(path)
    found = only(records)
    wanted = {"other labels": predictions.OTHER_EXAMPLES, "other score": predictions.OTHER_SCORE}
    assert (found.basis, found.why) == ("seeds", wanted.get(what, predictions.NOT_KEPT))


def test_nothing_is_compared_where_std_did_not_learn() -> None:
    assert compare([*arms([0.5, 0.5], [0.8, 0.8]), references(scores=REFS)], Kept()) == []
    assert differences_table([]) is None


def test_the_family_is_the_methods_of_one_task() -> None:
    others = [run(s, i, (MethodSpec("bss"),)) for i, s in enumerate((0.71, 0.75, 0.74))]
    records = [*arms([0.70, 0.72, 0.74], [0.73, 0.75, 0.78]), *others]
    records += [*arms([0.70, 0.72], [0.73, 0.76], task="mrpc", data="d2")]
    found = compare(records, Kept())
    assert sorted((d.cell.spec.task, d.family) for d in found) == [("mrpc", 1), ("rte", 2), ("rte", 2)]
    assert {d.family for d in compare(records, Kept(), family="all")} == {3}
    alone = compare(records, Kept(), family="none")
    assert all(d.family == 1 and d.headline and d.p_holm == d.headline.p for d in alone)
    least = row(further_table(found, np.random.default_rng(0)), "bss")
    assert least["p_flip_least"] == 0.5  # 2 / 2^3 pairs, times two comparisons


def test_a_metric_where_lower_is_better() -> None:
    lower = {"metric": "mse", "facts": {"lower_is_better": True, "kind": "regression"}}
    found = only(arms([0.50, 0.52, 0.51, 0.50, 0.52], [0.40, 0.42, 0.41, 0.40, 0.43], **lower))
    assert found.headline and found.headline.mean < 0 and found.verdict == "better"
    table = further_table([found], np.random.default_rng(0))
    assert row(table, "r3f")["improvement"] == 1.0 and row(table, "r3f")["aso"] == 0.0


def test_equal_runs_are_equal_not_undecided() -> None:
    found = only(arms([0.7, 0.8, 0.9], [0.7, 0.8, 0.9]))
    assert found.verdict == "equal" and found.detectable is None


def test_other_metrics_are_not_compared() -> None:
    assert compare([run(0.7), run(0.8, 0, R3F, metric="f1")], Kept()) == []


def test_failed_runs_are_named() -> None:
    records = [*arms([0.70, 0.72, 0.74], [0.73, 0.75, 0.78]), run(None, 3, R3F, status="failed")]
    table = differences_table(compare(records, Kept()))
    assert table and any("may flatter" in note and "rte r3f" in note for note in table.notes)


def test_detectable_is_printed_with_its_meaning() -> None:
    table = differences_table(compare(arms([0.70, 0.72, 0.74, 0.71], [0.73, 0.71, 0.78, 0.74]), Kept()))
    shown = row(table, "r3f")
    assert table and 0.01 < shown["detectable"] < 0.2
    assert any("four times in five" in note for note in table.notes)


def test_the_verdict_is_the_corrected_one() -> None:
    """One of six comparisons has p = 0.02 by itself: not enough after Holm."""
    std = [0.70, 0.72, 0.71, 0.73, 0.70]
    better = [x + d for x, d in zip(std, (0.01, 0.03, 0.01, 0.04, 0.02), strict=True)]
    others = [run(x + 0.001 * (-1) ** i, i, (MethodSpec(n),)) for n in "abcde" for i, x in enumerate(std)]
    alone = only(arms(std, better))
    assert alone.headline and 0.01 < alone.headline.p < 0.05 and alone.verdict == "better"
    found = {d.cell.method: d for d in compare([*arms(std, better), *others], Kept())}
    assert found["r3f"].headline == alone.headline and found["r3f"].verdict == "undecided"
    uncorrected = compare([*arms(std, better), *others], Kept(), family="none")
    assert [d.verdict for d in uncorrected if d.cell.method == "r3f"] == ["better"]


# ---------------------------------------------------------------------------------- summaries: a score for each example


def summaries(folder: Path, gain: float, rows: int = 60, seeds: int = 5) -> list[Record]:
    """std and r3f of a summarization, with what each example scored."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(1)
    easy = random.uniform(0.1, 0.5, rows)
    found = []
    for methods, extra in (((), 0.0), (R3F, gain)):
        for seed in range(seeds):
            scored = np.clip(easy + extra + random.normal(0, 0.05, rows), 0, 1)
            record = run(float(scored.mean()), seed, methods, metric="rouge1", facts={"kind": "summarization"})
            place = folder / record.result.spec.id
            place.mkdir(parents=True)
            columns = {"example": np.arange(rows), "rouge1": scored, "prediction": ["a summary"] * rows}
            pq.write_table(pa.table(columns), place / "predictions.parquet")
            found.append(Record(place, record.result, record.cost))
    return found


def test_rouge_is_compared_over_seeds_and_examples(tmp_path: Path) -> None:
    (d,) = compare(summaries(tmp_path, 0.05), Kept())
    assert (d.basis, d.verdict) == (BOTH, "better") and d.headline is not None
    scored = [read_columns(r, ("rouge1",)) for r in (*d.cell.ok, *d.std.ok)]
    rows = np.array([found["rouge1"] for found in scored if found])
    means = (rows[:5] - rows[5:]).mean(axis=0)  # with equal weights the examples' part is the plain standard error
    shared = means.var(ddof=1) / len(means)
    assert d.headline.se**2 >= 0.5 * shared and d.headline.mean == pytest.approx(means.mean())


def test_a_rouge_that_is_not_of_these_rows_is_not_resampled(tmp_path: Path) -> None:
    records = summaries(tmp_path, 0.05)
    other = run(0.9, 0, metric="rouge1", facts={"kind": "summarization"})
    (d,) = compare([Record(records[0].folder, other.result, other.cost), *records[1:]], Kept())
    assert d.basis == "seeds" and "do not give the score" in d.why


def test_rouge_is_shown_in_hundredths(tmp_path: Path) -> None:
    study = Study(summaries(tmp_path, 0.05))
    table = make(study, "differences")
    assert table is not None
    for form in ("rich", "markdown", "latex"):
        text = render(table, form)
        assert "rouge1 x 100" in text and "5." in text and "0.05" not in text
    assert table.rows[0]["difference"] < 1 and ",0.0" in render(table, "csv")  # scripts have what was kept
    means = render(make(study, "runs"), "markdown")  # type: ignore[arg-type]
    assert f"{100 * row(make(study, 'runs'), 'std')['mean']:.2f}" in means
