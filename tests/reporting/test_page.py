"""The page and the pictures: escaped, self-contained, and small. In a browser: ``test_browser``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ftbench.errors import StoreError
from ftbench.methods import METHODS
from ftbench.reporting.charts import charts
from ftbench.reporting.conclusions import as_lines, conclusions
from ftbench.reporting.crowd import far
from ftbench.reporting.figures import write_figures
from ftbench.reporting.marks import MOST_LINES, Chart, Mark
from ftbench.reporting.page import origins, to_html
from ftbench.reporting.select import with_metric
from ftbench.reporting.study import Study
from ftbench.reporting.svg import scale, to_svg
from ftbench.types import MethodSpec, Record
from tests.reporting.conftest import R3F, REFS, arms, references, run, study_on_disk
from tests.reporting.test_study import over_tasks

NASTY = "<script>alert(1)</script>&\"'$x^2$"


def study(tmp_path: Path) -> Study:
    sweep = [run(0.6 + 0.01 * s + lr * 100, s, m, lr=lr) for m in ((), R3F) for lr in (1e-5, 1e-4) for s in range(3)]
    bars = [references(scores=REFS), references(scores=REFS, task="own", data="own")]
    return Study([*over_tasks(5), *sweep, *bars, *study_on_disk(tmp_path, task="own", data="own", gain=0.1)])


# ------------------------------------------------------------------------------------------ conclusions


def test_conclusions_say_what_the_tables_say() -> None:
    better = conclusions(
        Study([*arms([0.70, 0.71, 0.72, 0.70, 0.71], [0.75, 0.76, 0.77, 0.76, 0.76]), references(scores=REFS)])
    )
    assert better[0].text == "10 runs: 2 methods on 1 task."
    assert better[1].text == "rte: std accuracy 0.708 over 5 runs, against 0.600 of linear without fine-tuning."
    assert better[1].methods[0].startswith("r3f: better in 5 pairs of seeds, +5.2 points [")
    undecided = conclusions(Study(arms([0.70, 0.74, 0.72, 0.70], [0.71, 0.72, 0.73, 0.71])))
    assert "no difference shown in 4 pairs" in undecided[1].methods[0]
    assert "would be found four times in five" in undecided[1].methods[0]
    assert ", over seeds only" in undecided[1].methods[0]
    unlearned = conclusions(Study([*arms([0.5, 0.5], [0.9, 0.9]), references(scores=REFS)]))
    assert "methods are not compared" in unlearned[1].text and unlearned[1].methods == ()
    assert "no finished std" in conclusions(Study([run(0.9, 0, R3F)]))[1].text
    failed = conclusions(Study([run(0.7), run(None, 1, status="failed")]))
    assert failed[0].text.startswith("2 runs, 1 of which failed")
    assert conclusions(Study([])) == [] and as_lines(better)[2].startswith("  - r3f")


def test_conclusions_say_what_is_not_known() -> None:
    alone = conclusions(Study(arms([0.70, 0.71], [0.71, 0.73])))[1]
    assert alone.text.endswith("there are no reference rows, so whether it learned anything is not known.")
    few = conclusions(Study([*arms([0.70, 0.71], [0.71, 0.72]), references(scores=REFS)]))[1]
    assert few.methods == ("r3f: no difference shown in 2 pairs of seeds, +1.0 points, over seeds only.",)
    lacking = with_metric([run(0.7), run(0.8, 0, R3F, others={"f1": 0.6})], "f1")
    assert conclusions(Study(lacking))[1].text == "rte: std has no f1, so methods are not compared."


def test_squared_errors_are_not_points() -> None:
    lower = {"metric": "mse", "facts": {"lower_is_better": True, "kind": "regression"}}
    said = conclusions(Study(arms([1.20, 1.25, 1.22], [1.10, 1.14, 1.12], **lower)))
    assert "points" not in said[1].methods[0] and "-0.103" in said[1].methods[0]


# --------------------------------------------------------------------------------------------- pictures


def test_every_kind_of_picture_is_drawn(tmp_path: Path) -> None:
    found = charts(study(tmp_path))
    kinds = {chart.name.split("-")[0] for chart in found}
    assert kinds == {"runs", "differences", "profile", "ranks", "cost", "sensitivity", "budget"}
    assert all(chart.marks for chart in found)


def test_every_run_is_a_point() -> None:
    (chart,) = [c for c in charts(Study(arms([0.7, 0.8, 0.75], [0.8, 0.9]))) if c.name == "runs-rte"]
    points = [x for mark in chart.marks if mark.kind == "points" for x in mark.x]
    assert sorted(points) == [0.7, 0.75, 0.8, 0.8, 0.9] and to_svg(chart).count("<circle") == 5


def test_references_far_away_do_not_squeeze_the_runs() -> None:
    found = charts(Study([*arms([0.70, 0.72], [0.71, 0.73]), references(scores={"linear": 0.69, "majority": 0.1})]))[0]
    assert [mark.label for mark in found.marks if mark.kind == "rule"] == ["linear"]
    assert "outside: majority 0.100" in [mark.label for mark in found.marks]


def field(means: dict[str, float], **more: object) -> list[Record]:
    """Two runs of each method around its mean, a hundredth of a point apart."""
    stacks = {name: () if name == "std" else (MethodSpec(name),) for name in means}
    return [run(means[m] + 0.0001 * s, s, stacks[m], **more) for m in means for s in (0, 1)]  # type: ignore[arg-type]


FIELD = {"std": 0.80, "r3f": 0.81, "smart": 0.79, "bss": 0.805, "sam": 0.82, "bitfit": 0.30}


def test_an_arm_far_off_does_not_squeeze_the_others() -> None:
    found = {chart.name: chart for chart in charts(Study(field(FIELD)))}
    assert found["runs-rte"].categories == ("sam", "r3f", "bss", "std", "smart"), "the best on top"
    assert found["differences-rte"].categories == ("sam", "r3f", "bss", "smart")
    for name, text in (("runs", "bitfit 0.300"), ("differences", "bitfit -0.5000"), ("cost", "bitfit 0.300 at 10.0 s")):
        chart = found[f"{name}-rte"]
        assert [mark.label for mark in chart.marks if "outside" in mark.label] == [f"outside: {text}"]
        assert min(x for mark in chart.marks for x in (mark.y if name == "cost" else mark.x)) >= -0.011
        assert text in to_svg(chart)


def test_the_best_is_on_top_where_less_is_better() -> None:
    found = charts(Study(field(FIELD, metric="mse", facts={"lower_is_better": True})))
    assert found[0].categories == ("smart", "std", "bss", "r3f", "sam")


@pytest.mark.parametrize(
    ("means", "widths", "expected"),
    [([0.8, 0.8, 0.8, 0.1], (), []), ([0.8, 0.81, 0.82, 0.83, 0.1], (), [4]), ([0.8] * 5, (), []), ([], (), []),
     ([0.8, 0.81, 0.82, 0.83, 0.1], [0.2] * 5, []), ([0.0, 0.25, 0.5, 0.75, 1.0], (), [])],
)  # fmt: skip
def test_who_is_far(means: list[float], widths: list[float], expected: list[int]) -> None:
    assert [i for i, away in enumerate(far(means, widths)) if away] == expected


def test_a_difference_shows_whether_it_is_decided() -> None:
    scores = [0.70, 0.71, 0.72, 0.70, 0.71, 0.72]
    near = [run(s + 0.02 * (-1) ** i, i, (MethodSpec("smart"),)) for i, s in enumerate(scores)]
    found = charts(Study([*arms(scores, [s + 0.05 + 0.001 * i for i, s in enumerate(scores)]), *near]))
    (chart,) = [chart for chart in found if chart.name == "differences-rte"]
    shown = dict(zip(chart.categories, [mark.label for mark in chart.marks if mark.kind == "bars"], strict=True))
    assert shown == {"r3f": "95 % interval, decided", "smart": "95 % interval, undecided"}
    assert not [mark for mark in chart.marks if mark.kind == "thin bars"], "the same interval is not drawn twice"


def test_std_and_the_front_have_names_among_many() -> None:
    means = {name: 0.80 + 0.001 * i for i, name in enumerate(["std", *METHODS][:20])} | {"std": 0.79}
    chart = next(chart for chart in charts(Study(field(means))) if chart.name == "cost-rte")
    named = [mark.label for mark in chart.marks if mark.kind == "points"]
    assert named[0] == "std" and max(means, key=lambda name: means[name]) in named and named[-1] == "others"
    assert len(named) == MOST_LINES + 1


def test_names_that_begin_alike_are_all_in_the_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a paper's figure, where long names are cut; two of one name have two colours."""
    from matplotlib.figure import Figure

    names = [f"smart:variant=released,inner=kl,weight={weight}" for weight in (0.1, 1.0)]
    marks = [Mark("line", (1.0, 2.0), (1.0, 2.0), label=name, tone=i) for i, name in enumerate([*names, "a", "a"], 1)]
    seen: list[str] = []

    def look(figure: Figure, *arguments: object, **more: object) -> None:
        seen.extend(text.get_text() for text in figure.legends[0].texts)

    monkeypatch.setattr(Figure, "savefig", look)
    chart = Chart("a", "t", "x", "y", tuple(marks))
    write_figures([chart], tmp_path)
    assert seen[: len(marks)] == [*names, "a", "a"]
    assert all(to_svg(chart).count(f">{name}<") == 1 for name in names)


