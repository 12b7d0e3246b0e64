"""Digests of tables of samples: they say exactly whether the content is the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.data.decoding import DEFAULT
from fomo_dagster.data.index import write_index
from fomo_dagster.data.samples import SAMPLES, concept_digests, content_digest, split_digest
from fomo_dagster.data.sources.source import as_scan
from fomo_dagster.errors import DataError

Row = tuple[str, str, str, list[str], str]
Content = dict[str, tuple[list[str], str]]

ROWS: list[Row] = [
    ("train", "cat/1.png", "cat", ["a cat", "it purrs"], "0a"),
    ("train", "cat/2.png", "cat", [], "0b"),
    ("train", "dog/1.png", "dog", ["ein Hündchen"], "0c"),
    ("test", "cat/3.png", "cat", ["a cat"], "0d"),
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
contents = st.dictionaries(texts, st.tuples(st.lists(texts, max_size=3), texts), max_size=4)


def table(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SAMPLES, orient="row")


def test_keys_that_repeat_in_a_split_are_refused_where_samples_are_listed_or_stored(
    tmp_path: Path,
) -> None:
    same = pl.concat([table(ROWS), table(ROWS[1:2])])
    with pytest.raises(DataError, match=r"1 keys that several samples share, such as 'cat/2\.png'"):
        as_scan(same.with_columns(reference=pl.lit("")))
    places = {"shard": "x.tar", "offset": 0, "size": 1}
    with pytest.raises(DataError, match="in split 'train'"):
        write_index(
            same.with_columns(**{k: pl.lit(v) for k, v in places.items()}), tmp_path, DEFAULT
        )
    assert not list(tmp_path.iterdir())
    in_both = pl.concat([table(ROWS), table(ROWS[1:2]).with_columns(split=pl.lit("test"))])
    assert as_scan(in_both.with_columns(reference=pl.lit(""))).height == len(ROWS) + 1


def test_concept_digest_follows_the_documented_bytes() -> None:
    lengths = [2, 9, 9, 2, 2, 2, 0, 5, 8]  # samples; keys; digests; numbers of captions; captions
    content = b"".join(n.to_bytes(8, "little") for n in lengths)
    content += b"cat/1.pngcat/2.png" + b"0a0b" + b"a catit purrs"
    expected = hashlib.sha256(content).hexdigest()[:32]
    assert concept_digests(table(ROWS), "train")["cat"] == expected


@given(st.permutations(ROWS))
def test_digests_do_not_depend_on_the_order_of_rows(rows: list[Row]) -> None:
    assert concept_digests(table(rows), "train") == concept_digests(table(ROWS), "train")
    assert content_digest(table(rows)) == content_digest(table(ROWS))


def test_a_concept_digest_does_not_depend_on_other_concepts_or_splits() -> None:
    whole = concept_digests(table(ROWS), "train")
    assert list(whole) == ["cat", "dog"]
    assert concept_digests(table(ROWS[2:3]), "train") == {"dog": whole["dog"]}
    assert concept_digests(table(ROWS[:2]), "train") == {"cat": whole["cat"]}


@given(contents, contents)
def test_concept_digests_are_equal_exactly_where_the_contents_are(
    one: Content, other: Content
) -> None:
    def digests(content: Content) -> dict[str, str]:
        rows = [("train", key, "c", *value) for key, value in content.items()]
        return concept_digests(table(rows), "train")

    assert (digests(one) == digests(other)) == (one == other)


@pytest.mark.parametrize(
    ("row", "changed"),
    [
        (0, ("train", "cat/9.png", "cat", ["a cat", "it purrs"], "0a")),
        (0, ("train", "cat/1.png", "lynx", ["a cat", "it purrs"], "0a")),
        (0, ("train", "cat/1.png", "cat", ["it purrs", "a cat"], "0a")),
        (0, ("train", "cat/1.png", "cat", ["a cat", "it purrs"], "0f")),
        (1, ("train", "cat/2.png", "cat", [""], "0b")),
    ],
)
def test_a_change_to_one_split_changes_its_digest_alone(row: int, changed: Row) -> None:
    before, after = table(ROWS), table([changed if i == row else r for i, r in enumerate(ROWS)])
    assert split_digest(after, "train") != split_digest(before, "train")
    assert split_digest(after, "test") == split_digest(before, "test")
    assert content_digest(after) != content_digest(before)


def test_the_same_rows_in_another_split_are_another_content() -> None:
    moved = [("test", *row[1:]) for row in ROWS[:2]]
    assert content_digest(table(moved)) != content_digest(table(ROWS[:2]))


def test_a_split_without_samples_has_no_concepts() -> None:
    assert concept_digests(table([]), "train") == {}


@pytest.mark.parametrize("column", ["key", "captions", "digest"])
def test_an_empty_value_is_an_error_that_names_its_column(column: str) -> None:
    broken = table(ROWS).with_columns(pl.lit(None, SAMPLES[column]).alias(column))
    with pytest.raises(DataError, match=column):
        concept_digests(broken, "train")
    with pytest.raises(DataError, match="captions"):
        concept_digests(table([("train", "k", "c", [None], "d")]), "train")  # type: ignore[list-item]
