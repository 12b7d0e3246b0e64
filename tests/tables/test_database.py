"""`fomo.duckdb`, as other programs open it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.store.digests import digest_of_file
from fomo_dagster.store.heads import Head, Heads
from fomo_dagster.tables.database import ensure_database
from fomo_dagster.tables.files import write_table
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.view_columns import DESCRIPTIONS, comments_of
from fomo_dagster.tables.views import query

DIGEST = "0" * 32
KA = "SELECT knowledge_accumulation FROM scores"
OLDER = "CREATE OR REPLACE VIEW views_version AS SELECT 'of an older release' AS version"


def write_score(home: Path, value: float) -> None:
    """One experiment with one stage, that of θ₀, and its knowledge accumulation."""
    row = ("e", 0, value, None, None, None, None)
    rows = pl.DataFrame([row], schema=dict(SCHEMAS["scores"]), orient="row")
    file = write_table(home, "scores", "e/scores", DIGEST, rows)
    head = Head(
        asset="e/scores", kind="scores", experiment="e", stage=None, digest=DIGEST,
        data_version=DIGEST, code_version="", recipes={}, artifacts={}, facts={}, status="hit",
        recorded_at="2026-03-04T05:06:07+00:00", seconds=1.0,
        tables={"scores": digest_of_file(file)},
    )  # fmt: skip
    Heads(home / "heads").write(head)


def asked(database: Path | str, *sql: str) -> list[Any]:
    """The last answer of another program that opens the database."""
    with duckdb.connect(str(database), read_only=str(database) != ":memory:") as client:
        return [client.execute(statement).fetchall() for statement in sql][-1]


@pytest.fixture
def writer() -> Iterator[Any]:
    """`writer(path, sql)`: another process that has a database open for writing, until it ends."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path, sql: str) -> subprocess.Popen[str]:
        program = (
            "import duckdb, sys; client = duckdb.connect(sys.argv[1]);"
            "client.execute(sys.argv[2]); print('open', flush=True); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path), sql],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["moved", "it's [a] *home* of ü; -- {x}"])
def test_views_follow_a_home_that_is_moved_or_copied_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_score(tmp_path / "home", 1.5)
    ensure_database(tmp_path / "home")
    moved = (tmp_path / "home").rename(tmp_path / name)
    assert asked(moved / "fomo.duckdb", KA) == [(1.5,)]
    copied = shutil.copytree(moved, tmp_path / "copy" / name)
    write_score(copied, 2.5)
    assert asked(copied / "fomo.duckdb", KA) == [(2.5,)]
    for folder in (tmp_path, copied, Path("/")):
        monkeypatch.chdir(folder)
        assert asked(os.path.relpath(moved / "fomo.duckdb"), KA) == [(1.5,)]
        assert asked(os.path.relpath(copied / "fomo.duckdb"), KA) == [(2.5,)]
        assert asked(copied / "fomo.duckdb", "FROM leaderboard", "FROM chunks") == []


def test_an_attached_database_never_shows_the_rows_of_another_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_score(home, 1.5)
    attach = f"ATTACH '{ensure_database(home)}' AS fomo (READ_ONLY)"
    in_fomo = KA.replace("scores", "fomo.scores")
    assert asked(":memory:", attach, in_fomo) == [(1.5,)]
    copied = shutil.copytree(home, tmp_path / "copy")
    attach = f"ATTACH '{copied / 'fomo.duckdb'}' AS fomo (READ_ONLY)"
    write_score(copied, 2.5)
    for sql in (in_fomo, "FROM fomo.artifacts"):
        with pytest.raises(duckdb.Error, match="SET VARIABLE fomo_home = its folder"):
            asked(":memory:", attach, sql)
    named = f"SET VARIABLE fomo_home = '{copied}'"
    assert asked(":memory:", attach, named, in_fomo) == [(2.5,)]


def test_what_another_program_has_open_is_not_replaced_and_keeps_what_it_wrote(
    tmp_path: Path, writer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_score(tmp_path, 1.5)
    path = ensure_database(tmp_path)
    client = writer(path, f"{OLDER}; CREATE VIEW mine AS SELECT 42 AS x")
    inode = path.stat().st_ino
    assert ensure_database(tmp_path) == path
    assert f"(PID {client.pid}) has it open" in caplog.text
    assert query(tmp_path, KA).rows() == [(1.5,)]

    client.kill()  # what it wrote is in its write-ahead log alone
    client.wait()
    assert path.with_name("fomo.duckdb.wal").exists()
    assert ensure_database(tmp_path).stat().st_ino == inode
    assert not path.with_name("fomo.duckdb.wal").exists()
    assert asked(path, "FROM mine") == [(42,)]
    assert asked(path, "FROM views_version") != [("of an older release",)]
    assert asked(path, KA) == [(1.5,)]


def test_a_reader_keeps_the_file_that_it_has_open(tmp_path: Path) -> None:
    write_score(tmp_path, 1.5)
    path = ensure_database(tmp_path)
    with duckdb.connect(str(path)) as client:
        client.execute(OLDER)
    program = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True);"
        "print('open', flush=True); sys.stdin.read();"
        "print(c.sql('FROM views_version').fetchall(), c.sql(sys.argv[2]).fetchall())"
    )
    reading = subprocess.Popen(
        [sys.executable, "-c", program, str(path), KA],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert reading.stdout is not None
    assert reading.stdout.readline() == "open\n"
    ensure_database(tmp_path)
    assert asked(path, "FROM views_version") != [("of an older release",)]
    assert reading.communicate("")[0] == "[('of an older release',)] [(1.5,)]\n"


def test_this_process_itself_may_have_it_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = ensure_database(tmp_path)
    with duckdb.connect(str(path)) as client:
        client.execute(OLDER)
        ensure_database(tmp_path)
        assert "this process has it open" in caplog.text
        assert client.execute("SELECT version FROM views_version").fetchall() == [
            ("of an older release",)
        ]


DAMAGES = {
    "garbage": lambda data: b"no database",
    "empty": lambda data: b"",
    "cut off": lambda data: data[:5000],
    "a flipped bit of the header": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_set_aside_and_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    write_score(tmp_path, 1.5)
    path = ensure_database(tmp_path)
    damaged = DAMAGES[damage](path.read_bytes())
    path.write_bytes(damaged)
    assert query(tmp_path, KA).rows() == [(1.5,)]
    assert asked(ensure_database(tmp_path), KA) == [(1.5,)]
    (aside,) = (tmp_path / ".damaged").iterdir()
    assert aside.read_bytes() == damaged
    assert f"It was moved to {aside}" in caplog.text


def test_a_log_that_is_not_of_the_database_stops_nothing_and_is_kept(
    tmp_path: Path, writer: Any
) -> None:
    write_score(tmp_path, 1.5)
    path, log = tmp_path / "fomo.duckdb", tmp_path / "fomo.duckdb.wal"
    client = writer(path, "CREATE VIEW mine AS SELECT 42 AS x")
    with duckdb.connect(str(tmp_path / "other")) as other:
        other.execute(OLDER)
    (tmp_path / "other").replace(path)  # beneath the program that has it open
    client.kill()
    client.wait()
    written = log.read_bytes()
    with pytest.raises(duckdb.IOException, match="WAL"):
        asked(path, KA)
    assert query(tmp_path, KA).rows() == [(1.5,)]
    assert asked(ensure_database(tmp_path), KA) == [(1.5,)]
    assert not log.exists()
    (kept,) = (tmp_path / ".damaged").glob("*.wal")
    assert kept.read_bytes() == written


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "fomo.duckdb").mkdir()
    assert query(tmp_path, "FROM scores").is_empty()
    with pytest.raises(StoreError, match=r"fomo\.duckdb is a folder"):
        ensure_database(tmp_path)


def test_a_damaged_file_without_rows_is_written_again(tmp_path):
    path = ensure_database(tmp_path)
    empty = tmp_path / "tables" / "evaluations" / "empty.parquet"
    empty.write_bytes(empty.read_bytes()[:-9])
    ensure_database(tmp_path)
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM evaluations").fetchall() == [(0,)]


def test_every_view_and_column_has_its_comment_for_other_programs(tmp_path: Path) -> None:
    database = ensure_database(tmp_path)
    views = asked(
        database,
        "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal AND comment <> ''",
    )
    assert dict(views) == DESCRIPTIONS
    columns = "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
    for view, column, comment in asked(database, f"{columns} AND table_name <> 'views_version'"):
        assert comment == comments_of(view)[column], (view, column)


def test_where_the_file_system_takes_no_locks_the_error_says_what_needs_none(tmp_path, monkeypatch):
    """As of Lustre without `flock`: DuckDB refuses, whoever uses the file."""

    def refuse(*arguments, **options):
        raise duckdb.IOException('Could not set lock on file "x": Function not implemented')

    monkeypatch.setattr(duckdb, "connect", refuse)
    with pytest.raises(StoreError, match=r"takes no locks, .* Query with `fomo sql"):
        ensure_database(tmp_path)
