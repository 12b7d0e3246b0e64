"""A table file with one changed bit is never read; one that is as it was is not hashed twice."""

import os
from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl
import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.store.digests import digest_of_file
from fomo_dagster.store.heads import Head, Heads
from fomo_dagster.tables import intact
from fomo_dagster.tables.database import ensure_database
from fomo_dagster.tables.files import table_path, write_table
from fomo_dagster.tables.intact import Verified
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.views import query

pytestmark = pytest.mark.slow

DIGEST = "0" * 32


def rows(table: str, experiment: str) -> pl.DataFrame:
    """Two rows with numbers and texts of the table."""
    values = {pl.String(): [experiment, experiment], pl.Int64(): [1, 2], pl.Float64(): [0.1, 54.3]}
    return pl.DataFrame({name: values[kind] for name, kind in SCHEMAS[table].items()})


def make(home: Path, experiment: str) -> Head:
    """The evaluations and training steps of an asset of an experiment, and its head."""
    asset = f"{experiment}/all"
    tables = {
        table: digest_of_file(write_table(home, table, asset, DIGEST, rows(table, experiment)))
        for table in ("evaluations", "training_steps")
    }
    head = Head(
        asset=asset, kind="evaluation", experiment=experiment, stage=1, digest=DIGEST,
        data_version=DIGEST, code_version="", recipes={}, artifacts={}, facts={}, status="hit",
        recorded_at="2026-03-04T05:06:07+00:00", seconds=1.0, tables=tables,
    )  # fmt: skip
    Heads(home / "heads").write(head)
    return head


def test_no_flipped_bit_of_a_table_file_is_ever_shown(tmp_path: Path) -> None:
    head = make(tmp_path, "e")
    path = table_path(tmp_path, "evaluations", head.asset, DIGEST)
    good = path.read_bytes()
    for place in range(0, len(good), 11):
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :])
        assert Verified(tmp_path).problem(head, "evaluations") == "its bytes were altered", place
        if place % 220 == 0:
            with pytest.raises(StoreError, match=r"e/all in .*0\.parquet are damaged"):
                query(tmp_path, "SELECT count(*) FROM evaluations")
    assert query(tmp_path, "FROM training_steps").height == 2
    path.write_bytes(good)
    assert query(tmp_path, "SELECT value FROM evaluations")["value"].to_list() == [0.1, 54.3]


@pytest.mark.parametrize("damage", ["deleted", "empty", "of another table", "of another asset"])
def test_a_file_that_is_not_the_one_that_was_written_is_named(tmp_path: Path, damage: str) -> None:
    head = make(tmp_path, "e")
    other = make(tmp_path, "another")
    path = table_path(tmp_path, "evaluations", head.asset, DIGEST)
    if damage == "deleted":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        one = (head.asset, "training_steps") if "table" in damage else (other.asset, "evaluations")
        path.write_bytes(table_path(tmp_path, one[1], one[0], DIGEST).read_bytes())
    said = "it is missing" if damage == "deleted" else "its bytes were altered"
    for sql in (
        "FROM evaluations",
        "SELECT count(*) FROM evaluations",
        "FROM evaluations LIMIT 1",
        "SELECT dataset FROM evaluations WHERE metric = 'score' GROUP BY dataset",
        "SELECT 1 FROM evaluations WHERE asset = 'other' AND value > 3",
        "FROM query_table('evaluations')",
    ):
        with pytest.raises(StoreError, match=rf"e/all in .*evaluations.* are damaged \({said}\)"):
            query(tmp_path, sql)
    assert query(tmp_path, "FROM training_steps").height == 4
    Heads(tmp_path / "heads").remove(head.asset)  # the way out that the error names
    assert query(tmp_path, "FROM evaluations").height == 2


def test_damage_that_no_head_points_to_stops_nothing(tmp_path: Path) -> None:
    head = make(tmp_path, "e")
    table_path(tmp_path, "evaluations", head.asset, "1" * 32).write_bytes(b"of an earlier run")
    assert query(tmp_path, "FROM evaluations").height == 2


@pytest.mark.parametrize("damage", ["cut", "no text", "folder"])
def test_a_damaged_head_leaves_the_others_and_is_named(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    head, _ = make(tmp_path, "e"), make(tmp_path, "other")
    path = Heads(tmp_path / "heads").path(head.asset)
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(path.read_bytes()[:-3] if damage == "cut" else b"\xff\xfe")
    assert query(tmp_path, "SELECT asset FROM artifacts").rows() == [("other/all",)]
    assert query(tmp_path, "SELECT DISTINCT asset FROM evaluations").rows() == [("other/all",)]
    assert query(tmp_path, "FROM damaged").rows() == [("e/all", "e", str(path))]
    assert f"the head of asset e/all in {path} is damaged" in caplog.text
    assert "`fomo run` writes it again" in caplog.text
    if damage != "folder":  # as another program sees it
        with duckdb.connect(str(ensure_database(tmp_path)), read_only=True) as connection:
            assert connection.sql("SELECT asset FROM artifacts").fetchall() == [("other/all",)]
            assert connection.sql("FROM damaged").fetchall() == [("e/all", "e", str(path))]


def test_only_what_may_have_changed_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = make(tmp_path, "e")
    hashed: list[Path] = []
    monkeypatch.setattr(
        intact, "digest_of_file", lambda path: hashed.append(path) or digest_of_file(path)
    )
    path = table_path(tmp_path, "evaluations", head.asset, DIGEST)

    def look() -> str | None:
        hashed.clear()
        with Verified(tmp_path) as verified:
            return verified.problem(head, "evaluations")

    assert look() is None
    assert hashed == [path]
    assert look() is None
    assert hashed == []
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as after a write set back
    assert look() is None
    assert hashed == [path]
    with Verified(tmp_path) as verified:  # a head that expects other rows of the same name
        other = replace(head, tables={"evaluations": "3" * 32})
        assert verified.problem(other, "evaluations") == "its bytes were altered"
    for stamps in (b"", b"[]", b'{"evaluations": 1}', b"\xff"):
        (tmp_path / "cache" / "verified_tables.json").write_bytes(stamps)
        assert look() is None


def test_a_table_of_before_a_column_was_there_is_null_in_it(tmp_path: Path) -> None:
    head = make(tmp_path, "e")
    earlier = rows("training_steps", "e").drop("flops_utilisation")
    written = table_path(tmp_path, "training_steps", head.asset, DIGEST)
    earlier.write_parquet(written)
    tables = head.tables | {"training_steps": digest_of_file(written)}
    Heads(tmp_path / "heads").write(replace(head, tables=tables))
    make(tmp_path, "now")
    shown = query(tmp_path, "SELECT experiment, step, flops_utilisation FROM training_steps")
    told = {("now", 1): 0.1, ("now", 2): 54.3}
    assert shown.height == 4
    assert {row[:2]: row[2] for row in shown.rows() if row[2] is not None} == told
