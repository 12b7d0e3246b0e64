"""A table as a query sees it: the rows that were gathered, and the files that were not.

`artifacts` is one, too, whose files are the heads.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import duckdb
import polars as pl

from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import signature
from fomo_dagster.store.heads import Heads
from fomo_dagster.tables.files import table_path
from fomo_dagster.tables.gathered import SIGNATURE, Gathered, Gathering, is_worthwhile
from fomo_dagster.tables.intact import Verified
from fomo_dagster.tables.known_heads import KnownHeads
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.selects import ARTIFACTS, INTACT, escaped, quoted, typed, without_rows
from fomo_dagster.tables.view_columns import VIEWS

OF_HEADS = "artifacts"
_MEMBERS = {"asset": pl.String(), "digest": pl.String(), "checksum": pl.String(), **SIGNATURE}
_LISTED = {
    "asset": pl.String(), "asset_digest": pl.String(), "filename": pl.String(),
    "place": pl.Int64(), "is_member": pl.Boolean(),
}  # fmt: skip

_GATHERED = """
SELECT rows.*, listed.place, listed.is_member
FROM read_parquet({gathered}, file_row_number = true) AS rows
JOIN home.files_of_{name} AS listed ON rows.asset = listed.asset AND listed.filename IS NULL
"""
_OF_FILES = """
SELECT rows.* EXCLUDE (filename), listed.asset, listed.asset_digest, listed.place, listed.is_member
FROM read_parquet({files}, filename = true, file_row_number = true, schema = MAP {{{typed}}})
    AS rows
