"""Study files: what they become, and what is said of a wrong one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.cli.run import plan, run
from ftbench.cli.studying import _opened, _whole, plan_file, run_file
from ftbench.cli.written import COMMANDS, prepare, settings
from ftbench.errors import UsageError
from ftbench.methods import method_class
from ftbench.models.locate import Checkpoint
from ftbench.reporting.claims import claims
from ftbench.runs.overview import look_ahead
from ftbench.runs.store import Store
from ftbench.runs.study_file import STUDIES, cells, idle_rules, read_study
from ftbench.types import Data, Rows, Task

STUDY = """
title = "A try"

[defaults]
seeds = "0-1"
limit = 48

[axes]
task = ["news-topic", "news-article"]

[stage.tune.defaults]
steps = 4

[stage.tune.axes]
method = ["r3f", "r3f:eps=0"]
warmup = [0.0, 0.1]

[[stage.tune.override]]
when = { task = "news-article" }
set = { lr = 5e-5 }

[[stage.tune.exclude]]
task = "news-article"
method = "r3f:eps=0"

[stage.layers]
command = "variability"

[profile.quick.defaults]
seeds = "0"

[profile.quick.axes]
task = ["news-topic"]
"""


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str) -> str:
        path = tmp_path / "study.toml"
        path.write_text(text)
        return str(path)

    return write


def test_axes_overrides_and_excludes(written: Any) -> None:
    study, _ = read_study(written(STUDY), None, settings())
    tune, layers = study.stages
    assert (tune.name, tune.command, layers.command) == ("tune", "finetune", "variability")
    assert list(cells(layers)) == [{"seeds": "0-1", "limit": 48, "task": ["news-topic", "news-article"]}]
    found = {cell["task"]: cell for cell in cells(tune)}
    assert found["news-topic"]["method"] == ["r3f", "r3f:eps=0"] and "lr" not in found["news-topic"]
    assert found["news-article"]["method"] == ["r3f"] and found["news-article"]["lr"] == 5e-5
    assert all(cell["warmup"] == [0.0, 0.1] for cell in found.values())


def test_an_override_of_an_axis_holds_and_gives_each_cell_once(written: Any) -> None:
    text = (
        '[axes]\ntask = ["rte", "mrpc"]\nlr = [1e-5, 2e-5]\nmethod = ["std", "r3f"]\n'
        '[[override]]\nwhen = { task = "rte" }\nset = { lr = 5e-5 }\n'
    )
    study, _ = read_study(written(text), None, settings())
    found = [(cell["task"], cell["lr"], cell["method"]) for cell in cells(study.stages[0])]
    methods = ["std", "r3f"]
    assert found == [("rte", 5e-5, methods), ("mrpc", 1e-5, methods), ("mrpc", 2e-5, methods)]
    for said, expected in (('"r4f"', ["r4f"]), ('["r4f", "std"]', ["r4f", "std"])):
        study, _ = read_study(written(text.replace("lr = 5e-5", f"method = {said}")), None, settings())
        found = [(cell["task"], cell["method"]) for cell in cells(study.stages[0])]
        assert found == [("rte", expected), ("mrpc", methods)]


def test_a_rule_that_matches_nothing_is_said(written: Any, tmp_path: Path, capsys: Any) -> None:
    idle = STUDY + '\n[[stage.tune.exclude]]\ntask = "nope"\nmethod = ["r3f", "r4f"]\n'
    idle += "\n[[stage.tune.override]]\nwhen = { lr = 3e-5 }\nset = { steps = 8 }\n"
    study, _ = read_study(written(idle), None, settings())
    assert idle_rules(study) == [
        "override lr=3e-05 matches nothing",
        "exclude task=nope method=r3f,r4f matches nothing",
    ]
    _opened(written(idle), None, tmp_path / "runs")
    assert "note: exclude task=nope method=r3f,r4f matches nothing\n" in capsys.readouterr().err
    assert idle_rules(read_study(written(STUDY), None, settings())[0]) == []


def test_a_rule_of_all_stages_may_match_in_one(written: Any) -> None:
    text = (
        '[[exclude]]\ntask = "rte"\nmethod = "r3f"\n[stage.one.axes]\ntask = ["rte", "mrpc"]\nmethod = ["std", "r3f"]\n'
        '[stage.two.axes]\ntask = ["cola"]\n'
    )
    assert idle_rules(read_study(written(text), None, settings())[0]) == []


def test_a_study_becomes_the_runs_of_its_commands(written: Any, tmp_path: Path) -> None:
    study, source, store = _opened(written(STUDY), None, tmp_path / "runs")
    tune = look_ahead(_whole(study.stages[0], source, store, {}).stages, store).runs.values()
    tuned = {(s.task, s.method, s.warmup, s.lr, s.seed) for s in tune if s.kind == "finetune"}
    expected = {
        ("news-topic", method, warmup, 1e-4, seed)
        for method in ("std", "r3f", "r3f:eps=0") for warmup in (0.0, 0.1) for seed in (0, 1)
    } | {
        ("news-article", method, warmup, 5e-5, seed)
        for method in ("std", "r3f") for warmup in (0.0, 0.1) for seed in (0, 1)
    }  # fmt: skip
    assert tuned == expected
    assert sum(s.kind == "reference" for s in tune) == 2, "one for each set of rows"
    layers = look_ahead(_whole(study.stages[1], source, store, {}).stages, store).runs.values()
    assert {s.kind for s in layers} == {"variability"} and len(layers) == 4


def test_a_profile_is_laid_over(written: Any) -> None:
    study, _ = read_study(written(STUDY), "quick", settings())
    assert study.profile == "quick" and study.profiles == ["quick"]
    assert study.stages[0].axes["task"] == ["news-topic"] and study.stages[0].defaults["seeds"] == "0"
    moved = STUDY + '\n[profile.one.defaults]\ntask = "news-topic"\n'
    study, _ = read_study(written(moved), "one", settings())
    assert "task" not in study.stages[1].axes and study.stages[1].defaults["task"] == "news-topic"


@pytest.mark.parametrize(("text", "said"), [
    ("[defaults]\nsedes = 1\n", r"study.toml, line 2: unknown setting 'sedes' of finetune. Did you mean 'seeds'"),
    ("\n[default]\nseeds = 1\n", r"line 2: unknown key 'default'. Did you mean 'defaults'"),
    ('command = "finetun"\n', r"line 1: unknown command 'finetun'. Did you mean 'finetune'"),
    ("[defaults]\nlr = [1e-4]\n", r"line 2: 'lr' is a list: several values are an axis"),
    ("[axes]\n\nlr = 1e-4\n", r"line 3: 'lr' = 0.0001: an axis is a list"),
    ("[axes]\nlr = []\n", "line 2: .* an axis is a list"),
    ("[axes]\nlr = [[1]]\n", "line 2: 'lr': an axis is a flat list"),
    ("[defaults]\nlr = 1e-4\n[axes]\nlr = [1e-4]\n", r"line 4: 'lr' stands in \[defaults\] and in \[axes\]"),
    ("[[override]]\nwhen = { task = 'a' }\n", "line 1: an override has two tables"),
    ("[[exclude]]\ntsk = 'a'\n", "line 2: unknown setting 'tsk' of finetune. Did you mean 'task'"),
    ("[[override]]\nwhen = { task = 'a' }\nset = { lrr = 1 }\n", "line 3: unknown setting 'lrr'.* Did you mean 'lr'"),
    ("exclude = 3\n", r"line 1: expected \[\[exclude\]\] tables"),
    ("[stage.a]\ncomand = 'probe'\n", "line 2: unknown key 'comand'. Did you mean 'command'"),
    ("stage = 1\n", "line 1: 'stage' is 1: expected a table"),
    ("[stage.a.defaults]\nstep = 1\n", "line 2: unknown setting 'step' of finetune. Did you mean 'steps'"),
    ("[defaults]\nlr = { a = 1 }\n", "line 2: 'lr' is a table"),
    ("[[command]]\n", "unknown command"), ("command = 3\n", "line 1: unknown command '3'"),
    ("title = 3\n", "line 1: title is 3: expected str"),
    ("[defaults\n", "is not TOML"),
    ("[defaults]\ntrust-remote-code = true\n", "line 2: unknown setting 'trust-remote-code'"),
    ("[defaults]\njobs = 3\n", "line 2: unknown setting 'jobs'"),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(written: Any, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_study(written(text), None, settings())


@pytest.mark.parametrize(("text", "said"), [
    ('[axes]\ntask = ["news-topic", "news-mach"]\n', "line 2: unknown task 'news-mach'. Did you mean 'news-match'"),
    ('[defaults]\nlimit = 2.5\n', "line 2: 'limit' is 2.5: expected a whole number"),
    ('[defaults]\nlimit = true\n', "line 2: 'limit' is True"),
    ('[defaults]\nno-baseline = "yes"\n', "line 2: 'no-baseline' is 'yes': expected true or false"),
    ('[defaults]\nsteps = 4\nepochs = 2\n', "give --epochs or --steps"),
    ('[axes]\nmethod = ["os.path:join"]\n', "line 2: 'os.path:join' is a Python module, and a study file runs no code"),
    ('[axes]\nmethod = ["r3f+os:system:x=1"]\n', "line 2: 'os:system' is a Python module"),
    ('[defaults]\nmethod = "r3f"\nsearch = ["os:system:weight=1,2"]\n', "line 3: 'os:system' is a Python module"),
    ('[axes]\nmethod = ["r3ff"]\n', "line 2: unknown method 'r3ff'. Did you mean 'r3f'"),
])  # fmt: skip
def test_what_the_command_refuses_is_said_with_its_line(written: Any, tmp_path: Path, text: str, said: str) -> None:
    study, source = read_study(written(text), None, settings())
    with pytest.raises(UsageError, match=said):
        prepare(study.stages[0], source, tmp_path / "runs", {})


#: how a study is carried out, and looked at
WAYS: dict[str, Any] = {
    "plan": lambda: plan_file("x", None, None, {}, sample=0, commands=False, as_json=False),
    "run": lambda: run_file("x", None, None, {}, save_model=None, track=None, quiet=True, as_json=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_that_a_study_names_is_imported(
    way: str, written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what is named when a later stage is planned."""
    (tmp_path / f"mine_{way}.py").write_text("class X: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ftbench.cli.studying._opened", lambda *given: method_class(f"mine_{way}:X"))
    with pytest.raises(UsageError, match=f"'mine_{way}:X' is a Python module"):
        WAYS[way]()
    assert f"mine_{way}" not in sys.modules
    with pytest.raises(UsageError, match=f"'mine_{way}:X' is not a method"):
        method_class(f"mine_{way}:X")  # outside of a study it is read


