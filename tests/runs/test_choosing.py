"""``ftbench choose`` as a protocol: real runs of a tiny model, a test part that nothing sees, and nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.errors import FtbenchError, Interrupted, StoreError, UsageError
from ftbench.models.locate import locate
from ftbench.reporting.choice import labels, verdict
from ftbench.reporting.choice_page import page_of, to_html, to_markdown, to_terminal
from ftbench.reporting.predictions import read_columns
from ftbench.runs.answer import answer
from ftbench.runs.auto import Chosen
from ftbench.runs.candidates import candidates
from ftbench.runs.choosing import Choosing
from ftbench.runs.engines import Setup
from ftbench.runs.grid import Grid
from ftbench.runs.journal import Journal
from ftbench.runs.race import Race as Racing
from ftbench.runs.race import Rules
from ftbench.runs.scorer import Scorer
from ftbench.runs.store import Store, read_all
from ftbench.runs.work import Options
from ftbench.tasks.parts import Parts, set_aside
from ftbench.types import Choice, Cost, CurvePoint, Record, Result, RunSpec, Standing
from ftbench.types.layers import Layers
from tests.conftest import tiny_data_of
from tests.runs.conftest import Heard

FIXED = {"steps": 3, "batch_size": 8, "lr": 1e-3, "max_length": 32}


def parts_of(**changed: Any) -> Parts:
    return set_aside(tiny_data_of(80, 24, 2, **changed))


class Race:
    """A race in a folder, to be run in several goes."""

    def __init__(
        self, root: Path, model: Path, parts: Parts, methods: tuple[str, ...], layers: tuple[str, ...]
    ) -> None:
        self.root, self.model, self.parts, self.methods, self.layers = root, locate(str(model)), parts, methods, layers
        self.said: list[str] = []

    def go(
        self,
        budget: float = 600.0,
        *,
        stop_after: int | None = None,
        data: str = "both",
        setup: Setup | None = None,
        margin: float = 0.01,
    ) -> tuple[Choosing, Heard, Grid]:
        """One command; ``stop_after`` so many runs it is interrupted, as by a signal."""
        heard = Heard()
        raced = candidates([self.model], self.methods, self.layers)
        rules = Rules(margin=margin, first=2, most=4, settled=99)
        choosing = Choosing(self.parts, raced, Store(self.root), budget, FIXED, rules, tell=self.said.append)
        known = choosing.data if data == "both" else [self.parts.pool]
        stop = lambda: stop_after is not None and len(heard.begun) >= stop_after  # noqa: E731
        options = Options(device="cpu", threads=1, should_stop=stop, setup=setup or Setup())
        choosing.jobs = options.setup.jobs
        grid = Grid(
            choosing.store, {d.fingerprint: d for d in known}, {self.model.fingerprint: self.model}, heard, options
        )
        try:
            grid.run(choosing.stages(grid))
        finally:
            choosing.journal.save()
        return choosing, heard, grid


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Choosing, Grid]:
    """A race that is over; not to be changed."""
    root = tmp_path_factory.mktemp("done")
    choosing, _, grid = Race(root, tiny_model, parts_of(), ("lora",), ("auto",)).go()
    return choosing, grid


@pytest.fixture
def race(tmp_path: Path, tiny_model: Path) -> Callable[..., Race]:
    """``race("lora", layers=("top:1",))``"""

    def make(*methods: str, layers: tuple[str, ...] = (), **changed: Any) -> Race:
        return Race(tmp_path / "runs", tiny_model, parts_of(**changed), methods, layers)

    return make


def final_of(choosing: Choosing) -> Record:
    assert choosing.final is not None
    return choosing.final


def test_the_test_part_is_in_no_run_of_the_race(race: Callable[..., Race]) -> None:
    """A grid that does not have its rows does everything but the last step."""
    one = race(layers=("auto", "top:1"))
    with pytest.raises(FtbenchError, match=one.parts.whole.fingerprint):
        one.go(data="pool")
    test = one.parts.whole.splits["validation"]
    choosing, _, _ = one.go()
    records = read_all([one.root]).records
    raced = [record for record in records if record.result.spec.data == one.parts.pool.fingerprint]
    assert len(raced) > 6 and {r.result.spec.kind for r in raced} == {"finetune", "reference", "variability"}
    pool = one.parts.pool.splits["train"]
    texts = dict(zip(pool.index.tolist(), pool.texts[0], strict=True))
    for record in raced:
        if columns := read_columns(record, ("example", "label")):
            assert set(columns["example"].tolist()) <= set(pool.index.tolist())
            scored = [texts[row] for row in columns["example"].tolist()]
            assert not set(scored) & set(test.texts[0])
    others = [
        record.result.spec for record in records if record not in raced and record.result.spec.kind != "variability"
    ]
    assert [spec.id for spec in others] == [final_of(choosing).result.spec.id]


def test_the_choice_is_trained_on_the_whole_pool_kept_and_scored_once(done: tuple[Choosing, Grid]) -> None:
    choosing, _ = done
    final = final_of(choosing)
    assert final.result.facts["rows"]["train"] == len(choosing.parts.pool.splits["train"])
    assert final.result.facts["rows"]["validation"] == 24 and (final.folder / "model").is_dir()
    assert final.result.spec.evaluations == 1 or final.result.spec.kind == "reference"
    kept = [path.parent.name for path in choosing.store.root.rglob("model") if path.is_dir()]
    assert kept == [final.folder.name] and choosing.journal.finals == [final.result.spec.id]


def test_candidates_of_a_unit_meet_the_same_rows_and_seed(done: tuple[Choosing, Grid]) -> None:
    choosing, grid = done
    by_unit: dict[int, set[tuple[int, ...]]] = {}
    for record in grid.records:
        columns = read_columns(record, ("example",))
        if record.result.spec.folds and columns:
            by_unit.setdefault(record.result.spec.data_seed, set()).add(tuple(columns["example"].tolist()))
    assert all(len(rows) == 1 for rows in by_unit.values()) and len(set.union(*by_unit.values())) == len(by_unit)
    assert choosing.spec("std", 3).seed == choosing.spec("lora", 3).seed == 3


@pytest.mark.slow
def test_workers_race_as_one_process_does(race: Callable[..., Race], done: tuple[Choosing, Grid]) -> None:
    one = race("lora", layers=("auto",))
    choosing, _, _ = one.go(setup=Setup(engine="local", jobs=2, threads=1))
    here, there = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("result.json")}
        for root in (done[0].store.root, one.root)
    )
    assert here == there and choosing.race.choice == done[0].race.choice
    assert choosing.journal.finals == done[0].journal.finals


def test_interrupted_and_continued_does_nothing_twice_and_ends_alike(race: Callable[..., Race], tmp_path: Path) -> None:
    one = race("lora")
    with pytest.raises(Interrupted):
        one.go(stop_after=4)
    first = Store(one.root)
    choosing, heard, _ = one.go()
    assert choosing.journal.spent > 0
    again, heard_again, _ = one.go()
    assert heard_again.begun == [] and final_of(again).result == final_of(choosing).result
    one.root = tmp_path / "undisturbed"
    other, _, _ = one.go()
    assert other.race.choice == choosing.race.choice
    for spec in [choosing.spec("std", 0), choosing.spec("lora", 1)]:
        names = [next(Store(root).folder(spec).glob("result.json")) for root in (first.root, one.root)]
        assert names[0].read_bytes() == names[1].read_bytes()
    assert heard.begun


def test_time_of_earlier_commands_counts(race: Callable[..., Race]) -> None:
    one = race()
    choosing, _, _ = one.go()
    spent = choosing.journal.elapsed
    later, _, _ = one.go()
    assert later.journal.spent >= 0.9 * spent
    one.methods = ("lora",)  # another race
    assert Choosing(one.parts, candidates([one.model], ("lora",), ()), Store(one.root), 60.0).journal.spent == 0


def test_another_margin_decides_anew_from_the_same_runs(race: Callable[..., Race]) -> None:
    one = race("lora")
    choosing, _, _ = one.go()
    choosing.journal.out = {"lora": "at most 0.2 points better than std"}
    choosing.journal.over = "clear"
    choosing.journal.save()
    again, heard, _ = one.go()
    assert again.race.why_over == "clear" and again.race.out == choosing.journal.out and heard.begun == []
    other, _, _ = one.go(margin=0.0)
    assert other.race.out.get("lora") != "at most 0.2 points better than std"
    assert Journal.open(other.journal.path).margin == 0.0 and other.journal.path == choosing.journal.path
    assert set(choosing.journal.finals) <= set(other.journal.finals), "how often the test part was scored is kept"
    assert other.journal.spent >= choosing.journal.spent and other.race.units("lora") >= again.race.units("lora")


def test_a_journal_forgets_what_another_margin_decided_but_not_the_time(tmp_path: Path) -> None:
    out = {"a": "worse than b", "b": "no time left to try it"}
    journal = Journal(tmp_path / "t" / "choice.json", out=out, over="clear", margin=0.01, finals=["x"], spent=5.0)
    journal.save()
    journal = Journal.open(journal.path)
    assert not journal.judge_by(0.01) and journal.out == out and journal.over == "clear"
    assert journal.judge_by(0.02) and not journal.judge_by(0.02)
    assert (journal.out, journal.over, journal.finals) == ({"b": "no time left to try it"}, "", ["x"])
    journal.path.write_text(journal.path.read_text().replace('"margin"', '"other"'))  # of an earlier version
    assert Journal.open(journal.path).spent >= 5 and Journal.open(journal.path).judge_by(0.01)


def test_a_journal_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("text,label\n")
    with pytest.raises(StoreError, match=r"cannot make the output folder .*two\.csv/task"):
        Journal.open(tmp_path / "two.csv" / "task" / "choice.json").save()


def test_a_budget_too_short_for_the_default_alone_says_what_it_needs(race: Callable[..., Race]) -> None:
    with pytest.raises(UsageError, match=r"--budget 1s is too short: a run of std takes \d+ s here.*try --budget \d+m"):
        race().go(budget=1.0)


def test_a_budget_is_hopeless_only_while_the_default_has_no_run(race: Callable[..., Race]) -> None:
    """The first round takes the linear model, too: std may be done when the time is over."""
    one = race()
    choosing, _, _ = one.go()
    fresh = Choosing(one.parts, candidates([one.model], (), ()), Store(one.root), 1e-9, FIXED, Rules())
    assert not fresh.race.units("std") and not fresh.is_hopeless
    (choosing.store.folder(fresh.spec("std", 0)) / "result.json").unlink()
    assert fresh.is_hopeless


def test_a_candidate_that_fails_is_out_and_the_others_go_on(
    race: Callable[..., Race], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom ftbench.methods.method import Method\n"
        "@dataclass\nclass Bad(Method):\n    name = 'bad'\n    family = 'own'\n    summary = 'fails'\n"
        "    cite = 'none'\n"
        "    def prepare(self, start):\n        raise RuntimeError('no luck')\n"
    )
    monkeypatch.chdir(tmp_path)
    one = race("mine:Bad", "lora")
    choosing, _, _ = one.go()
    assert choosing.race.out["mine:Bad"] == "failed: RuntimeError: no luck" and choosing.race.units("lora") >= 2


def test_a_method_that_watches_scores_never_watches_those_it_is_judged_by(race: Callable[..., Race]) -> None:
    choosing = Choosing(parts_of(), candidates([race().model], ("early-stop",), ()), Store(Path("x")), 60.0, FIXED)
    assert choosing.spec("early-stop", 0).select_on and choosing.last("early-stop").select_on
    assert not choosing.spec("std", 0).select_on


def test_layers_that_are_measured_are_measured_on_the_rows_of_the_draw(done: tuple[Choosing, Grid]) -> None:
    choosing, grid = done
    measured = [r.result for r in grid.records if r.result.spec.kind == "variability" and r.result.spec.folds]
    assert len(measured) >= 2 and len({r.spec.data_seed for r in measured}) == len(measured)
    pool = len(choosing.parts.pool.splits["train"])
    assert all(r.facts["rows"]["train"] < pool for r in measured)


def test_the_curve_of_measured_layers_measures_them_on_its_own_rows(
    race: Callable[..., Race], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``Chosen`` for a measure of half the rows is another one, so that it can be told by whom a run was told."""

    def chosen(record: Record, rule: object) -> Chosen:
        return Chosen(Layers(1, 1, 1) if record.result.spec.train_size else Layers(2, 2, 2), "made up", 2)

    monkeypatch.setattr("ftbench.runs.choosing.choose_layers", chosen)
    monkeypatch.setattr(Racing, "choice", property(lambda self: "layers auto"))
    choosing, _, grid = race(layers=("auto",)).go()
    specs = [record.result.spec for record in grid.records]
    small = [spec for spec in specs if spec.train_size and spec.kind == "finetune"]
    measured = {(spec.train_size, spec.data_seed) for spec in specs if spec.train_size and spec.kind == "variability"}
    assert {str(spec.layers) for spec in small} == {"1:1:1"}
    assert len(small) >= 2 and {(spec.train_size, spec.data_seed) for spec in small} == measured
    assert {spec.layers for spec in specs if spec.kind == "finetune" and not spec.train_size} >= {"2:2:2"}
    points = [point for point in answer(choosing, grid.records, "").curve if point.name == "layers auto"]
    assert len(points) == len(choosing.sizes)


