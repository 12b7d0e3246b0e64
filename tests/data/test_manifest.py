"""Tables that name images: the same rows mean the same in every format, and errors name the row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.samples import SCAN
from fomo_dagster.data.sources.manifest import ManifestSource
from fomo_dagster.data.sources.source import Source, inspect
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.store.digests import digest_of_bytes

ROWS: list[dict[str, Any]] = [
    {"path": "b/2.png", "concept": "007", "caption": 'Zwei, "2"', "split": "train", "key": "two"},
    {"path": "b/1.png", "concept": "dog", "caption": None, "split": "test", "key": "one"},
    {"path": "3.JPG", "concept": "dog", "caption": "  ", "split": "train", "key": "three"},
]


@pytest.fixture(autouse=True)
def _images(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/1.png", "b/2.png", "3.JPG"):
        (tmp_path / name).write_bytes(name.encode())


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".csv":
        pl.DataFrame(rows).write_csv(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def source(base: Path, name: str, *, task: str = "classification", **options: object) -> Source:
    declared = ManifestSource.model_validate({"path": name, **options})
    dataset = Dataset.model_validate({"source": declared, "task": task})
    return dataset.open("pets", base, base / "cache")


def scan(base: Path, rows: list[dict[str, Any]], **options: Any) -> pl.DataFrame:
    write(base / "table.jsonl", rows)
    return source(base, "table.jsonl", **options).scan()


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "t.ndjson"])
def test_every_format_gives_the_same_scan(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, ROWS)
    opened = source(tmp_path, name)
    frame = opened.scan()
    assert dict(frame.schema) == SCAN
    assert frame.drop("reference").rows() == [
        ("test", "one", "dog", [], digest_of_bytes(b"b/1.png")),
        ("train", "three", "dog", [], digest_of_bytes(b"3.JPG")),
        ("train", "two", "007", ['Zwei, "2"'], digest_of_bytes(b"b/2.png")),
    ]
    assert [opened.read(r) for r in frame["reference"]] == [b"b/1.png", b"3.JPG", b"b/2.png"]


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl"])
def test_several_captions_are_a_list_without_blanks(tmp_path: Path, name: str) -> None:
    captions: list[Any] = [["a", "", "b"], [], ["c"]]
    write(tmp_path / name, [{**row, "caption": c} for row, c in zip(ROWS, captions, strict=True)])
    frame = source(tmp_path, name).scan()
    assert dict(frame.select("key", "captions").iter_rows()) == {
        "one": [], "three": ["c"], "two": ["a", "b"]
    }  # fmt: skip


def test_json_lines_may_mix_texts_lists_numbers_and_absent_keys(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"path": "b/1.png", "concept": 7},
        {"path": "b/2.png", "concept": "7", "caption": "x", "extra": {"ignored": [1]}},
        {"path": "3.JPG", "concept": 8, "caption": ["y", "z"]},
    ]
    frame = scan(tmp_path, rows, test_share=0)
    assert frame.select("key", "concept", "captions").rows() == [
        ("3.JPG", "8", ["y", "z"]), ("b/1.png", "7", []), ("b/2.png", "7", ["x"])
    ]  # fmt: skip


def test_a_csv_concept_of_digits_keeps_its_zeros(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", [{"path": "b/1.png", "concept": "007", "key": "1.0"}])
    assert source(tmp_path, "t.csv").scan().select("concept", "key").row(0) == ("007", "1.0")


def test_whole_numbers_in_parquet_are_text(tmp_path: Path) -> None:
    pl.DataFrame({"path": ["b/1.png"], "concept": [3]}).write_parquet(tmp_path / "t.parquet")
    assert source(tmp_path, "t.parquet").scan()["concept"].to_list() == ["3"]


def test_the_key_is_by_default_the_path_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    rows = [
        {"path": "b/../b/1.png", "concept": "c"},
        {"path": str(tmp_path / "b" / "2.png"), "concept": "c"},
    ]
    write(tmp_path / "tables" / "t.jsonl", rows)
    frame = source(tmp_path, "tables/t.jsonl", root=".", test_share=0).scan()
    assert frame["key"].to_list() == ["b/1.png", "b/2.png"]


def test_without_a_split_a_share_is_held_out(tmp_path: Path) -> None:
    rows = [{"path": "b/1.png", "concept": "c", "key": str(i)} for i in range(100)]
    splits = scan(tmp_path, rows, test_share=0.5)["split"].to_list()
    assert 30 < splits.count("test") < 70


def test_a_retrieval_set_needs_no_concepts(tmp_path: Path) -> None:
    rows = [{"path": "b/1.png", "caption": "x", "split": "test"}]
    assert scan(tmp_path, rows, task="retrieval")["concept"].to_list() == ["pets"]


def altered(row: int, **values: Any) -> list[dict[str, Any]]:
    return [{**r, **values} if i == row else r for i, r in enumerate(ROWS)]


def renamed(old: str, new: str) -> list[dict[str, Any]]:
    return [{new if name == old else name: value for name, value in r.items()} for r in ROWS]


REFUSED = {
    "two with one key": (
        altered(2, key="two"),
        r"lines 1 and 3 of .*table\.jsonl \(b/2\.png and 3\.JPG\) have the same key 'two'",
    ),
    "missing image": (altered(1, path="b/9.png"), r"1 of 3 images cannot be read: .*b/9\.png"),
    "not an image": (altered(1, path="b/1.txt"), r"1 files that are not images: 'b/1\.txt'"),
    "unknown split": (altered(1, split="tests"), "line 2 .* split 'tests'; did you mean 'test'"),
    "blank concept": (
        altered(1, concept=" "),
        "'concept' .* blank in 1 of 3 rows, .* in line 2",
    ),
    "null path": (altered(2, path=None), "'path' .* blank in 1 of 3 rows, first in line 3"),
    "no path": (
        renamed("path", "paths"),
        "columns: paths, .* rename the one that is meant to 'path'",
    ),
    "no concept": (renamed("concept", "class"), "no column 'concept'; its columns: path, class"),
    "near miss": (renamed("caption", "Captions"), "'Captions', which would be ignored: rename"),
    "odd caption": (altered(0, caption=3), "'caption' in line 1 .* list of texts, not 3"),
    "odd concept": (altered(0, concept=1.5), "'concept' in line 1 .* must be text, not 1.5"),
    "no rows": ([], "is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_is_wrong_is_refused_with_what_and_where(tmp_path: Path, case: str) -> None:
    rows, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        scan(tmp_path, rows)


def test_splits_go_by_their_usual_names_or_by_those_declared(tmp_path: Path) -> None:
    rows = [row | {"split": split} for row, split in zip(ROWS, ("TRN", "val", "trn"), strict=True)]
    with pytest.raises(DataError, match="'TRN' and 'trn', and both are called train"):
        scan(tmp_path, rows)
    rows[2]["split"] = "Test"
    write(tmp_path / "table.jsonl", rows)
    told = inspect(source(tmp_path, "table.jsonl"))
    assert told.scan.select("split", "key").rows() == [("test", "three"), ("train", "two")]
    assert "'val' beside 'Test': the former is left out" in told.warnings[0]
    rows[0]["split"] = "7"
    chosen = scan(tmp_path, rows, splits={"train": ["7", "val"], "test": ["Test"]})
    assert chosen.select("split", "key").rows() == [
        ("test", "three"), ("train", "one"), ("train", "two")
    ]  # fmt: skip
    assert set(scan(tmp_path, rows, splits={}, test_share=0)["split"]) == {"train"}


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
def test_declared_columns_are_read_by_the_names_of_the_table(tmp_path: Path, name: str) -> None:
    theirs = {"path": "place", "concept": "label", "caption": "text", "split": "fold", "key": "id"}
    rows = [{theirs[ours]: value for ours, value in row.items()} | {"key": 1} for row in ROWS]
    write(tmp_path / "ours.jsonl", ROWS)
    write(tmp_path / name, rows)
    told = inspect(source(tmp_path, name, columns=theirs))
    assert told.scan.equals(source(tmp_path, "ours.jsonl").scan())
    assert told.warnings[-1].endswith("columns that are not read: 'key'")
    with pytest.raises(
        DataError, match="no column 'lable', which `columns` declares as its concep"
    ):
        source(tmp_path, name, columns=theirs | {"concept": "lable"}).scan()
    with pytest.raises(DataError, match=r"no column 'bold', .* its split; its columns: place, lab"):
        source(tmp_path, name, columns=theirs | {"split": "bold"}).scan()


def test_columns_may_be_exchanged_and_none_is_two(tmp_path: Path) -> None:
    rows = [{"path": "dog", "concept": "b/1.png"}, {"path": "cat", "concept": "b/2.png"}]
    exchanged = {"path": "concept", "concept": "path"}
    frame = scan(tmp_path, rows, columns=exchanged, test_share=0)
    assert frame.select("key", "concept").rows() == [("b/1.png", "dog"), ("b/2.png", "cat")]
    for columns in ({"path": "x", "key": "x"}, {"caption": "concept"}):
        with pytest.raises(ValueError, match=r"column '\w+' cannot be both \w+ and \w+"):
            scan(tmp_path, rows, columns=columns)


def test_a_table_without_path_names_the_columns_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"its columns: file, .*declare `columns: \{path: …\}`"):
        scan(tmp_path, renamed("path", "file"))


def test_the_same_key_in_both_splits_is_two_samples(tmp_path: Path) -> None:
    assert scan(tmp_path, altered(1, key="two")).height == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"path,concept\na.png,b,c\n", "line 2 .* has 3 fields"),
        ("t.csv", b"path,concept\n", "no rows"),
        ("t.csv", b"path,concept\n\xff.png,c\n", "line 2 .* is not utf-8"),
        ("t.csv", b"", "is empty"),
        ("t.parquet", b"PAR1", "cannot be read as a table"),
        ("t.jsonl", b'{"path": "a.png"}\n[1]\n', r"line 2 .* must be an object, not '\[1\]'"),
        ("t.jsonl", b'{"path": \n', "line 1 .* is not JSON"),
        ("t.jsonl", b'{"path": "\xff"}\n', "line 1 .* is not utf-8"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        source(tmp_path, name).scan()


def test_a_parquet_column_of_another_type_is_refused(tmp_path: Path) -> None:
    for column, values in {"concept": [1.5], "caption": [[1]]}.items():
        frame = pl.DataFrame({"path": ["b/1.png"], "concept": ["c"], column: values})
        frame.write_parquet(tmp_path / "t.parquet")
        with pytest.raises(DataError, match=f"'{column}' of .* must be text"):
            source(tmp_path, "t.parquet").scan()


def test_a_table_that_is_absent_or_of_an_unknown_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*t\.csv"):
        source(tmp_path, "t.csv").scan()
    with pytest.raises(InputError, match=r"t\.xlsx is not a table: expected a file \.parquet"):
        source(tmp_path, "t.xlsx").scan()
