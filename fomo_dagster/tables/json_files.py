"""Views over JSON files that are not tables of assets: records that are only ever added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fomo_dagster.store.files import explained
from fomo_dagster.store.sealed import unsealed
from fomo_dagster.tables.view_columns import RELEASES, RUNS


@dataclass(frozen=True)
class JsonFiles:
    """The files of a view, each with one record a line.

    folder, ending: where they are below a home, in folders of its own. columns: name → type in SQL
    and meaning; the first one tells records from lines that were cut short.
    """

    folder: str
    ending: str
    columns: Mapping[str, tuple[str, str]]

    def select(self, home: str | None) -> str:
        """The SELECT of all lines. home: an SQL expression for it as the beginning of a glob; None:
        there are none."""
        if home is None:
            nothing = ", ".join(f"NULL::{kind} AS {n}" for n, (kind, _) in self.columns.items())
            return f"SELECT {nothing} WHERE false"
        typed = ", ".join(f"'{name}': '{kind}'" for name, (kind, _) in self.columns.items())
        first = next(iter(self.columns))
        return (
            f"SELECT {', '.join(self.columns)} FROM "
            f"read_json({home} || '/{self.folder}/*/*{self.ending}', "
            f"format = 'newline_delimited', ignore_errors = true, columns = {{{typed}}}) "
            f"WHERE {first} IS NOT NULL"
        )

    def ensure(self, home: Path) -> None:
        """A file without lines, if there is none: a glob that matches no file is an error to
        DuckDB."""
        path = home / self.folder / "none" / f"none{self.ending}"
        if not path.exists():
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()

    def are_there(self, home: Path) -> bool:
        """Whether there is any."""
        return any(home.glob(f"{self.folder}/*/*{self.ending}"))


OF_RUNS = JsonFiles("runs", ".jsonl", RUNS)
OF_RELEASES = JsonFiles("releases", ".json", RELEASES)


def damage_of_records(home: Path) -> str | None:
    """What is wrong with a record of releases, where something is."""
    for path in home.glob(f"{OF_RELEASES.folder}/*/*{OF_RELEASES.ending}"):
        try:
            if data := path.read_bytes():  # what `ensure` made is empty
                unsealed(data)
        except ValueError as error:
            return f"the rows of {path} are damaged ({error}): `fomo releases` says what to do"
    return None
