"""`home/fomo.duckdb`: the views for other programs, such as DuckDB's own shell.

It holds no data, finds the files beside it wherever it is moved, and can be deleted at any time.
Another program may have it open, or keep something of its own in it. So it is replaced only if
nobody writes to it and everything in it is ours, and set aside if it cannot be read.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import polars as pl

from fomo_dagster.errors import StoreError
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import explained, replacing, skipped_where_refused, write_bytes
from fomo_dagster.tables.comments import comments
from fomo_dagster.tables.json_files import OF_RELEASES, OF_RUNS
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.selects import beside, quoted, views
from fomo_dagster.tables.store_files import IN_STORE

DATABASE = "fomo.duckdb"
_VERSION = "views_version"
_STORAGE = "v1.0.0"  # which every program with DuckDB 1 or later reads
_HOLDER = re.compile(r"Could not set lock on file.*?(?:held in (.*?\(PID \d+\))|$)", re.DOTALL)
_NEWER = "version number"  # in what DuckDB says of a file that a later one wrote

_CONTENT = """
SELECT
    (SELECT list(view_name) FROM duckdb_views() WHERE NOT internal),
    (SELECT count(*) FROM duckdb_tables() WHERE NOT internal)
        + (SELECT count(*) FROM duckdb_sequences())
        + (SELECT count(*) FROM duckdb_functions() WHERE NOT internal)
        + (SELECT count(*) FROM duckdb_types() WHERE NOT internal)
        + (SELECT count(*) FROM duckdb_schemas() WHERE NOT internal AND schema_name <> 'main')
"""

logger = logging.getLogger(__name__)


class _InUseError(Exception):
    """Another program has the database open in a way that keeps us out; says which."""


def ensure_database(home: Path) -> Path:
    """The path of the database below `home`, made or renewed if its views are out of date.

    If it cannot be renewed now, it keeps its older views and a warning says so. Raises `StoreError`
    if there is none and none can be written.
    """
    home = home.resolve()
    path = home / DATABASE
    if path.is_dir():
        raise StoreError(f"{path} is a folder, not a database: remove it, and run again")
    with skipped_where_refused():
        _write_empty_tables(home)
        for files in (OF_RUNS, OF_RELEASES):
            files.ensure(home)
    try:
        _bring_up_to_date(path)
    except (_InUseError, StoreError) as error:
        if not path.exists():
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"{path} cannot be written: its file system takes no locks, which DuckDB needs. "
                "Query with `fomo sql`, or read the Parquet files below tables/"
            ) from error
        logger.warning("the views in %s could not be renewed and stay as they are: %s", path, error)
    return path


def _bring_up_to_date(path: Path) -> None:
    statements = _statements(path.parent)
    version = digest_of(statements)
    statements.append(f"CREATE OR REPLACE VIEW {_VERSION} AS SELECT {quoted(version)} AS version")
    others = False
    if path.exists():
        seen = path.stat().st_ino
        try:
            found, others = _content(path)
        except duckdb.Error as error:
            _set_aside(path, seen, error)
        else:
            if found == version or not os.access(path.parent, os.W_OK):
                return
    if others or path.with_name(f"{DATABASE}.wal").exists():
        _renew_in_place(path, statements)
    else:
        _replace(path, statements)


def _statements(home: Path) -> list[str]:
    statements = []
    for name, select in views(beside(DATABASE, home)).items():
        statements.append(f"CREATE OR REPLACE VIEW {name} AS {select}")
        statements += comments(name)
    return statements


def _content(path: Path) -> tuple[str | None, bool]:
    """The version of the views in a database, and whether something in it is not ours.

    Raises `_InUseError` if another program keeps it, and DuckDB's error where it is damaged.
    """
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            names, things = connection.sql(_CONTENT).fetchall()[0]
            version = None
            if _VERSION in (names or ()):
                version = str(connection.sql(f"SELECT version FROM {_VERSION}").fetchall()[0][0])
    except duckdb.Error as error:
        _raise_if_in_use(error)
        raise
    ours = {_VERSION, *views(beside(DATABASE, path.parent))}
    return version, things > 0 or not ours.issuperset(names or ())


def _raise_if_in_use(error: duckdb.Error) -> None:
    locked = _HOLDER.search(str(error))
    if locked is not None:
        raise _InUseError(f"{locked[1] or 'another program'} has it open") from error
    if isinstance(error, duckdb.ConnectionException):
        raise _InUseError("this process has it open") from error
    if _NEWER in str(error):
        raise _InUseError(f"a later DuckDB wrote it ({error})") from error


def _replace(path: Path, statements: Sequence[str]) -> None:
    """Write a new database beside and rename it, while nobody can begin to write to the old one;
    whoever reads that keeps it."""
    options = f"STORAGE_VERSION '{_STORAGE}', RECOVERY_MODE no_wal_writes"
    with (
        _locked(path, fcntl.LOCK_SH),
        replacing(path) as temporary,
        _written(path),
        duckdb.connect() as connection,
    ):
        connection.execute(f"ATTACH {quoted(str(temporary))} AS written ({options})")
        connection.execute("USE written")
        for statement in statements:
            connection.execute(statement)
        connection.execute("USE memory")
        connection.execute("DETACH written")


def _renew_in_place(path: Path, statements: Sequence[str]) -> None:
    """Have DuckDB replace the views alone, and keep what another program has there."""
    with _written(path), duckdb.connect(str(path)) as connection:
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement)
        connection.execute("COMMIT")
        connection.execute("CHECKPOINT")


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turn DuckDB's errors into ours."""
    try:
        yield
    except duckdb.Error as error:
        _raise_if_in_use(error)
        raise StoreError(f"the views in {path} could not be written: {error}") from error


def _set_aside(path: Path, seen: int, damage: duckdb.Error) -> None:
    """Move a damaged database, and what belongs to it, out of the way. seen: its inode."""
    aside = path.parent / ".damaged" / f"{time.time_ns()}-{DATABASE}"
    with explained(path), _locked(path, fcntl.LOCK_EX):
        if path.stat().st_ino != seen:  # another process did so first
            return
        aside.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.with_name(f"{DATABASE}.wal").rename(f"{aside}.wal")
        path.rename(aside)
    logger.warning(
        "%s could not be read (%s). It was moved to %s, and is written anew.", path, damage, aside
    )


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    """Hold DuckDB's own lock on a file, where it is there: shared, it keeps writers out.

    The kernel drops the locks of a process on a file when it closes any descriptor of it: nothing
    here may have the database open in DuckDB meanwhile.
    """
    try:
        file = path.open("r+b" if kind == fcntl.LOCK_EX else "rb")
    except FileNotFoundError:
        yield
        return
    with file:
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB)
        except OSError as error:
            raise _InUseError(f"another program has it open ({error.strerror})") from error
        yield


def _write_empty_tables(home: Path) -> None:
    """A file without rows for each table, and for what views read in the store: a glob that matches
    no file is an error to DuckDB. A damaged one is written again: it would stop each of another
    program's queries."""
    empties = {home / "tables" / table / "empty.parquet": SCHEMAS[table] for table in SCHEMAS}
    for of in IN_STORE:
        empties[home / "tables" / of.kind / "empty" / of.file] = of.columns
    for empty, columns in empties.items():
        encoded = io.BytesIO()
        pl.DataFrame(schema=dict(columns)).write_parquet(encoded)
        data = encoded.getvalue()
        if not empty.exists() or empty.read_bytes() != data:
            write_bytes(empty, data)
