"""Python files that come with a model: never run unasked; asked for, they are part of what a run is."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ftbench.cli.app import main
from ftbench.models.locate import fingerprint, locate

CODE = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification, BertModel

Path("{mark}").write_text("it was run")


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(BertModel):
    config_class = OwnConfig


class OwnClassifier(BertForSequenceClassification):
    config_class = OwnConfig
"""


@pytest.fixture
def with_code(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A model folder with code of its own, and the file that the code leaves when it is run."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, mark = tmp_path / "own-model", tmp_path / "mark"
    shutil.copytree(tiny_model, folder)
    (folder / "own_code.py").write_text(CODE.format(mark=mark))
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "OwnConfig", "AutoModel": "OwnModel"}
    classes["AutoModelForSequenceClassification"] = "OwnClassifier"
    config |= {"model_type": "own", "auto_map": {auto: f"own_code.{own}" for auto, own in classes.items()}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, mark


def test_only_by_a_flag_that_is_recorded(
    with_code: tuple[Path, Path],
    tiny_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, mark = with_code
    asked = [
        "ftbench", "finetune", "-t", str(tiny_folder()), "-m", str(folder), "--steps", "2", "--seeds", "0", "--device",
        "cpu", "--threads", "1", "--max-length", "32", "--no-references", "--quiet", "-o", str(tmp_path / "runs"),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", asked)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "own-model' cannot be loaded" in capsys.readouterr().err
    assert not mark.exists(), "its code was run"
    monkeypatch.setattr(sys, "argv", [*asked, "--trust-remote-code"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert mark.exists()
    (result,) = (tmp_path / "runs").rglob("result.json")
    stored = json.loads(result.read_text())
    assert stored["status"] == "ok" and stored["spec"]["remote_code"] is True
    assert "--trust-remote-code" in json.loads((result.parent / "environment.json").read_text())["command"]


def test_code_that_may_be_run_is_part_of_the_fingerprint(with_code: tuple[Path, Path]) -> None:
    folder, _ = with_code
    trusted, plain = locate(str(folder), remote_code=True), locate(str(folder))
    assert trusted.remote_code and not plain.remote_code and trusted.fingerprint != plain.fingerprint
    (folder / "own_code.py").write_text("other code")
    assert fingerprint(folder, remote_code=True) != trusted.fingerprint
    assert fingerprint(folder) == plain.fingerprint