def test_what_is_tuned_and_linear_train_on_all_rows_of_a_draw_whatever_the_task_does_by_default(
    race: Callable[..., Race],
) -> None:
    data = tiny_data_of(80, 24, 2)
    parts = set_aside(replace(data, task=replace(data.task, default_train_size=16)))
    choosing = Choosing(parts, candidates([race().model], ("lora",), ()), Store(Path("x")), 60.0, FIXED)
    specs = [how(name) for name in choosing.by_name for how in (choosing.last, lambda name: choosing.spec(name, 0))]
    assert {spec.train_size for spec in specs} == {None} and len(specs) == 2 * len(choosing.by_name)


@pytest.mark.parametrize("regression", [False, True])
def test_the_page_says_what_was_found_in_every_form(
    race: Callable[..., Race], done: tuple[Choosing, Grid], regression: bool
) -> None:
    choosing, grid = done
    if regression:
        choosing, _, grid = race(regression=True).go()
    found = answer(choosing, grid.records, "ftbench choose <reviews>.csv")
    page = page_of(found, final_of(choosing))
    terminal, markdown, html = to_terminal(page), to_markdown(page), to_html(page, grid.records)
    for form in (terminal, markdown, html):
        assert found.choice in form and "ftbench predict" in form and "What labels bring" in form
    assert "<reviews>" not in html and "&lt;reviews&gt;" in html
    assert "More labels: from" in " ".join(terminal.split())
    assert found.serving["milliseconds"] > 0 and found.serving["parameters"] > 0
    assert {point.name for point in found.curve} >= {"linear"} and len({p.rows for p in found.curve}) > 1
    assert found.rows["pool"] + found.rows["test"] <= 104 and found.scored == 1
    score = final_of(choosing).result.score(found.metric, "linear" if found.choice == "linear" else "last")
    assert f"scores {found.metric} {score:.3f} [" in " ".join(terminal.split())


