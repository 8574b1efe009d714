"""``ftbench choose`` as a protocol: real runs of a tiny model, a test part that nothing sees, and nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.errors import FtbenchError, Interrupted, UsageError
from ftbench.models.locate import locate
from ftbench.reporting.choice import verdict
from ftbench.reporting.choice_page import page_of, to_html, to_markdown, to_terminal
from ftbench.reporting.predictions import read_columns
from ftbench.runs.answer import answer
from ftbench.runs.candidates import candidates
from ftbench.runs.choosing import Choosing
from ftbench.runs.engines import Setup
from ftbench.runs.grid import Grid
from ftbench.runs.race import Rules
from ftbench.runs.scorer import Scorer
from ftbench.runs.store import Store, read_all
from ftbench.runs.work import Options
from ftbench.tasks.parts import Parts, set_aside
from ftbench.types import Choice, Cost, Record, Result, RunSpec, Standing
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
        self, budget: float = 600.0, *, stop_after: int | None = None, data: str = "both", setup: Setup | None = None
    ) -> tuple[Choosing, Heard, Grid]:
        """One command; ``stop_after`` so many runs it is interrupted, as by a signal."""
        heard = Heard()
        raced = candidates([self.model], self.methods, self.layers)
        rules = Rules(first=2, most=4, settled=99)
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


def test_a_budget_too_short_for_the_default_alone_says_what_it_needs(race: Callable[..., Race]) -> None:
    with pytest.raises(UsageError, match=r"--budget 1s is too short: a run of std takes \d+ s here.*try --budget \d+m"):
        race().go(budget=1.0)


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
    lora = standings_of(replace(found, choice="lora", base="std"), lora=(0.05, 0.02, 0.08))
    assert verdict(lora) == "Use lora: it is better than std by +5.0 [+2.0, +8.0] points."
    linear = replace(found, choice="linear", base="linear")
    close = standings_of(linear, linear=(0.002, -0.008, 0.012))
    assert verdict(close).startswith(
        "Do not fine-tune: logistic regression on the frozen features (linear) is as good: std"
    )
    assert "ahead by 0.8 points at most" in verdict(close)
    assert "is better than std by +4.0 [+1.0, +7.0]" in verdict(standings_of(linear, linear=(0.04, 0.01, 0.07)))


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