def test_excludes_of_everything_are_an_error(written: Any, tmp_path: Path) -> None:
    path = written('[axes]\ntask = ["news-topic"]\n[[exclude]]\ntask = "news-topic"\n')
    study, source, store = _opened(path, None, tmp_path)
    with pytest.raises(UsageError, match="no run is left"):
        _whole(study.stages[0], source, store, {})


def test_names_of_studies() -> None:
    with pytest.raises(UsageError, match="unknown study 'clam-3'"):
        read_study("clam-3", None, settings())
    with pytest.raises(UsageError, match="cannot read the study"):
        read_study("nowhere.toml", None, settings())
    with pytest.raises(UsageError, match="no profile 'qick'"):
        read_study("claim-3", "qick", settings())


def test_each_claim_has_its_study_that_says_what_is_verified() -> None:
    assert {path.stem for path in STUDIES.glob("*.toml")} == {f"claim-{claim.number}" for claim in claims()}
    for claim in claims():
        study, _ = read_study(f"claim-{claim.number}", None, settings())
        assert study.claim == claim.number and study.verified and study.ours and study.title
        assert "quick" in study.profiles
        for profile in (None, *study.profiles):
            assert idle_rules(read_study(f"claim-{claim.number}", profile, settings())[0]) == []


#: training rows of the smaller tasks, as published; the others have more than any study takes
TRAIN_ROWS = {"rte": 2490, "mrpc": 3668, "cola": 8551, "stsb": 5749, "trec": 4907, "boolq": 9427, "mr": 8530}
MORE = 12_000