def test_a_legend_says_everything_once(tmp_path: Path) -> None:
    marks = [Mark("bars", (x,), (x,), (x,), (x,), label="an interval") for x in (0.0, 1.0)]
    chart = Chart("a", "t", "x", "", (*marks, Mark("points", label="b")), ("one", "two"))
    assert len(re.findall(">an interval<", to_svg(chart))) == 1 and ">b<" in to_svg(chart)
    assert write_figures([chart], tmp_path)


def test_nothing_to_draw_is_no_picture() -> None:
    assert charts(Study([])) == [] and charts(Study([run(None, status="failed")])) == []


def test_svg_is_well_formed_and_escaped() -> None:
    chart = Chart("x", NASTY, NASTY, NASTY, (Mark("points", (1.0, 2.0), (0.0, 1.0), label=NASTY, names=(NASTY, "b")),),
                  categories=(NASTY, "b"))  # fmt: skip
    text = to_svg(chart)
    ElementTree.fromstring(text)
    assert "<script" not in text


@pytest.mark.parametrize(
    ("values", "log", "ticks"),
    [([0.0, 1.0], False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), ([1.0, 1000.0], True, [1, 10, 100, 1000]), ([3.0], False, None),
     ([float("nan")], True, None), ([], False, None), ([36.0, 66.0], True, [35, 40, 45, 50, 55, 60, 65])],
)  # fmt: skip
def test_ticks_are_round_and_inside(values: list[float], log: bool, ticks: list[float] | None) -> None:
    place, found = scale(values, 0, 100, log=log)
    assert found and all(-1e-9 <= place(value) <= 100 + 1e-9 for value, _ in found)
    if ticks:
        assert [value for value, _ in found] == pytest.approx(ticks)


