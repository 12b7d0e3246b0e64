import errno
import os
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.tables.files import table_path, write_table
from fomo_dagster.tables.schemas import SCHEMAS

DIGEST = "0123456789abcdef" * 2


def chunks() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "stream": ["s", "s"],
            "stage": [1, 2],
            "position": [0, 1],
            "dataset": ["digits", "digits"],
            "concept": ["zero", "a concept with 'quotes'"],
            "samples": [10, 0],
        }
    )


def test_a_file_holds_the_rows_it_was_given(tmp_path: Path) -> None:
    path = write_table(tmp_path, "chunks", "streams/s/chunk_001", DIGEST, chunks())

    assert path == tmp_path / f"tables/chunks/streams/s/chunk_001/{DIGEST}.parquet"
    assert_frame_equal(pl.read_parquet(path), chunks())
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_captions_and_undefined_scores_survive(tmp_path: Path) -> None:
    samples = pl.DataFrame(
        [("d", "train", "k/ü", "c", [], "0"), ("d", "test", "k", "c", ["a, b", ""], "1")],
        schema=dict(SCHEMAS["samples"]),
        orient="row",
    )
    scores = pl.DataFrame(
        [("e", 0, 1.5, None, None, None, None)], schema=dict(SCHEMAS["scores"]), orient="row"
    )
    for table, rows in (("samples", samples), ("scores", scores)):
        path = write_table(tmp_path, table, "a", DIGEST, rows)
        assert_frame_equal(pl.read_parquet(path), rows)


def test_writing_again_gives_the_same_bytes_whatever_the_order_of_columns(tmp_path: Path) -> None:
    first = write_table(tmp_path, "chunks", "a", DIGEST, chunks()).read_bytes()
    turned = chunks().select(reversed(chunks().columns))
    assert write_table(tmp_path, "chunks", "a", DIGEST, turned).read_bytes() == first


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (chunks().drop("concept"), "column 'concept' is missing"),
        (chunks().with_columns(sample=1), "no column 'sample', did you mean 'samples'"),
        (chunks().cast({"stage": pl.Int32}), "column 'stage' is Int32, not Int64"),
        (chunks().cast({"samples": pl.Float64}), "column 'samples' is Float64, not Int64"),
        (chunks().with_columns(dataset=pl.lit(None, pl.String)), "'dataset' is null in 2 of 2"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    tmp_path: Path, frame: pl.DataFrame, message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        write_table(tmp_path, "chunks", "a", DIGEST, frame)
    assert list(tmp_path.rglob("*.parquet")) == []


@pytest.mark.parametrize("asset", ["", "/etc", "a/../../b", "a//b", "a/", ".hidden", "a*", "a b"])
def test_an_asset_key_cannot_leave_the_tables_nor_be_a_pattern(tmp_path: Path, asset: str) -> None:
    with pytest.raises(InputError, match="cannot name a table file"):
        table_path(tmp_path, "chunks", asset, DIGEST)


@pytest.mark.parametrize("digest", ["", "abc", DIGEST.upper(), DIGEST + "0", f"../{DIGEST[3:]}"])
def test_only_a_digest_names_a_file(tmp_path: Path, digest: str) -> None:
    with pytest.raises(InputError, match="32 hexadecimal digits"):
        table_path(tmp_path, "chunks", "a", digest)


def test_an_unknown_table_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'chunk': did you mean 'chunks'"):
        write_table(tmp_path, "chunk", "a", DIGEST, chunks())


def test_a_full_disk_is_said_and_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table(tmp_path, "chunks", "a", DIGEST, chunks())
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        write_table(tmp_path, "chunks", "a", DIGEST, chunks().head(1))
    assert path.read_bytes() == before
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
