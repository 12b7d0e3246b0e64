"""Many small files in one: a cache of what was read of them, so that a query opens one file.

Each small file is known by its signature, and what was gathered of it counts only as long as the
file has it. So nothing here is ever out of date: what changed since is read from its own file. All
of it is below `home/cache/gathered`, and can be deleted at any time.

A gathering is two Parquet files, which are never changed: its rows, and its members, one for each
small file. A third file names them, with their signatures, and is replaced as a whole. Whoever
is reading the earlier ones has minutes to open them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import polars as pl

from fomo_dagster.store.files import (
    explained,
    fsync,
    signature_of,
    skipped_where_refused,
    write_bytes,
)
from fomo_dagster.store.sealed import sealed, unsealed

FOLDER = "cache/gathered"
SIGNATURE = {"size": pl.UInt64(), "mtime": pl.Int64(), "ctime": pl.Int64(), "inode": pl.UInt64()}
"""The columns of a member with its file's signature."""
_FEWEST = 64  # files that are worth gathering
_SHARE = 8  # one of so many may be read by itself
_SECONDS_KEPT = 600.0
_PARTS = ("rows", "members")


def is_worthwhile(alone: int, gathered: int) -> bool:
    """Whether to gather anew. alone: of how many files what was gathered does not count; gathered:
    of how many it does. So what is written over time is a few times what there is."""
    return alone > max(_FEWEST, gathered // _SHARE)


@dataclass(frozen=True)
class Gathering:
    """What was gathered. rows: the file with the rows of all; members: what is known of each."""

    rows: Path
    members: pl.DataFrame


@dataclass(frozen=True)
class Gathered:
    """A gathering of a home, by name. version: of its columns; one of another version is none."""

    home: Path
    name: str
    version: str

    def read(self) -> Gathering | None:
        """What was gathered last; None if there is nothing, or it was altered."""
        try:
            said = unsealed(self._named.read_bytes())
            if said["version"] != self.version:
                return None
            rows, members = (self._folder / said[part][0] for part in _PARTS)
            if [signature_of(rows), signature_of(members)] != [said[part][1] for part in _PARTS]:
                return None
            return Gathering(rows, pl.read_parquet(members))
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError):
            return None

    def write(
        self, members: pl.DataFrame, write_rows: Callable[[Path], object]
    ) -> Gathering | None:
        """Gather anew. write_rows: writes a Parquet file. Where the disk refuses, or is read-only,
        all stays as it was, and None is returned."""
        stem = self._folder / f"{self.name}-{uuid4().hex}"
        rows, of_members = (stem.with_name(f"{stem.name}-{part}.parquet") for part in _PARTS)
        made = None
        try:
            with skipped_where_refused(), explained(rows):
                self._folder.mkdir(parents=True, exist_ok=True)
                write_rows(rows)
                members.write_parquet(of_members)
                said: dict[str, object] = {"version": self.version}
                for part, path in zip(_PARTS, (rows, of_members), strict=True):
                    fsync(path)
                    said[part] = [path.name, signature_of(path)]
                earlier = self.read()
                write_bytes(self._named, sealed(said))
                made = Gathering(rows, members)
                if earlier is not None:  # may have been read a moment ago: its minutes begin now
                    earlier.rows.touch()
                self._remove_earlier(rows, of_members)
        finally:
            if made is None:
                for path in (rows, of_members):
                    with skipped_where_refused(), explained(path):
                        path.unlink(missing_ok=True)
        return made

    @property
    def _folder(self) -> Path:
        return self.home / FOLDER

    @property
    def _named(self) -> Path:
        return self._folder / f"{self.name}.json"

    def _remove_earlier(self, *now: Path) -> None:
        """Remove what no process can be about to open, and what one that was killed left."""
        for path in self._folder.glob(f"{self.name}-*.parquet"):
            if path not in now and time.time() - path.stat().st_mtime > _SECONDS_KEPT:
                path.unlink(missing_ok=True)
