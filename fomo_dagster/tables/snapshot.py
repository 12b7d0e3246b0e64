"""What a query sees: the heads of a home at one moment, and the files that they point to.

What runs and reruns left behind is no concern of a query, so damage there is none to it. A damaged
head is said, and its asset left out, as in a plan. Only what a query asks for is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache, cached_property
from pathlib import Path

import duckdb
import polars as pl

from fomo_dagster.store.heads import Heads
from fomo_dagster.tables.intact import Verified
from fomo_dagster.tables.json_files import OF_RELEASES, OF_RUNS, damage_of_records
from fomo_dagster.tables.known_heads import KnownHeads
from fomo_dagster.tables.parts import OF_HEADS, Part, fill, in_sql, of_heads, of_table
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.selects import Place, escaped, quoted, refusing, views, without_rows
from fomo_dagster.tables.store_files import IN_STORE, StoreFiles
from fomo_dagster.tables.view_columns import VIEWS

NAMES = frozenset({*SCHEMAS, *VIEWS})
"""Of tables and views."""
_WORD = re.compile(r"\w+")


class Snapshot:
    """A home as it is when it is first looked at. What is in the store is looked at each time."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._parts: dict[str, Part] = {}

    def create(
        self, connection: duckdb.DuckDBPyConnection, asked: Collection[str]
    ) -> dict[str, str]:
        """Create the views in a database: those that are asked for, and what these read, with their
        rows; the others without. Gathers what is worthwhile. Gives the SELECTs."""
        seen = frozenset({OF_HEADS}).union(*(_seen_by(name) for name in asked))
        connection.execute("CREATE SCHEMA home")  # where SHOW TABLES does not look
        self._fill_heads(connection)
        parts = self._look([name for name in (OF_HEADS, *SCHEMAS) if name in seen])
        for name, part in parts.items():
            self._parts[name] = part.gather(connection)
            self._parts[name].fill(connection)
        selects = self._selects(seen)
        for name, select in selects.items():
            connection.execute(f"CREATE VIEW {name} AS {select}")
        return selects

    @cached_property
    def _heads(self) -> KnownHeads:
        return KnownHeads.of(self.home)

    def _fill_heads(self, connection: duckdb.DuckDBPyConnection) -> None:
        """The texts of the heads that were not gathered; nothing for one that is damaged."""
        alone = set(self._look({OF_HEADS})[OF_HEADS].alone)
        texts = [
            (str(path), "" if head is None else data.decode())
            for path, data, head in self._heads.read
            if head is None or str(path) in alone
        ]
        columns = {"filename": pl.String(), "text": pl.String()}
        fill(connection, "heads", pl.DataFrame(texts, schema=columns, orient="row"))

    def _selects(self, seen: Collection[str]) -> dict[str, str]:
        """View → SELECT. A table without files is empty; one of which something is damaged refuses,
        since no answer is better than one without these rows."""
        stored = {of.view: self._in_store(of) for of in IN_STORE if of.view in seen}
        files = {view: found for view, (found, _) in stored.items() if found}
        lines = [of for of in (OF_RUNS, OF_RELEASES) if of.folder in seen]
        place = Place(
            quoted(str(self.home)), "FROM home.heads", lambda table: "[]",
            lambda view: in_sql(files.get(view, ())),
            {of.folder: quoted(escaped(str(self.home))) for of in lines if of.are_there(self.home)},
        )  # fmt: skip
        selects = views(place)
        for view in (*SCHEMAS, *(of.view for of in IN_STORE)):
            if view not in files:
                selects[view] = without_rows(view)
        selects |= {name: part.select for name, part in self._parts.items() if name in seen}
        damages = {view: damage for view, (_, damage) in stored.items()}
        damages |= {name: self._parts[name].damage for name in SCHEMAS if name in seen}
        if OF_RELEASES in lines:
            damages[OF_RELEASES.folder] = damage_of_records(self.home)
        return selects | {name: refusing(name, why) for name, why in damages.items() if why}

    def _look(self, names: Collection[str]) -> dict[str, Part]:
        """The parts of these names, each looked at once."""
        with Verified(self.home) as verified:
            for name in names:
                if name in self._parts:
                    continue
                self._parts[name] = (
                    of_heads(self._heads)
                    if name == OF_HEADS
                    else of_table(self.home, name, self._heads, verified)
                )
        return {name: self._parts[name] for name in names}

    def _in_store(self, of: StoreFiles) -> tuple[list[str], str | None]:
        """The files in the store of a view, and what is wrong with one of them, if anything."""
        files, damage = dict[str, None](), None
        for path, _, head in Heads(self.home / "heads").all():
            for file, problem in () if head is None else of.of(self.home, head):
                if problem is None:
                    files[str(file)] = None
                else:
                    assert head is not None
                    damage = (
                        f"the rows of {head.asset} in {file} are damaged ({problem}): `fomo run` "
                        f"of what it belongs to makes them again; without {path} the others are "
                        "shown"
                    )
        return list(files), damage


@cache
def _selected() -> dict[str, str]:
    """View → SELECT, wherever the home is."""
    return views(Place("''", "FROM home.heads", lambda table: "[]", lambda view: "[]", {}))


@cache
def _seen_by(name: str) -> frozenset[str]:
    """The tables and views that a query of one may read, with itself."""
    if name in SCHEMAS or name == OF_HEADS:
        return frozenset({name})
    read = set(_WORD.findall(_selected()[name])) & NAMES - {name}
    return frozenset({name}).union(*map(_seen_by, read))
