"""Finding a checkpoint, what is refused, and what its fingerprint depends on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ftbench.errors import FtbenchError, UsageError
from ftbench.models import locate as module
from ftbench.models.locate import DEFAULT_MODEL, MODELS, fingerprint, is_unchanged, locate, packaged_folder


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "copy")


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_local_folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = locate(str(copy))
    assert found.folder == copy and found.name == str(copy) and len(found.fingerprint) == 16
    monkeypatch.chdir(copy.parent)
    assert locate("copy").fingerprint == locate("./copy").fingerprint == found.fingerprint


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model folder '.*nowhere' does not exist"):
        locate(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"model folder '\./nowhere' does not exist"):
        locate("./nowhere")


def test_a_file_is_no_folder(copy: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        locate(str(copy / "config.json"))


def test_no_configuration(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(UsageError, match=r"has no config\.json; found: model\.safetensors, tokenizer"):
        locate(str(copy))


def test_pickled_weights_only(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pickled weights only \(pytorch_model\.bin\).*save_pretrained"):
        locate(str(copy))


def test_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"has no model\.safetensors; found: config\.json"):
        locate(str(copy))


def test_no_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="has no tokenizer"):
        locate(str(copy))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"])
def test_one_byte_changes_the_fingerprint(name: str, copy: Path, tiny_model: Path) -> None:
    assert fingerprint(copy) == fingerprint(tiny_model)
    flip_last_byte(copy / name)
    assert fingerprint(copy) != fingerprint(tiny_model)


def test_neither_the_folders_name_nor_other_files_change_the_fingerprint(copy: Path) -> None:
    before = fingerprint(copy)
    (copy / "README.md").write_text("about")
    (copy / "optimizer.safetensors").write_bytes(b"x")
    assert fingerprint(copy.rename(copy.with_name("other name"))) == before


def test_a_second_shard_changes_the_fingerprint(copy: Path) -> None:
    before = fingerprint(copy)
    shutil.copy(copy / "model.safetensors", copy / "model-00002-of-00002.safetensors")
    assert fingerprint(copy) != before


def test_how_a_model_writes_is_part_of_an_encoder_decoders_fingerprint(
    copy: Path, tiny_family: Callable[[str], Path], tmp_path: Path
) -> None:
    """generation_config.json holds a start token and forced tokens, which change summaries; of an encoder, nothing."""
    before = fingerprint(copy)
    (copy / "generation_config.json").write_text("{}")
    assert fingerprint(copy) == before
    writer = shutil.copytree(tiny_family("bart"), tmp_path / "writer")
    file = writer / "generation_config.json"
    prints = []
    for forced in (None, 5):
        file.write_text(json.dumps({"forced_bos_token_id": forced}))
        found = locate(str(writer))
        prints.append(found.fingerprint)
        assert is_unchanged(found)
    file.unlink()
    assert not is_unchanged(found)
    assert len({*prints, fingerprint(writer)}) == 3


def test_all_that_the_fingerprint_is_of_is_fetched(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(repo: str, *, allow_patterns: list[str], **options: object) -> str:
        asked.extend(allow_patterns)
        return str(tiny_model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    locate("org/tiny")
    assert {"config.json", "generation_config.json", "tokenizer.json", "model*.safetensors"} <= set(asked)


def test_the_packaged_model_is_the_published_one() -> None:
    if packaged_folder(MODELS[DEFAULT_MODEL]) is None:
        pytest.skip("the embedded extra is not installed")
    assert locate(DEFAULT_MODEL).folder.is_dir()


def test_a_packaged_model_that_was_changed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = dataclasses.replace(MODELS[DEFAULT_MODEL], sha256=module.file_hash(copy / "model.safetensors"))
    monkeypatch.setitem(module.MODELS, DEFAULT_MODEL, model)
    monkeypatch.setattr(module, "packaged_folder", lambda _: copy)
    assert locate(DEFAULT_MODEL).folder == copy
    flip_last_byte(copy / "model.safetensors")
    with pytest.raises(FtbenchError, match=r"are not the published ones: sha256 .* Install the package again"):
        locate(DEFAULT_MODEL)


def test_a_hub_id_without_network() -> None:
    with pytest.raises(FtbenchError, match=r"model 'minilmm' is neither a local folder.*Did you mean 'minilm'\?"):
        locate("minilmm")
    with pytest.raises(FtbenchError, match=r"'some-org/some-model' is neither.*check the name and the network"):
        locate("some-org/some-model")


def test_a_mistyped_name_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2; what the network lacks is 1."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "std-seed0").mkdir(parents=True)
    for name, near in {
        "minilmm": "minilm", "runs/std-sed0": "runs/std-seed0", "bert2bert:minilmm": "minilm",
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=f"Did you mean '{near}'"):
            locate(name)
    with pytest.raises(UsageError, match="neither a local folder"):
        locate("runs/task/std-seed0")
    with pytest.raises(FtbenchError, match="check the name and the network") as error:
        locate("some-org/some-model")
    assert error.value.exit_code == 1


@pytest.mark.parametrize("kind", ["RepositoryNotFoundError", "RevisionNotFoundError"])
def test_what_the_hub_does_not_have_is_wrong_usage(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.errors

    error = getattr(huggingface_hub.errors, kind)

    def refuse(*arguments: object, **options: object) -> str:
        raise error.__new__(error)  # it wants a response

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(UsageError, match=f"'some-org/some-model' is neither .*{kind}"):
        locate("some-org/some-model", "v2")


def test_a_packaged_model_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = dataclasses.replace(MODELS[DEFAULT_MODEL], distribution="not-installed-at-all")
    monkeypatch.setitem(module.MODELS, DEFAULT_MODEL, model)
    with pytest.raises(FtbenchError, match='or install it: pip install "not-installed-at-all"'):
        locate(DEFAULT_MODEL)


@pytest.mark.parametrize(("content", "message"), [("[]", "is not a JSON object"), ("{", "is not JSON")])
def test_a_configuration_that_is_none(tiny_model: Path, tmp_path: Path, content: str, message: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "config.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        locate(str(folder))


def test_a_revision_is_for_the_hub(tiny_model: Path) -> None:
    """Silently ignored, it would be a wrong label on every number."""
    for name in (str(tiny_model), "minilm"):
        with pytest.raises(UsageError, match="--revision is for models of the hub"):
            locate(name, "main")


def test_the_packaged_model_from_the_hub_is_checked_too(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is gone the hub stands in; its weights must be the published ones as well."""
    monkeypatch.setattr(module, "packaged_folder", lambda model: None)
    monkeypatch.setattr(module, "_from_hub", lambda repo, revision, hint: tiny_model)
    with pytest.raises(FtbenchError, match="of the hub are not the published ones"):
        locate("minilm")
