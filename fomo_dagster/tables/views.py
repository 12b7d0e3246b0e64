"""The only way to run SQL: a query over the views of a home, which can only read.

The views are in memory, so no query needs or touches `fomo.duckdb`, which is for other programs
(`fomo_dagster.tables.database`). Statements other than queries are refused.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar
from uuid import uuid4

import duckdb
import polars as pl
from duckdb.sqltypes import DuckDBPyType

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.tables.comments import comments
from fomo_dagster.tables.gathered import FOLDER as GATHERED
from fomo_dagster.tables.json_files import OF_RELEASES, OF_RUNS
from fomo_dagster.tables.selects import escaped, quoted
from fomo_dagster.tables.snapshot import NAMES, Snapshot
from fomo_dagster.tables.store_files import IN_STORE

P = ParamSpec("P")
T = TypeVar("T")

_READ = (
    "tables",
    *(f"store/{of.kind}" for of in IN_STORE),
    *(files.folder for files in (OF_RUNS, OF_RELEASES)),
    GATHERED,
)  # what a query sees
_READ_BY_TEXT = {"query", "query_table"}
"""Words by which a query may read what it does not name."""
_NATIVE = {
    "boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger",
    "ubigint", "float", "double", "varchar",
}  # fmt: skip
_NUMBERS_AS_TEXT = {"hugeint", "uhugeint", "bignum", "decimal"}
_NESTED = {"list", "array", "struct", "map", "union", "variant", "tuple"}
_moment: ContextVar[Snapshot | None] = ContextVar("moment", default=None)
# A text, which stays, or what DuckDB writes for numbers that JSON has not.
_NO_JSON = re.compile(r'("(?:[^"\\]|\\.)*")|-?Infinity|NaN')


class _GoneError(StoreError):
    """What was gathered was removed between a look at it and its reading."""


def _again(function: Callable[P, T]) -> Callable[P, T]:
    """Have a query answered from the tables' own files where what was gathered of them is gone."""

    @wraps(function)
    def answer(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return function(*arguments, **named)
        except _GoneError:
            if (moment := _moment.get()) is not None:
                _moment.set(Snapshot(moment.home))
            return function(*arguments, **named)

    return answer


@_again
def query(home: Path, sql: str, *, external: bool = False) -> pl.DataFrame:
    """The answer to one query over the views.

    external: whether the query may read any file or address, and DuckDB may install and load what
    it needs for that. Otherwise it sees only the home's tables and heads. Raises `InputError` if
    `sql` is not one query, or the query is wrong; `StoreError` if a table file that it reads
    is damaged.
    """
    with _answering(home, sql, external=external) as (connection, answer):
        rows: pl.DataFrame = connection.sql(f"FROM {answer}").pl()
        return rows


@_again
def answer_as_text(
    home: Path, sql: str, *, external: bool = False
) -> tuple[pl.DataFrame, list[str]]:
    """Like `query`, for people: anything but truth values and numbers that Polars holds exactly is
    text, as DuckDB writes it; nested values are JSON. Repeated names get numbers.

    Also returns the names of those columns that hold numbers as text.
    """
    with _answering(home, sql, external=external) as (connection, answer):
        asked = connection.sql(f"FROM {answer}")
        places = [f"c{place}" for place in range(len(asked.columns))]
        shown = ", ".join(map(_shown, places, asked.types))
        frame = connection.sql(f"SELECT {shown} FROM {answer} AS a({', '.join(places)})").pl()
        kinds = dict(zip(_told_apart(asked.columns), asked.types, strict=True))
    return frame.rename(dict(zip(places, kinds, strict=True))), [
        name for name, kind in kinds.items() if kind.id in _NUMBERS_AS_TEXT
    ]


@_again
def answer_as_json(home: Path, sql: str, *, external: bool = False) -> list[str]:
    """Like `query`, as a JSON object for each row, with every digit. NaN and infinities are
    null."""
    with _answering(home, sql, external=external) as (connection, answer):
        names = _told_apart(connection.sql(f"FROM {answer}").columns)
        places = [f"c{place}" for place in range(len(names))]
        pairs = ", ".join(f"{quoted(n)}, {p}" for n, p in zip(names, places, strict=True))
        rows = connection.sql(
            f"SELECT json_object({pairs})::VARCHAR FROM {answer} AS a({', '.join(places)})"
        ).fetchall()
    return [_NO_JSON.sub(lambda found: found[1] or "null", row) for (row,) in rows]


@contextlib.contextmanager
def at_one_moment(home: Path) -> Iterator[None]:
    """Have all queries within see a home as it is at the first of them, and look at it once."""
    token = _moment.set(Snapshot(home.resolve()))
    try:
        yield
    finally:
        _moment.reset(token)


def _snapshot(home: Path) -> Snapshot:
    moment = _moment.get()
    return moment if moment is not None and moment.home == home else Snapshot(home)


@contextlib.contextmanager
def _answering(
    home: Path, sql: str, *, external: bool
) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A connection, and the query as what can follow a FROM; DuckDB's errors become ours.

    As a subquery nothing that writes is grammatical: a COPY can otherwise hide even in the WITH
    clause of a SELECT.
    """
    try:
        with _connection(home.resolve(), sql, external=external) as connection:
            yield connection, f"(\n{_one_query(connection, sql)}\n)"
    except duckdb.PermissionException as error:
        raise InputError(
            f"the query reads something else than the tables: {error}\n"
            "--external lets it read files and addresses"
        ) from error
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        said = str(error).removeprefix("Invalid Input Error: ")
        if said.startswith("the rows "):
            raise StoreError(said) from error
        if f"{home.resolve()}/{GATHERED}/" in said:
            raise _GoneError(f"the tables could not be read: {error}") from error
        # DuckDB says both of what it was asked and of what it found.
        if any(f"{home.resolve()}/{folder}/" in said for folder in _READ):
            raise StoreError(f"the tables could not be read: {error}") from error
        raise _wrong_query(error) from error
    except duckdb.Error as error:
        raise _wrong_query(error) from error


def _wrong_query(error: duckdb.Error) -> InputError:
    tables = ", ".join(sorted(NAMES))
    return InputError(f"the query failed: {error}\nTables: {tables}")


def _shown(column: str, kind: DuckDBPyType) -> str:
    if kind.id in _NATIVE:
        return column
    return f"{f'to_json({column})' if kind.id in _NESTED else column}::VARCHAR AS {column}"


def _told_apart(names: Sequence[str]) -> list[str]:
    """The names, where they repeat with the number of the repetition."""
    told: list[str] = []
    for name in names:
        tries = (name, *(f"{name}_{number}" for number in range(1, len(names))))
        told.append(next(one for one in tries if one not in told))
    return told


@contextlib.contextmanager
def _connection(home: Path, sql: str, *, external: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory with the views that a query asks for, which can be asked and not be set
    otherwise."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": external,
        "autoload_known_extensions": external,
        "python_enable_replacements": False,  # a Python variable is no table
        "temp_directory": _spill_folder(),
    }
    with duckdb.connect(config=settings) as connection:
        selects = _snapshot(home).create(connection, _asked(connection, sql))
        if "duckdb_" in sql.lower():  # comments take longer to set than most queries to answer
            connection.execute("; ".join(one for name in selects for one in comments(name)))
        if not external:
            places = (str(home), escaped(str(home)))
            folders = {f"{place}/{of}" for place in places for of in _READ}
            listed = ", ".join(map(quoted, folders))
            connection.execute(f"SET allowed_directories = [{listed}]")
            connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection


def _asked(connection: duckdb.DuckDBPyConnection, sql: str) -> Collection[str]:
    """The tables and views that a query may read by their names, or all."""
    words = set(re.findall(r"\w+", sql.lower()))
    if _READ_BY_TEXT & words:
        return NAMES
    try:
        return NAMES & {name.lower() for name in connection.get_table_names(sql)}
    except duckdb.Error:  # as of PIVOT, which is several statements to DuckDB
        return NAMES & words


def _spill_folder() -> str:
    """A new folder, which DuckDB makes and removes where memory does not suffice; nothing if no
    disk can be written. A query may read what is in it."""
    try:
        return str(Path(tempfile.gettempdir()) / f"fomo-sql-{uuid4().hex}")
    except FileNotFoundError:
        return ""


def _one_query(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The one query in `sql`, without the semicolon that ends it."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise InputError(f"one query was expected, not {len(statements)} statements: {sql!r}")
    kind = statements[0].type.name
    if kind not in ("SELECT", "MULTI"):  # PIVOT is MULTI
        raise InputError(
            f"a statement of type {kind} is refused: only queries are answered, and nothing can "
            f"be written: {sql!r}"
        )
    text = statements[0].query.encode()
    offsets = (offset for offset, _ in duckdb.tokenize(statements[0].query))
    end = next((offset for offset in offsets if text[offset : offset + 1] == b";"), len(text))
    return text[:end].decode()