def test_figures_are_files_that_do_not_change(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    chart = Chart("a/b c", NASTY, "x", "y", (Mark("line", (1.0, 2.0), (1.0, 2.0), label=NASTY, tone=2),), log=True)
    bars = Chart(
        "b", "t", "x", "", (Mark("bars", (1.0,), (0.0,), (0.5,), (1.5,)), Mark("rule", (1.0,), label="m")), ("漢字",)
    )
    written = write_figures([chart, bars], tmp_path / "one")
    assert [path.name for path in written] == ["a-b-c.pdf", "a-b-c.png", "b.pdf", "b.png"]
    assert written[0].read_bytes()[:4] == b"%PDF" and written[1].read_bytes()[1:4] == b"PNG"
    again = write_figures([chart, bars], tmp_path / "two")
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
    assert not recwarn.list


def test_every_figure_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = ["a b", "a-b", "a/b", "a-b-2", "A-b", "c", "c"]
    written = write_figures([Chart(n, n, "x", "y", (Mark("points", (1.0,), (1.0,)),)) for n in names], tmp_path)
    found = [path.stem for path in written if path.suffix == ".png"]
    assert found == ["a-b", "a-b-2", "a-b-3", "a-b-2-2", "A-b-4", "c", "c-2"]
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}


def test_figures_into_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write figures"):
        write_figures([], tmp_path / "file")


# ------------------------------------------------------------------------------------------------- page


def test_the_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    nasty = [run(0.7, s, (MethodSpec(NASTY),), task=NASTY, error=NASTY) for s in (0, 1)]
    record = nasty[0]
    place = tmp_path / "nasty"
    place.mkdir()
    (place / "environment.json").write_text(json.dumps({"command": ["ftbench", NASTY], "device": NASTY}))
    text = to_html(Study([Record(place, record.result, record.cost), *nasty[1:]]), skipped=[NASTY])
    assert "<script>alert" not in text and "&lt;script&gt;" in text
    assert not re.search(r"""(src|href)=["'](?!#)|url\(|@import|https?://""", text)
    assert text.count("<script>") == 1


def test_the_page_of_no_runs() -> None:
    assert "No runs to show." in to_html(Study([]))


def test_a_large_page_stays_small() -> None:
    records = [
        run(0.5 + 0.001 * s, s, (MethodSpec(m),), task=t, data=t)
        for t in "abcdefghij"
        for m in "klmnopqrst"
        for s in range(10)
    ]
    assert len(to_html(Study(records)).encode()) < 5_000_000


def test_origins_count_commands_and_environments(tmp_path: Path) -> None:
    records = []
    for i, torch in enumerate(("2.13", "2.13", "2.6")):
        place = tmp_path / str(i)
        place.mkdir()
        found = {
            "command": ["ftbench", "finetune", "--task", "a b"],
            "device_name": "CPU",
            "versions": {"torch": torch},
        }
        (place / "environment.json").write_text(json.dumps(found))
        records.append(Record(place, run(0.7, i).result, run(0.7, i).cost))
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "environment.json").write_text("[")
    records.append(Record(tmp_path / "3", run(0.7, 3).result, run(0.7, 3).cost))
    commands, places = origins(records)
    assert commands == ["ftbench finetune --task 'a b'"]
    assert [(place["name"], place["runs"]) for place in places] == [("CPU, torch 2.13", 2), ("CPU, torch 2.6", 1)]


def test_pages_need_no_torch(tmp_path: Path) -> None:
    code = "import sys, ftbench.reporting.page, ftbench.reporting.figures; print(*{'torch', 'scipy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == done.stderr.strip() == ""