def made_up(task: Task) -> Data:
    """Rows of a declared task in its published number, with nothing in them."""

    def rows(n: int) -> Rows:
        order = np.arange(n, dtype=np.int64)
        labels = order % max(len(task.labels), 2)
        return Rows(
            tuple(tuple(f"{column} {row}" for row in order) for column in task.inputs),
            labels * 1.0 if task.kind == "regression" else labels * (task.kind == "classification"),
            order,
            summaries=tuple((f"row {row}",) for row in order) if task.kind == "summarization" else (),
        )

    names = () if task.kind != "classification" else task.labels or ("a", "b")
    return Data(task, {"train": rows(TRAIN_ROWS.get(task.name, MORE)), "validation": rows(300)}, names)


@pytest.mark.parametrize("number", range(1, 13))
def test_the_whole_study_can_be_planned(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rows of the published numbers and a model of the right shape: every task has the rows that are taken, every
    method what it needs, every layer is there."""
    shape = Checkpoint("a-model", tmp_path, "0" * 16, width=1024, blocks=24, decoder="own")
    for module in ("study", "probing"):
        monkeypatch.setattr(f"ftbench.cli.{module}.locate", lambda name, *args, **how: replace(shape, name=name))
    for place in ("study.load", "probing.load_once"):
        monkeypatch.setattr(f"ftbench.cli.{place}", made_up)
    monkeypatch.setattr("ftbench.cli.study._LOADED", {})
    monkeypatch.setattr("ftbench.cli.study._LOCATED", {})
    study, source, store = _opened(f"claim-{number}", None, tmp_path)
    for section in study.stages:
        whole = _whole(section, source, store, {})
        assert look_ahead(whole.stages, Store(tmp_path)).runs


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 13))
def test_the_quick_profile_can_be_planned_offline(number: int, tmp_path: Path) -> None:
    study, source, store = _opened(f"claim-{number}", "quick", tmp_path)
    for section in study.stages:
        whole = _whole(section, source, store, {})
        runs = look_ahead(whole.stages, Store(tmp_path)).runs.values()
        assert runs and all(spec.steps <= 32 for spec in runs), "a quick one ends in minutes"


def test_settings_are_the_flags_of_the_commands() -> None:
    found = settings()
    assert set(found) == set(COMMANDS)
    assert {"task", "seeds", "train-size", "lr"} <= set(found["finetune"])
    assert not {"jobs", "engine", "output-dir", "device", "context"} & {key for one in found.values() for key in one}
    assert callable(run) and callable(plan)