def standings_of(choice: Choice, **gains: tuple[float, float, float]) -> Choice:
    """The choice with other differences to std."""
    changed = tuple(
        replace(one, gain=gains[one.name][0], low=gains[one.name][1], high=gains[one.name][2])
        if one.name in gains
        else one
        for one in choice.standings
    )
    return replace(choice, standings=changed)


def test_the_verdict_names_what_it_rests_on(done: tuple[Choosing, Grid]) -> None:
    choosing, grid = done
    found = answer(choosing, grid.records, "ftbench choose")
    std = standings_of(
        replace(found, choice="std", base="std"), lora=(0.004, -0.02, 0.03), linear=(-0.05, -0.09, -0.01)
    )
    assert verdict(std) == (
        "Use std: plain fine-tuning. Nothing that was tried is reliably better; the best of it, lora, is ahead by "
        "+0.4 [-2.0, +3.0] points, which may be chance."
    )
    two_draws = standings_of(std, lora=(0.004, -0.62, 0.63))
    assert "lora, is ahead by +0.4 points, which may be chance" in verdict(two_draws), "an interval that says nothing"
    lora = standings_of(replace(found, choice="lora", base="std"), lora=(0.05, 0.02, 0.08))
    assert verdict(lora) == "Use lora: it is better than std by +5.0 [+2.0, +8.0] points."
    linear = replace(found, choice="linear", base="linear")
    close = standings_of(linear, linear=(0.002, -0.008, 0.012))
    assert verdict(close).startswith(
        "Do not fine-tune: logistic regression on the frozen features (linear) is as good: std"
    )
    assert "ahead by 0.8 points at most" in verdict(close)
    assert "is better than std by +4.0 [+1.0, +7.0]" in verdict(standings_of(linear, linear=(0.04, 0.01, 0.07)))