JOIN home.files_of_{name} AS listed ON rows.filename = listed.filename
"""
_OF_HEADS = """
SELECT rows.*, listed.place, listed.is_member, 0::BIGINT AS file_row_number
FROM ({artifacts}) AS rows
JOIN home.files_of_{name} AS listed ON rows.asset = listed.asset AND listed.filename IS NOT NULL
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """What a query sees of a table, or of `artifacts`.

    columns: of its view. gathering: what was gathered of it, if anything. listed: a row for each
    asset with rows, with the name of its file, or null where it was gathered. members: what to
    gather; None where that is not worthwhile. is_whole: whether all was gathered, and nothing else.
    damage: what is wrong with a file.
    """

    name: str
    columns: Sequence[str]
    gathered: Gathered
    gathering: Gathering | None
    listed: pl.DataFrame
    members: pl.DataFrame | None = None
    is_whole: bool = False
    damage: str | None = None

    @cached_property
    def alone(self) -> list[str]:
        """The files that were not gathered."""
        return self.listed["filename"].drop_nulls().to_list()

    @property
    def select(self) -> str:
        """Its rows, in the order of assets whatever was gathered."""
        return self._select("true")

    def _select(self, condition: str) -> str:
        # Quoted, since one of them may be a word of SQL, such as `limit`.
        pieces, shown = [], ", ".join(f'"{column}"' for column in self.columns)
        gathered = "" if self.gathering is None else quoted(escaped(str(self.gathering.rows)))
        if self.is_whole:
            return f"SELECT {shown} FROM read_parquet({gathered})"
        if gathered:
            pieces.append(_GATHERED.format(gathered=gathered, name=self.name))
        if self.name == OF_HEADS:
            artifacts = ARTIFACTS.format(heads="FROM home.heads", intact=INTACT)
            pieces.append(_OF_HEADS.format(artifacts=artifacts, name=self.name))
        elif self.alone:
            of_table = {"files": in_sql(self.alone), "typed": typed(SCHEMAS[self.name])}
            pieces.append(_OF_FILES.format(name=self.name, **of_table))
        if not pieces:
            return without_rows(self.name)
        rows = "UNION ALL BY NAME".join(pieces)
        return f"SELECT {shown} FROM ({rows}) WHERE {condition} ORDER BY place, file_row_number"

    def fill(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Put what `select` reads into a database."""
        if not self.is_whole:
            fill(connection, f"files_of_{self.name}", self.listed)

    def gather(self, connection: duckdb.DuckDBPyConnection) -> Part:
        """The part once it is gathered, if that can be."""
        if self.members is None or self.damage is not None:
            return self
        self.fill(connection)
        rows = self._select("is_member")
        made = None
        try:
            made = self.gathered.write(
                self.members,
                lambda path: connection.execute(f"COPY ({rows}) TO {quoted(str(path))}"),
            )
        except duckdb.Error:  # what is wrong is said by the query itself
            logger.debug("%s was not gathered", self.name, exc_info=True)
        if made is None:
            return replace(self, members=None)
        alone = pl.when(~pl.col("is_member")).then(pl.col("filename"))
        return replace(
            self, gathering=made, listed=self.listed.with_columns(filename=alone), members=None,
            is_whole=bool(self.listed["is_member"].all()),
        )  # fmt: skip


def of_heads(heads: KnownHeads) -> Part:
    """The part `artifacts`."""
    kept, members = set(heads.kept["asset"]), heads.to_gather()
    gatherable = kept if members is None else set(members["asset"])
    paths = {head.asset: str(path) for path, _, head in heads.read if head is not None}
    rows = [
        (asset, None, paths.get(asset), place, asset in gatherable)
        for asset, place in heads.places.items()
        if asset in kept or asset in paths
    ]
    before = 0 if heads.gathering is None else heads.gathering.members.height
    return Part(
        OF_HEADS, list(VIEWS[OF_HEADS].columns), heads.gathered, heads.gathering,
        pl.DataFrame(rows, schema=_LISTED, orient="row"), members,
        is_whole=heads.gathering is not None and before == len(rows) == len(kept),
    )  # fmt: skip


def of_table(home: Path, table: str, heads: KnownHeads, verified: Verified) -> Part:
    """The part of a table. Each of its files is verified, if only by its signature."""
    columns = [*SCHEMAS[table], "asset", "asset_digest"]
    gathered = Gathered(home, table, digest_of([columns, typed(SCHEMAS[table])]))
    gathering, damage = gathered.read(), None
    known = {} if gathering is None else {row[0]: row for row in gathering.members.iter_rows()}
    rows: list[tuple[str, str, str | None, int, bool]] = []
    members, alone, start = list[tuple[object, ...]](), 0, f"{home}/tables/{table}"
    for asset, digest, checksum in heads.files(table):
        place, member = heads.places[asset], known.get(asset)
        named = (asset, digest, checksum)
        if member == (*named, *_signature(f"{start}/{asset}/{digest}.parquet")):
            rows.append((asset, digest, None, place, True))
            members.append(member)
            continue
        path = table_path(home, table, asset, digest)
        if checksum is None:  # from before there were checksums
            if not path.exists():
                continue
        elif problem := verified.problem_of(path, checksum):
            damage = (
                f"the rows of {asset} in {path} are damaged ({problem}): `fomo run` of an "
                "experiment with it writes them again; without "
                f"{Heads(home / 'heads').path(asset)} the others are shown"
            )
            continue
        else:
            members.append((*named, *_signature(str(path))))
            alone += 1
        rows.append((asset, digest, str(path), place, checksum is not None))
    kept = len(members) - alone
    return Part(
        table, columns, gathered, gathering, pl.DataFrame(rows, schema=_LISTED, orient="row"),
        pl.DataFrame(members, schema=_MEMBERS, orient="row")
        if is_worthwhile(alone + len(known) - kept, kept)
        else None,
        is_whole=gathering is not None and len(rows) == len(known) == kept,
        damage=damage,
    )  # fmt: skip


def _signature(file: str) -> list[int]:
    """Of a file, which is named by a text, as there are thousands; nothing where there is none."""
    try:
        return signature(os.stat(file))
    except OSError:
        return []


def fill(connection: duckdb.DuckDBPyConnection, name: str, rows: pl.DataFrame) -> None:
    """Have a table of that name in the schema `home`, with these rows."""
    connection.register("rows_of_it", rows)
    connection.execute(f"CREATE OR REPLACE TABLE home.{name} AS FROM rows_of_it")
    connection.unregister("rows_of_it")


def in_sql(files: Iterable[str]) -> str:
    """A list of files, for DuckDB's readers."""
    return f"[{', '.join(quoted(escaped(file)) for file in files)}]"
