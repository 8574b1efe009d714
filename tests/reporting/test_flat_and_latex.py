"""Forms for scripts and papers: nothing in a name can run, and every number is there."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from ftbench.reporting.flat import LONG, long_csv
from ftbench.reporting.latex import escape, to_latex
from ftbench.reporting.render import render
from ftbench.reporting.reports import REPORTS, make
from ftbench.reporting.study import Study
from ftbench.types import Column, MethodSpec, Table
from tests.reporting.conftest import R3F, REFS, arms, references, row, run


def long_rows(*records: object) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(long_csv(records))))  # type: ignore[arg-type]


def test_long_form_has_a_row_for_each_score() -> None:
    found = long_rows(run(0.7, 3, R3F, others={"f1": 0.6}, splits={"mismatched": {"accuracy": 0.5}}, lr=1e-4))
    assert [(r["split"], r["metric"], float(r["score"])) for r in found] == [
        ("validation", "accuracy", 0.7), ("validation", "f1", 0.6), ("mismatched", "accuracy", 0.5),
    ]  # fmt: skip
    first = found[0]
    assert tuple(first) == LONG
    assert (first["task"], first["method"], first["seed"], first["lr"], first["kind"]) == (
        "rte",
        "r3f",
        "3",
        "0.0001",
        "finetune",
    )
    assert (first["status"], first["training_seconds"], first["peak_memory"]) == ("ok", "10.0", "")


def test_long_form_keeps_runs_without_a_score_and_references() -> None:
    found = long_rows(run(None, 1, status="failed", error="boom\nmore"), references(scores=REFS))
    assert (found[0]["status"], found[0]["error"], found[0]["score"]) == ("failed", "boom", "")
    assert {r["selection"] for r in found[1:]} == set(REFS) and all(r["method"] == r["lr"] == "" for r in found[1:])


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1+1", "@sum", "\tx"])
def test_no_cell_is_a_formula(name: str) -> None:
    (found,) = long_rows(run(0.7, task=name, data=name))
    assert found["task"] == f"'{name}" == found["data"]
    shown = next(csv.DictReader(io.StringIO(render(make(Study([run(0.7, task=name)]), "arms"), "csv"))))  # type: ignore[arg-type]
    assert shown["task"] == f"'{name}"


def test_not_finite_scores_are_empty() -> None:
    assert long_rows(run(float("nan")))[0]["score"] == ""


def test_latex_escapes_what_it_would_run() -> None:
    nasty = r"50% of a_b & {x} $y$ #1 ~ ^ \input{z} <|> é – 漢 ☃"
    assert escape(nasty) == (
        r"50\% of a\_b \& \{x\} \$y\$ \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}input\{z\} "
        r"\textless{}\textbar{}\textgreater{} é -- 漢 ?"
    )


def test_latex_marks_the_best_and_what_is_near() -> None:
    records = [*arms([0.70, 0.72, 0.71, 0.73], [0.71, 0.72, 0.73, 0.72]), references(scores=REFS)]
    text = to_latex(make(Study(records), "arms"))  # type: ignore[arg-type]
    assert r"\textbf{0.720}" in text and r"\underline{0.715}" in text and r"\toprule" in text
    assert r"\emph{linear}" in to_latex(make(Study(records), "runs"))  # type: ignore[arg-type]


def test_latex_has_minus_signs_and_breaks_between_tasks() -> None:
    rows = ({"task": "a", "x": -0.5, "y": "r3f-x"}, {"task": "b", "x": 0.5, "y": "-"})
    text = to_latex(Table("t", (Column("task", "task", False), Column("x", "x"), Column("y", "y", False)), rows))
    assert r"a & $-$0.500 & r3f-x \\" in text and r"\addlinespace" in text and "resizebox" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    nasty = [run(0.7, s, (MethodSpec("r3f", 1, {"eps": 1e-5, "noise": "a_b&%"}),), task="t_1 & {#}") for s in range(3)]
    study = Study([*arms([0.70, 0.72, 0.74], [0.73, 0.75, 0.78]), *nasty, references(scores=REFS)])
    tables = [to_latex(found) for name in REPORTS if (found := make(study, name))]
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "t.tex").write_text(head + "\n".join(tables) + r"\end{document}")
    found = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    if "booktabs.sty' not found" in found.stdout:
        pytest.skip("booktabs is not installed")
    assert found.returncode == 0, found.stdout[-2000:]
    assert row(make(study, "runs"), "linear")["n"] == 1


def test_every_column_is_documented(tmp_path: Path) -> None:
    """``docs/statistics.md`` promises that names are stable."""
    import re

    from ftbench.reporting.cells import SETTINGS
    from tests.reporting.test_page import study

    text = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text()
    said = set(re.findall(r"`([a-z_0-9]+)`", text))
    asked = study(tmp_path)
    tables = [make(asked, name) for name in (*REPORTS, "paper:r3f", "claim:1")]
    keys = {column.key for table in tables if table for column in table.columns}
    assert (keys | {*LONG} | {*SETTINGS}) - said - {"accuracy", "f1"} == set()