@pytest.mark.parametrize("rows", [80, 81, 82, 83])
def test_the_last_doubling_is_said_whatever_the_number_of_rows(
    race: Callable[..., Race], done: tuple[Choosing, Grid], rows: int
) -> None:
    pool = set_aside(tiny_data_of(rows, 24, 2))
    choosing = Choosing(pool, candidates([race().model], (), ()), Store(Path("x")), 60.0, FIXED)
    n, (*smaller, whole) = len(pool.pool.splits["train"]), choosing.sizes
    assert whole == n - n // 4 and smaller == [n * 3 // 4 // 4, n * 3 // 4 // 2]
    curve = [
        CurvePoint(name=name, rows=size, units=3, mean=0.8, gain=gain, low=gain, high=gain)
        for name in ("linear", "std")
        for size, gain in zip(choosing.sizes, (None, 0.03, 0.02), strict=True)
    ]
    found = replace(answer(done[0], done[1].records, "ftbench choose"), curve=curve)
    (half, word) = (smaller[-1], "so labelling more is worth it")
    each = [f"from {half} to {whole} rows {name} gained +2.0 points [+2.0, +2.0], {word}" for name in ("linear", "std")]
    assert labels(found) == f"More labels: {'; '.join(each)}."
    assert labels(replace(found, curve=[replace(point, gain=None) for point in curve])) == ""


