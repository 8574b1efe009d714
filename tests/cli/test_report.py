"""``ftbench report`` from the command line: forms, filters, checks and their exit codes."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ftbench.cli.app import main
from ftbench.runs.store import Store
from ftbench.types import MethodSpec
from tests.reporting.conftest import REFS, arms, references, run


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Report = Callable[..., Said]


@pytest.fixture
def report(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Report:
    """``report("--json")`` in a folder whose ``runs`` hold std and r3f on rte, and std on mrpc."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    records = [*arms([0.70, 0.72, 0.74], [0.75, 0.76, 0.79]), references(scores=REFS), run(0.8, task="mrpc", data="d2")]
    for record in records:
        store = Store(tmp_path / "runs")
        store.folder(record.result.spec).mkdir(parents=True)
        store.save(record.result, record.cost)

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["ftbench", "report", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Said(code, *capfd.readouterr())

    return call


def test_the_default_shows_runs_and_what_they_say(report: Report) -> None:
    said = report()
    assert said.code == 0 and said.err == ""
    assert said.out.index("Validation scores") < said.out.index("Differences to std")
    assert "no predictions were kept" in " ".join(said.out.split())


@pytest.mark.parametrize("form", ["rich", "markdown", "latex", "csv", "csv-long", "json"])
def test_forms(report: Report, form: str) -> None:
    said = report("--format", form)
    assert (said.code, said.err) == (0, "") and "r3f" in said.out and said.out.endswith("\n")


def test_csv_is_one_table_and_csv_long_one_row_a_score(report: Report) -> None:
    wide = list(csv.DictReader(io.StringIO(report("--format", "csv", "--table", "differences").out)))
    assert [(r["method"], r["basis"], r["pairs"]) for r in wide] == [("r3f", "seeds", "3")]
    long = list(csv.DictReader(io.StringIO(report("--format", "csv-long").out)))
    assert len(long) == 7 + len(REFS)


def test_json_has_every_table(report: Report) -> None:
    document = json.loads(report("--json").out)
    wanted = {"table", "scores", "sensitivity", "spread", "differences", "across", "arms", "tests", "cost", "budget",
              "stability", "runs"}  # fmt: skip
    assert wanted <= set(document) and len(document["runs"]) == 8
    assert document["differences"]["rows"][0]["difference"] == pytest.approx(0.0467, abs=1e-4)
    assert set(json.loads(report("--json", "--table", "arms").out)) == {"arms", "runs", "searches"}


def test_where_by_metric_and_sort(report: Report) -> None:
    assert "mrpc" not in report("--where", "task=rte").out
    groups = json.loads(report("--by", "task", "--json").out)["groups"]
    assert [group["by"] for group in groups] == [{"task": "mrpc"}, {"task": "rte"}]
    assert "Arms, last weights (task mrpc)" in " ".join(report("--by", "task", "--table", "arms").out.split())
    text = report("--table", "arms", "--sort", "mean").out
    assert text.index("0.720") < text.index("0.767") < text.index("0.800")
    said = report("--where", "task=cola")
    assert said.code == 0 and "none of 7 runs match task=cola" in said.err and "No runs to show." in said.out
    assert "none of 7 runs match method=r33f. Did you mean 'r3f'?" in report("--where", "method=r33f").err


def test_a_summary_without_a_demand(report: Report) -> None:
    said = report("--summary", "alone.md")
    assert said.code == 0 and said.err == "" and "| r3f |" in Path("alone.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("--where", "tsak=rte"), "Did you mean 'task'"), (("--by", "method"), "setting of --by"),
     (("--metric", "acuracy"), "Did you mean 'accuracy'"), (("--sort", "meen"), "Did you mean 'mean'"),
     (("--table", "difference"), "Did you mean 'differences'"), (("--family", "tasks"), "Did you mean 'task'"),
     (("--by", "task", "--format", "csv"), "--where"), (("--format", "csv", "--table", "arms,cost"), "one table"),
     (("--format", "csv-long", "--table", "arms"), "no --table"), (("--json", "--sort", "mean"), "fixed order"),
     (("--fail-on-regression",), "--compare"), (("--require", "task=rte"), "demands nothing"),
     (("--require", "maen>=0.5"), "Did you mean 'mean'"),
     (("--compare", "nowhere"), "no folder 'nowhere'"), (("runs", "nowhere"), "no folder 'nowhere'")],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_wrong_use_is_named(report: Report, arguments: tuple[str, ...], named: str) -> None:
    said = report(*arguments)
    assert said.code == 2 and named in said.err and "Traceback" not in said.err
    assert "meen" in arguments or not said.out, "what is wrong is said before tables are printed"


def test_demands_decide_the_exit_code(report: Report) -> None:
    good = report("--require", "task=rte method=r3f metric>=0.76", "--require", "failed=0")
    assert good.code == 0 and good.err.count("met: ") == 2
    bad = report("--require", "task=rte method=r3f metric>=0.9", "--summary", "summary.md")
    assert bad.code == 1 and bad.err.splitlines()[-1].startswith("not met: task=rte method=r3f metric>=0.9: rte r3f")
    text = Path("summary.md").read_text()
    assert text.startswith("## ftbench report") and "- FAIL: not met" in text and "| r3f |" in text


def test_a_baseline(report: Report) -> None:
    shutil.copytree("runs", "before")
    same = report("--compare", "before", "--fail-on-regression")
    assert same.code == 0 and "no regression shown in 3 arms" in same.err and "Against the baseline" in same.out
    worse = Store(Path("now"))
    for seed, score in enumerate((0.61, 0.63, 0.65)):
        record = run(score, seed, (MethodSpec("r3f", 1),))
        worse.folder(record.result.spec).mkdir(parents=True)
        worse.save(record.result, record.cost)
    said = report("now", "--compare", "before", "--fail-on-regression")
    assert said.code == 1 and said.err.startswith("regression: rte r3f")
    assert report("now", "--compare", "before").code == 0, "only told"


def test_a_table_that_the_runs_do_not_give_is_said(report: Report) -> None:
    said = report("--where", "task=mrpc", "--table", "differences")
    assert (said.code, said.out) == (0, "") and "these runs give no table of differences" in said.err


def test_what_cannot_be_read_is_named(report: Report) -> None:
    path = sorted(Path("runs").rglob("result.json"))[0]
    path.write_text("{")
    said = report()
    assert said.code == 0 and f"skipped {path}: " in said.err


def test_claims_and_papers_are_asked_for(report: Report) -> None:
    said = report("--claim", "3,1")
    assert said.code == 0 and said.out.index("Claim 3") < said.out.index("Claim 1") and "Validation" not in said.out
    assert "UNDECIDED" in said.out
    document = json.loads(report("--claim", "all", "--paper", "r3f", "--json").out)
    assert {"paper:r3f", "claim:1", "claim:12"} <= set(document)
    both = report("--claim", "4", "--table", "arms")
    assert "Claim 4" in both.out and "Arms, last weights" in both.out
    assert report("--claim", "99").code == report("--paper", "bert").code == 2


def test_page_and_pictures_are_written(report: Report) -> None:
    said = report("--html", "page.html", "--figures", "figures")
    assert said.code == 0 and "wrote page.html" in said.err
    assert Path("page.html").read_text().startswith("<!DOCTYPE html>")
    assert {path.suffix for path in Path("figures").iterdir()} == {".pdf", ".png"}
    assert report("--html", "new/folder/page.html").code == 0 and Path("new/folder/page.html").is_file()
    assert report("--html", "page.html/page.html").code == 1
    assert "In short:" in said.out and "- rte: std accuracy 0.720 over 3 runs" in said.out
