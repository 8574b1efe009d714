"""CSV as spreadsheets and people write it: delimiters, encodings, marks, columns of one name."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ftbench.errors import UsageError
from ftbench.tasks import resolve
from ftbench.tasks.files import read_table
from ftbench.tasks.sources import load
from ftbench.types.task import Data

ROWS = [('gut, sehr gut; "toll"', "ja"), ("schlecht\nund lang", "nein"), ("Über naïve Œuvres", "ja")] * 5


def csv_text(delimiter: str, end: str = "\n") -> str:
    quoted = [(text.replace('"', '""'), label) for text, label in ROWS]
    return end.join([f"text{delimiter}label", *(f'"{text}"{delimiter}{label}' for text, label in quoted)]) + end


def read(path: Path, encoding: str = "") -> Data:
    return load(resolve(str(path), ("text",), encoding=encoding))


def texts(data: Data) -> set[str]:
    return {text for split in data.splits.values() for text in split.texts[0]}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_spreadsheets_csv_works_at_the_first_try(delimiter: str, encoding: str, end: str, tmp_path: Path) -> None:
    raw = csv_text(delimiter, end)
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xfe\xff" + raw.encode("utf-16-be") if "mark" in encoding else raw.encode(encoding))
    data = read(path)
    assert {text.replace("\r\n", "\n") for text in texts(data)} == {text for text, _ in ROWS}
    assert data.labels == ("ja", "nein")


def test_excels_line_names_the_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("sep=;\r\n" + csv_text(";", "\r\n"), encoding="utf-8-sig")
    assert len(texts(read(path))) == 3


def test_a_comma_wins_where_it_gives_equal_rows(tmp_path: Path) -> None:
    """Every row has a semicolon as well."""
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"a; b{i},{'yn'[i % 2]}\n" for i in range(12)))
    assert all(text.startswith("a; b") for text in texts(read(path)))


def test_another_encoding_is_refused_and_then_said(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(csv_text(";").replace("Œ", "O").encode("cp1252"))
    with pytest.raises(UsageError, match=r"not UTF-8.*--encoding cp1252"):
        read(path)
    assert "Über naïve Ouvres" in texts(read(path, "cp1252"))
    with pytest.raises(UsageError, match="--encoding 'cp12525'"):
        read(path, "cp12525")


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_blank_line_is_an_empty_cell_of_an_only_column(name: str, end: str, tmp_path: Path) -> None:
    """Spreadsheets write it so; left out, all rows behind it would go with the wrong predictions."""
    path = tmp_path / name
    lines = ["", "text", "good film", "", "bad film", "", ""]
    path.write_bytes(end.join(lines).encode())
    assert read_table(path)["text"].tolist() == ["good film", "", "bad film"], "those at the end are no cells"
    path.write_text('text\na\n""\n' if name == "x.csv" else "text\na\n\nb")
    assert len(read_table(path)) == (2 if name == "x.csv" else 3)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_a_blank_line_among_several_columns_is_nothing(name: str, tmp_path: Path) -> None:
    sep = "\t" if name.endswith("tsv") else ","
    path = tmp_path / name
    path.write_text(
        "\n\n".join(sep.join(row) for row in [("text", "label"), ("a", "0"), ("", ""), ("b", "1")]) + "\n\n"
    )
    assert read_table(path)["text"].tolist() == ["a", "", "b"]


@pytest.mark.parametrize("text", ["  \ntext,label\nfoo,1\n", "sep=,\n\ntext,label\nfoo,1\n"])
def test_a_first_line_of_spaces_is_no_column(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    assert read_table(path)["label"].tolist() == ["1"]


def test_an_only_column_under_excels_line(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("sep=;\n\ntext\nfoo\n\nbar\n")
    assert read_table(path)["text"].tolist() == ["foo", "", "bar"]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_two_columns_of_one_name(name: str, tmp_path: Path) -> None:
    sep = "\t" if name.endswith("tsv") else ","
    path = tmp_path / name
    path.write_text("\n".join(sep.join(row) for row in [("text", "text", "label"), *[("a", "b", "1")] * 12]))
    with pytest.raises(UsageError, match="several columns called 'text'"):
        read_table(path)


def test_most_texts_empty_is_refused_and_some_are_said(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"{'word' if i < 2 else ''},{i % 2}\n" for i in range(20)))
    with pytest.raises(UsageError, match="18 of 20 texts are empty: is 'text' the text column"):
        read(path)
    path.write_text("text,label\n" + "".join(f"{'word' if i % 5 else ''},{i % 2}\n" for i in range(20)))
    assert any("4 of 20 train rows have no text" in note for note in read(path).notes)


def test_a_label_with_one_example_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{'rare' if i == 3 else 'yn'[i % 2]}\n" for i in range(20)))
    data = read(path)
    assert any("'rare': a single train row" in note for note in data.notes)
    assert "rare" in data.labels


def test_a_very_long_text_does_not_hide_the_delimiter(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = tmp_path / "long.csv"
    path.write_text("text;label\n" + f'"{"long, " * 30_000}";ja\n' + "kurz;nein\n")
    table = read_table(path)
    assert list(table.columns) == ["text", "label"] and list(table["label"]) == ["ja", "nein"]
    assert csv.field_size_limit() == before


def test_utf_16_without_its_mark(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    with pytest.raises(UsageError, match=r"is not UTF-16 \(.*BOM\): save it as UTF-8, or say its encoding"):
        read_table(tmp_path / "a.csv", encoding="utf-16")
