"""The only way to run SQL: a query over the views of a home, which can only read.

The views are in memory, so no query needs or touches `fomo.duckdb`, which is for other programs
(`fomo_dagster.tables.database`). Statements other than queries are refused.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import duckdb
import polars as pl
from duckdb.sqltypes import DuckDBPyType

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.store.heads import Head, Heads
from fomo_dagster.tables.comments import comments
from fomo_dagster.tables.files import table_path
from fomo_dagster.tables.intact import Verified
from fomo_dagster.tables.json_files import OF_RELEASES, OF_RUNS, damage_of_records
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.selects import (
    Place,
    escaped,
    quoted,
    refusing,
    views,
    without_rows,
)
from fomo_dagster.tables.store_files import IN_STORE, OF_GALLERIES, OF_PREDICTIONS, StoreFiles
from fomo_dagster.tables.view_columns import VIEWS

_OF_JSON = (OF_RUNS, OF_RELEASES)
_READ = (
    "tables",
    *(f"store/{of.kind}" for of in IN_STORE),
    *(files.folder for files in _OF_JSON),
)  # what a query sees
_ASKED_BY = {OF_PREDICTIONS.view: {"predictions", "confusions"}, OF_GALLERIES.view: {"galleries"}}
"""View of rows in the store → the views by which a query asks for them."""
_NATIVE = {
    "boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger",
    "ubigint", "float", "double", "varchar",
}  # fmt: skip
_NUMBERS_AS_TEXT = {"hugeint", "uhugeint", "bignum", "decimal"}
_NESTED = {"list", "array", "struct", "map", "union", "variant", "tuple"}
# A text, which stays, or what DuckDB writes for numbers that JSON has not.
_NO_JSON = re.compile(r'("(?:[^"\\]|\\.)*")|-?Infinity|NaN')


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
        # DuckDB says both of what it was asked and of what it found.
        if any(f"{home.resolve()}/{folder}/" in said for folder in _READ):
            raise StoreError(f"the tables could not be read: {error}") from error
        raise _wrong_query(error) from error
    except duckdb.Error as error:
        raise _wrong_query(error) from error


def _wrong_query(error: duckdb.Error) -> InputError:
    tables = ", ".join(sorted([*SCHEMAS, *VIEWS]))
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
        now = _Now(home, [of for of in IN_STORE if _asks_for(connection, sql, _ASKED_BY[of.view])])
        connection.execute("CREATE SCHEMA home")  # where SHOW TABLES does not look
        connection.register("read", now.heads)
        connection.execute("CREATE TABLE home.heads AS FROM read")
        connection.unregister("read")
        selects = now.selects()
        for name, select in selects.items():
            connection.execute(f"CREATE VIEW {name} AS {select}")
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


class _Now:
    """The heads as they are at one moment, and the files that they point to.

    What runs and reruns left behind is no concern of a query, so damage there is none to it. A
    damaged head is said, and its asset left out, as in a plan. stored: which of the files in the
    store are looked for; of predictions there are as many as evaluated datasets.
    """

    def __init__(self, home: Path, stored: Sequence[StoreFiles]) -> None:
        self._home = home
        self._stored: dict[StoreFiles, list[Path]] = {of: [] for of in stored}
        self._files: dict[str, list[Path]] = {table: [] for table in SCHEMAS}
        self._damages: dict[str, str] = {}  # table → what is wrong with a file of it
        texts: list[tuple[str, str]] = []
        with Verified(home) as verified:
            for path, data, head in Heads(home / "heads").all():
                texts.append((str(path), "" if head is None else data.decode()))
                if head is not None:
                    self._take(head, path, verified)
        columns = {"filename": pl.String(), "text": pl.String()}
        self.heads = pl.DataFrame(texts, schema=columns, orient="row")
        if (damage := damage_of_records(home)) is not None:
            self._damages[OF_RELEASES.folder] = damage

    def _take(self, head: Head, path: Path, verified: Verified) -> None:
        for table in SCHEMAS if head.tables is None else head.tables:
            file = table_path(self._home, table, head.asset, head.digest)
            if head.tables is None:  # from before there were checksums
                problem = None
                if not file.exists():
                    continue
            else:
                problem = verified.problem(head, table)
            if problem is None:
                self._files[table].append(file)
            else:
                self._damages[table] = (
                    f"the rows of {head.asset} in {file} are damaged ({problem}): `fomo run` of an "
                    f"experiment with it writes them again; without {path} the others are shown"
                )
        for of, files in self._stored.items():
            for file, problem in of.of(self._home, head):
                if problem is None:
                    files.append(file)
                else:
                    self._damages[of.view] = (
                        f"the rows of {head.asset} in {file} are damaged ({problem}): `fomo run` "
                        f"of what it belongs to makes them again; without {path} the others are "
                        "shown"
                    )

    def selects(self) -> dict[str, str]:
        """View name → SELECT. A table without files is empty; one of which something is damaged
        refuses, since no answer is better than one without these rows."""
        stored = {of.view: list(dict.fromkeys(self._stored.get(of, ()))) for of in IN_STORE}
        files = {**self._files, **stored}
        listed = {view: self._listed(paths) for view, paths in files.items()}
        place = Place(
            quoted(str(self._home)), "FROM home.heads", listed.__getitem__, listed.__getitem__,
            {
                files.folder: quoted(escaped(str(self._home)))
                for files in _OF_JSON
                if files.are_there(self._home)
            },
        )  # fmt: skip
        selects = views(place)
        selects |= {view: without_rows(view) for view, paths in files.items() if not paths}
        return selects | {name: refusing(name, why) for name, why in self._damages.items()}

    @staticmethod
    def _listed(files: Sequence[Path]) -> str:
        return f"[{', '.join(quoted(escaped(str(file))) for file in files)}]"


def _asks_for(connection: duckdb.DuckDBPyConnection, sql: str, names: set[str]) -> bool:
    """Whether a query may read one of these views."""
    try:
        return any(name.lower() in names for name in connection.get_table_names(sql))
    except duckdb.Error:  # as of PIVOT, which is several statements to DuckDB
        return True


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
