"""Python files that come with a model: never run unasked; asked for, they are part of what a run is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ftbench.errors import UsageError
from ftbench.models.locate import fingerprint, locate
from tests.cli.conftest import call

#: by family: what its classes are called, and the head that a command loads
FAMILIES = {"bert": ("Bert", "ForSequenceClassification"), "bart": ("Bart", "ForConditionalGeneration")}
AUTO = {"bert": "AutoModelForSequenceClassification", "bart": "AutoModelForSeq2SeqLM"}
CODE = """
from pathlib import Path
from transformers import {name}Config, {name}{head}, {name}Model

Path("{mark}").write_text("it was run")


class OwnConfig({name}Config):
    model_type = "own"


class OwnModel({name}Model):
    config_class = OwnConfig


class OwnHead({name}{head}):
    config_class = OwnConfig
"""


@pytest.fixture
def with_code(
    tiny_family: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Path, Path]]:
    """``with_code("bart")``: a model folder with code of its own, and the file that the code leaves when it is run."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))

    def make(family: str = "bert") -> tuple[Path, Path]:
        folder, mark = tmp_path / "own-model", tmp_path / "mark"
        shutil.copytree(tiny_family(family), folder)
        name, head = FAMILIES[family]
        (folder / "own_code.py").write_text(CODE.format(mark=mark, name=name, head=head))
        config = json.loads((folder / "config.json").read_text())
        classes = {"AutoConfig": "OwnConfig", "AutoModel": "OwnModel", AUTO[family]: "OwnHead"}
        config |= {"model_type": "own", "auto_map": {auto: f"own_code.{own}" for auto, own in classes.items()}}
        (folder / "config.json").write_text(json.dumps(config))
        return folder, mark

    return make


#: short of the task and the model
COMMANDS: dict[str, list[str]] = {
    "finetune": ["--steps", "2", "--seeds", "0", "--no-references", "--max-length", "32"],
    "summarize": [
        "--steps", "2", "--num-beams", "1", "--max-target-length", "4", "--max-new-tokens", "2", "--no-references",
        "--text", "text", "--summary", "label",
    ],
    "probe": ["--steps", "2", "--seeds", "0", "--repeats", "1", "--no-reference-text", "--max-length", "32"],
    "variability": ["--permutations", "19", "--bootstrap", "20", "--no-probe", "--max-length", "32"],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_only_by_a_flag_that_is_recorded(
    command: str,
    with_code: Callable[..., tuple[Path, Path]],
    tiny_folder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, mark = with_code("bart" if command == "summarize" else "bert")
    rows = str(tiny_folder())
    task = ["--source", rows, "--targets", rows] if command == "probe" else ["-t", rows]
    asked = [command, *task, "-m", str(folder), *COMMANDS[command]]
    asked += ["--device", "cpu", "--threads", "1", "--quiet", "-o", str(tmp_path / "runs")]
    assert call(*asked) == 2
    assert "own-model' cannot be loaded" in capsys.readouterr().err
    assert not mark.exists(), "its code was run"
    assert call(*asked, "--trust-remote-code") == 0, capsys.readouterr().err
    assert mark.exists()
    results = list((tmp_path / "runs").rglob("result.json"))
    assert results
    for path in results:
        stored = json.loads(path.read_text())
        assert stored["status"] == "ok" and stored["spec"]["remote_code"] is True
        assert "--trust-remote-code" in json.loads((path.parent / "environment.json").read_text())["command"]


def test_predict_runs_it_by_the_flag_only(
    with_code: Callable[..., tuple[Path, Path]],
    tiny_folder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a run, and of a model that somebody gave us: that it was trusted once says nothing of now."""
    folder, mark = with_code()

    runs, given, new = tmp_path / "runs", tmp_path / "given", tmp_path / "new.csv"
    settings = [*COMMANDS["finetune"], "--device", "cpu", "--threads", "1", "--quiet", "--save-model", "best"]
    tuned = call("finetune", "-t", tiny_folder(), "-m", folder, *settings, "-o", runs, "--trust-remote-code")
    assert tuned == 0, capsys.readouterr().err
    shutil.copytree(next(runs.rglob("model")), given)
    new.write_text("text\na good film\n")
    for trained in (runs, given):
        mark.unlink()
        predict = ["predict", trained, new, "--text", "text", "--device", "cpu"]
        assert call(*predict) == 2
        assert "cannot be loaded" in capsys.readouterr().err
        assert not mark.exists(), "its code was run"
        assert call(*predict, "--trust-remote-code") == 0
        assert mark.exists() and "prediction" in capsys.readouterr().out


def test_what_transformers_alone_makes_runs_no_code(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"bert2bert:.* leave out --trust-remote-code"):
        locate(f"bert2bert:{tiny_model}", remote_code=True)


def test_code_that_may_be_run_is_part_of_the_fingerprint(with_code: Callable[..., tuple[Path, Path]]) -> None:
    folder, _ = with_code()
    trusted, plain = locate(str(folder), remote_code=True), locate(str(folder))
    assert trusted.remote_code and not plain.remote_code and trusted.fingerprint != plain.fingerprint
    (folder / "own_code.py").write_text("other code")
    assert fingerprint(folder, remote_code=True) != trusted.fingerprint
    assert fingerprint(folder) == plain.fingerprint