def test_what_is_behind_or_std_itself_is_not_called_undecided(done: tuple[Choosing, Grid]) -> None:
    choosing, grid = done
    found = replace(answer(choosing, grid.records, "ftbench choose"), choice="std", base="std")
    standings = (
        found.standing("std"),
        Standing(name="near", units=8, mean=0.8, seconds=1.0, gain=-0.004, low=-0.022, high=0.014),
        Standing(name="linear", units=8, mean=0.6, seconds=1.0, gain=-0.167, low=-0.215, high=-0.119),
        Standing(name="auto", units=3, mean=0.8, seconds=1.0, out="dropped", gain=0.0, low=0.0, high=0.0),
    )
    said = " ".join(to_terminal(page_of(replace(found, standings=standings), final_of(choosing))).split())
    assert "the next one, near, is behind by 0.4 points" in said
    assert "Not told apart (points over std): near (-0.4 [-2.2, +1.4])." in said
    assert "Behind (points over std): linear (-16.7 [-21.5, -11.9])." in said
    assert "Dropped on the way: auto, always std itself." in said
    for margin, ends in ((0.01, "; less than a point is taken"), (0.005, "; less than 0.5 points is"), (0.0, ".")):
        said = " ".join(to_terminal(page_of(replace(found, margin=margin), final_of(choosing))).split())
        assert f"says that it is better{ends}" in said


def test_scores_are_turned_where_lower_is_better(tmp_path: Path) -> None:
    scorer = Scorer(parts_of(regression=True).pool.splits["train"], "mse")
    spec = RunSpec(kind="finetune", task="t", data="d", weights="w", steps=1)
    scores = {"last": {"validation": {"mse": 0.5}}}
    result = Result(spec=spec, status="ok", metrics=scores, facts={"lower_is_better": True})
    scored = scorer.scored(Record(tmp_path, result, Cost()), "last", 1.0)
    assert scored is not None and scored.score == -0.5 and np.all(scored.resampled == -0.5)
