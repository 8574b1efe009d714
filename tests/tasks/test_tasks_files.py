"""Users' own tables: what is read from them, and every way in which they can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from ftbench.errors import UsageError
from ftbench.tasks import sources
from ftbench.tasks.examine import examine
from ftbench.types.task import Data, Files, Task

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
        with pytest.raises(UsageError, match=r"has one class .*'spam'.*expected at least two"):
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
        with pytest.raises(UsageError, match=r"1 row has no label in column 'label', the first is row 12"):
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
        with pytest.raises(UsageError, match=r"\.csv, \.tsv, \.jsonl, \.json, \.parquet\. Save the sheet as CSV"):
            sources.load(task(tmp_path / "a.xlsx"))

    def test_a_label_column_of_another_name_is_to_be_said(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", [{"text": row["text"], "stars": row["label"]} for row in ROWS])
        with pytest.raises(
            UsageError, match=r"no label column 'label' \(another: --label COLUMN\)\. Columns: text, stars"
        ):
            sources.load(task(path))

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

    def test_copies_on_both_sides_are_said(self, tmp_path: Path) -> None:
        """With the count of ``ftbench validate``."""
        texts = [f"text {i} is one of a few that are longer than what is looked at first" for i in range(60)]
        copies = [f" {text.upper().replace(' ', '  ')}" for text in texts]
        rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate([*texts, *copies])]
        data = sources.load(task(write(tmp_path / "a.csv", rows)))
        (warning,) = [each for each in examine(data).warnings if "in train too" in each]
        assert int(warning.split()[1]) > 10
        assert data.notes[1:] == (f"task '{data.task.name}': {warning}",)

    def test_every_class_is_on_both_sides_where_it_can_be(self, tmp_path: Path) -> None:
        labels = ["a"] * 20 + ["b", "b", "c"]
        rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]
        data = sources.load(task(write(tmp_path / "a.csv", rows)))
        assert set(data.splits["train"].labels.tolist()) == {0, 1, 2}
        assert set(data.splits["validation"].labels.tolist()) == {0, 1}

    def test_at_most_a_thousand_rows(self, tmp_path: Path) -> None:
        rows = [{"text": f"t{i}", "label": i % 2} for i in range(6000)]
        assert len(sources.load(task(write(tmp_path / "a.csv", rows))).splits["validation"]) == 1000
